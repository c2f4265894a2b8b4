"""From matched detections to average precision and recall, for every weighting of the images.

`accumulate` is the average precision of this package on devices, which the compiled evaluation (`average_precision`)
reads: COCO's 101 recall points, VOC's area under the curve and VOC's 11 points differ in one term. On the host one list
is counted by `yolojax.eval.host_accumulate`, and many weightings of the same images at once by `yolojax.eval.weighted`.

The rules are those of pycocotools' `accumulate`. A detection that overlaps no object of its class is a false positive
at every IoU threshold. What a report calls COCO's numbers comes from `evaluate_coco`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int

from yolojax.eval.host_accumulate import RECALL_POINTS, Interpolation
from yolojax.eval.matching import ANY_AREA, IOU_THRESHOLDS
from yolojax.eval.padded import (
    AreaRange,
    PaddedDetections,
    PaddedMatches,
    PaddedTruth,
    match_padded,
    object_counts,
)


class Ranked(NamedTuple):
    """The detections of all images in one list, by class and falling score; ties in the order of the images.

    Each has a status per area range ``A`` and IoU threshold ``T``. ``place`` counts the better detections of the same
    class on the same image. Padding has a class beyond all others.
    """

    images: Int[Array, " P"]
    classes: Int[Array, " P"]
    place: Int[Array, " P"]
    hit: Bool[Array, "A T P"]
    miss: Bool[Array, "A T P"]


class Accumulated(NamedTuple):
    """Average precision and greatest recall; NaN for a class without an object that counts."""

    precision: Float[Array, "A T C"]
    recall: Float[Array, "A T C"]
    objects: Int[Array, "A C"]


def rank(matches: PaddedMatches) -> Ranked:
    """Matched detections, each image by falling score, in one list."""
    scores, classes, place, hit, miss = matches
    order = jnp.lexsort((-scores.reshape(-1), classes.reshape(-1)))
    images = jnp.repeat(jnp.arange(scores.shape[0], dtype=jnp.int32), scores.shape[1])
    hit, miss = (flags.reshape(*flags.shape[:2], -1)[:, :, order] for flags in (hit, miss))
    return Ranked(images[order], classes.reshape(-1)[order], place.reshape(-1)[order], hit, miss)


def accumulate(
    ranked: Ranked,
    objects: Int[Array, "A I C"],
    weights: Int[Array, " I"],
    *,
    interpolation: Interpolation = "coco",
) -> Accumulated:
    """Average precision and recall over all images, each counted ``weights`` times (1 for a plain evaluation).

    A weight of 2 gives exactly what a data set with two copies of the image would. At each true positive the precision
    is the best from there on (made monotone), and the interpolation says how much of the recall axis it stands for.

    Args:
      ranked: the detections.
      objects: how many count, for each area range, image and class.
      weights: of the images.
      interpolation: ``coco`` and ``eleven_points`` average at fixed recalls (`RECALL_POINTS`; VOC until 2009 had 11),
        ``all_points`` is the area under the curve (VOC since 2010). Static under `jit`.
    """
    total = jnp.sum(objects * weights[None, :, None], axis=1, dtype=weights.dtype)  # [A, C]
    real = jnp.result_type(float)
    start, end = _class_bounds(ranked.classes, total.shape[1])
    own = jnp.clip(ranked.classes, 0, total.shape[1] - 1)  # padding has a class beyond all others and is never read
    true = _running(ranked.hit, weights[ranked.images])
    false = _running(ranked.miss, weights[ranked.images])
    true_before = true[:, :, start]  # [A, T, C]
    hits = true[:, :, 1:] - true_before[:, :, own]
    misses = false[:, :, 1:] - false[:, :, start][:, :, own]
    precision = hits.astype(real) / jnp.maximum(hits + misses, 1).astype(real)
    best_from_here = _cummax_to_class_end(precision, ranked.classes)
    of_class = total[:, own][:, None]
    weight = jnp.where(ranked.hit, weights[ranked.images][None, None, :], 0)
    if interpolation == "all_points":
        points, divisor = weight, jnp.maximum(total, 1).astype(real)[:, None]
    else:
        # A true positive stands for the recall points that it is the first to reach, the first one also for recall 0.
        grid = RECALL_POINTS[interpolation]
        reached = partial(_recall_points_within, objects=of_class, grid=grid)
        points, divisor = reached(hits) - reached(hits - weight), jnp.asarray(len(grid), real)
    area = jax.ops.segment_sum(
        jnp.moveaxis(best_from_here * points.astype(real), 2, 0),
        ranked.classes,
        num_segments=total.shape[1],
        indices_are_sorted=True,
    )
    found = (true[:, :, end] - true_before).astype(real)
    absent = (total == 0)[:, None]
    return Accumulated(
        jnp.where(absent, jnp.nan, jnp.moveaxis(area, 0, 2) / divisor),
        jnp.where(absent, jnp.nan, found / jnp.maximum(total, 1).astype(real)[:, None]),
        total,
    )


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


def _recall_points_within(
    hits: Int[Array, "..."], objects: Int[Array, "..."], grid: Float64[np.ndarray, " R"]
) -> Int[Array, "..."]:
    """How many of the recalls ``k / (R - 1)`` in ``grid`` are reached by ``hits`` true positives, as in float64.

    ``hits / objects >= grid[k]`` compares rounded numbers: where ``hits / objects`` is exactly ``k / (R - 1)`` the
    outcome depends on ``k`` alone (COCO's .35 is above 35 / 100, and 3 * .1 above 3 / 10). In whole numbers it is the
    same in every precision. It is 0 without a true positive.
    """
    steps = len(grid) - 1
    rounded_up = jnp.asarray(np.arange(steps + 1) / steps < grid)
    whole = jnp.minimum(steps * hits // jnp.maximum(objects, 1), steps)
    exact = steps * hits == whole * objects
    return jnp.where(hits > 0, whole + 1 - (exact & rounded_up[whole]).astype(whole.dtype), 0)


class AveragePrecision(NamedTuple):
    """AP and maximum recall per IoU threshold and class; NaN for a class without an object that counts."""

    precision: Float[Array, "T C"]
    recall: Float[Array, "T C"]
    objects: Int[Array, " C"]

    def mean(self) -> Float[Array, ""]:
        """COCO's AP: the mean over thresholds and over the classes that have objects."""
        return jnp.nanmean(self.precision)


def average_precision(
    truth: PaddedTruth,
    detections: PaddedDetections,
    *,
    classes: int,
    cap: int | Int[Array, ""] = 100,
    area_range: AreaRange = ANY_AREA,
    iou_thresholds: Float[np.ndarray, " T"] = IOU_THRESHOLDS,
) -> AveragePrecision:
    """COCO's average precision. Under `jit`, ``classes`` must be static.

    Args:
      truth: objects, padded.
      detections: detections, padded.
      classes: their number, ``C``.
      cap: detections that count per image and class.
      area_range: objects outside it are ignored, and unmatched detections outside it too.
      iou_thresholds: at which an overlap is a match, inclusive.
    """
    areas = jnp.stack([jnp.asarray(end, truth.areas.dtype) for end in area_range])[None, :]
    matches = match_padded(truth, detections, cap=cap, area_ranges=areas, iou_thresholds=iou_thresholds)
    weights = jnp.ones(truth.boxes.shape[0], jnp.int32)
    found = accumulate(rank(matches), object_counts(truth, classes=classes, area_ranges=areas), weights)
    return AveragePrecision(found.precision[0], found.recall[0], found.objects[0])
