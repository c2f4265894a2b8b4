"""Exact greedy suppression for accelerators: few large steps, for a whole batch at once.

Rows are taken in blocks. A block is first compared with every row kept before it; what is left is settled within the
block by iterating ``keep = alive and not suppressed by keep`` from ``keep = alive``. Row j is right for good once all
rows before it are, so the iteration reaches the greedy answer in at most as many rounds as a block has rows, and in
practice in as many as the longest chain of boxes each suppressing the next (Cluster-NMS, arXiv 2005.03572,
does so with all rows at once).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from yolojax.nms.rows import Overlap, Rows, overlaps_by_area, suppresses

BLOCK = 256
"""Rows to a block: a power of two that divides the work into few steps without idling on short lists."""

_UNROLL = 4
"""Rounds between two tests of convergence, since each test makes the host wait for the device."""


def keep_by_blocks(
    rows: Rows,
    count: Int[Array, " B"],
    threshold: Float[Array, " B"],
    *,
    limit: int | None,
    overlaps: Overlap = overlaps_by_area,
) -> Bool[Array, "B n"]:
    """Which of the first ``count`` rows of every image greedy suppression keeps.

    Args:
      rows: boxes in the order in which they are considered, ``[B, n]``.
      count: how many rows an image has; those behind are padding.
      threshold: float32; an overlap above it suppresses.
      limit: stop when every image has kept at least this many; rows behind count as not kept.
    """
    n = rows.x1.shape[1]
    size = min(BLOCK, max(n, 1))
    padded = -(-n // size) * size
    rows = rows.map(lambda x: jnp.pad(x, ((0, 0), (0, padded - n))))
    earlier = jnp.triu(jnp.ones((1, size, size), bool), 1)
    column, row = (lambda x: x[:, :, None]), (lambda x: x[:, None, :])
    threshold = threshold[:, None, None]

    def settle(state: tuple[Int[Array, ""], Bool[Array, "B p"]]):
        i, keep = state
        start = i * size
        block = rows.map(lambda x: lax.dynamic_slice_in_dim(x, start, size, 1))
        alive = start + jnp.arange(size)[None] < count[:, None]
        hit = suppresses(rows.map(column), block.map(row), threshold, overlaps) & keep[:, :, None]
        alive &= ~hit.any(1)
        within = suppresses(block.map(column), block.map(row), threshold, overlaps) & earlier
        return i + 1, lax.dynamic_update_slice_in_dim(keep, _fixed_point(within, alive), start, 1)

    def unfinished(state: tuple[Int[Array, ""], Bool[Array, "B p"]]):
        i, keep = state
        going = i * size < count
        if limit is not None:
            going &= jnp.sum(keep, axis=1) < limit
        return going.any()

    start = jnp.zeros_like(count, shape=()), jnp.zeros_like(rows.x1, dtype=bool)
    return lax.while_loop(unfinished, settle, start)[1][:, :n]


def _fixed_point(within: Bool[Array, "B t t"], alive: Bool[Array, "B t"]) -> Bool[Array, "B t"]:
    def round_(keep):
        return alive & ~(within & keep[:, :, None]).any(1)

    def rounds(state):
        previous, _ = state
        for _ in range(_UNROLL - 1):
            previous = round_(previous)
        keep = round_(previous)
        return keep, jnp.any(previous != keep)

    return lax.while_loop(lambda state: state[1], rounds, (alive, jnp.ones_like(alive, shape=())))[0]
