"""Losses: element-wise ones, unreduced, and the composed losses of whole detectors, which return `LossTerms`.

A composed loss takes its assigner (`yolojax.assign`), its box loss and its class loss as functions:

| composed loss | ``assign`` | ``box_loss`` | ``class_loss`` |
|---|---|---|---|
| `yolov1_loss` | `AnchorFreeAssign` | squared errors | squared errors |
| `yolov3_loss` | `AnchoredAssign` | `RawBoxLoss`; `on_decoded_boxes` makes one of a `BoxLoss` | `ClassLoss` |
| `yolov5_loss` | `AnchoredAssign` | `BoxLoss` | `ClassLoss` |
| `yolox_loss` | `AnchorFreeAssign` | `BoxLoss` | `ClassLoss` |
| `yolov8_loss` | `AnchorFreeAssign` | `BoxLoss` | `ClassLoss` |
| `yolov10_loss` | `AnchorFreeAssign`, twice | `BoxLoss` | `ClassLoss` |
| `yolo26_loss` | `AnchorFreeAssign`, twice | `BoxLoss` | `ClassLoss` |
| `faster_rcnn_loss` | samples of `overlap_assign` | `smooth_l1_loss` | cross-entropy |
| `retinanet_loss` | `overlap_assign` | `BoxLoss`, or absolute errors | `ClassLoss` |
| `rtdetr_loss`, `dfine_loss` | Hungarian | L1 and GIoU | `QueryClassLoss` |
"""

from yolojax.losses._elementwise import (
    BoxLoss,
    ClassLoss,
    binary_cross_entropy,
    box_iou_loss,
    complete_box_iou_loss,
    distance_box_iou_loss,
    distribution_focal_loss,
    focal_loss,
    generalized_box_iou_loss,
    quality_focal_loss,
    scylla_box_iou_loss,
    squared_box_iou_loss,
    varifocal_loss,
    with_class_weights,
    with_label_smoothing,
)
from yolojax.losses._queries import QueryOutputs, QuerySet
from yolojax.losses.regions import faster_rcnn_loss, retinanet_loss, smooth_l1_loss
from yolojax.losses.rtdetr import (
    QueryClassLoss,
    decoupled_distillation_loss,
    dfine_loss,
    fine_grained_localisation_loss,
    matching_aware_loss,
    query_varifocal_loss,
    rtdetr_loss,
)
from yolojax.losses.yolo26 import yolo26_loss
from yolojax.losses.yolov1 import yolov1_loss
from yolojax.losses.yolov3 import RawBoxLoss, on_decoded_boxes, squared_offset_loss, yolov3_loss
from yolojax.losses.yolov5 import yolov5_loss
from yolojax.losses.yolov8 import yolov8_loss
from yolojax.losses.yolov10 import yolov10_loss
from yolojax.losses.yolox import yolox_loss

__all__ = [
    "BoxLoss",
    "ClassLoss",
    "QueryClassLoss",
    "QueryOutputs",
    "QuerySet",
    "RawBoxLoss",
    "binary_cross_entropy",
    "box_iou_loss",
    "complete_box_iou_loss",
    "decoupled_distillation_loss",
    "dfine_loss",
    "distance_box_iou_loss",
    "distribution_focal_loss",
    "faster_rcnn_loss",
    "fine_grained_localisation_loss",
    "focal_loss",
    "generalized_box_iou_loss",
    "matching_aware_loss",
    "on_decoded_boxes",
    "quality_focal_loss",
    "query_varifocal_loss",
    "retinanet_loss",
    "rtdetr_loss",
    "scylla_box_iou_loss",
    "smooth_l1_loss",
    "squared_box_iou_loss",
    "squared_offset_loss",
    "varifocal_loss",
    "with_class_weights",
    "with_label_smoothing",
    "yolo26_loss",
    "yolov1_loss",
    "yolov3_loss",
    "yolov5_loss",
    "yolov8_loss",
    "yolov10_loss",
    "yolox_loss",
]
