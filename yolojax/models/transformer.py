"""What detection transformers are made of: attention over queries, deformable attention, normalisation, position.

Vaswani et al., arXiv 1706.03762; Deformable DETR, arXiv 2010.04159.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, DTypeLike, Float

from yolojax.models.layers import ACTIVATIONS, Activation, Style, kernel_init

Shapes = Sequence[tuple[int, int]]
"""Rows and columns of each level of a flattened pyramid, in its order."""

NORM_EPSILON = 1e-5
"""Added to the variance by LayerNorm."""

HIDDEN = -1e9
"""The logit of a key that a query may not see; finite, so that a query that sees none gives a number."""

MOST_REFERENCE = 1e-5
"""`inverse_sigmoid` treats numbers nearer to 0 or 1 as this far away."""


def dense(features: int, dtype: DTypeLike, name: str, bias: float = 0.0) -> nn.Dense:
    """A linear layer with a bias that begins with this number; its kernel is drawn as those of convolutions are.

    `yolojax.models.network.init_variables` draws the kernels of all of them at once.
    """
    return nn.Dense(features, dtype=dtype, kernel_init=kernel_init, bias_init=_filled_with(bias), name=name)


def constant_dense(features: int, dtype: DTypeLike, name: str, bias: float | Array = 0.0) -> nn.Dense:
    """A linear layer that returns ``bias``, a number or one for each feature, until it is trained."""
    zeros = nn.initializers.zeros
    return nn.Dense(features, dtype=dtype, kernel_init=zeros, bias_init=_filled_with(bias), name=name)


def _filled_with(value: float | Array) -> Callable[..., Array]:
    """An initialiser that draws nothing."""

    def fill(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        del key
        return jnp.broadcast_to(jnp.asarray(value, dtype), shape)

    return fill


def layer_norm(style: Style, name: str) -> nn.LayerNorm:
    """LayerNorm (arXiv 1607.06450) whose statistics are computed in float32."""
    return nn.LayerNorm(epsilon=NORM_EPSILON, dtype=style.dtype, name=name)


def logit(probability: float) -> float:
    """The number whose sigmoid is ``probability``: the bias of a classifier that expects so many positives."""
    return math.log(probability / (1 - probability))


def inverse_sigmoid(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """``log(x / (1 - x))`` with ``x`` and ``1 - x`` at least `MOST_REFERENCE`."""
    x = jnp.clip(x, 0.0, 1.0)
    return jnp.log(jnp.maximum(x, MOST_REFERENCE) / jnp.maximum(1 - x, MOST_REFERENCE))


class MLP(nn.Module):
    """Linear layers with an activation between; ``widths`` has the features of each.

    The last one returns 0 until it is trained if ``start_at_zero``.
    """

    widths: Sequence[int]
    activation: Activation = "relu"
    start_at_zero: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b I"]) -> Float[Array, "*b O"]:
        last = len(self.widths) - 1
        for i, width in enumerate(self.widths):
            layer = constant_dense if self.start_at_zero and i == last else dense
            x = layer(width, self.dtype, f"layer{i}")(x)
            x = x if i == last else ACTIVATIONS[self.activation](x)
        return x


class SelfAttention(nn.Module):
    """Attention of a set on itself (arXiv 1706.03762, section 3.2.2), in ``heads`` heads.

    Queries and keys are made of ``x + position``, values of ``x``. ``visible[b, i, j]`` says whether query ``i`` sees
    key ``j``. The softmax is computed in float32.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], position: Float[Array, "#B N D"], visible: Bool[Array, "#B N N"] | None = None
    ) -> Float[Array, "B N D"]:
        width = x.shape[-1]
        placed = x + position.astype(x.dtype)
        query, key, value = (
            dense(width, self.dtype, name)(given).reshape(*x.shape[:2], self.heads, width // self.heads)
            for name, given in (("query", placed), ("key", placed), ("value", x))
        )
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32) / math.sqrt(width // self.heads)
        if visible is not None:
            logits = jnp.where(visible[:, None], logits, HIDDEN)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        return dense(width, self.dtype, "out")(attended)


def deformable_attention(
    values: Float[Array, "B N H D"],
    shapes: Shapes,
    locations: Float[Array, "B Q H P 2"],
    weights: Float[Array, "B Q H P"],
    points: Sequence[int],
) -> Float[Array, "B Q H*D"]:
    """Multi-scale deformable attention: a weighted sum of values at sampled places (arXiv 2010.04159, equation 3).

    Args:
      values: of all places, level by level, each row by row, in ``H`` heads.
      shapes: rows and columns of each level; their products sum up to ``N``.
      locations: ``(x, y)`` of each sampled point as fractions of the image, 0 at its left and upper edge. The centre of
        a level's first place lies at half of a place from them. Values are interpolated bilinearly; outside of the
        image they are 0.
      weights: of each sampled point.
      points: how many of the ``P`` points, which are in the order of the levels, lie on each level.
    """
    batch, count, heads, _ = locations.shape[:4]
    places, shares = [], []
    first_place = first_point = 0
    for (rows, columns), n in zip(shapes, points, strict=True):
        at = locations[..., first_point : first_point + n, :].astype(jnp.float32)
        weight = weights[..., first_point : first_point + n].astype(jnp.float32)
        # Beyond one place outside of the map everything is 0, and a limit keeps the conversion to integers exact.
        x = jnp.clip(at[..., 0] * columns - 0.5, -1.0, float(columns))
        y = jnp.clip(at[..., 1] * rows - 0.5, -1.0, float(rows))
        left, top = jnp.floor(x), jnp.floor(y)
        for below in (0, 1):
            for right in (0, 1):
                column, row = (left + right).astype(jnp.int32), (top + below).astype(jnp.int32)
                share = (1 - jnp.abs(x - (left + right))) * (1 - jnp.abs(y - (top + below))) * weight
                inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
                shares.append(jnp.where(inside, share, 0.0))
                places.append(jnp.where(inside, first_place + row * columns + column, 0))
        first_place, first_point = first_place + rows * columns, first_point + n
    place = jnp.concatenate(places, axis=-1).transpose(0, 2, 1, 3).reshape(batch, heads, -1)
    share = jnp.concatenate(shares, axis=-1)
    found = jax.vmap(jax.vmap(lambda table, rows: table[rows]))(values.transpose(0, 2, 1, 3), place)
    found = found.reshape(batch, heads, count, share.shape[-1], values.shape[-1])
    attended = jnp.einsum("bhqpd,bqhp->bqhd", found, share.astype(found.dtype))
    return attended.reshape(batch, count, heads * values.shape[-1])


def offset_bias(heads: int, points: Sequence[int]) -> Float[Array, " n"]:
    """The first sampling offsets: each head looks into a direction of its own, its points one after another.

    arXiv 2010.04159, section A.4. In the order head, point, ``(x, y)``.
    """
    angles = jnp.arange(heads, dtype=jnp.float32) * (2 * math.pi / heads)
    directions = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    directions /= jnp.abs(directions).max(axis=-1, keepdims=True)
    steps = jnp.concatenate([jnp.arange(1, n + 1, dtype=jnp.float32) for n in points])
    return (directions[:, None, :] * steps[None, :, None]).reshape(-1)


class DeformableAttention(nn.Module):
    """Attention of queries to a pyramid, at points around each query's reference box (arXiv 2010.04159, section 4.1).

    A point lies at ``centre + offset * size / (2 n)`` where ``n`` is the number of points of its level and offset is
    predicted from the query. ``project`` adds linear layers for the values and for the result, as in RT-DETR; D-FINE
    has none.
    """

    heads: int
    points: Sequence[int]
    project: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B Q D"],
        references: Float[Array, "B Q 4"],
        memory: Float[Array, "B N D"],
        shapes: Shapes,
    ) -> Float[Array, "B Q D"]:
        batch, count, width = queries.shape
        total = sum(self.points)
        values = dense(width, self.dtype, "value")(memory) if self.project else memory
        values = values.reshape(*memory.shape[:2], self.heads, width // self.heads)
        bias = offset_bias(self.heads, self.points)
        offsets = constant_dense(2 * self.heads * total, self.dtype, "offsets", bias)(queries)
        offsets = offsets.astype(jnp.float32).reshape(batch, count, self.heads, total, 2)
        weights = constant_dense(self.heads * total, self.dtype, "weights")(queries)
        weights = jax.nn.softmax(weights.astype(jnp.float32).reshape(batch, count, self.heads, total), axis=-1)
        per_point = jnp.asarray([0.5 / n for n in self.points for _ in range(n)], jnp.float32)
        references = references[:, :, None, None, :]
        locations = references[..., :2] + offsets * per_point[None, None, None, :, None] * references[..., 2:]
        attended = deformable_attention(values, shapes, locations, weights, self.points)
        return dense(width, self.dtype, "out")(attended) if self.project else attended


def sine_position(rows: int, columns: int, width: int, temperature: float = 10_000.0) -> Float[Array, "N D"]:
    """The position of every place of a map, row by row, as sines and cosines: half of the channels for its row.

    arXiv 1706.03762, section 3.5, in two dimensions. The row comes first, as in RT-DETR's published weights.
    ``width`` must be a multiple of 4.
    """
    rates = temperature ** -(jnp.arange(width // 4, dtype=jnp.float32) / (width // 4))
    row = jnp.repeat(jnp.arange(rows, dtype=jnp.float32), columns)[:, None] * rates[None]
    column = jnp.tile(jnp.arange(columns, dtype=jnp.float32), rows)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(row), jnp.cos(row), jnp.sin(column), jnp.cos(column)], axis=-1)


class EncoderLayer(nn.Module):
    """Self-attention and two linear layers, each with the identity around it and LayerNorm after it."""

    heads: int
    hidden: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], position: Float[Array, "1 N D"]) -> Float[Array, "B N D"]:
        style = self.style
        x = layer_norm(style, "attention_norm")(
            x + SelfAttention(self.heads, style.dtype, name="attention")(x, position)
        )
        hidden = jax.nn.gelu(dense(self.hidden, style.dtype, "expand")(x), approximate=False)
        return layer_norm(style, "norm")(x + dense(x.shape[-1], style.dtype, "reduce")(hidden))


class RMSNorm(nn.Module):
    """Divides by the root of the mean square, in float32 (arXiv 1910.07467), and scales each channel."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        wide = x.astype(jnp.float32)
        wide *= jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.epsilon)
        return wide.astype(x.dtype) * scale.astype(x.dtype).reshape(*[1] * (x.ndim - 1), -1)


def flatten_pyramid(features: Sequence[Float[Array, "B _h _w D"]]) -> tuple[Float[Array, "B N D"], Shapes]:
    """The places of all levels along one axis, level by level and row by row, and the levels' rows and columns."""
    shapes = [(level.shape[1], level.shape[2]) for level in features]
    flat = [level.reshape(level.shape[0], -1, level.shape[-1]) for level in features]
    return jnp.concatenate(flat, axis=1), shapes
