"""Every assigner behind one signature, to look at what it does: which prediction answers for which object."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from yolojax.assign import (
    PredictionAssignment,
    atss_assign,
    match_best_anchor,
    matching_cost,
    one_to_one_assign,
    ratio_assign,
    simota_assign,
    sort_by_content,
    task_aligned_assign,
)
from yolojax.coding import anchor_grid, cell_centres
from yolojax.errors import ConfigError
from yolojax.structures import Candidates, Level, Targets

BY_SHAPE = ("best-anchor", "ratio", "atss")
"""Rules that read the objects alone."""

BY_PREDICTION = ("simota", "task-aligned", "one-to-one")
"""Rules that read what a detector predicts."""


class Positives(NamedTuple):
    """Who was assigned to what, on the host: ``N`` predictions of ``B`` images with up to ``M`` objects.

    ``objects`` are rows of the `Targets`; ``points`` the centres of the cells, in input pixels.
    """

    objects: Int[np.ndarray, "B N"]
    positive: Bool[np.ndarray, "B N"]
    points: Float[np.ndarray, "N 2"]
    strides: Float[np.ndarray, " N"]


def assign_by(
    rule: str,
    targets: Targets,
    levels: tuple[Level, ...],
    *,
    anchors: Float[np.ndarray, "L A 2"] | None = None,
    candidates: Candidates | None = None,
) -> Positives:
    """The assignment of one rule with its usual constants.

    Args:
      rule: a name of `BY_SHAPE` or `BY_PREDICTION`.
      targets: ground truth, boxes in input pixels.
      levels: the grids.
      anchors: in input pixels; ``best-anchor`` and ``ratio`` need them.
      candidates: what a detector predicts, in the order of `cell_centres` or `anchor_grid`; rules of `BY_PREDICTION`
        need them. Final scores stand for the probability of a class; objectness counts as 1.

    Raises:
      ConfigError: an unknown rule, or one whose material is missing.
    """
    if rule not in (*BY_SHAPE, *BY_PREDICTION):
        raise ConfigError(
            f"no rule of assignment is called {rule!r}: choose from {', '.join(BY_SHAPE + BY_PREDICTION)}"
        )
    if rule in BY_PREDICTION and candidates is None:
        raise ConfigError(f"the rule {rule} reads predictions: give a detector")
    if rule in ("best-anchor", "ratio") and anchors is None:
        raise ConfigError(f"the rule {rule} reads anchors: give some")
    points, strides = cell_centres(levels)
    assign: Callable[..., PredictionAssignment]
    if candidates is not None and rule in BY_PREDICTION:
        per_cell = candidates.boxes.shape[1] // len(points)
        points, strides = jnp.repeat(points, per_cell, 0), jnp.repeat(strides, per_cell)
        assign = jax.jit(lambda t, c: _by_prediction(rule, t, c, points, strides, levels))
        assigned = assign(targets, candidates)
    elif rule == "atss":
        assigned = jax.jit(lambda t: atss_assign(t, levels))(targets)
    else:
        given = jnp.asarray(anchors, jnp.float32)
        cells, strides, _ = anchor_grid(levels, given)
        points = (cells + 0.5) * strides[:, None]
        f = ratio_assign if rule == "ratio" else _best_anchor
        assigned = jax.jit(lambda t: f(t, given, levels))(targets)
    arrays = (assigned.objects, assigned.positive, points, strides)
    return Positives(*(np.asarray(a) for a in arrays))


def _by_prediction(
    rule: str,
    targets: Targets,
    candidates: Candidates,
    points: jax.Array,
    strides: jax.Array,
    levels: tuple[Level, ...],
) -> PredictionAssignment:
    boxes, scores = candidates.boxes, jnp.clip(candidates.scores, 1e-6, 1.0 - 1e-6)
    logits = jnp.log(scores) - jnp.log1p(-scores)
    if rule == "task-aligned":
        return task_aligned_assign(points, boxes, logits, targets)
    if rule == "simota":
        sure = jnp.full(boxes.shape[:2], 20.0)
        return simota_assign(points, strides, boxes, logits, sure, targets)
    input_size = levels[0].h * levels[0].stride, levels[0].w * levels[0].stride
    return one_to_one_assign(matching_cost(boxes, scores, targets, input_size), targets)


def _best_anchor(targets: Targets, anchors: jax.Array, levels: tuple[Level, ...]) -> PredictionAssignment:
    """`match_best_anchor`, told prediction by prediction."""
    objects = sort_by_content(targets)
    found = match_best_anchor(objects, anchors, levels)
    shape = targets.boxes.shape[0], sum(level.h * level.w for level in levels) * anchors.shape[1]
    image = jnp.broadcast_to(jnp.arange(shape[0])[:, None], found.prediction.shape)
    place = jnp.where(found.owns, found.prediction, shape[1])
    rows = jnp.zeros(shape, jnp.int32).at[image, place].set(objects.rows, mode="drop")
    positive = jnp.zeros(shape, bool).at[image, place].set(True, mode="drop")
    return PredictionAssignment(rows, positive, positive.astype(jnp.float32))
