"""YOLOv5u (Ultralytics, 2023; there is no paper): the network of YOLOv5 with the anchor-free head of YOLOv8.

Backbone and neck are those of `yolojax.zoo.yolov5`; head, loss and decoder those of `yolojax.zoo.yolov8`.

| scale | parameters, 80 classes | GFLOPs at 640 | AP on COCO val2017 |
|---|---|---|---|
| n | 2.6 M | 7.7 | .343 |
| s | 9.1 M | 24.0 | .430 |
| m | 25.1 M | 64.2 | .490 |
| l | 53.2 M | 135.0 | .522 |
| x | 97.2 M | 246.4 | .532 |

What differs: nothing in the network. Published weight files are read by `yolojax.zoo.from_pytorch`; they are under a
licence of their own (AGPL-3.0; docs/licences.md). Their arrays were compared by names, shapes and outputs; no code of
their authors was read.
"""

from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.detector import Detector, DetectorSpec
from yolojax.losses import BoxLoss, ClassLoss
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolov5 import YOLOv5Backbone
from yolojax.models.yolox import PAFPN
from yolojax.zoo.options import find_scale
from yolojax.zoo.yolov8 import distance_detector, distance_head, scaled_depths, scaled_widths

SCALES: dict[str, tuple[float, float]] = {
    "n": (1 / 3, 0.25),
    "s": (1 / 3, 0.50),
    "m": (2 / 3, 0.75),
    "l": (1.0, 1.00),
    "x": (4 / 3, 1.25),
}
"""Multiples of depth and of width."""

WIDTHS, DEPTHS, NECK_DEPTH = (64, 128, 256, 512, 1024), (3, 6, 9, 3), 3

BODY_NAMES = {
    "backbone/stem": ("model.0", "conv"),
    **{f"backbone/down{i}": (f"model.{2 * i - 1}", "conv") for i in (1, 2, 3, 4)},
    **{f"backbone/stage{i}": (f"model.{2 * i}", "c3") for i in (1, 2, 3, 4)},
    "backbone/sppf": ("model.9", "sppf"),
    "neck/lateral2": ("model.10", "conv"),
    "neck/down1": ("model.13", "c3"),
    "neck/lateral1": ("model.14", "conv"),
    "neck/down0": ("model.17", "c3"),
    "neck/reduce1": ("model.18", "conv"),
    "neck/up1": ("model.20", "c3"),
    "neck/reduce2": ("model.21", "conv"),
    "neck/up2": ("model.23", "c3"),
}
"""Modules of backbone and neck here, their names in published files, and how both name what is inside."""

PUBLISHED_NAMES = {**BODY_NAMES, "head": ("model.24", "distances")}


def yolov5_body(scale: str, name: str, style: Style) -> tuple[YOLOv5Backbone, PAFPN, tuple[int, ...]]:
    """Backbone, neck and the channels of the three levels of a scale; raises `ConfigError` for an unknown scale."""
    deep, wide = find_scale(name, scale, SCALES)
    widths = scaled_widths(WIDTHS, wide, WIDTHS[-1])
    depths, (neck_depth,) = scaled_depths(DEPTHS, deep), scaled_depths((NECK_DEPTH,), deep)
    return YOLOv5Backbone(widths, depths, style=style), PAFPN(neck_depth, style=style), widths[2:]


def yolov5u(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "n",
    reg_max: int = 16,
    k: int = 10,
    assign: str | AnchorFreeAssign = "task-aligned",
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv5u.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: n, s, m, l or x.
      reg_max, k, assign, box_loss, class_loss: see `yolojax.zoo.yolov8.yolov8`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """

    def make_network(spec: DetectorSpec, style: Style) -> Network:
        backbone, neck, widths = yolov5_body(scale, "yolov5u", style)
        return Network(backbone, neck, distance_head(spec, widths[0], reg_max, style))

    return distance_detector(
        "yolov5u",
        class_names,
        input_size,
        make_network,
        scale=scale,
        reg_max=reg_max,
        k=k,
        assign=assign,
        box_loss=box_loss,
        class_loss=class_loss,
        dtype=dtype,
    )
