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

from jaxtyping import DTypeLike

from yolojax.detector import Detector, DetectorSpec
from yolojax.errors import ConfigError
from yolojax.models.backbones import DarknetTiny
from yolojax.models.heads import AnchorFreeHead
from yolojax.models.layers import Style
from yolojax.models.necks import PAN
from yolojax.models.network import Network
from yolojax.zoo.assemble import assemble, check_input_size
from yolojax.zoo.distributions import HYPER, check_distribution, distribution_loss_and_decode

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


def yolov8(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "n",
    reg_max: int = 16,
    k: int = 10,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Build it.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: n, s, m, l or x.
      reg_max: bins of a distance; it reaches ``reg_max - 1`` strides.
      k: most points assigned to an object.
      dtype: of the network's computation.
    """
    if scale not in SCALES:
        raise ConfigError(f"yolov8 has no scale {scale!r}; it has {', '.join(SCALES)}")
    check_input_size(input_size, STRIDES[-1])
    check_distribution(reg_max, k)
    deep, wide, widest = SCALES[scale]
    widths = tuple(8 * math.ceil(min(width, widest) * wide / 8) for width in WIDTHS)
    depths = tuple(round(depth * deep) for depth in DEPTHS)
    spec = DetectorSpec(
        "yolov8", class_names, input_size, STRIDES, hyper=HYPER, options={"scale": scale, "reg_max": reg_max, "k": k}
    )

    def make_network(style: Style) -> Network:
        finest = widths[2]
        return Network(
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

    return assemble(spec, make_network, Style(dtype=dtype), *distribution_loss_and_decode(STRIDES, k))
