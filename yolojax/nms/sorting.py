"""Stable orders of scores and classes by integer keys, and searches in masks that are packed into 32-bit words.

On a CPU, XLA sorts single integers natively and pairs through a compiled comparison, which takes about seven times as
long (8400 scores: 0.2 against 1.4 ms). There a stable order is therefore found digit by digit: each digit is sorted
together with the position that it came from, in one 32-bit integer.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from yolojax.processor.platform import by_platform

_TOP_BIT = np.uint32(1 << 31)

_MOST_COMPARED = 1 << 18
"""Pairs of slots and words up to which `first_set` compares all: bisection is a loop, of which each step is dear."""


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
    # Throughout this package constants are made from an array of the input: `jax.shard_map` must know that a constant
    # differs between devices where a loop or a branch replaces it by something that does.
    positions = jnp.zeros_like(keys, dtype=jnp.int32) + lax.broadcasted_iota(jnp.int32, keys.shape, keys.ndim - 1)
    if keys.shape[-1] < 2 or bits == 0:
        return positions
    return by_platform(
        keys,
        positions,
        cpu=partial(_order_by_digits, bits=bits),
        default=lambda keys, positions: lax.sort((keys, positions), num_keys=1, is_stable=True)[1],
    )


def _order_by_digits(keys: UInt32[Array, "*b n"], positions: Int[Array, "*b n"], *, bits: int) -> Int[Array, "*b n"]:
    position_bits = (keys.shape[-1] - 1).bit_length()
    digit_bits = 32 - position_bits
    order, positions = positions, positions.astype(jnp.uint32)
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
    """The positions of the first ``size`` True entries, and which of those exist; missing ones are 0."""
    return first_set(words_of(mask), size)


def words_of(mask: Bool[Array, " n"]) -> UInt32[Array, " w"]:
    """The mask as bits, 32 entries to a word, the first lowest; the last word is filled up with zeros.

    XLA computes the mask and the words in one pass on a CPU, and does not write the mask to memory.
    """
    words = jnp.pad(mask, (0, -mask.shape[0] % 32)).reshape(-1, 32)
    return jnp.sum(jnp.where(words, bits(32)[None], 0), axis=1, dtype=jnp.uint32)


def bits(n: int) -> UInt32[Array, " {n}"]:
    """``2**i``. Computed, since an array of constants cannot be mapped inside `jax.custom_batching.custom_vmap`."""
    return lax.shift_left(lax.full((n,), 1, jnp.uint32), lax.iota(jnp.uint32, n))


def count_set(words: UInt32[Array, "*b w"]) -> Int[Array, "*b"]:
    """How many bits of the words are set."""
    return lax.population_count(words).astype(jnp.int32).sum(-1)


def first_set(words: UInt32[Array, " w"], size: int) -> tuple[Int[Array, " {size}"], Bool[Array, " {size}"]]:
    """`first_true` of a mask that is given by its words.

    A running count over all entries would dominate the cost of the search. Words are counted instead: the word of each
    slot is found by comparison with all of them, or by bisection where they are many; halving finds the entry within
    the word.
    """
    slots = jnp.arange(size, dtype=jnp.int32)
    if len(words) == 0:
        return jnp.zeros_like(slots), jnp.zeros(size, bool)
    counts = lax.population_count(words).astype(jnp.int32)
    ends = by_platform(counts, cpu=_running_sum, default=jnp.cumsum)
    exists = slots < ends[-1]
    method = "compare_all" if len(words) * size <= _MOST_COMPARED else "scan"
    found = jnp.searchsorted(ends, slots, side="right", method=method).astype(jnp.int32)
    word = jnp.minimum(found, len(words) - 1)
    rest, skip = words[word], slots - (ends - counts)[word]
    position = word * 32
    for width in (16, 8, 4, 2, 1):
        below = lax.population_count(rest & np.uint32((1 << width) - 1)).astype(jnp.int32)
        upper = skip >= below
        position += jnp.where(upper, width, 0)
        skip -= jnp.where(upper, below, 0)
        rest = jnp.where(upper, rest >> width, rest)
    return jnp.where(exists, position, 0), exists


def _running_sum(x: Int[Array, " n"]) -> Int[Array, " n"]:
    """``jnp.cumsum`` in few operations: sums within pieces of 32, then of the pieces.

    JAX writes a running sum out as a tree of slices, of which a CPU compiles each level by itself.
    """
    n = x.shape[0]
    earlier = jnp.tril(jnp.ones((32, 32), jnp.int32))[None]
    pieces = jnp.pad(x, (0, -n % 32)).reshape(-1, 1, 32)
    within = jnp.sum(pieces * earlier, axis=-1)
    if n > 32:
        totals = within[:, -1]
        within += (_running_sum(totals) - totals)[:, None]
    return within.reshape(-1)[:n]


def any_of_rows(mask: Bool[Array, "n c"]) -> Bool[Array, " n"]:
    """``mask.any(-1)``, computed on a CPU without writing the mask to memory.

    XLA splits the reduction of rows of more than 32 entries and writes its input to memory first; it fuses the counts
    of shorter pieces with their input.
    """
    n, length = mask.shape
    piece = max(k for k in range(1, 33) if length % k == 0)
    if piece == 1:
        return mask.any(-1)
    counts = jnp.sum(mask.reshape(-1, piece), axis=1, dtype=jnp.uint32)
    return (counts > 0).reshape(n, -1).any(-1)
