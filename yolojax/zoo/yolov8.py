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

What differs: nothing in the network. Its published weights are pickled and under another licence; none are read here.
"""

import math

import jax
from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.coding import cell_centres, decode_distributions, flatten_levels, levels_of
from yolojax.detector import Decode, Detector, DetectorSpec, Loss, Outputs
from yolojax.errors import ConfigError
from yolojax.losses import BoxLoss, ClassLoss, yolov8_loss
from yolojax.models.backbones import DarknetTiny
from yolojax.models.heads import AnchorFreeHead
from yolojax.models.layers import Style
from yolojax.models.necks import PAN
from yolojax.models.network import Network
from yolojax.structures import Candidates, Hyper, LossTerms, Targets
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts
from yolojax.zoo.parts import BOX_LOSSES, CLASS_LOSSES, find_assigner, find_part

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


def check_distribution(reg_max: int, k: int) -> None:
    """Raises `ConfigError` unless a distance has at least the bins 0 and 1, and an object a point."""
    check_counts(2, reg_max=reg_max)
    check_counts(1, k=k)


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
    assigner, assign_name = find_assigner(assign, k)
    box, box_name = find_part("box_loss", box_loss, BOX_LOSSES)
    cls, cls_name = find_part("class_loss", class_loss, CLASS_LOSSES)

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        boxes, classes = [level.box for level in outputs], [level.cls for level in outputs]
        levels = levels_of(boxes, strides)
        return yolov8_loss(boxes, classes, levels, targets, hyper, assign=assigner, box_loss=box, class_loss=cls)

    def decode(outputs: Outputs) -> Candidates:
        boxes, classes = [level.box for level in outputs], [level.cls for level in outputs]
        points, point_strides = cell_centres(levels_of(boxes, strides))
        return Candidates(
            decode_distributions(flatten_levels(boxes), points, point_strides),
            jax.nn.sigmoid(flatten_levels(classes)),
        )

    return loss, decode, {"assign": assign_name, "box_loss": box_name, "class_loss": cls_name}


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
      assign: the assigner: a key of `yolojax.zoo.parts.ASSIGNERS`, or an `AnchorFreeAssign`.
      box_loss: of the positives' boxes: a key of `yolojax.zoo.parts.BOX_LOSSES`, or a `BoxLoss`.
      class_loss: a key of `yolojax.zoo.parts.CLASS_LOSSES`, or a `ClassLoss`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    if scale not in SCALES:
        raise ConfigError(f"yolov8 has no scale {scale!r}; it has {', '.join(SCALES)}")
    check_input_size(input_size, STRIDES[-1])
    check_distribution(reg_max, k)
    deep, wide, widest = SCALES[scale]
    widths = tuple(8 * math.ceil(min(width, widest) * wide / 8) for width in WIDTHS)
    depths = tuple(round(depth * deep) for depth in DEPTHS)
    loss, decode, names = distribution_loss_and_decode(STRIDES, k, assign, box_loss, class_loss)
    options = {"scale": scale, "reg_max": reg_max, "k": k, **names}
    spec = DetectorSpec("yolov8", class_names, input_size, STRIDES, hyper=HYPER, options=options)

    style, finest = Style(dtype=dtype), widths[2]
    network = Network(
        DarknetTiny(widths, depths, style=style),
        PAN(widths[2:], depths[-1], style=style),
        AnchorFreeHead(
            len(class_names),
            STRIDES,
            input_size,
            reg_max,
            box_width=max(16, finest // 4, 4 * reg_max),
            cls_width=max(finest, min(len(class_names), 100)),
            style=style,
        ),
    )
    return mark_built(flax_detector(spec, network, loss, decode))
