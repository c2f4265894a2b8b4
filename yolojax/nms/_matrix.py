"""Kinds of suppression that compute the matrix of all overlaps: Fast NMS, Cluster-NMS and Matrix NMS.

The matrix takes ``4 N^2`` bytes, so that the best few hundred or thousand candidates are to be selected first.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from yolojax.boxes import box_iou
from yolojax.nms.protocol import Rescored, best_first, check_classes, usable_rows
from yolojax.nms.sorting import ascending_order, score_keys


def _overlaps_with_better(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    usable: Bool[Array, " N"],
) -> tuple[Int[Array, " N"], Float[Array, "N N"]]:
    """The order of falling scores, and in that order the IoU of row i with every worse row j of its class.

    The rest of the matrix is 0: the lower triangle, pairs of different classes, and pairs with a row not ``usable``.
    """
    check_classes(classes, scores)
    order = ascending_order(score_keys(scores, usable))
    boxes, usable = boxes[order], usable[order]
    counts = usable[:, None] & usable[None] & jnp.triu(jnp.ones((len(order), len(order)), bool), 1)
    if classes is not None:
        counts &= classes[order][:, None] == classes[order][None]
    return order, jnp.where(counts, box_iou(boxes, boxes), 0.0)


def fast_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    iou_threshold: float | Float[Array, ""],
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """Fast NMS: a box is suppressed if its IoU with any better one exceeds the threshold (YOLACT, arXiv 1904.02689).

    Better boxes that are themselves suppressed count too, so that somewhat more is removed than by the greedy rule.
    """
    usable = usable_rows(boxes, scores, valid, max_detections)
    order, iou = _overlaps_with_better(boxes, scores, classes, usable)
    keep = usable[order] & (iou.max(0, initial=0.0) <= jnp.float32(iou_threshold))
    return best_first(order, scores[order], keep, max_detections)


def cluster_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    iou_threshold: float | Float[Array, ""],
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """Cluster-NMS: Fast NMS repeated, where only the rows kept in the last round suppress (arXiv 2005.03572).

    It ends when nothing changes. It then keeps exactly what the greedy rule keeps, after as many rounds as the longest
    chain of boxes that suppress each other.
    """
    usable = usable_rows(boxes, scores, valid, max_detections)
    order, iou = _overlaps_with_better(boxes, scores, classes, usable)
    over = iou > jnp.float32(iou_threshold)

    def again(state: tuple[Bool[Array, " N"], Bool[Array, ""]]) -> tuple[Bool[Array, " N"], Bool[Array, ""]]:
        keep, _ = state
        update = usable[order] & ~(over & keep[:, None]).any(0)
        return update, jnp.any(update != keep)

    keep, _ = lax.while_loop(lambda state: state[1], again, (usable[order], jnp.ones_like(usable, shape=())))
    return best_first(order, scores[order], keep, max_detections)


def matrix_nms_linear(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    score_threshold: float | Float[Array, ""] = 0.001,
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """Matrix NMS with ``f(IoU) = 1 - IoU``: one parallel pass that lowers scores (SOLOv2, arXiv 2003.10152).

    The score of box j is multiplied by ``decay_j = min_i f(IoU_ij) / min_k f(IoU_ki)``, where box i is better than box
    j and box k better than box i, all of one class: a better box lowers a score less if it is overlapped itself.

    Args:
      boxes: xyxy.
      scores: not negative.
      classes: only boxes of one class lower each other's scores; None for all.
      max_detections: how many boxes to report, by the new score.
      score_threshold: what falls below is dropped.
      valid: rows to consider; all by default.
    """
    return _lower_scores(boxes, scores, classes, max_detections, score_threshold, valid, lambda iou: 1.0 - iou)


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
    return _lower_scores(
        boxes, scores, classes, max_detections, score_threshold, valid, lambda iou: jnp.exp(-(iou**2) / sigma)
    )


def _lower_scores(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    score_threshold: float | Float[Array, ""],
    valid: Bool[Array, " N"] | None,
    f: Callable[[Float[Array, "N N"]], Float[Array, "N N"]],
) -> Rescored:
    usable = usable_rows(boxes, scores, valid, max_detections)
    order, iou = _overlaps_with_better(boxes, scores, classes, usable)
    own = f(iou).min(0, initial=1.0)[:, None]
    # A box behind an identical one has a decay of 0 and lowers no score: the one before it does.
    ratio = jnp.where(own > 0, f(iou) / jnp.where(own > 0, own, 1.0), jnp.inf)
    better = jnp.triu(jnp.ones(iou.shape, bool), 1)
    decay = jnp.where(better, ratio, 1.0).min(0, initial=1.0)
    lowered = scores[order].astype(jnp.float32) * decay
    return best_first(order, lowered, usable[order] & (lowered >= score_threshold), max_detections)
