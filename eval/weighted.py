"""COCO's numbers of many weightings of the same images at once, on the host: what a bootstrap resamples.

A resampled data set counts each image w times, so its numbers follow from one matching. The detections are put in order
once; for every area range, threshold and class only the true positives are visited, all weightings together. The false
positives between two true positives are summed by a product of a sparse matrix with the weights. The time is linear in
the detections times the weightings, and the same for a few classes as for a thousand.

The rules are those of pycocotools' `accumulate`, as in `yolojax.eval.accumulate`; numbers agree to about 1e-6.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Float32, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import AREA_RANGES, IOU_THRESHOLDS, ColumnMatches, in_ranges, match_at_all_thresholds
from yolojax.eval.ordering import by_key_and_score, stable_order
from yolojax.eval.running import Lines
from yolojax.processor.memory import available_cores

_In = TypeVar("_In")
_Out = TypeVar("_Out")

RECALLS = np.linspace(0.0, 1.0, 101)
_ROUNDED_UP = np.append(np.arange(101) / 100 < RECALLS, False)
"""Recall points that lie above k / 100 in floating point, so that a recall of exactly k / 100 does not reach them."""

_ROUNDED_UP_MULTIPLE = int(np.gcd.reduce(100 // np.gcd(np.flatnonzero(_ROUNDED_UP), 100)))
"""A recall is exactly one of these points only where the number of objects is a multiple of this (10)."""

AREA_SUFFIXES = ("", "s", "m", "l")

ROWS = 2048
"""True positives that are worked on at once, so that their arrays fit a processor's cache; a class is never divided."""

CACHED_ROWS = 256
"""Of them, those on which many small steps are done one after the other."""

MOST_THREADS = 8
"""Threads among which blocks are dealt out: NumPy and SciPy let go of Python's lock for all of the work on a block."""

MOST_VALUES, LEAST_WEIGHTINGS = 1 << 24, 16
"""True positives times weightings that are worked on at once; but at least so many weightings."""


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
    found = weighted_numbers(Prepared(truth, detections, caps), weights)
    return {name: float(values[0]) for name, values in found.overall.items()}


@dataclass(frozen=True)
class _Block:
    """The true positives of some classes in one area range, at all thresholds, ready to be weighted.

    A line is the true positives of one class at one threshold, by falling score; ``rows`` are those of all lines, and
    stand in the order of `Lines`.

    Attributes:
      classes, thresholds: of each line, by class and then by threshold.
      images: of each row.
      lines: the rows as lines.
      before: for each true positive at any threshold, by class, sums the weights of the detections inside the area
        range from it back to the one before it.
      union: those true positives as lines, one for each class.
      at: where each row stands among them.
      corrections: for each row, sums the candidates that count although outside the area range, less those that do not
        although inside, since the row before; None without any.
      beyond: for each line and each of the lower caps, sums the true positives beyond the cap, which are few; none but
        in the first area range.
    """

    classes: Int64[np.ndarray, " l"]
    thresholds: Int64[np.ndarray, " l"]
    images: Int64[np.ndarray, " n"]
    lines: Lines
    before: scipy.sparse.csr_array
    union: Lines
    at: Int64[np.ndarray, " n"]
    corrections: scipy.sparse.csr_array | None
    beyond: tuple[scipy.sparse.csr_array, ...]


class _Ordered(NamedTuple):
    """The detections within the cap by class and falling score, and the status of those that may match.

    ``at`` are the positions of these in the list; ``bounds`` is the first of each class.
    """

    images: Int64[np.ndarray, " K"]
    classes: Int64[np.ndarray, " K"]
    places: Int64[np.ndarray, " K"]
    inside: Bool[np.ndarray, "A K"]
    at: Int64[np.ndarray, " N"]
    hit: Bool[np.ndarray, "A T N"]
    ignored: Bool[np.ndarray, "A T N"]
    bounds: Int64[np.ndarray, " C1"]


class Prepared:
    """A matched evaluation, ready to be weighted; see `weighted_numbers`."""

    def __init__(self, truth: GroundTruth, found: ScoredBoxes, caps: tuple[int, int, int] = (1, 10, 100)) -> None:
        self.images, self.classes = len(truth.image_ids), len(truth.category_ids)
        ordered = _order(found, match_at_all_thresholds(truth, found, caps[-1]), self.classes)
        self.blocks = [
            list(_blocks(ordered, a, self.images, caps[:2] if a == 0 else ())) for a in range(len(AREA_RANGES))
        ]
        counts = ~truth.crowd[None] & in_ranges(truth.areas)
        self._objects = [
            _sum_matrix(truth.categories[one], truth.images[one], self.classes, self.images) for one in counts
        ]

    def objects(self, a: int, weights: Float32[np.ndarray, "I S"]) -> Float32[np.ndarray, "C S"]:
        return np.asarray(self._objects[a] @ weights)


def _order(found: ScoredBoxes, matches: ColumnMatches, classes: int) -> _Ordered:
    kept = matches.kept
    order = by_key_and_score(found.categories[kept], found.scores[kept])
    rows, row_classes = kept[order], found.categories[kept][order]
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    at = position[matches.candidates]
    by_place = np.argsort(at)
    return _Ordered(
        found.images[rows],
        row_classes,
        matches.place[order],
        matches.inside[:, order],
        at[by_place],
        matches.hit[:, :, by_place],
        matches.ignored[:, :, by_place],
        np.searchsorted(row_classes, np.arange(classes + 1)),
    )


def _blocks(ordered: _Ordered, a: int, images: int, caps: tuple[int, ...]) -> Iterator[_Block]:
    """Classes with true positives, about `ROWS` of them together, but no class in parts."""
    at, hit = ordered.at, ordered.hit[a]
    thresholds, classes = len(IOU_THRESHOLDS), len(ordered.bounds) - 1
    inside = ordered.inside[a]
    some = np.flatnonzero(hit.any(axis=0))
    union = at[some]
    union_bounds = np.searchsorted(union, ordered.bounds)
    union_of = np.empty(len(at), np.int64)
    union_of[some] = np.arange(len(some))
    # All rows, by class, then by threshold, then by falling score; and corrections, by the row that they come before.
    t, which = np.nonzero(hit)
    kind = ordered.classes[at[which]] * thresholds + t
    order = stable_order(kind)
    which, kind = which[order], kind[order]
    bounds = np.searchsorted(kind, np.arange(classes * thresholds + 1))
    wrong_t, wrong = np.nonzero((hit | (inside[at] & ~ordered.ignored[a])) != inside[at])
    wrong_kind = ordered.classes[at[wrong]] * thresholds + wrong_t
    span = len(at) + 1
    row = np.searchsorted(kind * span + which, wrong_kind * span + wrong)
    counts = row < bounds[wrong_kind + 1]  # those after the last row change nothing
    row, wrong, wrong_t = row[counts], wrong[counts], wrong_t[counts]
    signs = np.where(inside[at[wrong]], -1.0, 1.0).astype(np.float32)
    order = stable_order(row)
    row, signs, wrong_images = row[order], signs[order], ordered.images[at[wrong]][order]
    before = _between(union, ordered, np.flatnonzero(inside), images)
    per_class = bounds[::thresholds]
    first = 0
    while first < classes:
        last = max(int(np.searchsorted(per_class, per_class[first] + ROWS, side="right")) - 1, first + 1)
        start, end = int(per_class[first]), int(per_class[last])
        if end > start:
            kinds, lengths = np.unique(kind[start:end], return_counts=True)
            low = int(union_bounds[first])
            each = np.diff(union_bounds[first : last + 1])
            lines, whole = Lines(lengths), Lines(each[each > 0])
            own, mine = which[start:end][lines.rows], slice(*np.searchsorted(row, [start, end]).tolist())
            row_lines, row_places = np.repeat(np.arange(len(lengths)), lengths), ordered.places[at[which[start:end]]]
            row_images = ordered.images[at[which[start:end]]]
            yield _Block(
                kinds // thresholds,
                kinds % thresholds,
                ordered.images[at[own]],
                lines,
                before[low + whole.rows],
                whole,
                whole.places[union_of[own] - low],
                _sum_matrix(lines.places[row[mine] - start], wrong_images[mine], end - start, images, signs[mine])
                if mine.stop > mine.start
                else None,
                tuple(
                    _sum_matrix(row_lines[row_places >= cap], row_images[row_places >= cap], len(lengths), images)
                    for cap in caps
                ),
            )
        first = last


def _between(
    rows: Int64[np.ndarray, " u"], ordered: _Ordered, inside: Int64[np.ndarray, " k"], images: int
) -> scipy.sparse.csr_array:
    """Sums the weights of the detections ``inside`` from each of ``rows`` back to the one before of its class."""
    own = ordered.classes[rows]
    starts = np.append(0, rows + 1)[: len(rows)]
    is_first = np.append(True, own[1:] != own[:-1])[: len(rows)]
    starts[is_first] = ordered.bounds[own[is_first]]
    low, high = np.searchsorted(inside, starts), np.searchsorted(inside, rows + 1)
    counts = high - low
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    picked = np.arange(total) + np.repeat(low - (ends - counts), counts)
    ones, columns = np.ones(total, np.float32), ordered.images[inside[picked]]
    return scipy.sparse.csr_array((ones, columns, np.append(0, ends)), shape=(len(rows), images))


def _sum_matrix(
    rows: np.ndarray, columns: np.ndarray, height: int, width: int, values: np.ndarray | None = None
) -> scipy.sparse.csr_array:
    values = np.ones(len(rows), np.float32) if values is None else values
    return scipy.sparse.csr_array((values, (rows, columns)), shape=(height, width))


def weighted_numbers(prepared: Prepared, weights: Float32[np.ndarray, "I S"]) -> WeightedNumbers:
    """The twelve numbers with each image counted as often as its row of ``weights`` says (whole numbers)."""
    samples, areas, thresholds = weights.shape[1], len(AREA_RANGES), len(IOU_THRESHOLDS)
    precision, recall = np.zeros((areas, thresholds, samples)), np.zeros((areas, samples))
    low_recall, present = np.zeros((2, samples)), np.zeros((areas, samples))
    class_ap, class_ap50 = (np.full((prepared.classes, samples), np.nan) for _ in range(2))
    for a, blocks in enumerate(prepared.blocks):
        objects = prepared.objects(a, weights)
        present[a] = (objects > 0).sum(axis=0)
        if a == 0:
            class_ap[objects > 0], class_ap50[objects > 0] = 0.0, 0.0
        if not blocks:
            continue
        parts = in_threads(partial(_lines_in_parts, weights=weights, objects=objects), blocks)
        value, found, low = (np.concatenate(columns, axis=-2) for columns in zip(*parts, strict=True))
        classes = np.concatenate([block.classes for block in blocks])
        threshold = np.concatenate([block.thresholds for block in blocks])
        recall[a] = found.sum(axis=0, dtype=np.float64)
        if a == 0:
            low_recall = low.sum(axis=1, dtype=np.float64)
            class_ap50[classes[threshold == 0]] += value[threshold == 0]
        for t in range(thresholds):
            precision[a, t] = value[threshold == t].sum(axis=0, dtype=np.float64)
            if a == 0:
                class_ap[classes[threshold == t]] += value[threshold == t] / thresholds
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = precision / present[:, None]
        overall = {f"AP{suffix}": mean[a].mean(axis=0) for a, suffix in enumerate(AREA_SUFFIXES)}
        overall |= {"AP50": mean[0, 0], "AP75": mean[0, 5]}
        overall |= {"AR1": low_recall[0] / present[0] / thresholds, "AR10": low_recall[1] / present[0] / thresholds}
        overall |= {f"AR{s or 100}": recall[a] / present[a] / thresholds for a, s in enumerate(AREA_SUFFIXES)}
    return WeightedNumbers(overall, class_ap.T, class_ap50.T)


def in_threads(work: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    """What the work gives for each item, in their order; as many at once as there are cores, up to `MOST_THREADS`."""
    with ThreadPoolExecutor(min(available_cores(), MOST_THREADS)) as pool:
        return list(pool.map(work, items))


def _lines_in_parts(
    block: _Block, weights: Float32[np.ndarray, "I S"], objects: Float32[np.ndarray, "C S"]
) -> tuple[Float32[np.ndarray, "l S"], Float32[np.ndarray, "l S"], Float32[np.ndarray, "k l S"]]:
    """`_lines`, for as many weightings at once as there is room for."""
    objects = objects[block.classes]
    at_once = max(MOST_VALUES // len(block.images), LEAST_WEIGHTINGS)
    parts = [
        _lines(block, weights[:, start : start + at_once], objects[:, start : start + at_once])
        for start in range(0, weights.shape[1], at_once)
    ]
    value, found, low = (np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True))
    return value, found, low


def _lines(
    block: _Block, weights: Float32[np.ndarray, "I S"], objects: Float32[np.ndarray, "l S"]
) -> tuple[Float32[np.ndarray, "l S"], Float32[np.ndarray, "l S"], Float32[np.ndarray, "k l S"]]:
    """Average precision, recall, and recalls at the lower caps, of each line; 0 where it has no objects."""
    lines, total = block.lines, np.maximum(objects, 1)
    hits = lines.running_sum(weights[block.images])
    seen = block.union.running_sum(block.before @ weights)[block.at]
    if block.corrections is not None:
        seen += lines.running_sum(block.corrections @ weights)
    at_end = hits[lines.last]
    _precision_and_recall_points(hits, seen, total, lines.line)
    best = lines.greatest_below(seen)
    best *= lines.differences(hits)
    value = np.where(objects > 0, lines.sums(best) / len(RECALLS), 0.0)
    low = [(at_end - one @ weights) / total for one in block.beyond]
    return value, at_end / total, np.array(low, np.float32).reshape(len(low), *total.shape)


def _precision_and_recall_points(
    hits: Float32[np.ndarray, "n S"],
    seen: Float32[np.ndarray, "n S"],
    objects: Float32[np.ndarray, "l S"],
    line: Int64[np.ndarray, " n"],
) -> None:
    """Replaces ``seen`` by the precision ``hits / seen``, and ``hits`` by how many of the 101 recall points they reach.

    That is as in float64, and 0 without a hit. ``hits * 100 / objects`` is a whole number k or at least ``1 / objects``
    away from one. Multiplied by slightly more than 1, k is rounded up to k + 1, the points 0 to k, and 0 stays 0; the
    point k is not reached, though, where the floating-point recall k lies above k / 100. A few rows are done at a time,
    which stay in the processor's nearest cache.
    """
    real, more, close_to = (np.float32, 2e-7, 4e-5) if objects.max() < 20_000 else (np.float64, 1e-11, 2e-9)
    scale = (100.0 / objects.astype(np.float64) * (1 + more)).astype(real)
    may_round = np.fmod(objects, _ROUNDED_UP_MULTIPLE) == 0
    shape = (CACHED_ROWS, hits.shape[1])
    exact_rows, close_rows, other_rows = np.empty(shape, real), np.empty(shape, bool), np.empty(shape, bool)
    for start in range(0, len(hits), CACHED_ROWS):
        rows = slice(start, min(start + CACHED_ROWS, len(hits)))
        few, own, count = hits[rows], line[rows], rows.stop - start
        exact, close, other = exact_rows[:count], close_rows[:count], other_rows[:count]
        np.add(seen[rows], np.float32(1e-30), out=seen[rows])  # changes 0 alone, where there is no hit either
        np.divide(few, seen[rows], out=seen[rows])
        np.take(scale, own, axis=0, out=exact, mode="clip")
        exact *= few
        np.ceil(exact, out=few, casting="same_kind")
        exact -= few
        np.less(exact, real(close_to - 1), out=close)
        close &= np.take(may_round, own, axis=0, out=other, mode="clip")
        at = np.flatnonzero(close)
        row, column = np.divmod(at, few.shape[1])
        few[row, column] -= _ROUNDED_UP[few[row, column].astype(np.int64) - 1]


def resample_weights(seed: int, samples: int, images: int, first: int = 0) -> Float32[np.ndarray, "I S"]:
    """How often each image occurs in each of ``samples`` draws of ``images`` with replacement, from draw ``first`` on.

    A draw depends on the seed and its own number only.
    """
    found = np.empty((images, samples), np.float32)

    def draw(start: int) -> None:
        some = range(start, min(start + 16, samples))
        drawn = [np.random.default_rng([seed, first + k]).integers(0, images, images) for k in some]
        found[:, some.start : some.stop] = np.array([np.bincount(one, minlength=images) for one in drawn]).T

    in_threads(draw, range(0, samples, 16))  # a column alone would fill one number of every line of the cache
    return found
