"""Necks: modules that combine the features of all levels before the head."""

from collections.abc import Callable

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


def aggregate_paths(
    features: Features,
    join: Callable[[Array, int, str], Array],
    reduce: Callable[[Array, int], Array],
) -> tuple[Float[Array, "B _h _w _c"], ...]:
    """Path aggregation (arXiv 1803.01534) in the YOLO manner: top-down, then bottom-up, levels concatenated.

    Args:
      features: finest first; each level has half the height and width of the one before it.
      join: ``(map, level, name)``: the block after a concatenation. Its name is ``down`` or ``up`` and the level.
      reduce: ``(map, level)``: halves the map of the level before ``level`` on the way back.
    """
    down = [features[-1]]
    for i in reversed(range(len(features) - 1)):
        down.insert(0, join(jnp.concatenate([upsample_nearest(down[0]), features[i]], axis=-1), i, f"down{i}"))
    out = [down[0]]
    for i in range(1, len(features)):
        out.append(join(jnp.concatenate([reduce(out[-1], i), down[i]], axis=-1), i, f"up{i}"))
    return tuple(out)


class PAN(nn.Module):
    """Path aggregation (`aggregate_paths`) with `CSPBlock` and convolutions of stride 2.

    ``widths`` gives the channels of each level, finest first, on the way down and out; ``depth`` the bottlenecks of
    each joining `CSPBlock`.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    depth: int = 1
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style = self.style

        def join(x: Array, level: int, name: str) -> Array:
            return CSPBlock(self.widths[level], self.depth, False, style, name=name)(x, train)

        def reduce(x: Array, level: int) -> Array:
            return ConvBNAct(self.widths[level - 1], 3, 2, style=style, name=f"reduce{level}")(x, train)

        return aggregate_paths(features, join, reduce)


class Identity(nn.Module):
    """No neck: the features as they are."""

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        return tuple(features)
