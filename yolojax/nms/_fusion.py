"""Weighted box fusion: boxes that show one object are replaced by their average (R. Solovyev, arXiv 1910.13302)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from yolojax.boxes import box_iou
from yolojax.nms.protocol import Merged, Rescored, best_first, check_classes, usable_rows
from yolojax.nms.sorting import ascending_order, score_keys


class Fused(NamedTuple):
    """Averaged boxes (xyxy) by falling score; padding rows hold box 0, score 0, class -1 and ``valid`` False."""

    boxes: Float[Array, "K 4"]
    scores: Float[Array, " K"]
    classes: Int[Array, " K"]
    valid: Bool[Array, " K"]


class _Clusters(NamedTuple):
    """The clusters found so far, in the first ``size`` of ``R`` rows.

    ``boxes`` are the current averages. ``weighed``, ``score`` and ``members`` are sums over the boxes of a cluster: of
    the boxes multiplied by their scores, of the scores, and of ones. ``first`` is the row of the first box in a
    cluster, which is its best.
    """

    boxes: Float[Array, "R 4"]
    weighed: Float[Array, "R 4"]
    score: Float[Array, " R"]
    members: Float[Array, " R"]
    classes: Int[Array, " R"]
    first: Int[Array, " R"]
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
    """Fuses ``S`` sets of predictions of one image, e.g. of several models or of an image and its mirror image.

    Boxes are taken by falling score. A box joins the cluster of its class whose current average it overlaps most, if
    their IoU exceeds ``iou_threshold`` (the paper's is .55), and begins a cluster otherwise. The box of a cluster is
    the average of its members, weighted by their scores. Its score is the mean of theirs times ``min(T, S) / S`` for
    ``T`` members, so that an object that few models see scores less.

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
    clusters = _find_clusters(boxes, scores, classes, usable, iou_threshold)
    best = _best_clusters(clusters, jnp.minimum(clusters.members, sets) / weights.sum(), max_detections)
    return Fused(
        jnp.where(best.valid[:, None], clusters.boxes[best.indices], 0.0),
        best.scores,
        jnp.where(best.valid, clusters.classes[best.indices], -1),
        best.valid,
    )


def wbf(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    iou_threshold: float | Float[Array, ""] = 0.55,
    valid: Bool[Array, " N"] | None = None,
) -> Merged:
    """`weighted_box_fusion` of the predictions of one model, with the interface `yolojax.nms.Suppression`.

    There is one set of predictions, so that a cluster's score is the mean of its members' scores and does not count how
    many they are.

    Args:
      boxes: xyxy.
      scores: not negative.
      classes: only boxes of one class are averaged; None for all.
      max_detections: how many averages to return, by score.
      iou_threshold: a box joins the cluster whose average it overlaps by more than this; traced.
      valid: rows to consider; all by default.
    """
    check_classes(classes, scores)
    usable = usable_rows(boxes, scores, valid, max_detections)
    if len(scores) == 0:
        k = max_detections
        return Merged(jnp.zeros(k, jnp.int32), jnp.zeros(k, bool), jnp.zeros(k, jnp.float32), jnp.zeros((k, 4)))
    of = jnp.zeros_like(usable, dtype=jnp.int32) if classes is None else classes
    clusters = _find_clusters(boxes.astype(jnp.float32), scores.astype(jnp.float32), of, usable, iou_threshold)
    best = _best_clusters(clusters, jnp.ones_like(clusters.members), max_detections)
    return Merged(
        jnp.where(best.valid, clusters.first[best.indices], 0),
        best.valid,
        best.scores,
        jnp.where(best.valid[:, None], clusters.boxes[best.indices], 0.0),
    )


def _find_clusters(
    boxes: Float[Array, "R 4"],
    scores: Float[Array, " R"],
    classes: Int[Array, " R"],
    usable: Bool[Array, " R"],
    iou_threshold: float | Float[Array, ""],
) -> _Clusters:
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
        # A first box stays as it is: what it overlaps must not depend on rounding, nor on a score of 0.
        average = jnp.where(joins & (total > 0), weighed / jnp.where(total > 0, total, 1.0), clusters.boxes[at])
        return i + 1, _Clusters(
            clusters.boxes.at[at].set(jnp.where(joins, average, box)),
            clusters.weighed.at[at].set(weighed),
            clusters.score.at[at].set(total),
            clusters.members.at[at].add(1.0),
            clusters.classes.at[at].set(classes[i]),
            clusters.first.at[at].set(jnp.where(joins, clusters.first[at], order[i])),
            clusters.size + (~joins).astype(jnp.int32),
        )

    empty = _Clusters(
        jnp.zeros_like(boxes),
        jnp.zeros_like(boxes),
        jnp.zeros_like(scores),
        jnp.zeros_like(scores),
        jnp.zeros_like(classes),
        jnp.zeros_like(order),
        jnp.zeros_like(count, dtype=jnp.int32),
    )
    return lax.while_loop(lambda state: state[0] < count, join, (empty.size, empty))[1]


def _best_clusters(clusters: _Clusters, factor: Float[Array, " R"], max_detections: int) -> Rescored:
    """The clusters of highest score, which is ``factor`` times the mean of the members' scores."""
    rows = jnp.arange(len(clusters.score))
    fused = clusters.score / jnp.maximum(clusters.members, 1.0) * factor
    return best_first(rows, fused, rows < clusters.size, max_detections)
