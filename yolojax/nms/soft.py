"""Soft-NMS: overlapping boxes lose score instead of being struck out (arXiv 1704.04503)."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from yolojax.boxes import box_iou
from yolojax.nms.kept import Rescored, check_classes, usable_rows


def soft_nms_linear(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    iou_threshold: float | Float[Array, ""] = 0.3,
    score_threshold: float | Float[Array, ""] = 0.001,
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """Soft-NMS with ``s <- s (1 - IoU)`` where the IoU with the box just taken reaches the threshold.

    Args:
      boxes: xyxy.
      scores: not negative.
      classes: only boxes of one class weaken each other; None for all.
      max_detections: how many boxes to take, each after all earlier ones have weakened the rest.
      iou_threshold: ``N_t`` of the paper.
      score_threshold: what falls below is not taken.
      valid: rows to consider; all by default.
    """

    def decay(iou: Float[Array, " N"]) -> Float[Array, " N"]:
        return jnp.where(iou >= iou_threshold, 1.0 - iou, 1.0)

    return _take_and_weaken(boxes, scores, classes, max_detections, score_threshold, valid, decay)


def soft_nms_gaussian(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    sigma: float | Float[Array, ""] = 0.5,
    score_threshold: float | Float[Array, ""] = 0.001,
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """Soft-NMS with ``s <- s exp(-IoU^2 / sigma)`` for every box left; see `soft_nms_linear`."""

    def decay(iou: Float[Array, " N"]) -> Float[Array, " N"]:
        return jnp.exp(-(iou**2) / sigma)

    return _take_and_weaken(boxes, scores, classes, max_detections, score_threshold, valid, decay)


def _take_and_weaken(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    score_threshold: float | Float[Array, ""],
    valid: Bool[Array, " N"] | None,
    decay: Callable[[Float[Array, " N"]], Float[Array, " N"]],
) -> Rescored:
    check_classes(classes, scores)
    usable = usable_rows(boxes, scores, valid, max_detections)
    k = max_detections
    nothing = Rescored(*(jnp.zeros_like(usable, shape=k, dtype=t) for t in (jnp.int32, bool, jnp.float32)))
    if len(scores) == 0:
        return nothing
    # Rows taken or not usable hold minus one, below any score; a product with 0 must not make a NaN of them.
    left = jnp.where(usable & (scores >= score_threshold), scores.astype(jnp.float32), -1.0)

    def take(state: tuple[Int[Array, ""], Float[Array, " N"], Rescored]):
        i, left, taken = state
        best = jnp.argmax(left)
        taken = Rescored(
            taken.indices.at[i].set(best.astype(jnp.int32)),
            taken.valid.at[i].set(True),
            taken.scores.at[i].set(left[best]),
        )
        factor = decay(box_iou(boxes[best][None], boxes)[0])
        if classes is not None:
            factor = jnp.where(classes == classes[best], factor, 1.0)
        weaker = left * factor
        return i + 1, jnp.where((left < 0) | (weaker < score_threshold), -1.0, weaker).at[best].set(-1.0), taken

    def more(state: tuple[Int[Array, ""], Float[Array, " N"], Rescored]) -> Bool[Array, ""]:
        i, left, _ = state
        return (i < k) & jnp.any(left >= 0)

    return lax.while_loop(more, take, (jnp.zeros_like(nothing.indices, shape=()), left, nothing))[2]
