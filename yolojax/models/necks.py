"""Necks: modules that combine the features of all levels before the head."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import CSPBlock, Features, upsample_nearest
from yolojax.models.layers import ConvBNAct, Style


class FPN(nn.Module):
    """Feature pyramid (arXiv 1612.03144): top-down, levels added; every level leaves with ``features`` channels."""

    features: int = 64
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        out = []
        for i in reversed(range(len(features))):
            x = ConvBNAct(self.features, 1, style=self.style, name=f"lateral{i}")(features[i], train)
            if out:
                x = x + upsample_nearest(out[0])
                x = ConvBNAct(self.features, 3, style=self.style, name=f"smooth{i}")(x, train)
            out.insert(0, x)
        return tuple(out)


class PAN(nn.Module):
    """Path aggregation (arXiv 1803.01534) in the YOLO manner: top-down, then bottom-up, levels concatenated.

    ``widths`` gives the channels of each level, finest first, on the way down and out; ``depth`` the bottlenecks of
    each joining `CSPBlock`.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    depth: int = 1
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style = self.style
        down = [features[-1]]
        for i in reversed(range(len(features) - 1)):
            x = jnp.concatenate([upsample_nearest(down[0]), features[i]], axis=-1)
            down.insert(0, CSPBlock(self.widths[i], self.depth, False, style, name=f"down{i}")(x, train))
        out = [down[0]]
        for i in range(1, len(features)):
            x = ConvBNAct(self.widths[i - 1], 3, 2, style=style, name=f"reduce{i}")(out[-1], train)
            x = jnp.concatenate([x, down[i]], axis=-1)
            out.append(CSPBlock(self.widths[i], self.depth, False, style, name=f"up{i}")(x, train))
        return tuple(out)


class Identity(nn.Module):
    """No neck: the features as they are."""

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        return tuple(features)
