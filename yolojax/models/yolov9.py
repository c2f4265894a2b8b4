"""The backbone and the neck of YOLOv9-T and S: generalised ELAN blocks over re-parametrised bottlenecks.

YOLOv9, arXiv 2402.13616, section 4.2 (GELAN). The blocks were compared with MultimediaTechLab's implementation (MIT).
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Features, cross_stage, max_pool_same
from yolojax.models.layers import ACTIVATIONS, ConvBNAct, Style
from yolojax.models.necks import aggregate_paths


def average_of_neighbours(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Means of all 2x2 squares, stride 1, without padding: one row and one column fewer."""
    return (x[:, :-1, :-1] + x[:, 1:, :-1] + x[:, :-1, 1:] + x[:, 1:, 1:]) * jnp.asarray(0.25, x.dtype)


class RepBottleneck(nn.Module):
    """A 3x3 and a 1x1 convolution added (RepVGG, arXiv 2101.03697), a 3x3 convolution, and the identity."""

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        style = self.style
        y = ConvBNAct(self.features, 3, activate=False, style=style, name="spatial")(x, train)
        y = y + ConvBNAct(self.features, 1, activate=False, style=style, name="pointwise")(x, train)
        return x + ConvBNAct(self.features, 3, style=style, name="conv2")(ACTIVATIONS[style.activation](y), train)


class RepCSP(nn.Module):
    """A cross-stage partial block (`yolojax.models.blocks.cross_stage`) around `RepBottleneck`."""

    features: int
    depth: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        def inner(features: int, name: str) -> nn.Module:
            return RepBottleneck(features, self.style, name=name)

        return cross_stage(x, train, self.features, self.depth, inner, self.style)


class GELAN(nn.Module):
    """The generalised ELAN block: two parts one after another on a half of the channels, everything joined.

    A part is a `RepCSP` of ``depth`` bottlenecks and a 3x3 convolution, or with ``depth`` 0 that convolution alone
    (plain ELAN). Parts have half of the ``features``.
    """

    features: int
    depth: int = 3
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        half, style = self.features // 2, self.style
        x = ConvBNAct(2 * half, 1, style=style, name="split")(x, train)
        parts = [x[..., :half], x[..., half:]]
        for i in (2, 3):
            y = parts[-1]
            if self.depth:
                y = RepCSP(half, self.depth, style, name=f"part{i}_csp")(y, train)
            parts.append(ConvBNAct(half, 3, style=style, name=f"part{i}")(y, train))
        return ConvBNAct(self.features, 1, style=style, name="join")(jnp.concatenate(parts, axis=-1), train)


class SPPELAN(nn.Module):
    """Spatial pyramid pooling as three 5x5 max pools in a row over half of the channels, everything joined."""

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        parts = [ConvBNAct(self.features // 2, 1, style=self.style, name="reduce")(x, train)]
        for _ in range(3):
            parts.append(max_pool_same(parts[-1], 5))
        return ConvBNAct(self.features, 1, style=self.style, name="join")(jnp.concatenate(parts, axis=-1), train)


class YOLOv9Backbone(nn.Module):
    """Two convolutions of stride 2, a plain ELAN block, three `GELAN` stages, `SPPELAN`; strides 8, 16 and 32.

    ``widths`` has the channels at strides 2 to 32. A stage begins with `average_of_neighbours` and a 3x3 convolution of
    stride 2.
    """

    widths: Sequence[int]
    depth: int = 3
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, features = self.style, []
        x = images.astype(style.dtype)
        for i, width in enumerate(self.widths):
            x = average_of_neighbours(x) if i >= 2 else x
            x = ConvBNAct(width, 3, 2, style=style, name=f"down{i}")(x, train)
            if i:
                x = GELAN(width, self.depth if i > 1 else 0, style, name=f"stage{i}")(x, train)
            features.append(x)
        features[-1] = SPPELAN(self.widths[-1], style, name="sppelan")(x, train)
        return tuple(features[2:])


class YOLOv9Neck(nn.Module):
    """Path aggregation (`yolojax.models.necks.aggregate_paths`) with `GELAN`.

    On the way back a level is halved as in the backbone, to half of the channels of the next.
    """

    widths: Sequence[int]
    depth: int = 3
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style = self.style

        def join(x: Array, level: int, name: str) -> Array:
            return GELAN(self.widths[level], self.depth, style, name=name)(x, train)

        def reduce(x: Array, level: int) -> Array:
            x = average_of_neighbours(x)
            return ConvBNAct(self.widths[level] // 2, 3, 2, style=style, name=f"reduce{level}")(x, train)

        return aggregate_paths(features, join, reduce)
