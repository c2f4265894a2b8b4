"""COCO's numbers of many weightings of the same images at once, on the host: what a bootstrap resamples.

A resampled data set counts each image w times, so its numbers follow from one matching. The detections are put in order
once; for every area range, threshold and class only the true positives are visited, one after the other, each for all
weightings together. The false positives between two true positives are summed by a product of a sparse matrix with the
weights. The time is linear in the detections times the weightings.

The rules are those of pycocotools' `accumulate`, as in `yolojax.eval.accumulate`; numbers agree to about 1e-6.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Float32, Int, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import AREA_RANGES, IOU_THRESHOLDS, in_ranges, match_at_all_thresholds

RECALLS = np.linspace(0.0, 1.0, 101)
_ROUNDED_UP = np.append(np.arange(101) / 100 < RECALLS, False).astype(np.float32)
"""Recall points that lie above k / 100 in floating point, so that a recall of exactly k / 100 does not reach them."""

AREA_SUFFIXES = ("", "s", "m", "l")


class WeightedNumbers(NamedTuple):
    """The twelve numbers by name, and AP and AP50 of each class, for each weighting; NaN: nothing to measure."""

    overall: dict[str, Float[np.ndarray, " S"]]
    class_ap: Float[np.ndarray, "S C"]
    class_ap50: Float[np.ndarray, "S C"]


def coco_numbers(
    truth: GroundTruth, detections: ScoredBoxes, caps: tuple[int, int, int] = (1, 10, 100)
) -> dict[str, float]:
    """COCO's twelve numbers in float32, NaN where there is nothing to measure."""
    weights = np.ones((len(truth.image_ids), 1), np.float32)
    found = weighted_numbers(Prepared(truth, detections, caps[-1]), weights, caps[:2])
    return {name: float(values[0]) for name, values in found.overall.items()}


class _Positives(NamedTuple):
    """The true positives of one class and area range at any threshold, in falling order of score.

    ``rows`` are positions in the ordered list of detections, ``images`` theirs, ``hit`` which thresholds each is a true
    positive at, ``before`` the rows of `_segments` that count the detections since the true positive before.
    """

    start: int
    images: Int64[np.ndarray, " u"]
    hit: np.ndarray
    place: Int64[np.ndarray, " u"]
    rows: Int64[np.ndarray, " u"]


class Prepared:
    """A matched evaluation, ready to be weighted; see `weighted_numbers`."""

    def __init__(self, truth: GroundTruth, found: ScoredBoxes, cap: int = 100) -> None:
        matches = match_at_all_thresholds(truth, found, cap)
        self.images, self.classes = len(truth.image_ids), len(truth.category_ids)
        kept = matches.kept
        order = np.lexsort((-found.scores[kept], found.categories[kept]))
        self._row_images = found.images[kept][order]
        row_classes = found.categories[kept][order]
        self._class_start = np.searchsorted(row_classes, np.arange(self.classes + 1))
        position = np.empty(len(order), np.int64)
        position[order] = np.arange(len(order))
        at = position[matches.candidates]  # where each candidate stands in the ordered list
        by_place = np.argsort(at)
        self._at = at[by_place]
        self._hit, self._ignored = matches.hit[:, :, by_place], matches.ignored[:, :, by_place]
        self._place = matches.place[order]
        self._inside = matches.inside[:, order]
        counts = ~truth.crowd[None] & in_ranges(truth.areas)
        self._objects = [
            _sum_matrix(truth.categories[one], truth.images[one], self.classes, self.images) for one in counts
        ]
        self.positives = [[self._positives(a, c) for c in range(self.classes)] for a in range(len(AREA_RANGES))]
        self._segments = [self._segment_matrix(a) for a in range(len(AREA_RANGES))]
        self.corrections = [[self._corrections(a, c) for c in range(self.classes)] for a in range(len(AREA_RANGES))]

    def _positives(self, a: int, c: int) -> _Positives:
        start, end = np.searchsorted(self._at, self._class_start[c : c + 2])
        hit = self._hit[a, :, start:end]
        some = np.flatnonzero(hit.any(axis=0))
        rows = self._at[start:end][some]
        return _Positives(0, self._row_images[rows], hit[:, some], self._place[rows], rows)

    def _segment_matrix(self, a: int) -> scipy.sparse.csr_array:
        """Sums the weights of the detections inside the area range from each true positive back to the one before."""
        starts, offset = [], 0
        for c, one in enumerate(self.positives[a]):
            self.positives[a][c] = one._replace(start=offset)
            if len(one.rows):
                starts.append(np.append(self._class_start[c], one.rows[:-1] + 1))
            offset += len(one.rows)
        rows = np.concatenate([one.rows for one in self.positives[a]] or [np.empty(0, np.int64)])
        starts = np.concatenate(starts) if starts else np.empty(0, np.int64)
        inside = np.flatnonzero(self._inside[a])
        low, high = np.searchsorted(inside, starts), np.searchsorted(inside, rows + 1)
        counts = high - low
        columns = self._row_images[inside]
        ends = np.cumsum(counts)
        picked = (
            np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts) + np.repeat(low, counts)
        )
        data = np.ones(len(picked), np.float32)
        pointers = np.append(0, ends)
        return scipy.sparse.csr_array((data, columns[picked], pointers), shape=(len(rows), self.images))

    def _corrections(self, a: int, c: int) -> list[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], np.ndarray]]:
        """For each threshold the candidates that count although outside the area range, or do not although inside.

        That is (position among the true positives from which on they count, image, +1 or -1).
        """
        start, end = np.searchsorted(self._at, self._class_start[c : c + 2])
        at, rows = self._at[start:end], self.positives[a][c].rows
        inside = self._inside[a, at]
        found = []
        for t in range(len(IOU_THRESHOLDS)):
            hit, ignored = self._hit[a, t, start:end], self._ignored[a, t, start:end]
            counted = hit | (inside & ~ignored)
            apart = np.flatnonzero(counted != inside)
            first = np.searchsorted(rows, at[apart])
            within = first < len(rows)
            apart, first = apart[within], first[within]
            found.append((first, self._row_images[at[apart]], np.where(counted[apart], 1.0, -1.0).astype(np.float32)))
        return found

    def objects(self, a: int, weights: Float32[np.ndarray, "I S"]) -> Float32[np.ndarray, "C S"]:
        return np.asarray(self._objects[a] @ weights)

    def segments(self, a: int, weights: Float32[np.ndarray, "I S"]) -> Float32[np.ndarray, "u S"]:
        return np.asarray(self._segments[a] @ weights)


def _sum_matrix(rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> scipy.sparse.csr_array:
    ones = np.ones(len(rows), np.float32)
    return scipy.sparse.csr_array((ones, (rows, columns)), shape=(height, width))


def weighted_numbers(
    prepared: Prepared, weights: Float32[np.ndarray, "I S"], caps: tuple[int, int] = (1, 10)
) -> WeightedNumbers:
    """The twelve numbers with each image counted as often as its row of ``weights`` says (whole numbers)."""
    samples, classes = weights.shape[1], prepared.classes
    areas, thresholds = len(AREA_RANGES), len(IOU_THRESHOLDS)
    precision = np.zeros((areas, thresholds, samples))
    recall, low_recall = np.zeros((areas, samples)), np.zeros((len(caps), samples))
    class_ap, class_ap50 = np.full((samples, classes), np.nan), np.full((samples, classes), np.nan)
    present = np.zeros((areas, samples))
    for a in range(areas):
        objects = prepared.objects(a, weights)
        segments = prepared.segments(a, weights)
        there = objects > 0
        present[a] = there.sum(axis=0)
        for c in np.flatnonzero(there.any(axis=1)).tolist():
            own = there[c]
            if a == 0:
                class_ap[own, c], class_ap50[own, c] = 0.0, 0.0
            if not len(prepared.positives[a][c].rows):
                continue
            for t, value, hits, low in _thresholds(
                prepared, a, c, weights, segments, objects[c], caps if a == 0 else ()
            ):
                precision[a, t] += value
                recall[a] += hits
                if low:
                    low_recall += low
                if a == 0:
                    class_ap[own, c] += value[own] / thresholds
                    if t == 0:
                        class_ap50[own, c] = value[own]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = precision / present[:, None]
        overall = {f"AP{suffix}": mean[a].mean(axis=0) for a, suffix in enumerate(AREA_SUFFIXES)}
        overall |= {"AP50": mean[0, 0], "AP75": mean[0, 5]}
        overall |= {"AR1": low_recall[0] / present[0] / thresholds, "AR10": low_recall[1] / present[0] / thresholds}
        overall |= {f"AR{s or 100}": recall[a] / present[a] / thresholds for a, s in enumerate(AREA_SUFFIXES)}
    return WeightedNumbers(overall, class_ap, class_ap50)


def _thresholds(
    prepared: Prepared,
    a: int,
    c: int,
    weights: Float32[np.ndarray, "I S"],
    segments: Float32[np.ndarray, "u S"],
    objects: Float32[np.ndarray, " S"],
    caps: tuple[int, ...],
) -> Iterator[tuple[int, np.ndarray, np.ndarray, list[np.ndarray]]]:
    """``(threshold, average precision, recall, recalls at the caps)`` of one class, 0 where it has no objects."""
    one = prepared.positives[a][c]
    own = weights[one.images]
    counted = _running(segments[one.start : one.start + len(one.rows)].copy(), np.add)
    total = np.maximum(objects, 1)
    scale = (100.0 / total).astype(np.float32 if total.max() < 20_000 else np.float64)
    for t, (first, images, sign) in enumerate(prepared.corrections[a][c]):
        at = np.flatnonzero(one.hit[t])
        if not len(at):
            continue
        hits = _running(own[at], np.add)
        seen = counted[at]
        if len(first):
            extra = np.zeros((len(at) + 1, weights.shape[1]), np.float32)
            np.add.at(extra, np.searchsorted(at, first), weights[images] * sign[:, None])
            seen = seen + _running(extra[:-1], np.add)
        best = _running(np.divide(hits, np.maximum(seen, 1), dtype=np.float32)[::-1], np.maximum)[::-1]
        reached = _recall_points(hits, scale)
        value = (best[0] * reached[0] + np.einsum("ns,ns->s", best[1:], np.diff(reached, axis=0))) / len(RECALLS)
        low = [own[at[one.place[at] < cap]].sum(axis=0) / total for cap in caps]
        yield t, np.where(objects > 0, value, 0.0), hits[-1] / total, low


def _running(values: Float32[np.ndarray, "n S"], combine: np.ufunc) -> Float32[np.ndarray, "n S"]:
    """Running sums or maxima down the rows, in place; row by row, which is faster than `accumulate` along axis 0."""
    for above, row in itertools.pairwise(values):
        combine(above, row, out=row)
    return values


def _recall_points(hits: Float32[np.ndarray, "n S"], scale: Float[np.ndarray, " S"]) -> Float32[np.ndarray, "n S"]:
    """How many of the 101 recall points the hits reach, as in float64; 0 without a hit.

    ``hits * 100 / objects`` is a whole number k or at least ``1 / objects`` away from one; if it is k, the point is
    reached unless the floating-point recall k lies above k / 100.
    """
    near = scale.dtype.type(2e-5 if scale.dtype == np.float32 else 1e-7)
    exact = hits * scale
    exact += near
    whole = np.floor(exact)
    exact -= whole
    at = np.nonzero(exact < 2 * near)
    whole += 1
    whole[at] -= _ROUNDED_UP[whole[at].astype(np.int64) - 1]
    whole *= np.minimum(hits, 1)
    return whole.astype(np.float32, copy=False)


def resample_weights(seed: int, samples: int, images: int, first: int = 0) -> Int[np.ndarray, "I S"]:
    """How often each image occurs in each of ``samples`` draws of ``images`` with replacement, from draw ``first`` on.

    A draw depends on the seed and its own number only.
    """
    found = np.empty((images, samples), np.int32)
    for k in range(samples):
        drawn = np.random.default_rng([seed, first + k]).integers(0, images, images)
        found[:, k] = np.bincount(drawn, minlength=images)
    return found
