"""What confidence scores are worth: counts at a threshold, the threshold with the best F1, and calibration.

Calibration asks whether of the detections with a score near .7 seven in ten are true positives: C. Guo et al., "On
Calibration of Modern Neural Networks", ICML 2017, equations 2 to 5, with true positives at IoU .5 in place of right
answers, as in F. Kueppers et al., "Multivariate Confidence Calibration for Object Detection", CVPR Workshops 2020
(arXiv 2004.13546), without its dependence on position.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import Matches
from yolojax.eval.ordering import falling_order, stable_order


@dataclass(frozen=True)
class OperatingPoint:
    """Counts at one confidence threshold (inclusive); ``precision`` is None where nothing passes the threshold and
    ``recall`` where there is no object.

    Micro-averaged where several classes are counted together: every detection and every object weighs the same.
    """

    confidence: float
    true_positives: int
    false_positives: int
    objects: int

    @property
    def precision(self) -> float | None:
        found = self.true_positives + self.false_positives
        return self.true_positives / found if found else None

    @property
    def recall(self) -> float | None:
        return self.true_positives / self.objects if self.objects else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two, as ``2 TP / (detections + objects)``; None where there is neither."""
        total = self.true_positives + self.false_positives + self.objects
        return 2 * self.true_positives / total if total else None


def operating_point(
    truth: GroundTruth, detections: ScoredBoxes, matches: Matches, confidence: float, category: int | None = None
) -> OperatingPoint:
    """Counts of one class, or of all together, among the detections that score at least ``confidence``."""
    counted, found, objects = _selection(truth, detections, matches, category)
    counted = counted & (detections.scores >= confidence)
    true = int(np.sum(counted & found))
    return OperatingPoint(confidence, true, int(np.sum(counted)) - true, objects)


@dataclass(frozen=True)
class ConfidenceCurves:
    """Precision and recall at rising confidence thresholds: of every class, and in the last row of all together.

    As in `OperatingPoint`, all together is micro-averaged, thresholds are inclusive, precision is NaN where nothing
    passes the threshold and recall where there is no object.
    """

    confidence: Float64[np.ndarray, " T"]
    precision: Float64[np.ndarray, "L T"]
    recall: Float64[np.ndarray, "L T"]
    f1: Float64[np.ndarray, "L T"]


def confidence_curves(
    truth: GroundTruth, detections: ScoredBoxes, matches: Matches, *, thresholds: int = 501
) -> ConfidenceCurves:
    """`operating_point` of every class and of all together at ``thresholds`` confidences from 0 to 1."""
    confidence = np.linspace(0.0, 1.0, thresholds)
    counted, hits, edges, objects = _by_class(truth, detections, matches)
    rows = []
    for k, of_class in enumerate([*objects, sum(objects)]):
        own = slice(*edges[k : k + 2]) if k < len(objects) else slice(None)
        # Of scores in rising order, all from this place on reach the threshold.
        order = np.argsort(detections.scores[counted[own]])
        first = np.searchsorted(detections.scores[counted[own]][order], confidence)
        true = np.append(np.cumsum(hits[own][order][::-1])[::-1], 0)[first]
        rows.append((true, len(order) - first, np.full(thresholds, of_class)))
    true, passing, objects = (np.array(column, np.float64) for column in zip(*rows, strict=True))

    def share(part: Float64[np.ndarray, "L T"], whole: Float64[np.ndarray, "L T"]) -> Float64[np.ndarray, "L T"]:
        return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)

    return ConfidenceCurves(confidence, share(true, passing), share(true, objects), share(2 * true, passing + objects))


def best_f1(
    truth: GroundTruth, detections: ScoredBoxes, matches: Matches, category: int | None = None
) -> OperatingPoint | None:
    """The threshold with the highest F1 (of equal ones the highest threshold); None without objects or detections.

    Only observed scores are thresholds, and detections of equal score stand or fall together.
    """
    counted, found, objects = _selection(truth, detections, matches, category)
    return _best_f1(detections.scores[counted], found[counted], objects)


def class_points(
    truth: GroundTruth, detections: ScoredBoxes, matches: Matches, confidence: float
) -> list[tuple[OperatingPoint, OperatingPoint | None]]:
    """`operating_point` and `best_f1` of every class, in one pass over the detections."""
    counted, hits, edges, objects = _by_class(truth, detections, matches)
    scores = detections.scores[counted]
    points = []
    for k in range(len(objects)):
        own, hit = scores[edges[k] : edges[k + 1]], hits[edges[k] : edges[k + 1]]
        above = own >= confidence
        true = int(np.sum(above & hit))
        point = OperatingPoint(confidence, true, int(np.sum(above)) - true, objects[k])
        points.append((point, _best_f1(own, hit, objects[k])))
    return points


def _by_class(
    truth: GroundTruth, detections: ScoredBoxes, matches: Matches
) -> tuple[Int64[np.ndarray, " d"], Bool[np.ndarray, " d"], list[int], list[int]]:
    """The detections that count, class by class; which of them found an object; where each class begins, and the last
    one ends; and the number of objects of each class."""
    classes = len(truth.category_ids)
    counted = np.flatnonzero(~matches.ignored)
    counted = counted[stable_order(detections.categories[counted])]
    edges = np.searchsorted(detections.categories[counted], np.arange(classes + 1)).tolist()
    objects = np.bincount(truth.categories[~truth.crowd], minlength=classes).tolist()
    return counted, matches.object_of[counted] >= 0, edges, objects


def _best_f1(scores: Float64[np.ndarray, " n"], hits: Bool[np.ndarray, " n"], objects: int) -> OperatingPoint | None:
    scores, hits = _by_falling_score(scores, hits)
    if not len(scores) or not objects:
        return None
    last_of_tie = np.append(scores[1:] != scores[:-1], True)
    true, seen = np.cumsum(hits)[last_of_tie], (np.arange(len(scores)) + 1)[last_of_tie]
    best = int(np.argmax(2 * true / (seen + objects)))
    return OperatingPoint(float(scores[last_of_tie][best]), int(true[best]), int(seen[best] - true[best]), objects)


def _selection(
    truth: GroundTruth, detections: ScoredBoxes, matches: Matches, category: int | None
) -> tuple[Bool[np.ndarray, " D"], Bool[np.ndarray, " D"], int]:
    """Which detections count, which of all found an object, and the number of objects, of one class or of all."""
    counted, wanted = ~matches.ignored, ~truth.crowd
    if category is not None:
        counted = counted & (detections.categories == category)
        wanted = wanted & (truth.categories == category)
    return counted, matches.object_of >= 0, int(np.sum(wanted))


def _by_falling_score(
    scores: Float64[np.ndarray, " n"], hits: Bool[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    order = falling_order(scores)
    return scores[order], hits[order]


@dataclass(frozen=True)
class Calibration:
    """Detections by score, in bins of equal width over 0..1 (what lies outside falls into the end bins).

    Attributes:
      edges: of the bins; a score on an edge belongs to the bin above it.
      true, false: true and false positives at the IoU of the matching; what lies in crowd regions is neither.
      mean_score: of each bin, NaN where it is empty.
      error: the expected calibration error, the mean over detections of ``|mean score - share of true positives|`` of
        their bin; None without detections.
    """

    edges: Float64[np.ndarray, " B1"]
    true: Int64[np.ndarray, " B"]
    false: Int64[np.ndarray, " B"]
    mean_score: Float64[np.ndarray, " B"]
    error: float | None

    @property
    def precision(self) -> Float64[np.ndarray, " B"]:
        """Share of true positives in each bin, NaN where it is empty."""
        total = self.true + self.false
        return np.divide(self.true, total, out=np.full(len(total), np.nan), where=total > 0)


def calibration(detections: ScoredBoxes, matches: Matches, *, bins: int = 20) -> Calibration:
    """Scores against truth, over all classes together."""
    counted = ~matches.ignored
    scores, hits = detections.scores[counted], matches.object_of[counted] >= 0
    which = np.clip(np.floor(scores * bins), 0, bins - 1).astype(np.int64)
    true = np.bincount(which[hits], minlength=bins)
    total = np.bincount(which, minlength=bins)
    summed = np.bincount(which, weights=scores, minlength=bins)
    mean = np.divide(summed, total, out=np.full(bins, np.nan), where=total > 0)
    error = float(np.abs(summed - true).sum() / len(scores)) if len(scores) else None
    return Calibration(np.linspace(0.0, 1.0, bins + 1), true, total - true, mean, error)
