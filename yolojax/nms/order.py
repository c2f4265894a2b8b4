"""Stable orders of scores and classes, by integer keys that compare like them.

XLA sorts pairs on a CPU through a compiled comparison called per pair, and lone integers natively, about seven times
faster (8400 scores: 1.4 against 0.2 ms). There a stable order is found digit by digit, each digit sorted together with
the position that it came from in one 32-bit integer.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

_TOP_BIT = np.uint32(1 << 31)


def score_keys(scores: Float[Array, "*n"], valid: Bool[Array, "*n"]) -> UInt32[Array, "*n"]:
    """Keys that rise as scores fall; every row that is not ``valid`` has the largest key, 2**32 - 1.

    Equal scores have equal keys, zeros of either sign included. Scores of valid rows must be finite.
    """
    scores = scores.astype(jnp.float32)
    bits = lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.uint32)
    falling = jnp.where(bits >= _TOP_BIT, bits, ~bits - _TOP_BIT)
    return jnp.where(valid, falling, np.uint32(2**32 - 1))


def ascending_order(keys: UInt32[Array, "*b n"], bits: int = 32) -> Int[Array, "*b n"]:
    """The indices that sort the last axis, equal keys by position. Keys must be below ``2**bits``."""
    if keys.shape[-1] < 2 or bits == 0:
        return jnp.broadcast_to(jnp.arange(keys.shape[-1]), keys.shape)
    return lax.platform_dependent(
        keys,
        cpu=lambda keys: _order_by_digits(keys, bits),
        default=lambda keys: jnp.argsort(keys, axis=-1, stable=True),
    )


def _order_by_digits(keys: UInt32[Array, "*b n"], bits: int) -> Int[Array, "*b n"]:
    n = keys.shape[-1]
    position_bits = (n - 1).bit_length()
    digit_bits = 32 - position_bits
    positions = lax.broadcasted_iota(jnp.uint32, keys.shape, keys.ndim - 1)
    order = positions.astype(jnp.int32)
    for low in range(0, bits, digit_bits):
        # The highest digit may take fewer bits; those above `bits` are 0.
        digit = (jnp.take_along_axis(keys, order, -1) >> low) << position_bits
        # Signed integers take the native path too, and sort like unsigned ones once the top bit is flipped.
        packed = lax.bitcast_convert_type((digit | positions) ^ _TOP_BIT, jnp.int32)
        packed = lax.bitcast_convert_type(lax.sort(packed, dimension=-1), jnp.uint32)
        source = (packed & np.uint32((1 << position_bits) - 1)).astype(jnp.int32)
        order = jnp.take_along_axis(order, source, -1)
    return order


def first_true(mask: Bool[Array, " n"], size: int) -> tuple[Int[Array, " {size}"], Bool[Array, " {size}"]]:
    """The positions of the first ``size`` True entries, and which of them exist; the others are 0."""
    rank = jnp.cumsum(mask) - 1
    slot = jnp.where(mask & (rank < size), rank, size)
    positions = jnp.zeros(size, jnp.int32).at[slot].set(jnp.arange(mask.shape[0], dtype=jnp.int32), mode="drop")
    return positions, jnp.arange(size) <= (rank[-1] if mask.shape[0] else -1)
