"""COCO's average precision as one pure function of fixed-size arrays: it compiles, and runs where the model runs.

The rules are those of pycocotools' `evaluateImg` and `accumulate`, and so are the numbers: in float64 to 1e-9, in
float32 to about 1e-6 unless rounding moves an overlap across a threshold or makes two scores equal. Input is not
checked here (a NaN would match); `evaluate_coco` is the authority for what is reported.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import groups

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
ANY_AREA = (0.0, 1e10)
AreaRange = tuple[float | Float[Array, ""], float | Float[Array, ""]]
"""Least and greatest area in square pixels, both included; may be traced."""


class PaddedTruth(NamedTuple):
    """Objects of ``I`` images, padded to ``M``; boxes xyxy in pixels. Rows where ``valid`` is False are never read.

    ``areas`` decide the area range (the mask's area in COCO); ``crowd`` regions are neither object nor background.
    """

    boxes: Float[Array, "I M 4"]
    classes: Int[Array, "I M"]
    areas: Float[Array, "I M"]
    crowd: Bool[Array, "I M"]
    valid: Bool[Array, "I M"]


class PaddedDetections(NamedTuple):
    """Detections of ``I`` images, padded to ``K``; boxes xyxy in pixels, in any order (ties stand as given)."""

    boxes: Float[Array, "I K 4"]
    scores: Float[Array, "I K"]
    classes: Int[Array, "I K"]
    valid: Bool[Array, "I K"]


class Judged(NamedTuple):
    """Detections after matching, each image sorted by falling score, per IoU threshold ``T``.

    ``hit`` and ``miss``: true and false positives; neither for what is ignored (padding, beyond the cap, in a crowd
    region, outside the area range). Padding has a class beyond all others.
    """

    scores: Float[Array, "I K"]
    classes: Int[Array, "I K"]
    hit: Bool[Array, "I T K"]
    miss: Bool[Array, "I T K"]


class Ranked(NamedTuple):
    """The detections of all images in one list, by class and falling score; padding lies at the end."""

    images: Int[Array, " N"]
    scores: Float[Array, " N"]
    classes: Int[Array, " N"]
    hit: Bool[Array, "T N"]
    miss: Bool[Array, "T N"]


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
    judged = judge(truth, detections, cap=cap, area_range=area_range, iou_thresholds=iou_thresholds)
    weights = jnp.ones(truth.boxes.shape[0], jnp.int32)
    return accumulate(rank(judged), object_counts(truth, classes=classes, area_range=area_range), weights)


def pad_columns(truth: GroundTruth, detections: ScoredBoxes) -> tuple[PaddedTruth, PaddedDetections]:
    """Checked columns of an evaluation as float32 arrays, padded to the largest image; not for `jit`."""

    def slots(images: np.ndarray) -> tuple[np.ndarray, int]:
        """Position of each row within its image, and how many rows the fullest image has (at least 1)."""
        place = np.zeros(len(images), np.int64)
        for rows in groups(images).values():
            place[rows] = np.arange(len(rows))
        return place, int(place.max(initial=0)) + 1

    def spread(values: np.ndarray, images: np.ndarray, place: np.ndarray, size: int) -> Array:
        table = np.zeros((len(truth.image_ids), size, *values.shape[1:]), values.dtype)
        table[images, place] = values
        return jnp.asarray(table)

    def corners(boxes: np.ndarray) -> np.ndarray:
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)

    at, m = slots(truth.images)
    objects = (corners(truth.boxes), truth.categories.astype(np.int32), truth.areas.astype(np.float32), truth.crowd)
    where, k = slots(detections.images)
    rows = (corners(detections.boxes), detections.scores.astype(np.float32), detections.categories.astype(np.int32))
    return (
        PaddedTruth(*(spread(v, truth.images, at, m) for v in (*objects, np.ones(len(at), bool)))),
        PaddedDetections(*(spread(v, detections.images, where, k) for v in (*rows, np.ones(len(where), bool)))),
    )


def judge(
    truth: PaddedTruth,
    detections: PaddedDetections,
    *,
    cap: int | Int[Array, ""] = 100,
    area_range: AreaRange = ANY_AREA,
    iou_thresholds: Float[np.ndarray, " T"] = IOU_THRESHOLDS,
) -> Judged:
    """Match the detections of every image by COCO's greedy rule."""
    thresholds = jnp.minimum(jnp.asarray(iou_thresholds, detections.boxes.dtype), 1 - 1e-10)
    return jax.vmap(lambda t, d: _judge_image(t, d, cap, area_range, thresholds))(truth, detections)


def object_counts(truth: PaddedTruth, *, classes: int, area_range: AreaRange = ANY_AREA) -> Int[Array, "I C"]:
    """Objects that count, per image and class."""
    counts = truth.valid & ~_ignore(truth, area_range)
    of_class = truth.classes[..., None] == jnp.arange(classes, dtype=truth.classes.dtype)[None, None, :]
    return jnp.sum(of_class & counts[..., None], axis=1, dtype=jnp.int32)


def rank(judged: Judged) -> Ranked:
    """Detections of all images in one list, by class and falling score; ties stand in the order of the images."""

    def flat(values: Array) -> Array:  # [I, T, K] -> [T, I * K]
        return jnp.moveaxis(values, 1, 0).reshape(values.shape[1], -1)

    scores, classes = judged.scores.reshape(-1), judged.classes.reshape(-1)
    images = jnp.repeat(jnp.arange(judged.scores.shape[0]), judged.scores.shape[1])
    order = jnp.lexsort((-scores, classes))
    return Ranked(images[order], scores[order], classes[order], flat(judged.hit)[:, order], flat(judged.miss)[:, order])


def accumulate(ranked: Ranked, objects: Int[Array, "I C"], weights: Int[Array, " I"]) -> AveragePrecision:
    """Precision and recall over all images, each counted ``weights`` times (1 for a plain evaluation).

    A weight of 2 gives exactly what a data set with two copies of the image would.
    """
    total = jnp.sum(objects * weights[:, None], axis=0, dtype=weights.dtype)
    names = jnp.arange(len(total), dtype=ranked.classes.dtype)
    start, end = (jnp.searchsorted(ranked.classes, names, side=side) for side in ("left", "right"))
    weight, real = weights[ranked.images][None, :], ranked.scores.dtype

    def running(flags: Array) -> tuple[Array, Array]:
        """Running count, before each row and after the last, and its value at the start of each class."""
        count = jnp.pad(jnp.cumsum(jnp.where(flags, weight, 0), axis=1, dtype=weight.dtype), ((0, 0), (1, 0)))
        return count, count[:, start]

    (true, true_before), (false, false_before) = running(ranked.hit), running(ranked.miss)
    own = jnp.clip(ranked.classes, 0, len(total) - 1)  # padding rows lie beyond every class and are never looked at
    hits, misses = true[:, 1:] - true_before[:, own], false[:, 1:] - false_before[:, own]
    precision = hits.astype(real) / jnp.maximum(hits + misses, 1).astype(real)
    best_from_here = jnp.pad(_cummax_to_class_end(precision, ranked.classes), ((0, 0), (0, 1)))

    needed = jax.vmap(_true_positives_for_recall)(total)
    goal = (true_before[:, :, None] + needed[None]).reshape(len(true), -1)
    row = jax.vmap(lambda count, wanted: jnp.searchsorted(count, wanted, side="left"))(true[:, 1:], goal)
    row = jnp.maximum(row.reshape(len(true), *needed.shape), start[None, :, None])  # recall 0 is reached at the start
    row = jnp.where(row < end[None, :, None], row, precision.shape[1])  # where precision is 0: not reached
    reached = jnp.take_along_axis(best_from_here, row.reshape(len(true), -1), axis=1).reshape(row.shape)
    average = jnp.mean(reached, axis=2)
    recall = (true[:, end] - true_before).astype(real) / jnp.maximum(total, 1).astype(real)[None, :]
    absent = (total == 0)[None, :]
    return AveragePrecision(jnp.where(absent, jnp.nan, average), jnp.where(absent, jnp.nan, recall), total)


def _cummax_to_class_end(values: Float[Array, "T N"], classes: Int[Array, " N"]) -> Float[Array, "T N"]:
    """Greatest value of each row and those after it in the same class."""

    def merge(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        (best, kind), (value, own) = later, earlier
        return jnp.where(kind == own, jnp.maximum(best, value), value), own

    kinds = jnp.broadcast_to(classes[None, :], values.shape)
    return jax.lax.associative_scan(merge, (values, kinds), reverse=True, axis=1)[0]


def _true_positives_for_recall(positives: Int[Array, ""]) -> Int[Array, " R"]:
    """Least number of true positives whose recall reaches each recall point, as float64 would have it.

    ``t / n >= r[k]`` compares rounded numbers: where ``t / n`` is exactly ``k / 100`` the outcome depends on ``k``
    alone (the grid's .35 is above 35 / 100, for one). In whole numbers it is the same in every precision.
    """
    percent = jnp.arange(len(RECALL_POINTS), dtype=positives.dtype)
    rounded_up = np.arange(len(RECALL_POINTS)) / 100 < RECALL_POINTS
    product = percent * positives
    return -(-product // 100) + jnp.where((product % 100 == 0) & rounded_up, 1, 0)


def _ignore(truth: PaddedTruth, area_range: AreaRange) -> Bool[Array, "*I M"]:
    low, high = area_range
    return truth.crowd | (truth.areas < low) | (truth.areas > high)


def _judge_image(
    truth: PaddedTruth,
    found: PaddedDetections,
    cap: int | Int[Array, ""],
    area_range: AreaRange,
    thresholds: Float[Array, " T"],
) -> Judged:
    """One image, without the leading dimension of the fields."""
    order = jnp.argsort(jnp.where(found.valid, -found.scores, jnp.inf), stable=True)
    found = PaddedDetections(*(field[order] for field in found))
    alike = found.valid[:, None] & truth.valid[None, :] & (found.classes[:, None] == truth.classes[None, :])
    table = jnp.where(alike, _overlaps(found.boxes, truth.boxes, truth.crowd), -1.0)
    ignore = _ignore(truth, area_range)
    same = found.valid[:, None] & found.valid[None, :] & (found.classes[:, None] == found.classes[None, :])
    within_cap = found.valid & (jnp.sum(jnp.tril(same, -1), axis=1) < cap)

    def step(free: Bool[Array, "T M"], given: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        overlap, counts = given
        possible = free & (overlap[None, :] >= thresholds[:, None]) & counts
        # An object that counts goes before any that is ignored, whatever their overlaps.
        real = possible & ~ignore[None, :]
        eligible = jnp.where(jnp.any(real, axis=1, keepdims=True), real, possible)
        ranked = jnp.where(eligible, overlap[None, :], -1.0)
        best = ranked.shape[1] - 1 - jnp.argmax(ranked[:, ::-1], axis=1)  # of equal overlaps the last
        matched = jnp.any(eligible, axis=1)
        taken = (jnp.arange(ranked.shape[1])[None, :] == best[:, None]) & matched[:, None] & ~truth.crowd[None, :]
        return free & ~taken, (matched & ~ignore[best], matched & ignore[best])

    free = jnp.ones((len(thresholds), truth.boxes.shape[0]), bool)
    _, (hit, on_ignored) = jax.lax.scan(step, free, (table, within_cap))
    size = found.boxes[:, 2:] - found.boxes[:, :2]
    area = size[:, 0] * size[:, 1]
    outside = (area < area_range[0]) | (area > area_range[1])
    ignored = on_ignored | (outside[:, None] & ~hit) | ~within_cap[:, None]
    return Judged(
        scores=jnp.where(found.valid, found.scores, -jnp.inf),
        classes=jnp.where(found.valid, found.classes, jnp.iinfo(found.classes.dtype).max),
        hit=hit.T,
        miss=~hit.T & ~ignored.T,
    )


def _overlaps(
    found: Float[Array, "K 4"], objects: Float[Array, "M 4"], crowd: Bool[Array, " M"]
) -> Float[Array, "K M"]:
    """IoU, or for a crowd region intersection over the detection's area; 0 where that is 0 / 0."""
    low = jnp.maximum(found[:, None, :2], objects[None, :, :2])
    side = jnp.maximum(jnp.minimum(found[:, None, 2:], objects[None, :, 2:]) - low, 0)
    intersection = side[..., 0] * side[..., 1]
    area_found = jnp.prod(found[:, 2:] - found[:, :2], axis=1)[:, None]
    area_objects = jnp.prod(objects[:, 2:] - objects[:, :2], axis=1)[None, :]
    union = jnp.where(crowd[None, :], area_found, area_found + area_objects - intersection)
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)
