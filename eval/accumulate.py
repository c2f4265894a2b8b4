"""From matched detections to average precision and recall, for every weighting of the images.

These are the rules of pycocotools' `accumulate`. A detection that overlaps no object of its class is a false positive
at every IoU threshold, and nearly all detections are such: they are kept apart (`Ranked`), so that each of a thousand
resampled evaluations costs little more than its true positives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

RECALL_POINTS = np.linspace(0.0, 1.0, 101)


class Judged(NamedTuple):
    """Detections after matching, each image sorted by falling score, per area range ``A`` and IoU threshold ``T``.

    ``hit`` and ``miss``: true and false positives; neither for what is ignored (padding, beyond the cap, in a crowd
    region, outside the area range). ``place`` counts the better detections of its class on its image. Padding has a
    class beyond all others.
    """

    scores: Float[Array, "I K"]
    classes: Int[Array, "I K"]
    place: Int[Array, "I K"]
    hit: Bool[Array, "A T I K"]
    miss: Bool[Array, "A T I K"]


class Ranked(NamedTuple):
    """The detections of all images in one list, by class and falling score; ties in the order of the images.

    ``P`` rows have a status per area range ``A`` and IoU threshold ``T``; the ``N`` others, in the same order, are
    never hits and miss at all thresholds or at none. ``others_before`` says how many of them come before each row.
    ``place`` counts the better detections of the same class on the same image. Padding has a class beyond all others.
    """

    images: Int[Array, " P"]
    classes: Int[Array, " P"]
    place: Int[Array, " P"]
    hit: Bool[Array, "A T P"]
    miss: Bool[Array, "A T P"]
    others_before: Int[Array, " P"]
    other_images: Int[Array, " N"]
    other_classes: Int[Array, " N"]
    other_miss: Bool[Array, "A N"]


class Accumulated(NamedTuple):
    """Average precision and greatest recall; NaN for a class without an object that counts."""

    precision: Float[Array, "A T C"]
    recall: Float[Array, "A T C"]
    objects: Int[Array, "A C"]


def rank(judged: Judged) -> Ranked:
    """Matched detections, each image by falling score, in one list; no rows are set apart, so sizes are fixed."""
    scores, classes, place, hit, miss = judged
    order = jnp.lexsort((-scores.reshape(-1), classes.reshape(-1)))
    images = jnp.repeat(jnp.arange(scores.shape[0], dtype=jnp.int32), scores.shape[1])
    hit, miss = (flags.reshape(*flags.shape[:2], -1)[:, :, order] for flags in (hit, miss))
    none = jnp.zeros(0, jnp.int32)
    return Ranked(
        images[order],
        classes.reshape(-1)[order],
        place.reshape(-1)[order],
        hit,
        miss,
        jnp.zeros(len(order), jnp.int32),
        none,
        none,
        jnp.zeros((hit.shape[0], 0), bool),
    )


def accumulate(ranked: Ranked, objects: Int[Array, "A I C"], weights: Int[Array, " I"]) -> Accumulated:
    """Precision and recall over all images, each counted ``weights`` times (1 for a plain evaluation).

    A weight of 2 gives exactly what a data set with two copies of the image would.
    """
    total = jnp.sum(objects * weights[None, :, None], axis=1, dtype=weights.dtype)  # [A, C]
    real = jnp.result_type(float)
    start, end = _class_bounds(ranked.classes, total.shape[1])
    other_start, _ = _class_bounds(ranked.other_classes, total.shape[1])
    own = jnp.clip(ranked.classes, 0, total.shape[1] - 1)  # padding lies beyond every class and is never looked at
    true = _running(ranked.hit, weights[ranked.images])
    false = _running(ranked.miss, weights[ranked.images])
    other = _running(ranked.other_miss, weights[ranked.other_images])
    true_before = true[:, :, start]  # [A, T, C]
    hits = true[:, :, 1:] - true_before[:, :, own]
    misses = false[:, :, 1:] - false[:, :, start][:, :, own]
    misses += (other[:, ranked.others_before] - other[:, other_start][:, own])[:, None]
    precision = hits.astype(real) / jnp.maximum(hits + misses, 1).astype(real)
    best_from_here = _cummax_to_class_end(precision, ranked.classes)
    # Each true positive answers for the recall points that it is the first to reach (recall 0 is the first one's too).
    of_class = total[:, own][:, None]
    weight = jnp.where(ranked.hit, weights[ranked.images][None, None, :], 0)
    points = _recall_points_within(hits, of_class) - _recall_points_within(hits - weight, of_class)
    area = jax.ops.segment_sum(
        jnp.moveaxis(best_from_here * points.astype(real), 2, 0),
        ranked.classes,
        num_segments=total.shape[1],
        indices_are_sorted=True,
    )
    found = (true[:, :, end] - true_before).astype(real)
    absent = (total == 0)[:, None]
    return Accumulated(
        jnp.where(absent, jnp.nan, jnp.moveaxis(area, 0, 2) / len(RECALL_POINTS)),
        jnp.where(absent, jnp.nan, found / jnp.maximum(total, 1).astype(real)[:, None]),
        total,
    )


def recall_within(
    ranked: Ranked, objects: Int[Array, "A I C"], weights: Int[Array, " I"], cap: int
) -> Float[Array, "T C"]:
    """Greatest recall, over all areas (the first range), of the ``cap`` best detections per image and class.

    A match depends on better detections only, so the cap needs no matching of its own.
    """
    total = jnp.sum(objects[0] * weights[:, None], axis=0, dtype=weights.dtype)
    start, end = _class_bounds(ranked.classes, len(total))
    count = _running(ranked.hit[0] & (ranked.place < cap)[None, :], weights[ranked.images])
    real = jnp.result_type(float)
    recall = (count[:, end] - count[:, start]).astype(real) / jnp.maximum(total, 1).astype(real)[None, :]
    return jnp.where((total == 0)[None, :], jnp.nan, recall)


def _class_bounds(classes: Int[Array, " P"], count: int) -> tuple[Int[Array, " C"], Int[Array, " C"]]:
    """First row of each class, and the row after its last."""
    names = jnp.arange(count, dtype=classes.dtype)
    return jnp.searchsorted(classes, names, side="left"), jnp.searchsorted(classes, names, side="right")


def _running(flags: Bool[Array, "*rows P"], weight: Int[Array, " P"]) -> Int[Array, "*rows P1"]:
    """Weighted count before each row, and after the last."""
    zero = jnp.zeros((), weight.dtype)
    weight = weight.reshape((1,) * (flags.ndim - 1) + weight.shape)
    count = jnp.cumsum(jnp.where(flags, weight, zero), axis=-1, dtype=weight.dtype)
    return jnp.pad(count, ((0, 0),) * (flags.ndim - 1) + ((1, 0),))


def _cummax_to_class_end(values: Float[Array, "A T P"], classes: Int[Array, " P"]) -> Float[Array, "A T P"]:
    """Greatest value of each row and those after it in the same class."""

    def merge(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        (best, kind), (value, own) = later, earlier
        return jnp.where(kind == own, jnp.maximum(best, value), value), own

    kinds = jnp.broadcast_to(classes[None, None, :], values.shape)
    return jax.lax.associative_scan(merge, (values, kinds), reverse=True, axis=2)[0]


def _recall_points_within(hits: Int[Array, "..."], objects: Int[Array, "..."]) -> Int[Array, "..."]:
    """How many of the recall points ``hits`` true positives among ``objects`` reach, as float64 would have it; 0 of 0.

    ``hits / objects >= RECALL_POINTS[k]`` compares rounded numbers: where ``hits / objects`` is exactly ``k / 100`` the
    outcome depends on ``k`` alone (the grid's .35 is above 35 / 100, for one). In whole numbers it is the same in every
    precision.
    """
    rounded_up = jnp.asarray(np.arange(len(RECALL_POINTS)) / 100 < RECALL_POINTS)
    whole = jnp.minimum(100 * hits // jnp.maximum(objects, 1), 100)
    exact = 100 * hits == whole * objects
    return jnp.where(hits > 0, whole + 1 - (exact & rounded_up[whole]).astype(whole.dtype), 0)
