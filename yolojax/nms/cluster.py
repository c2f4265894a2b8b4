"""Suppression on the matrix of all overlaps: Fast NMS and Cluster-NMS.

All overlaps are held at once, ``4 N^2`` bytes: take the best few hundred boxes first.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from yolojax.boxes import box_iou
from yolojax.nms.kept import Rescored, best_first, check_classes, usable_rows
from yolojax.nms.order import ascending_order, score_keys


def overlaps_with_better(
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
    """Fast NMS: a box goes if its IoU with any better one exceeds the threshold (YOLACT, arXiv 1904.02689).

    Better boxes that are themselves suppressed count too, so that it removes somewhat more than the greedy rule.
    """
    usable = usable_rows(boxes, scores, valid, max_detections)
    order, iou = overlaps_with_better(boxes, scores, classes, usable)
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
    """Cluster-NMS: Fast NMS repeated, each time with the rows kept the last time (arXiv 2005.03572).

    Ends when nothing changes, which is exactly what the greedy rule keeps, after as many rounds
    as the longest chain of boxes that suppress each other.
    """
    usable = usable_rows(boxes, scores, valid, max_detections)
    order, iou = overlaps_with_better(boxes, scores, classes, usable)
    over = iou > jnp.float32(iou_threshold)

    def again(state: tuple[Bool[Array, " N"], Bool[Array, ""]]) -> tuple[Bool[Array, " N"], Bool[Array, ""]]:
        keep, _ = state
        update = usable[order] & ~(over & keep[:, None]).any(0)
        return update, jnp.any(update != keep)

    keep, _ = lax.while_loop(lambda state: state[1], again, (usable[order], jnp.ones_like(usable, shape=())))
    return best_first(order, scores[order], keep, max_detections)
