"""The interface that all kinds of suppression share, and the checks that each of them begins with.

A suppression takes the candidates of one image and returns rows that refer to them. What it returns says what it
changed: `Kept` selects, `Rescored` gives new scores as well, `Merged` gives new boxes as well.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.errors import ConfigError
from yolojax.nms.sorting import ascending_order, score_keys


class Kept(NamedTuple):
    """Indices of the rows that suppression keeps, by falling score, and which of these ``K`` indices exist.

    Rows where ``valid`` is False come last and hold index 0.
    """

    indices: Int[Array, " K"]
    valid: Bool[Array, " K"]


class Rescored(NamedTuple):
    """`Kept` with new scores, by which the rows are sorted; the score is 0 where ``valid`` is False."""

    indices: Int[Array, " K"]
    valid: Bool[Array, " K"]
    scores: Float[Array, " K"]


class Merged(NamedTuple):
    """`Rescored` with new boxes (xyxy); the box is 0 where ``valid`` is False.

    ``indices`` names for each row the candidate whose class it has, the best of those that were merged into it.
    """

    indices: Int[Array, " K"]
    valid: Bool[Array, " K"]
    scores: Float[Array, " K"]
    boxes: Float[Array, "K 4"]


@runtime_checkable
class Suppression(Protocol):
    """The interface of every kind of suppression, for one image; it is compiled, and mapped over images by `jax.vmap`.

    Args:
      boxes: xyxy, any unit.
      scores: of each box; kinds that multiply scores need them not to be negative.
      classes: of each box. Boxes of different classes do not influence each other; None lets all boxes do so.
      max_detections: ``K``, the number of rows to return, static.
      valid: rows to consider; None considers all. The content of the others is arbitrary.

    Thresholds are further keyword arguments, which may be traced: bind them with `functools.partial`, as in
    ``partial(soft_nms_gaussian, sigma=0.3)``. Whoever calls a suppression sorts what it returns by score.
    """

    def __call__(
        self,
        boxes: Float[Array, "N 4"],
        scores: Float[Array, " N"],
        classes: Int[Array, " N"] | None,
        max_detections: int,
        *,
        valid: Bool[Array, " N"] | None = None,
    ) -> Kept | Rescored | Merged: ...


def check_classes(classes: Int[Array, " _n"] | None, scores: Float[Array, " N"]) -> None:
    """Raises `ConfigError` unless every score has a class: a gather beyond the end would repeat the last one."""
    if classes is not None and classes.shape != scores.shape:
        raise ConfigError(f"classes of shape {classes.shape} for scores of shape {scores.shape}: give one to each box")


def usable_rows(
    boxes: Float[Array, "N 4"], scores: Float[Array, " N"], valid: Bool[Array, " N"] | None, max_detections: int
) -> Bool[Array, " N"]:
    """The valid rows without a NaN or an infinity; raises `ConfigError` if no detection is asked for."""
    if max_detections < 1:
        raise ConfigError(f"max_detections is {max_detections}: at least one detection must be asked for")
    finite = jnp.isfinite(boxes).all(-1) & jnp.isfinite(scores)
    return finite if valid is None else finite & valid


def best_first(
    indices: Int[Array, " N"], scores: Float[Array, " N"], keep: Bool[Array, " N"], max_detections: int
) -> Rescored:
    """The ``max_detections`` rows of highest score among those to ``keep``; equal scores go by position."""
    order = ascending_order(score_keys(scores, keep))[:max_detections]
    missing = max_detections - len(order)
    valid = jnp.arange(max_detections) < keep.sum()
    indices, scores = (jnp.pad(x[order], (0, missing)) for x in (indices, scores.astype(jnp.float32)))
    return Rescored(jnp.where(valid, indices, 0), valid, jnp.where(valid, scores, 0.0))
