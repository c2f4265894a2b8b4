"""Blocks of layers that backbones and necks share."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from yolojax.models.layers import ConvBNAct, Style


class Bottleneck(nn.Module):
    """Two 3x3 convolutions and, if ``shortcut``, the identity (arXiv 1512.03385).

    The first has ``hidden`` channels: by default as many as the second, as in YOLOv8.
    """

    features: int
    shortcut: bool = True
    style: Style = Style()
    hidden: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        y = ConvBNAct(self.hidden or self.features, 3, style=self.style, name="conv1")(x, train)
        y = ConvBNAct(self.features, 3, style=self.style, name="conv2")(y, train)
        return x + y if self.shortcut else y


class CSPBlock(nn.Module):
    """Cross-stage partial block (arXiv 1911.11929) that joins the output of every bottleneck, as in ELAN and YOLOv8.

    A 1x1 convolution makes two halves; ``depth`` bottlenecks run one after another on the second; a 1x1 convolution
    joins both halves and what each bottleneck gave.
    """

    features: int
    depth: int = 1
    shortcut: bool = True
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        hidden = self.features // 2
        x = ConvBNAct(2 * hidden, 1, style=self.style, name="split")(x, train)
        parts = [x[..., :hidden], x[..., hidden:]]
        for i in range(self.depth):
            parts.append(Bottleneck(hidden, self.shortcut, self.style, name=f"bottleneck{i}")(parts[-1], train))
        return ConvBNAct(self.features, 1, style=self.style, name="join")(jnp.concatenate(parts, axis=-1), train)


def max_pool(
    x: Float[Array, "B H W C"],
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> Float[Array, "B h w C"]:
    """Maximum over windows of ``(rows, columns)``; padding never wins."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0)))


def max_pool_same(x: Float[Array, "B H W C"], size: int) -> Float[Array, "B H W C"]:
    """Maximum over a ``size x size`` window, stride 1, borders excluded: rows first, then columns.

    The gradient goes to the first of equal maxima. Raises `ValueError` for an even ``size``.
    """
    if size % 2 == 0:
        raise ValueError(f"size = {size}: give an odd number, whose window has a middle")
    return _line_max(_line_max(x, size, 1), size, 2)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _line_max(x: Float[Array, "B H W C"], size: int, axis: int) -> Float[Array, "B H W C"]:
    """Maximum over ``size`` neighbours along an axis, with a derivative that is made of selections alone.

    XLA's own derivative of a window's maximum scatters: on a GPU five times the memory of ``x``, on a TPU without an
    estimate of its compiler.
    """
    rows, columns = (size, 1) if axis == 1 else (1, size)
    return max_pool(x, (rows, columns), (1, 1), ((rows // 2, rows // 2), (columns // 2, columns // 2)))


@_line_max.defjvp
def _line_max_jvp(size: int, axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # A wide window is several narrow ones after another, which compares far less, and finds the same first maximum.
    x, slope = primals[0], tangents[0]
    for reach in [2] * (size // 4) + [1] * (size // 2 % 2):
        x, slope = _narrow_max(x, slope, 2 * reach + 1, axis)
    return x, slope


def _narrow_max(x: Array, slope: Array, size: int, axis: int) -> tuple[Array, Array]:
    first, *others = _neighbours(x, size, axis, -jnp.inf)
    largest, place = first, jnp.zeros(first.shape, jnp.int8)
    for index, other in enumerate(others, start=1):
        wins = (other > largest) | jnp.isnan(other)
        largest, place = jnp.where(wins, other, largest), jnp.where(wins, jnp.int8(index), place)
    moved = enumerate(_neighbours(slope, size, axis, 0.0))
    return largest, sum((jnp.where(place == index, of_one, 0) for index, of_one in moved), start=jnp.zeros_like(slope))


def _neighbours(x: Array, size: int, axis: int, beyond: float) -> list[Array]:
    """``x`` moved along an axis by each step from ``-(size // 2)`` to ``size // 2``; ``beyond`` lies outside of it."""
    reach = [(0, 0, 0)] * 4
    reach[axis] = (size // 2, size // 2, 0)
    wide = lax.pad(x, jnp.asarray(beyond, x.dtype), reach)
    return [lax.slice_in_dim(wide, start, start + x.shape[axis], axis=axis) for start in range(size)]


def cross_stage(
    x: Float[Array, "B H W I"],
    train: bool,
    features: int,
    depth: int,
    inner: Callable[[int, str], nn.Module],
    style: Style,
) -> Float[Array, "B H W O"]:
    """A cross-stage partial block with three convolutions (arXiv 1911.11929); call it in a module's compact method.

    Two 1x1 convolutions make two branches of half the ``features``; on the first follow ``depth`` blocks that
    ``inner(features, name)`` makes; a 1x1 convolution joins both.
    """
    hidden = features // 2
    main = ConvBNAct(hidden, 1, style=style, name="main")(x, train)
    side = ConvBNAct(hidden, 1, style=style, name="side")(x, train)
    for i in range(depth):
        main = inner(hidden, f"bottleneck{i}")(main, train)
    return ConvBNAct(features, 1, style=style, name="join")(jnp.concatenate([main, side], axis=-1), train)


class SPPF(nn.Module):
    """Spatial pyramid pooling (arXiv 1406.4729) as three 5x5 max pools in a row, which see windows of 5, 9 and 13.

    With ``residual``, as in YOLO26, the first convolution has no activation and the input is added to the result.
    """

    features: int
    style: Style = Style()
    residual: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        width, style = x.shape[-1] // 2, self.style
        parts = [ConvBNAct(width, 1, activate=not self.residual, style=style, name="reduce")(x, train)]
        for _ in range(3):
            parts.append(max_pool_same(parts[-1], 5))
        y = ConvBNAct(self.features, 1, style=style, name="join")(jnp.concatenate(parts, axis=-1), train)
        return x + y if self.residual else y


def upsample_nearest(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Twice the height and width, every value repeated."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def space_to_depth(x: Float[Array, "B H W C"], block: int = 2) -> Float[Array, "B h w c"]:
    """Every ``block x block`` square of pixels becomes one, its channels in the order row, column, channel."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // block, block, width // block, block, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // block, width // block, block * block * channels)


Features = Sequence[Float[Array, "B _h _w _c"]]
"""Feature maps of one batch, finest first."""
