"""Which detection finds which object: COCO's greedy rule, on the host.

`match_detections` matches checked columns at one IoU, without COCO's cap on detections for each image. The status of a
detection depends only on those that score higher, so one matching of all detections gives precision and recall at every
confidence threshold at once. `match_at_all_thresholds` matches them for all area ranges and thresholds under the cap.

`yolojax.eval.padded` has the same rule compiled.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.ordering import places, stable_order
from yolojax.eval.pairs import BLOCK, Pairs, overlapping_pairs

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
ANY_AREA = (0.0, 1e10)
AREA_RANGES = np.array([ANY_AREA, (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10)])
"""COCO's: all, small, medium, large, in square pixels; both ends belong to a range."""


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
    by_turn = stable_order(turn)
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
