"""Box coders: from what a network predicts to boxes (xyxy, canvas pixels), and the exact inverse."""

from yolojax.coding.dfl import boxes_to_distances, decode_distributions, dfl_expectation, distances_to_boxes
from yolojax.coding.grid import cell_centres, flatten_levels, levels_of

__all__ = [
    "boxes_to_distances",
    "cell_centres",
    "decode_distributions",
    "dfl_expectation",
    "distances_to_boxes",
    "flatten_levels",
    "levels_of",
]
