"""Losses: element-wise ones, unreduced, and the composed losses of detectors, which return `LossTerms`."""

from yolojax.losses.anchor_free import anchor_free_loss
from yolojax.losses.box import (
    box_iou_loss,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    scylla_box_iou_loss,
)
from yolojax.losses.distribution import distribution_focal_loss

__all__ = [
    "anchor_free_loss",
    "box_iou_loss",
    "complete_box_iou_loss",
    "distance_box_iou_loss",
    "distribution_focal_loss",
    "generalized_box_iou_loss",
    "scylla_box_iou_loss",
]
