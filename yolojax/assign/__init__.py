"""Assigners: which prediction learns which object. Every assigner takes a padded batch and can be compiled.

Assigners of anchor-free detectors share the signature `AnchorFreeAssign`, those of anchor-based detectors share
`AnchoredAssign`. Each may stand where another of its kind stands, as may a function of your own.

| function | signature | rule | reads predictions | a contested prediction goes to |
|---|---|---|---|---|
| `best_anchor_assign` | `AnchoredAssign` | YOLOv2 to v4: anchor of best shape, cell of the centre | no | content |
| `ratio_assign` | `AnchoredAssign` | YOLOv5, v7: side ratio, neighbour cells | no | own cell, then content |
| `responsible_assign` | `AnchorFreeAssign` | YOLOv1: box of best IoU in the cell of the centre | yes | content |
| `atss_assign` | `AnchorFreeAssign` | ATSS: threshold from statistics | no | highest IoU, then content |
| `simota_assign` | `AnchorFreeAssign` | YOLOX: dynamic k | yes | lowest cost, then content |
| `task_aligned_assign` | `AnchorFreeAssign` | TOOD, YOLOv8 and later | yes | highest IoU, then content |
| `one_to_one_assign` | `AnchorFreeAssign` | DETR family: least total cost | yes | no conflict arises |

"Content" means the order of `sort_by_content`, which never depends on the position of an object in the list.
`overlap_assign` is the rule of two-stage detectors and RetinaNet for boxes of any origin. `balanced_sample` draws those
that carry the loss, and `every_row` takes all. `ignored_negatives` and `inside_crowd` say which negatives carry no
loss. `ANCHORED_ASSIGNERS` and `ANCHOR_FREE_ASSIGNERS` name six by the words that the command line uses.
"""

from yolojax.assign._anchor_free import (
    atss_assign,
    hungarian_assign,
    matching_cost,
    one_to_one_assign,
    responsible_assign,
    simota_assign,
    task_aligned_assign,
)
from yolojax.assign._anchored import TargetMaps, assign_targets, best_anchor_assign, ratio_assign, shape_iou
from yolojax.assign._common import (
    DUMMY_BOX,
    AnchoredAssign,
    AnchorFreeAssign,
    Assigned,
    Objects,
    Predictions,
    count_assigned,
    ignored_negatives,
    inside_crowd,
    positives,
    sort_by_content,
    without_padding,
)
from yolojax.assign._matching import least_cost_matching
from yolojax.assign._queries import DenoisingQueries, denoising_queries, query_cost, visible_queries
from yolojax.assign._regions import Matched, Sample, balanced_sample, every_row, overlap_assign

ANCHORED_ASSIGNERS: dict[str, AnchoredAssign] = {"best-anchor": best_anchor_assign, "ratio": ratio_assign}
ANCHOR_FREE_ASSIGNERS: dict[str, AnchorFreeAssign] = {
    "atss": atss_assign,
    "simota": simota_assign,
    "task-aligned": task_aligned_assign,
    "one-to-one": one_to_one_assign,
}

__all__ = [
    "ANCHORED_ASSIGNERS",
    "ANCHOR_FREE_ASSIGNERS",
    "DUMMY_BOX",
    "AnchorFreeAssign",
    "AnchoredAssign",
    "Assigned",
    "DenoisingQueries",
    "Matched",
    "Objects",
    "Predictions",
    "Sample",
    "TargetMaps",
    "assign_targets",
    "atss_assign",
    "balanced_sample",
    "best_anchor_assign",
    "count_assigned",
    "denoising_queries",
    "every_row",
    "hungarian_assign",
    "ignored_negatives",
    "inside_crowd",
    "least_cost_matching",
    "matching_cost",
    "one_to_one_assign",
    "overlap_assign",
    "positives",
    "query_cost",
    "ratio_assign",
    "responsible_assign",
    "shape_iou",
    "simota_assign",
    "sort_by_content",
    "task_aligned_assign",
    "visible_queries",
    "without_padding",
]
