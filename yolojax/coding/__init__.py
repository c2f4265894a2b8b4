"""Box coders: from what a network predicts to boxes (xyxy, input pixels), and the inverse.

| functions | detectors | centre | size |
|---|---|---|---|
| `encode_yolov1`, `decode_yolov1` | YOLOv1 | unbounded offset from the cell | input size times the square |
| `encode`, `decode` | YOLOv2, v3; v4 with ``scale_x_y`` | sigmoid in the cell | anchor times exp |
| `encode_yolov5`, `decode_yolov5` | YOLOv5, v7 | sigmoid, half a cell beyond | anchor times 4 sigmoid squared |
| `encode_yolox`, `decode_yolox` | YOLOX | unbounded offset from the cell | stride times exp |
| `boxes_to_distances`, `decode_distributions` | YOLOv8 and later | distances from a point, as distributions | |
| `encode_regions`, `decode_regions` | Faster R-CNN, RetinaNet | offset in sides of a box | side times exp |

`region_anchors`, `select_proposals`, `roi_align` and `pyramid_roi_align` are the other parts of two-stage detectors.
| `encode_refinement`, `refine_boxes` | D-FINE, DEIMv2 | moves of the sides of a first box, as distributions | |
"""

from yolojax.coding._coders import (
    boxes_to_distances,
    cell_offsets,
    decode,
    decode_distributions,
    decode_yolov1,
    decode_yolov5,
    decode_yolox,
    dfl_expectation,
    distances_to_boxes,
    encode,
    encode_yolov1,
    encode_yolov5,
    encode_yolox,
)
from yolojax.coding._grid import anchor_grid, cell_centres, flatten_levels, levels_of
from yolojax.coding._proposals import Proposals, best_pairs, select_proposals
from yolojax.coding._refinement import encode_refinement, refine_boxes, refinement_offsets, refinement_steps
from yolojax.coding._regions import decode_regions, encode_regions, pyramid_roi_align, region_anchors, roi_align

__all__ = [
    "Proposals",
    "anchor_grid",
    "best_pairs",
    "boxes_to_distances",
    "cell_centres",
    "cell_offsets",
    "decode",
    "decode_distributions",
    "decode_regions",
    "decode_yolov1",
    "decode_yolov5",
    "decode_yolox",
    "dfl_expectation",
    "distances_to_boxes",
    "encode",
    "encode_refinement",
    "encode_regions",
    "encode_yolov1",
    "encode_yolov5",
    "encode_yolox",
    "flatten_levels",
    "levels_of",
    "pyramid_roi_align",
    "refine_boxes",
    "refinement_offsets",
    "refinement_steps",
    "region_anchors",
    "roi_align",
    "select_proposals",
]
