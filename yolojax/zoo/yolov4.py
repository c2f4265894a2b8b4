"""YOLOv4 and YOLOv4-tiny (Bochkovskiy et al. 2020, arXiv 2004.10934; tiny: arXiv 2011.08036).

CSPDarknet-53 with Mish, spatial pyramid pooling, path aggregation by concatenation, YOLOv3's head with centres that
reach a little beyond their cell, and CIoU. Published: COCO test-dev AP .435, AP50 .657 (table 8, at 608 x 608); tiny
AP50 .402 (its authors' page, at 416 x 416). The weights ``yolov4.weights`` and ``yolov4-tiny.weights`` load by
`yolojax.zoo.load_darknet`. What differs here in training: no class label smoothing, no self-adversarial training.
"""

from collections.abc import Sequence

from jaxtyping import DTypeLike

from yolojax.detector import Detector
from yolojax.losses import BoxLoss, ClassLoss
from yolojax.models.darknet_backbones import CSPDarknet53, CSPDarknetTiny, scaled
from yolojax.models.layers import Style
from yolojax.models.yolo_necks import TinyNeck, YOLOv4Neck
from yolojax.zoo.anchored import check_backbone, pyramid_detector

ANCHORS = (
    ((12.0, 16.0), (19.0, 36.0), (40.0, 28.0)),
    ((36.0, 75.0), (76.0, 55.0), (72.0, 146.0)),
    ((142.0, 110.0), (192.0, 243.0), (459.0, 401.0)),
)
TINY_ANCHORS = (((23.0, 27.0), (37.0, 58.0), (81.0, 82.0)), ((81.0, 82.0), (135.0, 169.0), (344.0, 319.0)))
"""The anchors for COCO in input pixels, finest level first. In tiny both levels have (81, 82), as published."""

SCALES = (1.2, 1.1, 1.05)
"""``scale_x_y`` of each level, finest first; 1.05 in tiny."""

IOU_THRESH = 0.213
"""Shape IoU above which an anchor learns an object although another anchor fits it better; not used in tiny."""

DARKNET_ORDER = (
    "backbone",
    *("neck/before_spp", "neck/after_spp"),
    *("neck/up1", "neck/lateral1", "neck/down1", "neck/up0", "neck/lateral0", "neck/down0"),
    *("head/conv0", "head/predict/predict0"),
    *("neck/halve1", "neck/out1", "head/conv1", "head/predict/predict1"),
    *("neck/halve2", "neck/out2", "head/conv2", "head/predict/predict2"),
)
TINY_DARKNET_ORDER = (
    "backbone",
    *("neck/reduce", "head/conv1", "head/predict/predict1"),
    *("neck/lateral", "head/conv0", "head/predict/predict0"),
)
"""The order of the convolutions in Darknet's weight files, by the parts that they belong to."""


def yolov4(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    anchors: Sequence[Sequence[Sequence[float]]] = ANCHORS,
    width: float = 1.0,
    depths: Sequence[int] = (1, 2, 8, 8, 4),
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv4.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      anchors: ``(width, height)`` in input pixels, ``[3, anchors per level, 2]``, finest level first.
      width: of the network, as a share of the published channels.
      depths: residual blocks of each stage of the backbone.
      box_loss: a key of `yolojax.zoo.parts.BOX_LOSSES` (``ciou`` as published), ``mse`` for offsets and logarithms of
        sides, or a `BoxLoss`.
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

    def body(style: Style) -> tuple[CSPDarknet53, YOLOv4Neck]:
        return CSPDarknet53(width, tuple(depths), style), YOLOv4Neck(width, style)

    head_widths = tuple(2 * scaled(128 * 2**i, width) for i in range(3))
    return pyramid_detector(
        "yolov4",
        class_names,
        input_size,
        body,
        head_widths,
        options,
        dtype=dtype,
        scales=SCALES,
        iou_thresh=IOU_THRESH,
    )


def yolov4_tiny(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    anchors: Sequence[Sequence[Sequence[float]]] = TINY_ANCHORS,
    width: float = 1.0,
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds the tiny one; the arguments are those of `yolov4`, with two levels of anchors."""
    check_backbone(width)
    options = {
        "anchors": anchors,
        "width": width,
        "box_loss": box_loss,
        "class_loss": class_loss,
        "momentum": momentum,
    }

    def body(style: Style) -> tuple[CSPDarknetTiny, TinyNeck]:
        return CSPDarknetTiny(width, style), TinyNeck(width, style)

    head_widths = (scaled(256, width), scaled(512, width))
    return pyramid_detector(
        "yolov4-tiny", class_names, input_size, body, head_widths, options, dtype=dtype, scales=(SCALES[-1],) * 2
    )
