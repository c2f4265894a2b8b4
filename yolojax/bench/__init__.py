"""How fast a step is, and what the hardware could do at most."""
