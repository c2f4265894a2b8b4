"""Comparisons of speed, beside the programs that people use."""
