"""YOLOv8 (Ultralytics, 2023; there is no paper): anchor-free, decoupled head, distances as distributions.

Stem and four stages, each a 3x3 convolution of stride 2 and a cross-stage block that joins the output of every
bottleneck, SPPF at the end; path aggregation with the same blocks without shortcut; at strides 8, 16 and 32 two
branches of two 3x3 convolutions for distances and classes, no objectness; task-aligned assignment, CIoU and
distribution focal loss. Depths and widths of the five scales follow the published table:

| scale | parameters, 80 classes | GFLOPs at 640 | AP on COCO val2017 |
|---|---|---|---|
| n | 3.2 M | 8.7 | .373 |
| s | 11.2 M | 28.6 | .449 |
| m | 25.9 M | 78.9 | .502 |
| l | 43.7 M | 165.2 | .529 |
| x | 68.2 M | 257.8 | .539 |

What differs: nothing in the network. Published weight files are read by `yolojax.zoo.from_pytorch`; they are under a
licence of their own (AGPL-3.0; docs/licences.md). Their arrays were compared by names, shapes and outputs; no code of
their authors was read.
"""

import math
from collections.abc import Callable, Sequence

import jax
from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.coding import cell_centres, decode_distributions, flatten_levels, levels_of
from yolojax.detector import Decode, Detector, DetectorSpec, Loss, Outputs, Postprocess, Thresholds
from yolojax.losses import BoxLoss, ClassLoss, yolov8_loss
from yolojax.models.backbones import DarknetTiny
from yolojax.models.heads import AnchorFreeHead
from yolojax.models.layers import Style
from yolojax.models.necks import PAN
from yolojax.models.network import Network
from yolojax.structures import Candidates, Hyper, LossTerms, Targets
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts, find_scale
from yolojax.zoo.parts import LossParts, find_loss_parts

SCALES: dict[str, tuple[float, float, int]] = {
    "n": (1 / 3, 0.25, 1024),
    "s": (1 / 3, 0.50, 1024),
    "m": (2 / 3, 0.75, 768),
    "l": (1.0, 1.00, 512),
    "x": (1.0, 1.25, 512),
}
"""Multiples of depth and of width, and the widest stage before its width is multiplied."""

WIDTHS, DEPTHS = (64, 128, 256, 512, 1024), (0, 3, 6, 6, 3)
STRIDES = (8, 16, 32)

HYPER = {"lambda_coord": 7.5, "lambda_cls": 0.5, "lambda_dfl": 1.5}
"""The gains of YOLOv8's published recipe."""

POSTPROCESS = Postprocess(Thresholds(0.001, 0.7, 300), Thresholds(0.25, 0.7, 300))
"""The published thresholds of validation and of prediction."""

PUBLISHED_NAMES = {
    **{f"backbone/down{i}": (f"model.{layer}", "conv") for i, layer in enumerate((0, 1, 3, 5, 7))},
    **{f"backbone/stage{i}": (f"model.{2 * i}", "c2f") for i in (1, 2, 3, 4)},
    "backbone/sppf": ("model.9", "sppf"),
    "neck/down1": ("model.12", "c2f"),
    "neck/down0": ("model.15", "c2f"),
    "neck/reduce1": ("model.16", "conv"),
    "neck/up1": ("model.18", "c2f"),
    "neck/reduce2": ("model.19", "conv"),
    "neck/up2": ("model.21", "c2f"),
    "head": ("model.22", "distances"),
}
"""Modules here, their names in published files, and how both name what is inside (`yolojax.weights.ultralytics`)."""


def scaled_widths(widths: Sequence[int], wide: float, widest: int) -> tuple[int, ...]:
    """Channels of a scale: at most ``widest``, times ``wide``, rounded up to a multiple of 8."""
    return tuple(8 * math.ceil(min(width, widest) * wide / 8) for width in widths)


def scaled_depths(depths: Sequence[int], deep: float) -> tuple[int, ...]:
    """Repeats of a scale; at least 1 where there is any."""
    return tuple(max(round(depth * deep), 1) if depth else 0 for depth in depths)


def check_distribution(reg_max: int, k: int) -> None:
    """Raises `ConfigError` unless a distance has at least the bins 0 and 1, and an object a point."""
    check_counts(2, reg_max=reg_max)
    check_counts(1, k=k)


def distance_head(
    spec: DetectorSpec,
    finest: int,
    reg_max: int,
    style: Style,
    *,
    depthwise: bool = False,
    box_groups: int = 1,
    cls_width: int | None = None,
) -> AnchorFreeHead:
    """The head of YOLOv8 and the detectors after it, over features whose finest level has ``finest`` channels.

    The branch of the boxes has a quarter of these channels, and at least its own output's; the branch of the classes
    has ``cls_width`` channels, by default all of them, and at least one for each class up to 100.
    """
    classes = len(spec.class_names)
    return AnchorFreeHead(
        classes,
        spec.strides,
        spec.input_size,
        reg_max,
        box_width=max(16, finest // 4, 4 * reg_max),
        cls_width=cls_width or max(finest, min(classes, 100)),
        style=style,
        depthwise=depthwise,
        box_groups=box_groups,
    )


def distribution_loss(strides: tuple[int, ...], parts: LossParts, *, dfl_margin: float = 0.0) -> Loss:
    """Makes `yolojax.losses.yolov8_loss` a function of one `LevelPrediction` for each of the strides.

    ``dfl_margin`` is that of `yolov8_loss`.
    """

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        boxes, classes = [level.box for level in outputs], [level.cls for level in outputs]
        return yolov8_loss(
            boxes,
            classes,
            levels_of(boxes, strides),
            targets,
            hyper,
            assign=parts.assign,
            box_loss=parts.box_loss,
            class_loss=parts.class_loss,
            dfl_margin=dfl_margin,
        )

    return loss


def distribution_decoder(strides: tuple[int, ...]) -> Decode:
    """Makes the decoder of one `LevelPrediction` for each of the strides, whose distances are distributions."""

    def decode(outputs: Outputs) -> Candidates:
        boxes, classes = [level.box for level in outputs], [level.cls for level in outputs]
        points, point_strides = cell_centres(levels_of(boxes, strides))
        return Candidates(
            decode_distributions(flatten_levels(boxes), points, point_strides),
            jax.nn.sigmoid(flatten_levels(classes)),
        )

    return decode


def distribution_loss_and_decode(
    strides: tuple[int, ...],
    k: int,
    assign: str | AnchorFreeAssign,
    box_loss: str | BoxLoss,
    class_loss: str | ClassLoss,
) -> tuple[Loss, Decode, dict[str, str]]:
    """Makes loss and decoder of a head that predicts distances as distributions (`AnchorFreeHead`).

    The outputs are one `LevelPrediction` for each of the strides. The other arguments are those of `yolov8`.

    Returns:
      The loss, the decoder, and the names of the three parts for the description.
    """
    parts = find_loss_parts(assign, k, box_loss, class_loss)
    return distribution_loss(strides, parts), distribution_decoder(strides), parts.names


def distance_detector(
    name: str,
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    make_network: Callable[[DetectorSpec, Style], Network],
    *,
    scale: str,
    reg_max: int,
    k: int,
    assign: str | AnchorFreeAssign,
    box_loss: str | BoxLoss,
    class_loss: str | ClassLoss,
    dtype: DTypeLike,
) -> Detector:
    """Builds a detector that has YOLOv8's loss, decoder, gains and published thresholds, and a network of its own.

    ``make_network`` makes the network, whose head is that of `distance_head`. The other arguments are those of
    `yolov8`, which raises what this raises.
    """
    check_input_size(input_size, STRIDES[-1])
    check_distribution(reg_max, k)
    loss, decode, names = distribution_loss_and_decode(STRIDES, k, assign, box_loss, class_loss)
    options = {"scale": scale, "reg_max": reg_max, "k": k, **names}
    spec = DetectorSpec(name, class_names, input_size, STRIDES, hyper=HYPER, options=options, postprocess=POSTPROCESS)
    return mark_built(flax_detector(spec, make_network(spec, Style(dtype=dtype)), loss, decode))


def yolov8(
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
    """Builds YOLOv8.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: n, s, m, l or x.
      reg_max: bins of a distance; it reaches ``reg_max - 1`` strides.
      k: the most points that task-aligned assignment and SimOTA give to an object.
      assign: the assigner: a key of `yolojax.assign.ANCHOR_FREE_ASSIGNERS`, or an `AnchorFreeAssign`.
      box_loss: of the positives' boxes: a key of `yolojax.zoo.parts.BOX_LOSSES`, or a `BoxLoss`.
      class_loss: a key of `yolojax.zoo.parts.CLASS_LOSSES`, or a `ClassLoss`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    deep, wide, widest = find_scale("yolov8", scale, SCALES)
    widths, depths = scaled_widths(WIDTHS, wide, widest), scaled_depths(DEPTHS, deep)

    def make_network(spec: DetectorSpec, style: Style) -> Network:
        return Network(
            DarknetTiny(widths, depths, style=style),
            PAN(widths[2:], depths[-1], style=style),
            distance_head(spec, widths[2], reg_max, style),
        )

    return distance_detector(
        "yolov8",
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
