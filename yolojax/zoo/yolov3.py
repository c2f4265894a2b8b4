"""YOLOv3 and YOLOv3-tiny (Redmon and Farhadi 2018, arXiv 1804.02767): three (tiny: two) levels of three anchors.

Darknet-53, a top-down neck that concatenates, and at each level a 3x3 convolution and the prediction; classes are
independent (sigmoid). Tiny has seven convolutions with max pools for a backbone and hardly a neck. Published: COCO
test-dev AP .330, AP50 .579 (table 3, at 608 x 608); tiny AP50 .331 (its authors' page, at 416 x 416). The weights
``yolov3.weights`` and ``yolov3-tiny.weights`` load by `yolojax.zoo.load_darknet`. What differs here in training: images
keep one size, and offsets are compared after the sigmoid.
"""

from collections.abc import Sequence

from jaxtyping import DTypeLike

from yolojax.detector import Detector
from yolojax.losses import BoxLoss, ClassLoss
from yolojax.models.darknet_backbones import Darknet53, PooledDarknet, scaled
from yolojax.models.layers import Style
from yolojax.models.yolo_necks import TinyNeck, YOLOv3Neck
from yolojax.zoo.anchored import check_backbone, pyramid_detector

ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
TINY_ANCHORS = (((10.0, 14.0), (23.0, 27.0), (37.0, 58.0)), ((81.0, 82.0), (135.0, 169.0), (344.0, 319.0)))
"""The anchors for COCO in input pixels, finest level first."""

DARKNET_ORDER = (
    "backbone",
    *("neck/set2", "head/conv2", "head/predict/predict2"),
    *("neck/lateral1", "neck/set1", "head/conv1", "head/predict/predict1"),
    *("neck/lateral0", "neck/set0", "head/conv0", "head/predict/predict0"),
)
TINY_DARKNET_ORDER = (
    "backbone",
    *("neck/reduce", "head/conv1", "head/predict/predict1"),
    *("neck/lateral", "head/conv0", "head/predict/predict0"),
)
"""The order of the convolutions in Darknet's weight files, by the parts that they belong to."""


def yolov3(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    anchors: Sequence[Sequence[Sequence[float]]] = ANCHORS,
    width: float = 1.0,
    depths: Sequence[int] = (1, 2, 8, 8, 4),
    box_loss: str | BoxLoss = "mse",
    class_loss: str | ClassLoss = "bce",
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv3.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      anchors: ``(width, height)`` in input pixels, ``[3, anchors per level, 2]``, finest level first.
      width: of the network, as a share of the published channels.
      depths: residual blocks of each stage of the backbone.
      box_loss: ``mse`` (as published) for offsets and logarithms of sides, or a loss of decoded boxes: a key of
        `yolojax.zoo.parts.BOX_LOSSES`, or a `BoxLoss`.
      class_loss: a key of `yolojax.zoo.parts.CLASS_LOSSES`, or a `ClassLoss`.
      momentum: of the running BatchNorm statistics.
      dtype: of the network's computation.
    """
    check_backbone(width, depths)
    options = {
        "anchors": anchors,
        "width": width,
        "depths": tuple(depths),
        "box_loss": box_loss,
        "class_loss": class_loss,
        "momentum": momentum,
    }

    def body(style: Style) -> tuple[Darknet53, YOLOv3Neck]:
        return Darknet53(width, tuple(depths), style), YOLOv3Neck(width, style)

    head_widths = tuple(2 * scaled(128 * 2**i, width) for i in range(3))
    return pyramid_detector("yolov3", class_names, input_size, body, head_widths, options, dtype=dtype)


def yolov3_tiny(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    anchors: Sequence[Sequence[Sequence[float]]] = TINY_ANCHORS,
    width: float = 1.0,
    box_loss: str | BoxLoss = "mse",
    class_loss: str | ClassLoss = "bce",
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds the tiny one; the arguments are those of `yolov3`, with two levels of anchors."""
    check_backbone(width)
    options = {
        "anchors": anchors,
        "width": width,
        "box_loss": box_loss,
        "class_loss": class_loss,
        "momentum": momentum,
    }

    def body(style: Style) -> tuple[PooledDarknet, TinyNeck]:
        return PooledDarknet(width, style), TinyNeck(width, style)

    head_widths = (scaled(256, width), scaled(512, width))
    return pyramid_detector("yolov3-tiny", class_names, input_size, body, head_widths, options, dtype=dtype)
