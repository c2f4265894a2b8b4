"""Losses of the IoU family: ``1 - overlap`` of boxes in the same place, unreduced, in float32.

Boxes are xyxy in any common unit. All are 0 for identical boxes, finite with finite gradients for empty, inverted and
huge ones, and bounded, so that no box dominates by its size.
"""

from jaxtyping import Array, Float

from yolojax.boxes import (
    paired_box_iou,
    paired_complete_box_iou,
    paired_distance_box_iou,
    paired_generalized_box_iou,
    paired_scylla_box_iou,
)


def box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - IoU``, in [0, 1]; no gradient where the boxes do not meet (UnitBox, arXiv 1608.01471, without the log)."""
    return 1.0 - paired_box_iou(predicted, target)


def generalized_box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - GIoU``, in [0, 2] (arXiv 1902.09630, algorithm 2)."""
    return 1.0 - paired_generalized_box_iou(predicted, target)


def distance_box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - DIoU``, in [0, 2] (arXiv 1911.08287, equation 7)."""
    return 1.0 - paired_distance_box_iou(predicted, target)


def complete_box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - CIoU``, in [0, 3] (arXiv 1911.08287, equation 10); its trade-off alpha carries no gradient."""
    return 1.0 - paired_complete_box_iou(predicted, target)


def scylla_box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - SIoU``, in [0, 3] (arXiv 2205.12740, equation 16), with the paper's shape exponent 4."""
    return 1.0 - paired_scylla_box_iou(predicted, target)
