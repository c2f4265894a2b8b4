"""The backbone and the neck of YOLOv10: separable downsampling, compact inverted blocks, large kernels, attention.

YOLOv10, arXiv 2405.14458, section 3.2 and figure 3.
"""

from collections.abc import Collection, Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import SPPF, CSPBlock, Features
from yolojax.models.layers import ACTIVATIONS, ConvBNAct, Style
from yolojax.models.necks import aggregate_paths
from yolojax.models.yolo11 import C2PSA


class SeparableDown(nn.Module):
    """Spatial-channel decoupled downsampling: a 1x1 convolution sets the channels, a 3x3 one per channel the size.

    The second has stride 2 and no activation (section 3.2, "spatial-channel decoupled downsampling").
    """

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        x = ConvBNAct(self.features, 1, style=self.style, name="pointwise")(x, train)
        return ConvBNAct(self.features, 3, 2, self.features, False, self.style, name="depthwise")(x, train)


class LargeKernelConv(nn.Module):
    """A 7x7 convolution per channel and a 3x3 one beside it, added (section 3.2, "large-kernel convolution")."""

    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        channels, style = x.shape[-1], self.style
        large = ConvBNAct(channels, 7, 1, channels, False, style, name="large")(x, train)
        small = ConvBNAct(channels, 3, 1, channels, False, style, name="small")(x, train)
        return ACTIVATIONS[style.activation](large + small)


class CompactInvertedBlock(nn.Module):
    """3x3 per channel, 1x1 to twice the channels, 3x3 per channel, 1x1 back, 3x3 per channel, and the identity.

    Section 3.2, "rank-guided block design" and figure 3b. With ``large_kernel`` the one in the middle is a
    `LargeKernelConv`.
    """

    features: int
    large_kernel: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        style, narrow, wide = self.style, self.features, 2 * self.features
        y = ConvBNAct(narrow, 3, groups=narrow, style=style, name="depthwise1")(x, train)
        y = ConvBNAct(wide, 1, style=style, name="expand")(y, train)
        if self.large_kernel:
            y = LargeKernelConv(style, name="depthwise2")(y, train)
        else:
            y = ConvBNAct(wide, 3, groups=wide, style=style, name="depthwise2")(y, train)
        y = ConvBNAct(narrow, 1, style=style, name="reduce")(y, train)
        return x + ConvBNAct(narrow, 3, groups=narrow, style=style, name="depthwise3")(y, train)


class CompactCSPBlock(nn.Module):
    """`yolojax.models.blocks.CSPBlock` with `CompactInvertedBlock` in the place of its bottlenecks."""

    features: int
    depth: int = 1
    large_kernel: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        hidden = self.features // 2
        x = ConvBNAct(2 * hidden, 1, style=self.style, name="split")(x, train)
        parts = [x[..., :hidden], x[..., hidden:]]
        for i in range(self.depth):
            block = CompactInvertedBlock(hidden, self.large_kernel, self.style, name=f"bottleneck{i}")
            parts.append(block(parts[-1], train))
        return ConvBNAct(self.features, 1, style=self.style, name="join")(jnp.concatenate(parts, axis=-1), train)


def _block(name: str, width: int, depth: int, shortcut: bool, compact: Collection[str], large: bool, style: Style):
    """The block of this name: compact if its name is among those of the compact ones."""
    if name in compact:
        return CompactCSPBlock(width, depth, large, style, name=name)
    return CSPBlock(width, depth, shortcut, style, name=name)


class YOLOv10Backbone(nn.Module):
    """Stem and four stages, each a convolution of stride 2 and a block; SPPF and attention; strides 8, 16 and 32.

    ``widths`` has the channels of stem and stages, ``depths`` the repeats of the stages. The last two stages begin with
    a `SeparableDown`. The blocks named in ``compact`` (``stage1`` to ``stage4``) are `CompactCSPBlock`, with
    ``large_kernel`` or without, the others `yolojax.models.blocks.CSPBlock`.
    """

    widths: Sequence[int]
    depths: Sequence[int]
    compact: Collection[str] = ()
    large_kernel: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, features = self.style, []
        x = ConvBNAct(self.widths[0], 3, 2, style=style, name="down0")(images.astype(style.dtype), train)
        for i, (width, depth) in enumerate(zip(self.widths[1:], self.depths, strict=True), start=1):
            if i > 2:
                x = SeparableDown(width, style, name=f"down{i}")(x, train)
            else:
                x = ConvBNAct(width, 3, 2, style=style, name=f"down{i}")(x, train)
            x = _block(f"stage{i}", width, depth, True, self.compact, self.large_kernel, style)(x, train)
            features.append(x)
        x = SPPF(self.widths[-1], style, name="sppf")(x, train)
        features[-1] = C2PSA(1, style, name="attention")(x, train)
        return tuple(features[1:])


class YOLOv10Neck(nn.Module):
    """Path aggregation (`yolojax.models.necks.aggregate_paths`), halving to the coarsest level by `SeparableDown`.

    The blocks named in ``compact`` (``down1``, ``down0``, ``up1``, ``up2``) are `CompactCSPBlock`, with
    ``large_kernel`` or without, the others `yolojax.models.blocks.CSPBlock` without shortcut.
    """

    widths: Sequence[int]
    depth: int = 1
    compact: Collection[str] = ()
    large_kernel: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, last = self.style, len(features) - 1

        def join(x: Array, level: int, name: str) -> Array:
            return _block(name, self.widths[level], self.depth, False, self.compact, self.large_kernel, style)(x, train)

        def reduce(x: Array, level: int) -> Array:
            width, name = self.widths[level - 1], f"reduce{level}"
            if level == last:
                return SeparableDown(width, style, name=name)(x, train)
            return ConvBNAct(width, 3, 2, style=style, name=name)(x, train)

        return aggregate_paths(features, join, reduce)
