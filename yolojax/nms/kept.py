"""What suppression returns, and what every kind of it does with its input first."""

from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.errors import ConfigError
from yolojax.nms.order import ascending_order, score_keys


class Kept(NamedTuple):
    """What suppression keeps: indices into the input by falling score, and which of them exist.

    Rows where ``valid`` is False come last and hold index 0.
    """

    indices: Int[Array, " K"]
    valid: Bool[Array, " K"]


class Rescored(NamedTuple):
    """As `Kept`, with the scores that suppression leaves, by which the rows are sorted; 0 where not ``valid``."""

    indices: Int[Array, " K"]
    valid: Bool[Array, " K"]
    scores: Float[Array, " K"]


class Suppression(Protocol):
    """The one interface of all kinds of suppression that select among boxes.

    Each has thresholds of its own as further keyword arguments, traced: bind them with `functools.partial`.
    ``classes`` None lets all boxes suppress each other. Scores must not be negative where they are multiplied.
    """

    def __call__(
        self,
        boxes: Float[Array, "N 4"],
        scores: Float[Array, " N"],
        classes: Int[Array, " N"] | None,
        max_detections: int,
        *,
        valid: Bool[Array, " N"] | None = None,
    ) -> Rescored: ...


def check_classes(classes: Int[Array, " _n"] | None, scores: Float[Array, " N"]) -> None:
    """Raises `ConfigError` unless every score has a class: a gather beyond the end would repeat the last one."""
    if classes is not None and classes.shape != scores.shape:
        raise ConfigError(f"classes of shape {classes.shape} for scores of shape {scores.shape}: give one to each box")


def usable_rows(
    boxes: Float[Array, "N 4"], scores: Float[Array, " N"], valid: Bool[Array, " N"] | None, max_detections: int
) -> Bool[Array, " N"]:
    """Valid rows without a NaN or an infinity; raises `ConfigError` if no detection is asked for."""
    if max_detections < 1:
        raise ConfigError(f"max_detections is {max_detections}: at least one detection must be asked for")
    finite = jnp.isfinite(boxes).all(-1) & jnp.isfinite(scores)
    return finite if valid is None else finite & valid


def best_first(
    indices: Int[Array, " N"], scores: Float[Array, " N"], keep: Bool[Array, " N"], max_detections: int
) -> Rescored:
    """The ``max_detections`` rows of highest score among those to ``keep``; equal scores by position."""
    order = ascending_order(score_keys(scores, keep))[:max_detections]
    missing = max_detections - len(order)
    valid = jnp.arange(max_detections) < keep.sum()
    indices, scores = (jnp.pad(x[order], (0, missing)) for x in (indices, scores.astype(jnp.float32)))
    return Rescored(jnp.where(valid, indices, 0), valid, jnp.where(valid, scores, 0.0))
