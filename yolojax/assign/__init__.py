"""Assigners: which prediction answers for which object. All take a padded batch at once and can be compiled.

| function | family | reads predictions | several objects want one prediction |
|---|---|---|---|
| `match_best_anchor`, `assign_targets` | YOLOv2, v3: best anchor shape, cell of the centre | no | content |
| `ratio_assign` | YOLOv5, v7: side ratio, neighbour cells | no | own cell, then content |
| `atss_assign` | ATSS: threshold from statistics | no | IoU, then content |
| `simota_assign` | YOLOX: dynamic k | yes | cost, then content |
| `task_aligned_assign` | TOOD, YOLOv8 and later | yes | IoU, then content |
| `one_to_one_assign` | DETR family: least total cost | through its cost | cannot happen |

"Content" is the order of `sort_by_content`: never the place of an object in the list. `ignored_negatives` and
`inside_crowd` tell which negatives carry no loss.
"""

from yolojax.assign.atss import atss_assign
from yolojax.assign.best_anchor import Assignment, Responsible, assign_targets, match_best_anchor, shape_iou
from yolojax.assign.crowd import inside_crowd
from yolojax.assign.ignore import ignored_negatives
from yolojax.assign.objects import Objects, sort_by_content, without_padding
from yolojax.assign.one_to_one import matching_cost, one_to_one_assign
from yolojax.assign.points import PredictionAssignment, list_positives
from yolojax.assign.ratio import ratio_assign
from yolojax.assign.simota import simota_assign
from yolojax.assign.task_aligned import task_aligned_assign

__all__ = [
    "Assignment",
    "Objects",
    "PredictionAssignment",
    "Responsible",
    "assign_targets",
    "atss_assign",
    "ignored_negatives",
    "inside_crowd",
    "list_positives",
    "match_best_anchor",
    "matching_cost",
    "one_to_one_assign",
    "ratio_assign",
    "shape_iou",
    "simota_assign",
    "sort_by_content",
    "task_aligned_assign",
    "without_padding",
]
