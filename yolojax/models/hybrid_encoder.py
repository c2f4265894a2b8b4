"""Necks of the RT-DETR family: attention at the coarsest level and path aggregation of reparameterised blocks.

RT-DETR, arXiv 2304.08069, section 4.2 (efficient hybrid encoder); D-FINE, arXiv 2410.13842; DEIMv2, arXiv 2509.20787.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from yolojax.models.blocks import Features, upsample_nearest
from yolojax.models.layers import ACTIVATIONS, ConvBNAct, Style
from yolojax.models.transformer import EncoderLayer, sine_position


class RepConv(nn.Module):
    """A 3x3 and a 1x1 convolution, each with BatchNorm, added before the activation (RepVGG, arXiv 2101.03697)."""

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        spatial = ConvBNAct(self.features, 3, activate=False, style=self.style, name="spatial")(x, train)
        pointwise = ConvBNAct(self.features, 1, activate=False, style=self.style, name="pointwise")(x, train)
        return ACTIVATIONS[self.style.activation](spatial + pointwise)


class RepCSP(nn.Module):
    """Two branches of ``hidden`` channels, one of them through ``depth`` `RepConv`, added.

    A 1x1 convolution follows where ``hidden`` is not ``features``. The branches begin with a 1x1 convolution each, or
    with one that is split in two if ``split``.
    """

    features: int
    hidden: int
    depth: int
    split: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        if self.split:
            both = ConvBNAct(2 * self.hidden, 1, style=self.style, name="split")(x, train)
            side, main = both[..., : self.hidden], both[..., self.hidden :]
        else:
            main = ConvBNAct(self.hidden, 1, style=self.style, name="main")(x, train)
            side = ConvBNAct(self.hidden, 1, style=self.style, name="side")(x, train)
        for i in range(self.depth):
            main = RepConv(self.hidden, self.style, name=f"bottleneck{i}")(main, train)
        y = main + side
        if self.hidden == self.features:
            return y
        return ConvBNAct(self.features, 1, style=self.style, name="join")(y, train)


class RepELAN(nn.Module):
    """A `RepCSP` after another; both results and both halves of the input are joined (GELAN, arXiv 2402.13616).

    A 3x3 convolution follows each `RepCSP`.
    """

    features: int
    inner: int
    depth: int
    split: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        style = self.style
        x = ConvBNAct(2 * self.features, 1, style=style, name="reduce")(x, train)
        parts = [x[..., : self.features], x[..., self.features :]]
        for i in (1, 2):
            y = RepCSP(self.inner, self.inner, self.depth, self.split, style, name=f"csp{i}")(parts[-1], train)
            parts.append(ConvBNAct(self.inner, 3, style=style, name=f"conv{i}")(y, train))
        return ConvBNAct(self.features, 1, style=style, name="join")(jnp.concatenate(parts, axis=-1), train)


class HybridEncoder(nn.Module):
    """Projects all levels to ``width`` channels, attends at the coarsest, and aggregates down and up.

    Attributes:
      width: channels of every level.
      hidden: features between the two linear layers of the attention's block.
      expansion, depth: of the blocks that join two levels: their inner channels as a share of ``width``, and the number
        of their `RepConv`.
      kind: ``rtdetr`` joins by `RepCSP`, ``dfine`` by `RepELAN` and halves by a separable convolution, ``deimv2`` as
        ``dfine`` does, but levels are added, not concatenated, and the branches of `RepCSP` are split.
      heads: of the attention.
    """

    width: int = 256
    hidden: int = 1024
    expansion: float = 1.0
    depth: int = 3
    kind: str = "rtdetr"
    heads: int = 8
    style: Style = Style(momentum=0.9, epsilon=1e-5)

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, last = self.style, len(features) - 1
        levels = [
            ConvBNAct(self.width, 1, activate=False, style=style, name=f"project{i}")(x, train)
            for i, x in enumerate(features)
        ]
        batch, rows, columns, width = levels[-1].shape
        position = sine_position(rows, columns, width)[None]
        attended = EncoderLayer(self.heads, self.hidden, style, name="attention")(
            levels[-1].reshape(batch, -1, width), position
        )
        levels[-1] = attended.reshape(batch, rows, columns, width)

        plain = self.kind == "rtdetr"
        down = [levels[-1]]
        for i in range(last, 0, -1):
            lateral = ConvBNAct(width, 1, activate=plain, style=style, name=f"lateral{i}")(down[0], train)
            down[0] = lateral
            down.insert(0, self._join(upsample_nearest(lateral), levels[i - 1], f"down{i - 1}", train))
        out = [down[0]]
        for i in range(1, last + 1):
            if plain:
                finer = ConvBNAct(width, 3, 2, style=style, name=f"reduce{i}")(out[-1], train)
            else:
                finer = ConvBNAct(width, 1, activate=False, style=style, name=f"reduce{i}_pointwise")(out[-1], train)
                finer = ConvBNAct(width, 3, 2, width, False, style, name=f"reduce{i}_depthwise")(finer, train)
            out.append(self._join(finer, down[i], f"up{i}", train))
        return tuple(out)

    def _join(self, x: Array, y: Array, name: str, train: bool) -> Array:
        """Joins two levels of the same size; ``x`` comes first."""
        split = self.kind == "deimv2"
        joined = x + y if split else jnp.concatenate([x, y], axis=-1)
        if self.kind == "rtdetr":
            hidden = int(self.width * self.expansion)
            return RepCSP(self.width, hidden, self.depth, style=self.style, name=name)(joined, train)
        inner = round(self.expansion * self.width // 2)
        return RepELAN(self.width, inner, self.depth, split, self.style, name=name)(joined, train)


class LiteEncoder(nn.Module):
    """The neck of the smallest DEIMv2: from one level of stride 16 to two, without attention.

    arXiv 2509.20787, section 3 (lite encoder). The coarse level is pooled from the fine one and gets its mean over all
    places added.
    """

    width: int = 64
    expansion: float = 0.34
    depth: int = 2
    style: Style = Style(momentum=0.9, epsilon=1e-5)

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, width = self.style, self.width
        fine = ConvBNAct(width, 1, activate=False, style=style, name="project0")(features[0], train)
        coarse = ConvBNAct(width, 1, style=style, name="pool1")(average_pool(fine), train)
        coarse += jnp.mean(coarse, axis=(1, 2), keepdims=True)
        coarse = ConvBNAct(width, 1, style=style, name="fuse")(coarse, train)
        inner = round(self.expansion * width // 2)
        fine = RepELAN(width, inner, self.depth, True, style, name="down0")(fine + upsample_nearest(coarse), train)
        pooled = ConvBNAct(width, 1, style=style, name="pool2")(average_pool(fine), train)
        return fine, RepELAN(width, inner, self.depth, True, style, name="up1")(coarse + pooled, train)


def average_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """The mean of 3x3 windows, stride 2; zeros beyond the border count."""
    total = lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return total / 9
