"""YOLOv9 (Wang, Yeh and Liao 2024, arXiv 2402.13616): GELAN, YOLOv8's head, and an auxiliary branch for training.

Backbone and neck are of generalised ELAN blocks (section 4.2); head, loss and decoder are those of
`yolojax.zoo.yolov8`. YOLOv9-E has two backbones, the second of which takes maps of the first. With the option
``auxiliary``, training has a second branch with a head of its own (programmable gradient information, section 4.1),
whose loss is added with a weight of a quarter; prediction does not compute it.

| scale | parameters, 80 classes | AP on COCO val2017 |
|---|---|---|
| t | 2.1 M | .383 |
| s | 7.3 M | .468 |
| m | 20.2 M | .514 |
| c | 25.6 M | .530 |
| e | 58.2 M | .556 |

Published weight files are read by `yolojax.zoo.from_pytorch`: those of Ultralytics' form, which have no auxiliary
branch and are under a licence of their own (docs/licences.md), and the state dicts of MultimediaTechLab (MIT), of T, S,
M and C, whose branches of boxes have groups and whose auxiliary branch is kept.

What differs: the training of YOLOv9-E has no auxiliary branch, since no description of it under a permissive licence
was found. Arrays of Ultralytics' files were compared by names, shapes and outputs. No AGPL or GPL code was read;
blocks, auxiliary branches and the weight of their loss were compared with MultimediaTechLab's implementation.
"""

from typing import Any

from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.detector import Detector, DetectorSpec, Loss, Outputs
from yolojax.errors import ConfigError
from yolojax.losses import BoxLoss, ClassLoss
from yolojax.losses.yolov8 import add_auxiliary
from yolojax.models.heads import AnchorFreeHead
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolov9 import (
    AuxiliaryColumn,
    AuxiliaryNetwork,
    AuxiliaryOutputs,
    AuxiliaryPyramid,
    YOLOv9Backbone,
    YOLOv9DoubleBackbone,
    YOLOv9Layout,
    YOLOv9Neck,
)
from yolojax.structures import Hyper, LossTerms, Targets
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts, find_scale
from yolojax.zoo.yolov8 import (
    HYPER,
    POSTPROCESS,
    STRIDES,
    check_distribution,
    distance_head,
    distribution_loss_and_decode,
)


def _light(wide: int) -> YOLOv9Layout:
    """T, and S with twice the channels."""
    widths = tuple(wide * width for width in (16, 32, 64, 96, 128))
    reduced = (widths[3] // 2, widths[4] // 2)
    return YOLOv9Layout(widths, widths[1:], widths[1:], 3, True, False, widths[2:], widths[2:], reduced)


SCALES: dict[str, YOLOv9Layout] = {
    "t": _light(1),
    "s": _light(2),
    "m": YOLOv9Layout(
        widths=(32, 64, 240, 360, 480),
        blocks=(128, 240, 360, 480),
        splits=(128, 240, 360, 480),
        depth=1,
        plain=False,
        pooled=False,
        levels=(240, 360, 480),
        level_splits=(240, 360, 480),
        reduced=(184, 240),
    ),
    "c": YOLOv9Layout(
        widths=(64, 128, 256, 512, 512),
        blocks=(256, 512, 512, 512),
        splits=(128, 256, 512, 512),
        depth=1,
        plain=False,
        pooled=True,
        levels=(256, 512, 512),
        level_splits=(256, 512, 512),
        reduced=(256, 512),
    ),
    "e": YOLOv9Layout(
        widths=(64, 128, 256, 512, 1024),
        blocks=(256, 512, 1024, 1024),
        splits=(128, 256, 512, 512),
        depth=2,
        plain=False,
        pooled=True,
        levels=(256, 512, 512),
        level_splits=(256, 512, 1024),
        reduced=(256, 512),
        linked=0,
    ),
}

AUXILIARY_WEIGHT = 0.25
"""What the loss of the auxiliary branch is multiplied by; MultimediaTechLab's recipe."""


def _names(backbone: int, neck: int, stage1: str) -> dict[str, tuple[str, str]]:
    """Names of the single column of a backbone that begins at this layer, and of what follows from layer ``neck``."""
    return {
        "backbone/down0": (f"model.{backbone}", "conv"),
        "backbone/down1": (f"model.{backbone + 1}", "conv"),
        **{f"backbone/down{i}": (f"model.{backbone + 2 * i - 1}", "halving") for i in (2, 3, 4)},
        **{f"backbone/stage{i}": (f"model.{backbone + 2 * i}", "gelan" if i > 1 else stage1) for i in (1, 2, 3, 4)},
        **_after_backbone(neck),
    }


def _after_backbone(first: int) -> dict[str, tuple[str, str]]:
    return {
        "backbone/sppelan": (f"model.{first}", "sppelan"),
        "neck/down1": (f"model.{first + 3}", "gelan"),
        "neck/down0": (f"model.{first + 6}", "gelan"),
        "neck/reduce1": (f"model.{first + 7}", "halving"),
        "neck/up1": (f"model.{first + 9}", "gelan"),
        "neck/reduce2": (f"model.{first + 10}", "halving"),
        "neck/up2": (f"model.{first + 12}", "gelan"),
        "head": (f"model.{first + 13}", "distances"),
    }


PUBLISHED_NAMES = {
    **_names(0, 9, "elan"),
    "auxiliary/sppelan": ("auxiliary.23", "sppelan"),
    "auxiliary/down1": ("auxiliary.26", "gelan"),
    "auxiliary/down0": ("auxiliary.29", "gelan"),
    "auxiliary_head": ("auxiliary.30", "distances"),
}
"""Of T and S: modules here, their names in published files, and how both name what is inside
(`yolojax.weights.ultralytics`)."""

PUBLISHED_NAMES_MC = {
    **_names(0, 9, "gelan"),
    **{f"auxiliary/link{i}": (f"auxiliary.{21 + i}", "link") for i in (2, 3, 4)},
    "auxiliary/down0": ("auxiliary.26", "conv"),
    "auxiliary/down1": ("auxiliary.27", "conv"),
    "auxiliary/stage1": ("auxiliary.28", "gelan"),
    **{f"auxiliary/down{i}": (f"auxiliary.{23 + 3 * i}", "halving") for i in (2, 3, 4)},
    **{f"auxiliary/stage{i}": (f"auxiliary.{25 + 3 * i}", "gelan") for i in (2, 3, 4)},
    "auxiliary_head": ("auxiliary.38", "distances"),
}
"""Likewise of M and C."""

PUBLISHED_NAMES_E = {
    "backbone/first_down0": ("model.1", "conv"),
    "backbone/first_down1": ("model.2", "conv"),
    **{f"backbone/first_down{i}": (f"model.{2 * i}", "halving") for i in (2, 3, 4)},
    **{f"backbone/first_stage{i}": (f"model.{2 * i + 1}", "gelan") for i in (1, 2, 3, 4)},
    **{f"backbone/link{i}": (f"model.{10 + i}", "link") for i in range(5)},
    "backbone/down0": ("model.15", "conv"),
    "backbone/down1": ("model.17", "conv"),
    "backbone/stage1": ("model.19", "gelan"),
    **{f"backbone/down{i}": (f"model.{14 + 3 * i}", "halving") for i in (2, 3, 4)},
    **{f"backbone/stage{i}": (f"model.{16 + 3 * i}", "gelan") for i in (2, 3, 4)},
    **_after_backbone(29),
}
"""Likewise of E."""


def yolov9(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "t",
    auxiliary: bool = False,
    reg_max: int = 16,
    box_groups: int = 1,
    cls_width: int | None = None,
    k: int = 10,
    assign: str | AnchorFreeAssign = "task-aligned",
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv9.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: t, s, m, c or e.
      auxiliary: whether training has the auxiliary branch; not for scale e.
      box_groups: groups of the convolutions that lead to the boxes, all but the first; 4 in MultimediaTechLab's files.
      cls_width: channels of the convolutions that lead to the classes; by default those of `yolojax.zoo.yolov8`.
      reg_max, k, assign, box_loss, class_loss: see `yolojax.zoo.yolov8.yolov8`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    layout = find_scale("yolov9", scale, SCALES)
    check_input_size(input_size, STRIDES[-1])
    check_distribution(reg_max, k)
    check_counts(1, box_groups=box_groups, **({} if cls_width is None else {"cls_width": cls_width}))
    if (4 * reg_max) % box_groups or max(16, layout.levels[0] // 4, 4 * reg_max) % box_groups:
        raise ConfigError(f"box_groups = {box_groups}: give a divisor of the {4 * reg_max} numbers of a box")
    if auxiliary and scale == "e":
        raise ConfigError("auxiliary = True: scale e has no auxiliary branch here; t, s, m and c do")
    loss, decode, names = distribution_loss_and_decode(STRIDES, k, assign, box_loss, class_loss)
    options: dict[str, Any] = {"scale": scale, "reg_max": reg_max, "k": k, **names}
    options |= {"auxiliary": auxiliary, "box_groups": box_groups, "cls_width": cls_width}
    spec = DetectorSpec(
        "yolov9", class_names, input_size, STRIDES, hyper=HYPER, options=options, postprocess=POSTPROCESS
    )
    style = Style(dtype=dtype)

    def head(finest: int) -> AnchorFreeHead:
        """The head over maps of which the finest has so many channels."""
        return distance_head(spec, finest, reg_max, style, box_groups=box_groups, cls_width=cls_width)

    backbone = (YOLOv9DoubleBackbone if scale == "e" else YOLOv9Backbone)(layout, style)
    parts = (backbone, YOLOv9Neck(layout, style), head(layout.levels[0]))
    if not auxiliary:
        return mark_built(flax_detector(spec, Network(*parts), loss, decode))
    if scale in ("t", "s"):
        branch, finest = AuxiliaryPyramid(layout, style), layout.levels[0]
    else:
        branch, finest = AuxiliaryColumn(layout, style), layout.blocks[1]
    network = AuxiliaryNetwork(*parts, branch, head(finest))
    return mark_built(flax_detector(spec, network, loss_of_both(loss), decode))


def loss_of_both(loss: Loss) -> Loss:
    """The loss of `AuxiliaryOutputs`: ``loss`` of the main predictions, and `AUXILIARY_WEIGHT` of it of the others.

    What the network predicts outside of training has no auxiliary part, and its loss is ``loss`` alone.
    """

    def both(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        if not isinstance(outputs, AuxiliaryOutputs):
            return loss(outputs, targets, hyper)
        main, auxiliary = loss(outputs.main, targets, hyper), loss(outputs.auxiliary, targets, hyper)
        return add_auxiliary(main, auxiliary, AUXILIARY_WEIGHT)

    return both
