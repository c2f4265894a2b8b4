"""Precision, recall and F1 at a confidence threshold, from one greedy matching of all detections."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import Matches


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


def best_f1(
    truth: GroundTruth, detections: ScoredBoxes, matches: Matches, category: int | None = None
) -> OperatingPoint | None:
    """The threshold with the highest F1 (of equal ones the highest threshold); None without objects or detections.

    Only observed scores are thresholds, and detections of equal score stand or fall together.
    """
    counted, found, objects = _selection(truth, detections, matches, category)
    scores, hits = _by_falling_score(detections.scores[counted], found[counted])
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
    order = np.argsort(-scores, kind="stable")
    return scores[order], hits[order]
