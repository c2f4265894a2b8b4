"""The neck of YOLO26, whose coarsest block has attention; its backbone is that of YOLO11."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Bottleneck, Features
from yolojax.models.layers import ConvBNAct, Style
from yolojax.models.necks import aggregate_paths
from yolojax.models.yolo11 import AttentionBlock, C3k2


class AttentiveCSP(nn.Module):
    """A cross-stage block around one bottleneck of half the channels and an `AttentionBlock`, one after the other."""

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        hidden, style = self.features // 2, self.style
        x = ConvBNAct(2 * hidden, 1, style=style, name="split")(x, train)
        y = Bottleneck(hidden, style=style, hidden=hidden // 2, name="bottleneck")(x[..., hidden:], train)
        y = AttentionBlock(style, name="block")(y, train)
        return ConvBNAct(self.features, 1, style=style, name="join")(jnp.concatenate([x, y], axis=-1), train)


class YOLO26Neck(nn.Module):
    """Path aggregation (`yolojax.models.necks.aggregate_paths`) with nested `C3k2`, and at last `AttentiveCSP`."""

    widths: Sequence[int]
    depth: int = 1
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, last = self.style, len(features) - 1

        def join(x: Array, level: int, name: str) -> Array:
            if name == f"up{last}":
                return AttentiveCSP(self.widths[level], style, name=name)(x, train)
            return C3k2(self.widths[level], self.depth, True, style=style, name=name)(x, train)

        def reduce(x: Array, level: int) -> Array:
            return ConvBNAct(self.widths[level - 1], 3, 2, style=style, name=f"reduce{level}")(x, train)

        return aggregate_paths(features, join, reduce)
