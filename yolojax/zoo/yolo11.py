"""YOLO11 (Ultralytics, 2024; there is no paper): YOLOv8 with other blocks, attention, and a lighter class branch.

The blocks (``C3k2``) repeat bottlenecks of half the channels, or small cross-stage blocks; after SPPF half of the
channels pass self-attention (``C2PSA``); the class branch of the head has depthwise convolutions. Loss and decoder are
those of `yolojax.zoo.yolov8`.

| scale | parameters, 80 classes | GFLOPs at 640 | AP on COCO val2017 |
|---|---|---|---|
| n | 2.6 M | 6.5 | .395 |
| s | 9.4 M | 21.5 | .470 |
| m | 20.1 M | 68.0 | .515 |
| l | 25.3 M | 86.9 | .534 |
| x | 56.9 M | 194.9 | .547 |

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
from yolojax.models.yolo11 import YOLO11Backbone, YOLO11Neck
from yolojax.zoo.options import find_scale
from yolojax.zoo.yolov8 import distance_detector, distance_head, scaled_depths, scaled_widths

SCALES: dict[str, tuple[float, float, int, bool]] = {
    "n": (0.5, 0.25, 1024, False),
    "s": (0.5, 0.50, 1024, False),
    "m": (0.5, 1.00, 512, True),
    "l": (1.0, 1.00, 512, True),
    "x": (1.0, 1.50, 512, True),
}
"""Multiples of depth and width, the widest block before its width is multiplied, and whether all blocks are nested."""

WIDTHS, DEPTH = (64, 128, 256, 512, 512, 1024), 2

PUBLISHED_NAMES = {
    **{f"backbone/down{i}": (f"model.{layer}", "conv") for i, layer in enumerate((0, 1, 3, 5, 7))},
    **{f"backbone/stage{i}": (f"model.{2 * i}", "c3k2") for i in (1, 2, 3, 4)},
    "backbone/sppf": ("model.9", "sppf"),
    "backbone/attention": ("model.10", "c2psa"),
    "neck/down1": ("model.13", "c3k2"),
    "neck/down0": ("model.16", "c3k2"),
    "neck/reduce1": ("model.17", "conv"),
    "neck/up1": ("model.19", "c3k2"),
    "neck/reduce2": ("model.20", "conv"),
    "neck/up2": ("model.22", "c3k2"),
    "head": ("model.23", "distances"),
}
"""Modules here, their names in published files, and how both name what is inside (`yolojax.weights.ultralytics`)."""


def yolo11(
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
    """Builds YOLO11.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: n, s, m, l or x.
      reg_max, k, assign, box_loss, class_loss: see `yolojax.zoo.yolov8.yolov8`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    deep, wide, widest, nested = find_scale("yolo11", scale, SCALES)
    widths, (depth,) = scaled_widths(WIDTHS, wide, widest), scaled_depths((DEPTH,), deep)
    levels = scaled_widths((256, 512, 1024), wide, widest)

    def make_network(spec: DetectorSpec, style: Style) -> Network:
        return Network(
            YOLO11Backbone(widths, depth, nested, style),
            YOLO11Neck(levels, depth, nested, style),
            distance_head(spec, levels[0], reg_max, style, depthwise=True),
        )

    return distance_detector(
        "yolo11",
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
