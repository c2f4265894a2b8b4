"""The backbone and the neck of YOLOv12 (arXiv 2502.12524): area attention in residual efficient layer aggregation."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Features
from yolojax.models.layers import ConvBNAct, Style
from yolojax.models.necks import aggregate_paths
from yolojax.models.yolo11 import Attention, C3k2, InnerCSP

HEAD_CHANNELS = 32
"""Channels of one attention head: of its queries, its keys and its values."""

GAIN = 0.01
"""What the residual of a block is multiplied by before training (section 3.3)."""


class AreaAttentionBlock(nn.Module):
    """Area attention and two 1x1 convolutions of ``ratio`` times the channels between, each with the identity.

    The position is a 7x7 convolution per channel (section 3.4).
    """

    areas: int = 1
    ratio: float = 2.0
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        channels, style = x.shape[-1], self.style
        x = x + Attention(channels // HEAD_CHANNELS, style, False, 7, self.areas, name="attention")(x, train)
        y = ConvBNAct(int(channels * self.ratio), 1, style=style, name="expand")(x, train)
        return x + ConvBNAct(channels, 1, activate=False, style=style, name="reduce")(y, train)


class RELAN(nn.Module):
    """The residual efficient layer aggregation block, R-ELAN (section 3.3, figure 3d).

    A 1x1 convolution makes half of the channels; ``depth`` parts follow one after another; a 1x1 convolution joins what
    the first convolution and each part gave. A part is two `AreaAttentionBlock` with this many ``areas``, or an
    `yolojax.models.yolo11.InnerCSP` where ``areas`` is 0. If ``residual``, the result is multiplied by a trained
    ``gain`` per channel, which begins at `GAIN`, and the input is added.
    """

    features: int
    depth: int = 1
    areas: int = 0
    ratio: float = 2.0
    residual: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        hidden, style = self.features // 2, self.style
        parts = [ConvBNAct(hidden, 1, style=style, name="reduce")(x, train)]
        for i in range(self.depth):
            y = parts[-1]
            if self.areas:
                for j in range(2):
                    y = AreaAttentionBlock(self.areas, self.ratio, style, name=f"block{i}_{j}")(y, train)
            else:
                y = InnerCSP(hidden, style=style, name=f"bottleneck{i}")(y, train)
            parts.append(y)
        y = ConvBNAct(self.features, 1, style=style, name="join")(jnp.concatenate(parts, axis=-1), train)
        if not self.residual:
            return y
        gain = self.param("gain", nn.initializers.constant(GAIN), (self.features,), jnp.float32)
        return x + gain.astype(y.dtype).reshape(1, 1, 1, -1) * y


class YOLO12Backbone(nn.Module):
    """Stem and four stages of a 3x3 convolution of stride 2 and a block; strides 8, 16 and 32.

    The blocks are two `yolojax.models.yolo11.C3k2` of ``depth`` parts, nested if ``nested``, then two `RELAN` of twice
    as many parts with attention in four areas and in one. ``widths`` has the channels of stem, first convolution and
    the four blocks; the convolution before a block keeps the channels of the block before it, but for the last, which
    has its block's.
    """

    widths: Sequence[int]
    depth: int = 1
    nested: bool = False
    ratio: float = 2.0
    residual: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, features = self.style, []
        x = ConvBNAct(self.widths[0], 3, 2, style=style, name="down0")(images.astype(style.dtype), train)
        x = ConvBNAct(self.widths[1], 3, 2, style=style, name="down1")(x, train)
        for i, width in enumerate(self.widths[2:], start=1):
            if i > 1:
                x = ConvBNAct(self.widths[i] if i < 4 else width, 3, 2, style=style, name=f"down{i}")(x, train)
            if i <= 2:
                x = C3k2(width, self.depth, self.nested, 0.25, style, name=f"stage{i}")(x, train)
            else:
                areas = 4 if i == 3 else 1
                x = RELAN(width, 2 * self.depth, areas, self.ratio, self.residual, style, name=f"stage{i}")(x, train)
            features.append(x)
        return tuple(features[1:])


class YOLO12Neck(nn.Module):
    """Path aggregation (`yolojax.models.necks.aggregate_paths`) with `RELAN` without attention.

    The last block is a nested `yolojax.models.yolo11.C3k2`.
    """

    widths: Sequence[int]
    depth: int = 1
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, last = self.style, len(features) - 1

        def join(x: Array, level: int, name: str) -> Array:
            if name == f"up{last}":
                return C3k2(self.widths[level], self.depth, True, style=style, name=name)(x, train)
            return RELAN(self.widths[level], self.depth, style=style, name=name)(x, train)

        def reduce(x: Array, level: int) -> Array:
            return ConvBNAct(self.widths[level - 1], 3, 2, style=style, name=f"reduce{level}")(x, train)

        return aggregate_paths(features, join, reduce)
