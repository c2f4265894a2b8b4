"""The composed loss of detectors with a one-to-many and a one-to-one head: YOLOv8's loss of both, added."""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Array, Float

from yolojax.assign import AnchorFreeAssign, task_aligned_assign
from yolojax.losses._elementwise import BoxLoss, ClassLoss, binary_cross_entropy, complete_box_iou_loss
from yolojax.losses.yolov8 import yolov8_loss
from yolojax.structures import Hyper, Level, LossTerms, Targets

assign_one = partial(task_aligned_assign, k=1)
"""Task-aligned assignment of the one point with the highest alignment to each object."""


def yolov10_loss(
    many_boxes: Sequence[Float[Array, "B _h _w sides_bins"]],
    many_classes: Sequence[Float[Array, "B _h _w C"]],
    one_boxes: Sequence[Float[Array, "B _h _w sides_bins"]],
    one_classes: Sequence[Float[Array, "B _h _w C"]],
    levels: tuple[Level, ...],
    targets: Targets,
    hyper: Hyper,
    *,
    assign: AnchorFreeAssign = task_aligned_assign,
    assign_one: AnchorFreeAssign = assign_one,
    box_loss: BoxLoss = complete_box_iou_loss,
    class_loss: ClassLoss = binary_cross_entropy,
) -> LossTerms:
    """Loss of two heads, each with the per-level maps of `yolojax.losses.yolov8_loss`: that loss of each, added.

    The one-to-many head learns what ``assign`` gives it, up to ten points to an object; the one-to-one head what
    ``assign_one`` gives it, at most one. Both choose by the same alignment ``s^0.5 * u^6``, the paper's consistent
    matching metric, so that the place that the second head learns is the best place of the first, were their
    predictions the same. Where two objects have the same best place, the one with the higher IoU gets it, and the other
    none.

    The parts of the one-to-many head are ``box``, ``cls`` and ``dfl``, those of the one-to-one head ``one_box``,
    ``one_cls`` and ``one_dfl``. Each head is normalised by its own sum of scores. Counts have the same prefix.

    Args:
      many_boxes, many_classes: maps of the one-to-many head, in the order of ``levels``.
      one_boxes, one_classes: likewise of the one-to-one head.
      assign, assign_one: assigners of `yolojax.assign` or your own.
      box_loss, class_loss: see `yolojax.losses.yolov8_loss`.

    References: YOLOv10, arXiv 2405.14458, section 3.1; TOOD, arXiv 2108.07755.
    """
    parts = {"box_loss": box_loss, "class_loss": class_loss}
    many = yolov8_loss(many_boxes, many_classes, levels, targets, hyper, assign=assign, **parts)
    one = yolov8_loss(one_boxes, one_classes, levels, targets, hyper, assign=assign_one, **parts)
    return join_terms(many, one)


def join_terms(many: LossTerms, one: LossTerms) -> LossTerms:
    """The terms of both heads side by side; the names of the second begin with ``one_``."""
    return LossTerms(*({**a, **{f"one_{name}": value for name, value in b.items()}} for a, b in zip(many, one)))  # noqa: B905
