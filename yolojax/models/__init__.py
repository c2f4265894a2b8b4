"""Flax modules: the only package that imports flax. Backbones, necks, heads and what they are made of."""
