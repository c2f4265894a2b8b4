"""Compact: an anchor-free detector that is small enough to train from scratch on a processor, built like YOLOv8.

CSP backbone with SPPF, path-aggregation neck, one prediction a cell without objectness, boxes as distributions over
distances, task-aligned assignment, CIoU and distribution focal loss. What differs from the published YOLOv8: fewer and
narrower stages, and optionally one branch of convolutions in the head instead of two. There is no published accuracy;
`experiments/` records what it reaches here.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.detector import Detector, DetectorSpec
from yolojax.errors import ConfigError
from yolojax.losses import BoxLoss, ClassLoss
from yolojax.models.backbones import DarknetTiny
from yolojax.models.heads import AnchorFreeHead
from yolojax.models.layers import Activation, Style
from yolojax.models.necks import PAN
from yolojax.models.network import Network
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts, check_momentum
from yolojax.zoo.yolov8 import HYPER, check_distribution, distribution_loss_and_decode


def compact(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    widths: Sequence[int] = (16, 32, 64, 128, 192),
    depths: Sequence[int] = (0, 1, 2, 2, 1),
    csp: bool = True,
    merge: bool = False,
    neck_widths: Sequence[int] | None = None,
    neck_depth: int = 1,
    head_width: int = 64,
    head_depth: int = 1,
    shared_head: bool = False,
    reg_max: int = 16,
    k: int = 10,
    activation: Activation = "silu",
    momentum: float = 0.97,
    assign: str | AnchorFreeAssign = "task-aligned",
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds Compact.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of the largest stride.
      widths: channels at strides 2, 4, 8, ...; five end at stride 32, four at stride 16. Levels start at stride 8.
      depths: bottlenecks of each stage.
      csp: join the bottlenecks of a stage as YOLOv8 does; otherwise plain residual blocks.
      merge: halve the resolution by rearranging pixels into channels instead of by strided convolutions.
      neck_widths: channels of each level in the neck; by default the backbone's.
      neck_depth: bottlenecks of each joining block of the neck.
      head_width: channels of the head's convolutions.
      head_depth: 3x3 convolutions before each prediction.
      shared_head: one branch for boxes and classes instead of two.
      reg_max: bins of a distance; it reaches ``reg_max - 1`` strides.
      k: the most points that task-aligned assignment and SimOTA give to an object.
      activation: of every normalised convolution.
      momentum: of the running BatchNorm statistics.
      assign, box_loss, class_loss: see `yolojax.zoo.yolov8.yolov8`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    widths, depths = tuple(widths), tuple(depths)
    strides = tuple(2 ** (i + 1) for i in range(2, len(widths)))
    if len(widths) < 3 or len(depths) != len(widths):
        raise ConfigError(f"widths = {list(widths)}, depths = {list(depths)}: give equally many, at least three")
    neck_widths = tuple(neck_widths) if neck_widths else widths[2:]
    if len(neck_widths) != len(strides):
        raise ConfigError(f"neck_widths = {list(neck_widths)}: give one for each of the strides {list(strides)}")
    check_counts(1, widths=widths[2:], neck_widths=neck_widths, head_width=head_width)
    check_counts(0, widths=widths, depths=depths, neck_depth=neck_depth, head_depth=head_depth)
    check_distribution(reg_max, k)
    check_momentum(momentum)
    check_input_size(input_size, strides[-1])
    loss, decode, names = distribution_loss_and_decode(strides, k, assign, box_loss, class_loss)
    options: dict[str, Any] = {
        "widths": widths,
        "depths": depths,
        "csp": csp,
        "merge": merge,
        "neck_widths": neck_widths,
        "neck_depth": neck_depth,
        "head_width": head_width,
        "head_depth": head_depth,
        "shared_head": shared_head,
        "reg_max": reg_max,
        "k": k,
        "activation": activation,
        "momentum": momentum,
        **names,
    }
    spec = DetectorSpec("compact", class_names, input_size, strides, hyper=HYPER, options=options)

    style = Style(activation=activation, momentum=momentum, dtype=dtype)
    network = Network(
        DarknetTiny(widths, depths, csp, merge, style=style),
        PAN(neck_widths, neck_depth, style=style),
        AnchorFreeHead(
            len(class_names),
            strides,
            input_size,
            reg_max,
            box_width=head_width,
            cls_width=head_width,
            depth=head_depth,
            shared=shared_head,
            style=style,
        ),
    )
    return mark_built(flax_detector(spec, network, loss, decode))
