"""The backbone and the neck of YOLOv9-T and S: generalised ELAN blocks over re-parametrised bottlenecks.

YOLOv9, arXiv 2402.13616, section 4.2 (GELAN). The blocks were compared with MultimediaTechLab's implementation (MIT).
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Features, max_pool_same, upsample_nearest
from yolojax.models.layers import ACTIVATIONS, ConvBNAct, Style


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
    """A cross-stage partial block (arXiv 1911.11929) of three 1x1 convolutions around `RepBottleneck`."""

    features: int
    depth: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        hidden = self.features // 2
        main = ConvBNAct(hidden, 1, style=self.style, name="main")(x, train)
        side = ConvBNAct(hidden, 1, style=self.style, name="side")(x, train)
        for i in range(self.depth):
            main = RepBottleneck(hidden, self.style, name=f"bottleneck{i}")(main, train)
        return ConvBNAct(self.features, 1, style=self.style, name="join")(jnp.concatenate([main, side], -1), train)


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
    """Path aggregation as in `yolojax.models.necks.PAN`, with `GELAN`.

    On the way back a level is halved as in the backbone, to half of the channels of the next.
    """

    widths: Sequence[int]
    depth: int = 3
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style = self.style
        down = [features[-1]]
        for i in reversed(range(len(features) - 1)):
            x = jnp.concatenate([upsample_nearest(down[0]), features[i]], axis=-1)
            down.insert(0, GELAN(self.widths[i], self.depth, style, name=f"down{i}")(x, train))
        out = [down[0]]
        for i in range(1, len(features)):
            x = average_of_neighbours(out[-1])
            x = ConvBNAct(self.widths[i] // 2, 3, 2, style=style, name=f"reduce{i}")(x, train)
            x = jnp.concatenate([x, down[i]], axis=-1)
            out.append(GELAN(self.widths[i], self.depth, style, name=f"up{i}")(x, train))
        return tuple(out)
