"""Assigners: which prediction answers for which object. All are batched, jittable and without Python loops."""

from yolojax.assign.best_anchor import Assignment, Responsible, assign_targets, find_responsible, shape_iou
from yolojax.assign.crowd import inside_crowd
from yolojax.assign.objects import Objects, sort_by_content, without_padding
from yolojax.assign.points import PredictionAssignment, list_positives
from yolojax.assign.task_aligned import task_aligned_assign

__all__ = [
    "Assignment",
    "Objects",
    "PredictionAssignment",
    "Responsible",
    "assign_targets",
    "find_responsible",
    "inside_crowd",
    "list_positives",
    "shape_iou",
    "sort_by_content",
    "task_aligned_assign",
    "without_padding",
]
