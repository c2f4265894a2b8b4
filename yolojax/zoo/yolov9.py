"""YOLOv9-T and S (Wang, Yeh and Liao 2024, arXiv 2402.13616) without the auxiliary branch: GELAN and YOLOv8's head.

Backbone and neck are of generalised ELAN blocks (section 4.2); head, loss and decoder are those of
`yolojax.zoo.yolov8`. Published weights are those of the network without its auxiliary reversible branch, which serves
in training only.

| scale | parameters, 80 classes | AP on COCO val2017 |
|---|---|---|
| t | 2.1 M | .383 |
| s | 7.3 M | .468 |

What differs: training has no auxiliary branch. Published weight files of Ultralytics' form are read by
`yolojax.zoo.from_pytorch`; they are under a licence of their own (docs/licences.md). Their arrays were compared by
names, shapes and outputs. No AGPL or GPL code was read; the blocks were compared with MultimediaTechLab's (MIT).
"""

from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.detector import Detector, DetectorSpec
from yolojax.losses import BoxLoss, ClassLoss
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolov9 import YOLOv9Backbone, YOLOv9Neck
from yolojax.zoo.yolov8 import distance_detector, distance_head, find_scale

SCALES: dict[str, int] = {"t": 1, "s": 2}
"""Multiples of the channels of the smallest scale."""

WIDTHS = (16, 32, 64, 96, 128)

PUBLISHED_NAMES = {
    "backbone/down0": ("model.0", "conv"),
    "backbone/down1": ("model.1", "conv"),
    **{f"backbone/down{i}": (f"model.{2 * i - 1}.cv1", "conv") for i in (2, 3, 4)},
    **{f"backbone/stage{i}": (f"model.{2 * i}", "gelan" if i > 1 else "elan") for i in (1, 2, 3, 4)},
    "backbone/sppelan": ("model.9", "sppelan"),
    "neck/down1": ("model.12", "gelan"),
    "neck/down0": ("model.15", "gelan"),
    "neck/reduce1": ("model.16.cv1", "conv"),
    "neck/up1": ("model.18", "gelan"),
    "neck/reduce2": ("model.19.cv1", "conv"),
    "neck/up2": ("model.21", "gelan"),
    "head": ("model.22", "distances"),
}
"""Modules here, their names in published files, and how both name what is inside (`yolojax.weights.ultralytics`)."""


def yolov9(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "t",
    reg_max: int = 16,
    k: int = 10,
    assign: str | AnchorFreeAssign = "task-aligned",
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv9-T or S.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: t or s.
      reg_max, k, assign, box_loss, class_loss: see `yolojax.zoo.yolov8.yolov8`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    widths = tuple(find_scale("yolov9", scale, SCALES) * width for width in WIDTHS)

    def make_network(spec: DetectorSpec, style: Style) -> Network:
        return Network(
            YOLOv9Backbone(widths, style=style),
            YOLOv9Neck(widths[2:], style=style),
            distance_head(spec, widths[2], reg_max, style),
        )

    return distance_detector(
        "yolov9",
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
