"""Assigners: which prediction answers for which object. All are batched, jittable and without Python loops."""

from yolojax.assign.crowd import inside_crowd
from yolojax.assign.objects import Objects, sort_by_content, without_padding
from yolojax.assign.points import PointAssignment
from yolojax.assign.task_aligned import task_aligned_assign

__all__ = [
    "Objects",
    "PointAssignment",
    "inside_crowd",
    "sort_by_content",
    "task_aligned_assign",
    "without_padding",
]
