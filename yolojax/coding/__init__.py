"""Box coders: from what a network predicts to boxes (xyxy, canvas pixels), and the exact inverse."""

from yolojax.coding.anchored import cell_offsets, decode, encode
from yolojax.coding.dfl import boxes_to_distances, decode_distributions, dfl_expectation, distances_to_boxes
from yolojax.coding.grid import anchor_grid, cell_centres, flatten_levels, levels_of

__all__ = [
    "anchor_grid",
    "boxes_to_distances",
    "cell_centres",
    "cell_offsets",
    "decode",
    "decode_distributions",
    "dfl_expectation",
    "distances_to_boxes",
    "encode",
    "flatten_levels",
    "levels_of",
]
