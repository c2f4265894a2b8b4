"""How fast a detector trains on this machine, and what the machine could do at most."""
