"""How fast a detector trains and predicts on this machine, and what the machine could do at most."""
