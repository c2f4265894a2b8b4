"""Matrix NMS: one parallel pass that weakens scores, without a loop over boxes (SOLOv2, arXiv 2003.10152).

A box is weakened by each better box of its class, and less by one that has itself been overlapped by a better one:
``decay_j = min_i f(IoU_ij) / min_k f(IoU_ki)`` with ``k`` better than ``i`` better than ``j``. All overlaps are held at
once, ``4 N^2`` bytes: take the best few hundred boxes first.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.nms.cluster import overlaps_with_better
from yolojax.nms.kept import Rescored, best_first, usable_rows


def matrix_nms_linear(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    score_threshold: float | Float[Array, ""] = 0.001,
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """Matrix NMS with ``f(IoU) = 1 - IoU``.

    Args:
      boxes: xyxy.
      scores: not negative.
      classes: only boxes of one class weaken each other; None for all.
      max_detections: how many boxes to report, by weakened score.
      score_threshold: what falls below is dropped.
      valid: rows to consider; all by default.
    """
    return _weaken(boxes, scores, classes, max_detections, score_threshold, valid, lambda iou: 1.0 - iou)


def matrix_nms_gaussian(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    sigma: float | Float[Array, ""] = 0.5,
    score_threshold: float | Float[Array, ""] = 0.001,
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """Matrix NMS with ``f(IoU) = exp(-IoU^2 / sigma)``; see `matrix_nms_linear`."""
    return _weaken(
        boxes, scores, classes, max_detections, score_threshold, valid, lambda iou: jnp.exp(-(iou**2) / sigma)
    )


def _weaken(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    score_threshold: float | Float[Array, ""],
    valid: Bool[Array, " N"] | None,
    f: Callable[[Float[Array, "N N"]], Float[Array, "N N"]],
) -> Rescored:
    usable = usable_rows(boxes, scores, valid, max_detections)
    order, iou = overlaps_with_better(boxes, scores, classes, usable)
    own = f(iou).min(0, initial=1.0)[:, None]
    # A box that an identical one precedes is worth nothing, and so weakens nothing: the one before it does.
    ratio = jnp.where(own > 0, f(iou) / jnp.where(own > 0, own, 1.0), jnp.inf)
    better = jnp.triu(jnp.ones(iou.shape, bool), 1)
    decay = jnp.where(better, ratio, 1.0).min(0, initial=1.0)
    weakened = scores[order].astype(jnp.float32) * decay
    return best_first(order, weakened, usable[order] & (weakened >= score_threshold), max_detections)
