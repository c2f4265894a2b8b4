"""What assignment does in another way on a TPU: numbers are read by products, and sorted as columns.

A TPU reads single numbers one after another, and its sort wants what it sorts below each other, with the rows side by
side in its lanes. Left to themselves its compiler's layouts turn an array of objects by predictions three times for one
`jax.lax.top_k`.
"""

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float, Int, Shaped

from yolojax.processor.platform import by_platform

_SURE = 200.0
"""No two logits beyond it have different sigmoids in float32."""


def logits_by_product(class_logits: Float[Array, "B N C"], label: Int[Array, "B M"]) -> Float[Array, "B M N"]:
    """What each prediction says of the class of each object, bounded to +-200; -200 in the place of NaN."""
    # A product adds the other classes times 0, which must be finite.
    bounded = jnp.where(jnp.isnan(class_logits), -_SURE, jnp.clip(class_logits, -_SURE, _SURE))
    is_label = label[:, None, :] == jnp.arange(class_logits.shape[-1])[None, :, None]
    found = jnp.matmul(bounded, is_label.astype(bounded.dtype), precision=jax.lax.Precision.HIGHEST)
    return jnp.swapaxes(found, 1, 2)


def largest_by_sorting(x: Float[Array, "B M N"], k: int) -> tuple[Float[Array, "B M k"], Int[Array, "B M k"]]:
    """`jax.lax.top_k`: the ``k`` largest numbers of each row and their places; of equal ones the first."""
    columns = lie_as_written(-jnp.swapaxes(x, 1, 2))
    place = lie_as_written(jax.lax.broadcasted_iota(jnp.int32, columns.shape, 1))
    found = jax.lax.sort((columns, place), dimension=1, num_keys=1)
    value, place = (jnp.swapaxes(lie_as_written(a)[:, :k], 1, 2) for a in found)
    return -value, place


def lie_as_written(x: Shaped[Array, "_ _ _"]) -> Shaped[Array, "_ _ _"]:
    """The same array, whose last axis a TPU keeps in its lanes; elsewhere the compiler chooses."""

    def tell(x: Array) -> Array:
        return with_layout_constraint(x, Layout((0, 1, 2)))

    return by_platform(x, default=lambda x: x, tpu=tell)
