"""Soft-NMS lowers the scores of overlapping boxes instead of removing them (N. Bodla et al., arXiv 1704.04503)."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from yolojax.boxes import box_iou
from yolojax.nms.protocol import Rescored, check_classes, usable_rows


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
      classes: only boxes of one class lower each other's scores; None for all.
      max_detections: how many boxes to take, each after all earlier ones have lowered the scores of the rest.
      iou_threshold: ``N_t`` of the paper.
      score_threshold: a box whose score falls below is not taken.
      valid: rows to consider; all by default.
    """

    def decay(iou: Float[Array, " N"]) -> Float[Array, " N"]:
        return jnp.where(iou >= iou_threshold, 1.0 - iou, 1.0)

    return _take_and_lower(boxes, scores, classes, max_detections, score_threshold, valid, decay)


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

    return _take_and_lower(boxes, scores, classes, max_detections, score_threshold, valid, decay)


def _take_and_lower(
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
    # Rows that are taken or not usable hold -1, below any score: minus infinity times a factor of 0 would be a NaN.
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
        lowered = left * factor
        return i + 1, jnp.where((left < 0) | (lowered < score_threshold), -1.0, lowered).at[best].set(-1.0), taken

    def more(state: tuple[Int[Array, ""], Float[Array, " N"], Rescored]) -> Bool[Array, ""]:
        i, left, _ = state
        return (i < k) & jnp.any(left >= 0)

    return lax.while_loop(more, take, (jnp.zeros_like(nothing.indices, shape=()), left, nothing))[2]
