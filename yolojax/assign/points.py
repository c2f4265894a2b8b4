"""What assigners share: the assignment they return, who wins a contested prediction, and the list of positives."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.assign.objects import Objects
from yolojax.structures import Targets


class PredictionAssignment(NamedTuple):
    """Which object each of ``N`` predictions (points, or anchors at cells) answers for.

    ``objects`` are rows of the `Targets` (0 where ``positive`` is False); ``scores`` the class target of a positive in
    ``[0, 1]``, 0 elsewhere.
    """

    objects: Int[Array, "B N"]
    positive: Bool[Array, "B N"]
    scores: Float[Array, "B N"]


def points_inside(objects: Float[Array, "B M 4"], points: Float[Array, "N 2"]) -> Bool[Array, "B M N"]:
    """Whether a point lies strictly inside of an object's box (xyxy)."""
    # Coordinates apart, so that no [B, M, N, 4] array is ever made.
    x1, y1, x2, y2 = (objects[:, :, None, i] for i in range(4))
    x, y = (points[None, None, :, i] for i in range(2))
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def settle(
    wanted: Bool[Array, "B M k"], place: Int[Array, "B M k"], preference: Float[Array, "B M k"], n: int
) -> tuple[Int[Array, "B n"], Bool[Array, "B M k"]]:
    """One owner for each of ``n`` predictions, of which every object wants those at its up to ``k`` places.

    The highest preference wins; at equal preference the object that comes first, that is, the first by content where
    objects are sorted by `sort_by_content`. Returns the owner of each prediction (``M`` for none) and which of the
    wishes came true. Only the wishes are touched, never an array of ``M`` by ``n``.
    """
    batch, m, k = place.shape
    # A sort, and not a scattered maximum that is compared with afterwards: the compiler may compute a preference twice
    # with different rounding, and then nobody would equal the maximum.
    claimed = jnp.where(wanted, place, n).reshape(batch, -1)
    claimant = jnp.broadcast_to(jnp.repeat(jnp.arange(m, dtype=jnp.int32), k)[None, :], claimed.shape)
    order = jnp.lexsort((claimant, -preference.reshape(batch, -1), claimed), axis=-1)
    claimed_in_order = jnp.take_along_axis(claimed, order, axis=1)
    before = jnp.concatenate([jnp.full((batch, 1), -1, claimed.dtype), claimed_in_order[:, :-1]], axis=1)
    first = (claimed_in_order != before) & (claimed_in_order < n)

    image = jnp.broadcast_to(jnp.arange(batch)[:, None], claimed.shape)
    wins = jnp.zeros(claimed.shape, bool).at[image, order].set(first)
    owner = jnp.full((batch, n), m, jnp.int32).at[image, jnp.where(wins, claimed, n)].set(claimant, mode="drop")
    return owner, wins.reshape(batch, m, k)


def as_assignment(
    owner: Int[Array, "B n"],
    place: Int[Array, "B M k"],
    scores: Float[Array, "B M k"],
    objects: Objects,
) -> PredictionAssignment:
    """The owners of `settle` as rows of the `Targets`; ``scores`` are 0 wherever a wish did not come true."""
    batch, m = place.shape[:2]
    positive = owner < m
    rows = jnp.take_along_axis(objects.rows, jnp.minimum(owner, m - 1), axis=1)
    place, scores = place.reshape(batch, -1), scores.reshape(batch, -1)
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], place.shape)
    by_prediction = jnp.zeros(owner.shape).at[image, place].max(scores)
    return PredictionAssignment(jnp.where(positive, rows, 0), positive, by_prediction)


def list_positives(assigned: PredictionAssignment, limit: int) -> tuple[Int[Array, "B P"], Bool[Array, "B P"]]:
    """Indices of the positives of each image, in order, and which of the ``P = min(limit, N)`` rows hold one.

    Unused rows point at prediction 0. ``limit`` must be no less than the most positives that the assigner can give,
    such as objects times ``k``; further ones would be left out. What only positives need is then computed for ``P``
    predictions instead of ``N``: at 1578 points and 320 rows it halved the time of a loss and its gradient on a CPU.
    """
    batch, n = assigned.positive.shape
    rows = min(limit, n)
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, n))
    prediction = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32)[None, :], (batch, n))
    slot = jnp.where(assigned.positive, jnp.cumsum(assigned.positive, axis=1) - 1, rows)
    listed = jnp.zeros((batch, rows), jnp.int32).at[image, slot].set(prediction, mode="drop")
    count = jnp.sum(assigned.positive, axis=1, keepdims=True)
    return listed, jnp.arange(rows)[None, :] < count


def assignment_counts(
    assigned: PredictionAssignment,
    targets: Targets,
    owner: Int[Array, "B P"],
    real: Bool[Array, "B P"],
    ignored: Bool[Array, "B N"],
) -> dict[str, Float[Array, " B"]]:
    """What a loss counts on each image: ``positives``, ``unassigned`` (objects without a point) and ``ignored``.

    ``owner`` is the object, a row of ``targets``, of each prediction that `list_positives` lists, where it is ``real``.
    """
    row = jnp.broadcast_to(jnp.arange(owner.shape[0])[:, None], owner.shape)
    owned = jnp.zeros(targets.valid.shape, bool).at[row, owner].max(real)
    masks = {
        "positives": assigned.positive,
        "unassigned": targets.valid & ~targets.crowd & ~owned,
        "ignored": ignored,
    }
    return {name: jnp.sum(mask, axis=-1).astype(jnp.float32) for name, mask in masks.items()}
