"""Exact greedy suppression for CPUs: tiles of rows against the list of the boxes kept so far.

The textbook loop (keep a box, strike out what overlaps it) reads all rows for every kept box. Here the rows are taken
32 at a time: each tile is compared with the boxes kept so far, 32 x 32 pairs at once, and then settled within itself
by 32 steps on bit masks. Only pairs of a row and an earlier *kept* box are ever computed, and they fill vector lanes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from yolojax.nms.order import ascending_order, bits
from yolojax.nms.rows import Overlap, Rows, overlaps_by_area, suppresses

TILE = 32
"""Rows to a tile: one bit each of a 32-bit mask, and the longest reduction that XLA:CPU fuses with its input."""


class _Packed(NamedTuple):
    """`Rows` with their coordinates and areas in one array.

    A step of the loop is then few operations. On a CPU the runtime hands out a step of many operations on more than a
    few hundred bytes to several threads, which cost more than the work: .18 ms instead of .06 for 100 boxes.
    """

    numbers: Float[Array, "5 n"]
    classes: Int[Array, " n"] | None

    def tile(self, index: Int[Array, ""]) -> Rows:
        """The rows of one tile."""
        start = index * TILE
        numbers = lax.dynamic_slice(self.numbers, (0, start), (5, TILE))
        classes = None if self.classes is None else lax.dynamic_slice(self.classes, (start,), (TILE,))
        return Rows(*(numbers[i] for i in range(5)), classes)  # pyright: ignore[reportCallIssue]


class _State(NamedTuple):
    tile: Int[Array, ""]
    kept: _Packed
    n_kept: Int[Array, ""]
    keep: Bool[Array, " n"]


def keep_by_tiles(
    rows: Rows,
    count: Int[Array, ""],
    threshold: Float[Array, ""],
    *,
    limit: int | None,
    by_class: bool,
    overlaps: Overlap = overlaps_by_area,
) -> Bool[Array, " n"]:
    """Which of the first ``count`` rows greedy suppression keeps.

    Args:
      rows: boxes in the order in which they are considered, ``[n]``.
      count: how many rows there are; those behind are padding.
      threshold: float32; an overlap above it suppresses.
      limit: stop when at least this many are kept; rows behind the last tile read count as not kept.
      by_class: whether rows are sorted by class first. Then tiles of earlier classes need no comparison.
    """
    n = rows.x1.shape[0]
    padded = -(-n // TILE) * TILE
    packed = _pack(rows.map(lambda x: jnp.pad(x, (0, padded - n))))
    earlier = jnp.triu(jnp.ones((TILE, TILE), bool), 1)
    bit = bits(TILE)

    def settle(state: _State) -> _State:
        start = state.tile * TILE
        tile = packed.tile(state.tile)
        alive = start + jnp.arange(TILE) < count

        def compare(carry):
            i, alive = carry
            block = state.kept.tile(i)
            hit = suppresses(block.map(lambda x: x[:, None]), tile.map(lambda x: x[None]), threshold, overlaps)
            # Slots behind the end of the list hold empty boxes, which overlap nothing.
            return i - 1, alive & ~hit.any(0)

        def more(carry):
            i, _ = carry
            if not by_class or tile.classes is None or state.kept.classes is None:
                return i >= 0
            # The list is sorted by class as well: stop at the first block that ends before the tile's first class.
            last = jnp.minimum((i + 1) * TILE, state.n_kept) - 1
            return (i >= 0) & (state.kept.classes[jnp.maximum(last, 0)] >= tile.classes[0])

        _, alive = lax.while_loop(more, compare, ((state.n_kept - 1) // TILE, alive))
        within = suppresses(tile.map(lambda x: x[:, None]), tile.map(lambda x: x[None]), threshold, overlaps) & earlier
        kept_bits = _settle_within(within, alive)
        kept_here = (kept_bits & bit) != 0

        rank = lax.population_count(kept_bits & (bit - 1)).astype(jnp.int32)
        slot = jnp.where(kept_here, state.n_kept + rank, padded)
        kept = jax.tree.map(
            lambda old, new: old.at[..., slot].set(new, mode="drop", unique_indices=True), state.kept, _pack(tile)
        )
        keep = lax.dynamic_update_slice(state.keep, kept_here, (start,))
        n_kept = state.n_kept + lax.population_count(kept_bits).astype(jnp.int32)
        return _State(state.tile + 1, kept, n_kept, keep)

    def unfinished(state: _State):
        going = state.tile * TILE < count
        return going if limit is None else going & (state.n_kept < limit)

    zero = jnp.zeros_like(count)
    start = _State(zero, jax.tree.map(jnp.zeros_like, packed), zero, jnp.zeros_like(packed.numbers[0], dtype=bool))
    return lax.while_loop(unfinished, settle, start).keep[:n]


def _pack(rows: Rows) -> _Packed:
    return _Packed(jnp.stack(rows[:5]), rows.classes)


def keep_class_by_class(
    rows: Rows,
    count: Int[Array, ""],
    threshold: Float[Array, ""],
    *,
    n_classes: int,
    overlaps: Overlap = overlaps_by_area,
) -> Bool[Array, " n"]:
    """As `keep_by_tiles` without a limit, for rows with classes ``0 .. n_classes - 1`` in any order.

    Sorted by class for the time being, so that only pairs of one class are computed.
    """
    assert rows.classes is not None
    alive = jnp.arange(rows.classes.shape[0]) < count
    order = ascending_order(jnp.where(alive, rows.classes, n_classes).astype(jnp.uint32), n_classes.bit_length())
    keep = keep_by_tiles(rows.map(lambda x: x[order]), count, threshold, limit=None, by_class=True, overlaps=overlaps)
    return jnp.zeros_like(keep).at[order].set(keep, unique_indices=True)


def _settle_within(within: Bool[Array, "t t"], alive: Bool[Array, " t"]) -> UInt32[Array, ""]:
    """Greedy suppression inside a tile, as a mask of one bit per row kept.

    ``within[i, j]`` tells that row i, if kept, suppresses the later row j.
    """
    bit = bits(TILE)
    suppressors = jnp.sum(jnp.where(within, bit[:, None], 0), axis=0, dtype=jnp.uint32)
    alive_bits = jnp.sum(jnp.where(alive, bit, 0), dtype=jnp.uint32)

    # A loop, although it could be written out: XLA would repeat those steps inside every use of the result.
    def step(row, kept):
        free = (suppressors[row] & kept) == 0
        return kept | jnp.where(free, alive_bits & bit[row], jnp.uint32(0))

    return lax.fori_loop(0, TILE, step, jnp.zeros_like(alive_bits))
