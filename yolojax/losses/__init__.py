"""Losses: element-wise ones, unreduced, and the composed losses of detectors, which return `LossTerms`."""

from yolojax.losses.box import (
    box_iou_loss,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    scylla_box_iou_loss,
)
from yolojax.losses.classification import (
    binary_cross_entropy,
    focal_loss,
    quality_focal_loss,
    varifocal_loss,
    with_class_weights,
    with_label_smoothing,
)
from yolojax.losses.distribution import distribution_focal_loss
from yolojax.losses.yolov3 import decoded_box_part, decoded_complete_iou_loss, squared_offset_loss, yolov3_loss
from yolojax.losses.yolov8 import yolov8_loss
from yolojax.losses.yolox import yolox_loss

__all__ = [
    "binary_cross_entropy",
    "box_iou_loss",
    "complete_box_iou_loss",
    "decoded_box_part",
    "decoded_complete_iou_loss",
    "distance_box_iou_loss",
    "distribution_focal_loss",
    "focal_loss",
    "generalized_box_iou_loss",
    "quality_focal_loss",
    "scylla_box_iou_loss",
    "squared_offset_loss",
    "varifocal_loss",
    "with_class_weights",
    "with_label_smoothing",
    "yolov3_loss",
    "yolov8_loss",
    "yolox_loss",
]
