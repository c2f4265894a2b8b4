"""Weighted box fusion: boxes of several models that show one object become their average (arXiv 1910.13302)."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from yolojax.boxes import box_iou
from yolojax.nms.kept import best_first, usable_rows
from yolojax.nms.order import ascending_order, score_keys


class Fused(NamedTuple):
    """Averaged boxes by falling score; padding rows hold box 0, score 0, class -1 and ``valid`` False."""

    boxes: Float[Array, "K 4"]
    scores: Float[Array, " K"]
    classes: Int[Array, " K"]
    valid: Bool[Array, " K"]


class _Clusters(NamedTuple):
    """One row for every box that may found a cluster. Sums over members, the boxes weighed by their scores."""

    boxes: Float[Array, "R 4"]
    weighed: Float[Array, "R 4"]
    score: Float[Array, " R"]
    members: Float[Array, " R"]
    classes: Int[Array, " R"]
    size: Int[Array, ""]


def weighted_box_fusion(
    boxes: Float[Array, "S N 4"],
    scores: Float[Array, "S N"],
    classes: Int[Array, "S N"],
    iou_threshold: float | Float[Array, ""],
    max_detections: int,
    *,
    valid: Bool[Array, "S N"] | None = None,
    weights: Float[Array, " S"] | None = None,
) -> Fused:
    """Fuse ``S`` sets of predictions of one image, e.g. of several models or of an image and its mirror image.

    Boxes are taken by falling score. One joins the cluster of its class whose current average it overlaps most, if
    their IoU exceeds ``iou_threshold`` (the paper: .55), and founds a cluster otherwise. A cluster's box is the average
    of its members weighed by their scores and its score their mean, times
    ``min(T, S) / S`` for ``T`` members, so that what few models see counts less.

    Args:
      boxes: xyxy.
      scores: not negative, thresholded beforehand through ``valid``.
      classes: any integers of at least 0.
      iou_threshold: traced.
      max_detections: ``K``, static.
      valid: rows to consider; all by default.
      weights: how much each set counts: its scores are multiplied, and the last factor becomes
        ``min(T, S) / sum(weights)``. All 1 by default.

    Raises:
      ConfigError: if ``max_detections`` is below 1.
    """
    sets = boxes.shape[0]
    weights = jnp.ones(sets, jnp.float32) if weights is None else weights.astype(jnp.float32)
    scores = (scores.astype(jnp.float32) * weights[:, None]).reshape(-1)
    boxes, classes = boxes.astype(jnp.float32).reshape(-1, 4), classes.reshape(-1)
    usable = usable_rows(boxes, scores, None if valid is None else valid.reshape(-1), max_detections)
    if len(scores) == 0:
        k = max_detections
        return Fused(jnp.zeros((k, 4), jnp.float32), jnp.zeros(k, jnp.float32), jnp.full(k, -1), jnp.zeros(k, bool))
    order = ascending_order(score_keys(scores, usable))
    boxes, scores, classes, count = boxes[order], scores[order], classes[order], usable.sum()
    rows = jnp.arange(len(order))

    def join(state: tuple[Int[Array, ""], _Clusters]) -> tuple[Int[Array, ""], _Clusters]:
        i, clusters = state
        box, score = boxes[i], scores[i]
        iou = box_iou(box[None], clusters.boxes)[0]
        iou = jnp.where((rows < clusters.size) & (clusters.classes == classes[i]), iou, -1.0)
        best = jnp.argmax(iou)
        joins = iou[best] > iou_threshold
        at = jnp.where(joins, best, clusters.size)
        weighed, total = clusters.weighed[at] + box * score, clusters.score[at] + score
        # A founder keeps its box as it is: what it overlaps must not depend on rounding, nor on a score of 0.
        average = jnp.where(joins & (total > 0), weighed / jnp.where(total > 0, total, 1.0), clusters.boxes[at])
        return i + 1, _Clusters(
            clusters.boxes.at[at].set(jnp.where(joins, average, box)),
            clusters.weighed.at[at].set(weighed),
            clusters.score.at[at].set(total),
            clusters.members.at[at].add(1.0),
            clusters.classes.at[at].set(classes[i]),
            clusters.size + (~joins).astype(jnp.int32),
        )

    empty = _Clusters(
        jnp.zeros_like(boxes),
        jnp.zeros_like(boxes),
        jnp.zeros_like(scores),
        jnp.zeros_like(scores),
        jnp.zeros_like(classes),
        jnp.zeros_like(count, dtype=jnp.int32),
    )
    _, clusters = lax.while_loop(lambda state: state[0] < count, join, (empty.size, empty))
    share = jnp.minimum(clusters.members, sets) / weights.sum()
    fused = clusters.score / jnp.maximum(clusters.members, 1.0) * share
    best = best_first(rows, fused, rows < clusters.size, max_detections)
    return Fused(
        jnp.where(best.valid[:, None], clusters.boxes[best.indices], 0.0),
        best.scores,
        jnp.where(best.valid, clusters.classes[best.indices], -1),
        best.valid,
    )
