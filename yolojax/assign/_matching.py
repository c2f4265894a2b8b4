"""The linear assignment problem: the matching of least total cost, by shortest augmenting paths."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class _Search(NamedTuple):
    """One image's matching under way.

    Attributes:
      row: the row that is being matched; those before it are.
      via: the column through whose row the path is being prolonged; -1 where it is ``row`` itself.
      end: the column whose row is exchanged next, along the path that was found; -1 while a path is sought.
      reached: length of the shortest path so far.
      owner: the row of each column, or -1.
      price: of each column, the dual variable.
      closed: the columns to which the shortest path is known.
      shortest: length of the shortest path to each column that is known so far.
      back: the column before each on that path; -1 where it begins there.
    """

    row: Int[Array, ""]
    via: Int[Array, ""]
    end: Int[Array, ""]
    reached: Float[Array, ""]
    owner: Int[Array, " N"]
    price: Float[Array, " N"]
    closed: Bool[Array, " N"]
    shortest: Float[Array, " N"]
    back: Int[Array, " N"]


def least_cost_matching(cost: Float[Array, "B M N"], count: Int[Array, " B"]) -> Int[Array, "B N"]:
    """Matches the first ``count`` rows of each image, each to a column of its own, at the least total cost.

    Args:
      cost: finite. No image has a ``count`` of more than N.
      count: the other rows are not read, and take no time: a step is one column of one path, and there are as many as
        the image with the longest paths needs, hardly more than it has rows where few of them compete.

    Returns:
      the row that has each column, -1 for none. Where several matchings cost the same, the order of the rows decides.

    Reference: Jonker and Volgenant, "A Shortest Augmenting Path Algorithm for Dense and Sparse Linear Assignment
    Problems", Computing 38, 1987, after which ``scipy.optimize.linear_sum_assignment`` works, too. The search for a
    path and the exchange along it are steps of one loop, so that images do not wait for each other row by row.
    """
    return jax.vmap(_match)(cost, count)


def _match(cost: Float[Array, "M N"], count: Int[Array, ""]) -> Int[Array, " N"]:
    n = cost.shape[1]
    columns = jnp.arange(n, dtype=jnp.int32)
    none, nothing = jnp.int32(-1), jnp.zeros(n, bool)
    far, nowhere = jnp.full(n, jnp.inf, cost.dtype), jnp.full(n, -1, jnp.int32)

    def step(s: _Search) -> _Search:
        # The shortest path grows by one column: through the row that has the column reached last, or the new row.
        through = jnp.maximum(s.via, 0)
        costs = cost[jnp.where(s.via < 0, s.row, s.owner[through])]
        own = jnp.where(s.via < 0, 0.0, costs[through] - s.price[through])  # by complementary slackness
        length = s.reached + costs - s.price - own
        is_sought = s.end < 0
        nearer = is_sought & ~s.closed & (length < s.shortest)
        shortest, back = jnp.where(nearer, length, s.shortest), jnp.where(nearer, s.via, s.back)
        nearest = jnp.argmin(jnp.where(s.closed, jnp.inf, shortest)).astype(jnp.int32)
        reached = shortest[nearest]
        closed = s.closed | (columns == nearest)
        is_found = is_sought & (s.owner[nearest] < 0)
        price = jnp.where(is_found & closed, s.price + shortest - reached, s.price)
        # Along the path that was found each column takes the row of the one before, and the first one the new row.
        end = jnp.where(is_found, nearest, s.end)
        is_end = columns == end
        before = jnp.max(jnp.where(is_end, back, -1))
        row = jnp.where(before < 0, s.row, s.owner[jnp.maximum(before, 0)])
        owner = jnp.where(is_end, row, s.owner)
        is_done = (end >= 0) & (before < 0)
        return _Search(
            row=s.row + is_done,
            via=jnp.where(is_done, none, jnp.where(is_sought, nearest, s.via)),
            end=jnp.where(end >= 0, before, none),
            reached=jnp.where(is_done, 0.0, jnp.where(is_sought, reached, s.reached)),
            owner=owner,
            price=price,
            closed=jnp.where(is_done, nothing, jnp.where(is_sought, closed, s.closed)),
            shortest=jnp.where(is_done, far, shortest),
            back=jnp.where(is_done, nowhere, back),
        )

    zero = jnp.zeros((), cost.dtype)
    start = _Search(jnp.int32(0), none, none, zero, nowhere, jnp.zeros(n, cost.dtype), nothing, far, nowhere)
    return lax.while_loop(lambda s: s.row < count, step, start).owner
