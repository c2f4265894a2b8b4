"""YOLOv2 (Redmon and Farhadi 2016, arXiv 1612.08242): Darknet-19, a passthrough from stride 16, one level of 5 anchors.

Boxes are offsets within a cell and sizes relative to anchors found by k-means; classes exclude each other (softmax).
Published: COCO test-dev AP50 .440, AP .216 (table 5, at 544 x 544); the weights ``yolov2.weights`` load by
`yolojax.zoo.load_darknet`. What differs here in training: the loss is `anchored_detection`'s, without the first
epochs' pull towards the anchors, and images keep one size.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import DTypeLike

from yolojax.detector import Detector, DetectorSpec
from yolojax.losses import BoxLoss, ClassLoss
from yolojax.models.darknet_backbones import Darknet19
from yolojax.models.heads import YOLOHead
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolo_necks import Passthrough
from yolojax.zoo.anchored import POSTPROCESS, PREPROCESS, anchored_detector, check_backbone

ANCHORS = (((18.32736, 21.67632), (59.98272, 66.00096), (106.82976, 175.17888), (252.25024, 112.88896),
            (312.65664, 293.38496)),)  # fmt: skip
"""The anchors for COCO in input pixels. The published file has them in cells of 32 pixels."""

DARKNET_ORDER = ("backbone", "neck/conv0", "neck/conv1", "neck/passthrough", "neck/join", "head")
"""The order of the convolutions in Darknet's weight files, by the parts that they belong to."""


def yolov2(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    anchors: Sequence[Sequence[Sequence[float]]] = ANCHORS,
    width: float = 1.0,
    box_loss: str | BoxLoss = "mse",
    class_loss: str | ClassLoss = "bce",
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv2.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      anchors: ``(width, height)`` in input pixels, ``[1, anchors, 2]``.
      width: of the network, as a share of the published channels.
      box_loss: see `yolojax.zoo.yolov3.yolov3`.
      class_loss: likewise; ``bce`` stands for the published cross entropy over a softmax.
      momentum: of the running BatchNorm statistics.
      dtype: of the network's computation.
    """
    check_backbone(width)
    options: dict[str, Any] = {"anchors": anchors, "width": width, "momentum": momentum}
    spec = DetectorSpec(
        "yolov2",
        class_names,
        input_size,
        (32,),
        PREPROCESS,
        hyper={"ignore_iou": 0.6},
        options=options,
        postprocess=POSTPROCESS,
    )

    def make_network(style: Style) -> Network:
        head = YOLOHead(len(anchors[0]), len(class_names), style=style)
        return Network(Darknet19(width, style), Passthrough(width, style), head)

    return anchored_detector(
        spec,
        anchors,
        make_network,
        momentum=momentum,
        dtype=dtype,
        box_loss=box_loss,
        class_loss=class_loss,
        softmax=True,
    )
