"""Negatives that carry no objectness loss (YOLOv3's ignore threshold, and crowd regions)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from yolojax.assign.crowd import inside_crowd
from yolojax.assign.objects import sort_by_content
from yolojax.boxes import box_iou
from yolojax.structures import Targets


def ignored_negatives(
    boxes: Float[Array, "B N 4"],
    positive: Bool[Array, "B N"],
    targets: Targets,
    ignore_iou: float | Float[Array, ""],
) -> Bool[Array, "B N"]:
    """Negatives whose predicted box (xyxy, input pixels) overlaps any object by an IoU above ``ignore_iou``.

    They are nearly right, so they are not told to be silent (YOLOv3, arXiv 1804.02767, section 2.1; its threshold is
    0.5). So is a negative with at least half of its own area in a crowd region. Boxes are read without gradient.
    """
    boxes, objects = jax.lax.stop_gradient(boxes), sort_by_content(targets)
    overlap = jnp.where(objects.assignable[..., None], box_iou(objects.boxes, boxes), 0.0)
    return ~positive & ((jnp.max(overlap, axis=1) > ignore_iou) | inside_crowd(boxes, targets))
