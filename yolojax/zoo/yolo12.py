"""YOLO12 (Tian, Ye and Doermann 2025, YOLOv12, arXiv 2502.12524): area attention, and YOLO11's remaining parts.

The coarser two stages of the backbone attend within areas of the map and lie in blocks of residual efficient layer
aggregation (sections 3.2 and 3.3); there is no pyramid pooling. Loss and decoder are those of `yolojax.zoo.yolov8`.

| scale | parameters, 80 classes | GFLOPs at 640 | AP on COCO val2017 |
|---|---|---|---|
| n | 2.6 M | 6.5 | .406 |
| s | 9.3 M | 21.4 | .480 |
| m | 20.2 M | 67.5 | .525 |
| l | 26.4 M | 88.9 | .537 |
| x | 59.1 M | 199.0 | .552 |

What differs: kernels begin as those of every other network here, not by a truncated normal distribution in the
attention. Published weight files of Ultralytics' form are read by `yolojax.zoo.from_pytorch`; they are under a licence
of their own (AGPL-3.0; docs/licences.md). Their arrays were compared by names, shapes and outputs; no code of their
authors was read.
"""

from typing import NamedTuple

from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.detector import Detector, DetectorSpec
from yolojax.losses import BoxLoss, ClassLoss
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolo12 import YOLO12Backbone, YOLO12Neck
from yolojax.zoo.options import find_scale
from yolojax.zoo.yolov8 import distance_detector, distance_head, scaled_depths, scaled_widths


class YOLO12Scale(NamedTuple):
    """What one scale has.

    Attributes:
      deep: multiple of depth.
      wide: multiple of width.
      widest: the widest block before its width is multiplied.
      nested: whether the blocks of the finer stages are nested.
      ratio: channels between the two convolutions after an attention, as a multiple of the block's.
      residual: whether blocks with attention add their input.
    """

    deep: float
    wide: float
    widest: int
    nested: bool
    ratio: float
    residual: bool


SCALES = {
    "n": YOLO12Scale(0.5, 0.25, 1024, False, 2.0, False),
    "s": YOLO12Scale(0.5, 0.50, 1024, False, 2.0, False),
    "m": YOLO12Scale(0.5, 1.00, 512, True, 2.0, False),
    "l": YOLO12Scale(1.0, 1.00, 512, True, 1.2, True),
    "x": YOLO12Scale(1.0, 1.50, 512, True, 1.2, True),
}

WIDTHS, DEPTH = (64, 128, 256, 512, 512, 1024), 2

PUBLISHED_NAMES = {
    **{f"backbone/down{i}": (f"model.{layer}", "conv") for i, layer in enumerate((0, 1, 3, 5, 7))},
    **{f"backbone/stage{i}": (f"model.{2 * i}", "c3k2" if i < 3 else "relan") for i in (1, 2, 3, 4)},
    "neck/down1": ("model.11", "relan"),
    "neck/down0": ("model.14", "relan"),
    "neck/reduce1": ("model.15", "conv"),
    "neck/up1": ("model.17", "relan"),
    "neck/reduce2": ("model.18", "conv"),
    "neck/up2": ("model.20", "c3k2"),
    "head": ("model.21", "distances"),
}
"""Modules here, their names in published files, and how both name what is inside (`yolojax.weights.ultralytics`)."""


def yolo12(
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
    """Builds YOLO12.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: n, s, m, l or x.
      reg_max, k, assign, box_loss, class_loss: see `yolojax.zoo.yolov8.yolov8`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    chosen = find_scale("yolo12", scale, SCALES)
    widths, (depth,) = scaled_widths(WIDTHS, chosen.wide, chosen.widest), scaled_depths((DEPTH,), chosen.deep)
    levels = scaled_widths((256, 512, 1024), chosen.wide, chosen.widest)

    def make_network(spec: DetectorSpec, style: Style) -> Network:
        return Network(
            YOLO12Backbone(widths, depth, chosen.nested, chosen.ratio, chosen.residual, style),
            YOLO12Neck(levels, depth, style),
            distance_head(spec, levels[0], reg_max, style, depthwise=True),
        )

    return distance_detector(
        "yolo12",
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
