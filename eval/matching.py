"""Which detection finds which object: COCO's greedy rule, on the host and compiled.

`match_detections` matches checked columns at one IoU, without COCO's cap on detections for each image. The status of a
detection depends only on those that score higher, so one matching of all detections gives precision and recall at every
confidence threshold at once. `match_at_all_thresholds` matches them for all area ranges and thresholds under the cap.

`match_padded` matches arrays of fixed size for all area ranges and IoU thresholds in one compiled program. Its rules
are those of pycocotools' `evaluateImg`: in float64 it agrees with them; in float32 rounding may move an overlap across
a threshold or make two scores equal. Its input is not checked (a NaN would match).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.pairs import BLOCK, Pairs, overlapping_pairs, places

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
ANY_AREA = (0.0, 1e10)
AREA_RANGES = np.array([ANY_AREA, (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10)])
"""COCO's: all, small, medium, large, in square pixels; both ends belong to a range."""
AreaRange = tuple[float | Float[Array, ""], float | Float[Array, ""]]
"""Least and greatest area in square pixels, both included; may be traced."""


@dataclass(frozen=True)
class Matches:
    """Per detection, in the order of the `ScoredBoxes`: the object found, or -1; and whether it counts at all.

    ``ignored`` detections found no object but lie in a crowd region: neither true nor false positives.
    """

    object_of: Int64[np.ndarray, " D"]
    ignored: Bool[np.ndarray, " D"]


def overlaps(
    detections: Float64[np.ndarray, "D 4"], objects: Float64[np.ndarray, "G 4"], crowd: Bool[np.ndarray, " G"]
) -> Float64[np.ndarray, "D G"]:
    """IoU of xywh boxes; for a crowd region, intersection over the detection's own area (pycocotools' `bbIou`).

    Where the union is 0 the overlap is 0.
    """
    low = np.maximum(detections[:, None, :2], objects[None, :, :2])
    high = np.minimum(detections[:, None, :2] + detections[:, None, 2:], objects[None, :, :2] + objects[None, :, 2:])
    intersection = np.prod(np.maximum(high - low, 0), axis=-1)
    area_d, area_g = np.prod(detections[:, 2:], axis=-1), np.prod(objects[:, 2:], axis=-1)
    union = np.where(crowd[None, :], area_d[:, None], area_d[:, None] + area_g[None, :] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def positions_of(keys: Int64[np.ndarray, " N"]) -> Callable[[int], Int64[np.ndarray, " n"]]:
    """A function that gives the positions of a key, in their order."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return lambda key: order[slice(*np.searchsorted(ordered, [key, key + 1]).tolist())]


def match_detections(truth: GroundTruth, detections: ScoredBoxes, iou: float = 0.5) -> Matches:
    """Greedy matching within image and class, by falling score.

    Each detection takes the free object that it overlaps most, if by at least ``iou``; of equal overlaps the last
    listed. One that finds none but lies in a crowd region (intersection over its own area of at least ``iou``) is
    ignored; a crowd region takes any number. This is what pycocotools' `evaluateImg` does for the area range ``all``.
    """
    pairs = overlapping_pairs(truth, detections, min(iou, 1 - 1e-10), same_class=True)
    object_of, ignored = np.full(len(detections.scores), -1, np.int64), np.zeros(len(detections.scores), bool)
    crowd = truth.crowd[pairs.objects]
    ignored[pairs.detections[crowd]] = True
    take_greedily(pairs, ~crowd, np.zeros(len(truth.crowd), bool), object_of)
    return Matches(object_of, ignored & (object_of < 0))


def take_greedily(
    pairs: Pairs,
    eligible: Bool[np.ndarray, " P"],
    taken: Bool[np.ndarray, " G"],
    object_of: Int64[np.ndarray, " D"],
) -> None:
    """Gives each detection, in the order of the pairs, the free object that it overlaps most; of equal ones the last.

    ``taken`` marks objects that are not free; it and ``object_of`` are changed.
    """
    which, about = pairs.detections[eligible], pairs.objects[eligible]
    order = np.lexsort((-about, -pairs.overlaps[eligible], which))
    used, chosen, done = bytearray(taken.tobytes()), [], -1
    for detection, one in zip(which[order].tolist(), about[order].tolist(), strict=True):
        if detection != done and not used[one]:
            used[one], done = 1, detection
            chosen.append((detection, one))
    if chosen:
        detections, objects = np.array(chosen, np.int64).T
        object_of[detections] = objects
        taken[objects] = True


class ColumnMatches(NamedTuple):
    """Detections matched for all area ranges ``A`` and IoU thresholds ``T``, under a cap for each image and class.

    ``kept`` are the detections within the cap; ``place`` says how many better ones of the same class each has on its
    image, and ``inside`` in which area ranges its own area lies. Of these only the ``candidates`` (positions in
    ``kept``) overlap an object enough to match: ``hit`` where one finds an object that counts, ``ignored`` where it
    finds a crowd region or an object outside the area range. What neither hits nor is ignored is a miss where its own
    area is inside.
    """

    kept: Int64[np.ndarray, " K"]
    place: Int64[np.ndarray, " K"]
    inside: Bool[np.ndarray, "A K"]
    candidates: Int64[np.ndarray, " N"]
    hit: Bool[np.ndarray, "A T N"]
    ignored: Bool[np.ndarray, "A T N"]


def in_ranges(areas: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, "4 n"]:
    """In which of COCO's area ranges each area lies; both ends belong to a range."""
    return (areas[None] >= AREA_RANGES[:, :1]) & (areas[None] <= AREA_RANGES[:, 1:])


def match_at_all_thresholds(truth: GroundTruth, detections: ScoredBoxes, cap: int = 100) -> ColumnMatches:
    """Matches checked columns for COCO's four area ranges and ten thresholds by pycocotools' rule, in float64.

    Time and memory are linear in the detections. The candidates of all images and classes are judged together, the
    best of each first, then the second best, and so on.
    """
    classes = max(len(truth.category_ids), 1)
    place = places(detections.images * classes + detections.categories)
    kept = np.flatnonzero(place < cap)
    inside = in_ranges(detections.boxes[kept, 2] * detections.boxes[kept, 3])
    pairs = overlapping_pairs(truth, detections, float(IOU_THRESHOLDS[0]), same_class=True, detections=kept)
    rows, starts, counts = np.unique(pairs.detections, return_index=True, return_counts=True)
    ignore = truth.crowd[None] | ~in_ranges(truth.areas)
    shape = (len(AREA_RANGES), len(IOU_THRESHOLDS))
    free = np.ones((*shape, len(truth.crowd)), bool)
    hit, ignored = np.zeros((*shape, len(rows)), bool), np.zeros((*shape, len(rows)), bool)
    turn = places(detections.images[rows] * classes + detections.categories[rows])
    by_turn = np.argsort(turn, kind="stable")
    for judged in np.split(by_turn, np.flatnonzero(np.diff(turn[by_turn])) + 1):
        widest = int(counts[judged].max(initial=1))
        step = max(BLOCK // (40 * widest), 1)
        for k in range(0, len(judged), step):
            few = judged[k : k + step]
            hit[:, :, few], ignored[:, :, few] = _judge(pairs, starts[few], counts[few], free, ignore, truth.crowd)
    return ColumnMatches(kept, place[kept], inside, np.searchsorted(kept, rows), hit, ignored)


def _judge(
    pairs: Pairs,
    starts: Int64[np.ndarray, " n"],
    counts: Int64[np.ndarray, " n"],
    free: Bool[np.ndarray, "A T G"],
    ignore: Bool[np.ndarray, "A G"],
    crowd: Bool[np.ndarray, " G"],
) -> tuple[Bool[np.ndarray, "A T n"], Bool[np.ndarray, "A T n"]]:
    """Lets one detection of each of ``n`` groups take its object; marks in ``free`` what is taken."""
    at = starts[:, None] + np.arange(int(counts.max(initial=0)))[None, :]
    valid = at < (starts + counts)[:, None]
    at = np.where(valid, at, 0)
    about = pairs.objects[at]
    overlap = np.where(valid, pairs.overlaps[at], -1.0)
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    possible = free[:, :, about] & (overlap[None] >= thresholds[:, None, None])[None]
    real = ~ignore[:, None, about]
    counted = np.logical_or.reduce(possible & real, axis=3)
    eligible = possible & (real | ~counted[..., None])  # an object that counts goes before any that is ignored
    value = np.where(eligible, overlap[None, None], -1.0)
    best = value.shape[3] - 1 - value[..., ::-1].argmax(axis=3)  # of equal overlaps the last
    matched = np.logical_or.reduce(eligible, axis=3)
    chosen = about[np.arange(len(about))[None, None], best]
    a, t, n = np.nonzero(matched & ~crowd[chosen])
    free[a, t, chosen[a, t, n]] = False
    return counted, matched & ~counted


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


class PaddedMatches(NamedTuple):
    """Detections after matching, each image sorted by falling score, for each area range ``A`` and IoU threshold ``T``.

    ``hit`` and ``miss`` mark true and false positives; a detection that is ignored (padding, beyond the cap, in a crowd
    region, outside the area range) is neither. ``place`` counts the detections of the same class on the same image that
    score higher. Padding has a class beyond all others.
    """

    scores: Float[Array, "I K"]
    classes: Int[Array, "I K"]
    place: Int[Array, "I K"]
    hit: Bool[Array, "A T I K"]
    miss: Bool[Array, "A T I K"]


def object_counts(
    truth: PaddedTruth, *, classes: int, area_ranges: Float[Array, "A 2"] | Float[np.ndarray, "A 2"]
) -> Int[Array, "A I C"]:
    """Objects that count, per area range, image and class."""
    counts = truth.valid[None] & ~_ignore(truth, jnp.asarray(area_ranges, truth.areas.dtype))
    of_class = truth.classes[..., None] == jnp.arange(classes, dtype=truth.classes.dtype)[None, None, :]
    return jnp.sum(of_class[None] & counts[..., None], axis=2, dtype=jnp.int32)


def match_padded(
    truth: PaddedTruth,
    detections: PaddedDetections,
    *,
    cap: int | Int[Array, ""] = 100,
    area_ranges: Float[Array, "A 2"] | Float[np.ndarray, "A 2"] = AREA_RANGES,
    iou_thresholds: Float[np.ndarray, " T"] = IOU_THRESHOLDS,
) -> PaddedMatches:
    """Match the detections of every image by COCO's greedy rule, for all area ranges and thresholds at once.

    Only detections that overlap an object of their class by at least the least threshold can match; they are put first,
    and the loop over them is as long as the fullest image needs.
    """
    thresholds = jnp.minimum(jnp.asarray(iou_thresholds, detections.boxes.dtype), 1 - 1e-10)
    area_ranges = jnp.asarray(area_ranges, truth.areas.dtype)
    order = jnp.argsort(jnp.where(detections.valid, -detections.scores, jnp.inf), axis=1, stable=True)
    found = PaddedDetections(*(jax.vmap(lambda values, rows: values[rows])(field, order) for field in detections))
    alike = (found.classes[:, :, None] == truth.classes[:, None, :]) & found.valid[:, :, None] & truth.valid[:, None, :]
    table = jnp.where(alike, jax.vmap(_padded_overlaps)(found.boxes, truth.boxes, truth.crowd), -1.0)  # [I, K, M]
    same = found.valid[:, :, None] & found.valid[:, None, :] & (found.classes[:, :, None] == found.classes[:, None, :])
    place = jnp.sum(same & jnp.tril(jnp.ones(same.shape[1:], bool), -1)[None], axis=2, dtype=jnp.int32)
    within_cap = found.valid & (place < cap)
    candidate = within_cap & jnp.any(table >= jnp.min(thresholds), axis=2)
    first = jnp.argsort(~candidate, axis=1, stable=True)
    hit, on_ignored = _match(
        jnp.where(candidate[:, :, None], table, -1.0),
        first,
        candidate,
        truth.crowd,
        _ignore(truth, area_ranges),
        thresholds,
    )
    size = found.boxes[..., 2:] - found.boxes[..., :2]
    area = (size[..., 0] * size[..., 1])[None]
    outside = (area < area_ranges[:, 0, None, None]) | (area > area_ranges[:, 1, None, None])
    ignored = on_ignored | (outside[:, None] & ~hit) | ~within_cap[None, None]
    return PaddedMatches(
        scores=jnp.where(found.valid, found.scores, -jnp.inf),
        classes=jnp.where(found.valid, found.classes, jnp.iinfo(found.classes.dtype).max),
        place=place,
        hit=hit,
        miss=~hit & ~ignored,
    )


def _match(
    table: Float[Array, "I K M"],
    first: Int[Array, "I K"],
    candidate: Bool[Array, "I K"],
    crowd: Bool[Array, "I M"],
    ignore: Bool[Array, "A I M"],
    thresholds: Float[Array, " T"],
) -> tuple[Bool[Array, "A T I K"], Bool[Array, "A T I K"]]:
    """Which detections find an object that counts, and which one that is ignored, in the order ``first``."""
    images, rows, _ = table.shape
    steps = jnp.max(jnp.sum(candidate, axis=1), initial=0)
    real, crowd = ~ignore[:, None], crowd[None, None]
    columns = jnp.arange(table.shape[2])[None, None, None, :]
    image = jnp.arange(images)

    def step(k: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        free, hit, on_ignored = state  # free: [A, T, I, M]
        overlap = table[image, jax.lax.dynamic_index_in_dim(first, k, axis=1, keepdims=False)]  # [I, M]
        possible = free & (overlap[None] >= thresholds[:, None, None])[None]
        # An object that counts goes before any that is ignored, whatever their overlaps.
        counts = jnp.any(possible & real, axis=3, keepdims=True)
        eligible = possible & (real | ~counts)
        value = jnp.where(eligible, overlap[None, None], -1.0)
        best = jnp.max(value, axis=3, keepdims=True)
        last = jnp.max(jnp.where(eligible & (value == best), columns, -1), axis=3, keepdims=True)  # of equal overlaps
        taken = (columns == last) & ~crowd
        matched, counts = last[..., 0] >= 0, counts[..., 0]
        write = jax.lax.dynamic_update_index_in_dim
        return free & ~taken, write(hit, counts, k, 0), write(on_ignored, matched & ~counts, k, 0)

    shape = (ignore.shape[0], len(thresholds), images)
    nothing = jnp.zeros((rows, *shape), bool)
    _, hit, on_ignored = jax.lax.fori_loop(0, steps, step, (jnp.ones((*shape, table.shape[2]), bool), nothing, nothing))
    back = jnp.argsort(first, axis=1)[None, None]  # where each detection went
    hit, on_ignored = (jnp.moveaxis(values, 0, 3) for values in (hit, on_ignored))
    return jnp.take_along_axis(hit, back, axis=3), jnp.take_along_axis(on_ignored, back, axis=3)


def _ignore(truth: PaddedTruth, area_ranges: Float[Array, "A 2"]) -> Bool[Array, "A I M"]:
    low, high = area_ranges[:, 0, None, None], area_ranges[:, 1, None, None]
    return truth.crowd[None] | (truth.areas[None] < low) | (truth.areas[None] > high)


def _padded_overlaps(
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


def bucket_size(n: int, least: int = 8) -> int:
    """``n`` rounded up, so that programs are compiled for few sizes: four for each power of two, from ``least`` on."""
    step = 1 << max(max(n, least).bit_length() - 3, 0)
    return max(-(-n // step) * step, least)
