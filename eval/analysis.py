"""Everything a report says about one list of detections, computed once; and about two of them, on the same images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from yolojax.errors import ConfigError
from yolojax.eval.bootstrap import RESAMPLED, Difference, Interval, Resampled, bootstrap, difference, interval_or_none
from yolojax.eval.coco import COCO_CAPS, CocoResult, evaluate_columns, read_both
from yolojax.eval.confidence import Calibration, calibration
from yolojax.eval.confusion import ConfusionMatrix, confusion_matrix
from yolojax.eval.diagnosis import Diagnosis, diagnose_result
from yolojax.eval.inputs import Areas, DetectionSource, GroundTruth, GroundTruthSource, IgnoreMeans, ScoredBoxes, Ties
from yolojax.eval.joining import Unknown
from yolojax.eval.matching import Matches, match_detections
from yolojax.eval.precision_tables import Backend
from yolojax.eval.result_format import COCO_FORMAT, ResultFormat
from yolojax.eval.tide import TideErrors, classify_errors, tide_errors
from yolojax.progress import Reporter


@dataclass(frozen=True)
class Analysis:
    """One evaluation and what explains it.

    Attributes:
      truth, found: the checked columns.
      result: COCO's numbers.
      matches: of the detections at IoU .5.
      kinds, points_at: of each detection, its kind of error (an index into `tide.KINDS`, -1: none) and the object that
        it is about where that kind has one.
      errors: what each kind costs.
      confusion: at the confidence of ``result``.
      scores: calibration of the scores.
      reading: what is wrong and what to do next; None where there is no object to read it from.
      resampled: the numbers on resampled images; None where that was not asked for or not possible.
    """

    truth: GroundTruth
    found: ScoredBoxes
    result: CocoResult
    matches: Matches
    kinds: Int64[np.ndarray, " D"]
    points_at: Int64[np.ndarray, " D"]
    errors: TideErrors
    confusion: ConfusionMatrix
    scores: Calibration
    reading: Diagnosis | None
    resampled: Resampled | None

    def value(self, name: str) -> float | None:
        """One of COCO's twelve numbers, ``precision``, ``recall`` or ``f1``."""
        return self.result.at_confidence.f1 if name == "f1" else getattr(self.result, name)

    def interval(self, name: str) -> Interval | None:
        """The bootstrap interval of that number."""
        return interval_or_none(self.resampled.values[name]) if self.resampled is not None else None

    def class_interval(self, k: int) -> Interval | None:
        """The bootstrap interval of the AP of a class."""
        return interval_or_none(self.resampled.class_AP[:, k]) if self.resampled is not None else None


@dataclass(frozen=True)
class Comparison:
    """Two lists of detections on the same images, from the same resamples: each number, and each class's AP."""

    numbers: dict[str, Difference]
    classes: tuple[tuple[str, Difference], ...]
    other: Analysis


def analyse(
    ground_truth: GroundTruthSource,
    detections: DetectionSource,
    *,
    confidence: float = 0.25,
    caps: tuple[int, int, int] = COCO_CAPS,
    ignore_means: IgnoreMeans = "ordinary",
    unknown: Unknown = "refuse",
    ties: Ties = "listed",
    areas: Areas = "given",
    result_format: ResultFormat = COCO_FORMAT,
    backend: Backend = "auto",
    reporter: Reporter | None = None,
    samples: int = 1000,
    seed: int = 0,
    result: CocoResult | None = None,
    progress: Callable[[int], None] | None = None,
) -> Analysis:
    """Evaluate, and explain: errors, confusions, calibration, intervals and the diagnosis.

    Args:
      ground_truth, detections, confidence, caps, ignore_means, unknown, ties, areas, result_format, backend,
        reporter: as for `evaluate_coco`.
      samples: resamples for the intervals; 0 for none.
      seed: of the resamples.
      result: what `evaluate_coco` gave for the same arguments, where it is at hand.
      progress: told the number of resamples done.

    Raises:
      DataError, ResultError, ConfigError: as for `evaluate_coco`; the last also for a single resample.
    """
    if samples < 0 or samples == 1:
        raise ConfigError(f"samples = {samples}: intervals need at least two resamples; 0 leaves them out")
    truth, found = read_both(
        ground_truth,
        detections,
        ignore_means=ignore_means,
        unknown=unknown,
        ties=ties,
        areas=areas,
        result_format=result_format,
    )
    matches = match_detections(truth, found, 0.5)
    if result is None:
        result = evaluate_columns(
            truth, found, confidence=confidence, caps=caps, backend=backend, matches=matches, reporter=reporter
        )
    kinds, points_at = classify_errors(truth, found, ~matches.ignored & (matches.object_of < 0))
    confusion = confusion_matrix(truth, found, confidence=result.at_confidence.confidence, matches=matches)
    return Analysis(
        truth=truth,
        found=found,
        result=result,
        matches=matches,
        kinds=kinds,
        points_at=points_at,
        errors=tide_errors(truth, found, matches=matches, classified=(kinds, points_at)),
        confusion=confusion,
        scores=calibration(found, matches),
        reading=diagnose_result(result, confusion) if result.AP is not None else None,
        resampled=bootstrap(
            truth,
            found,
            samples=samples,
            seed=seed,
            confidence=result.at_confidence.confidence,
            caps=result.caps,
            matches=matches,
            progress=progress,
        )
        if samples and truth.image_ids
        else None,
    )


def found_objects(analysis: Analysis) -> Bool[np.ndarray, " G"]:
    """Objects that a detection of their class finds at IoU .5 and the confidence of the evaluation."""
    counted = analysis.found.scores >= analysis.result.at_confidence.confidence
    found = np.zeros(len(analysis.truth.crowd), bool)
    found[analysis.matches.object_of[counted & (analysis.matches.object_of >= 0)]] = True
    return found


def compare(first: Analysis, second: Analysis) -> Comparison:
    """Differences, first less second, with intervals from the same resamples of the same images.

    Raises:
      ConfigError: if the two are not of the same images and classes, or not resampled alike.
    """
    a, b = first.resampled, second.resampled
    if first.truth.image_ids != second.truth.image_ids or first.truth.category_ids != second.truth.category_ids:
        raise ConfigError("two evaluations can be compared on the same images and classes only")
    if a is None or b is None or (a.samples, a.seed) != (b.samples, b.seed):
        raise ConfigError("a comparison needs both evaluations resampled, as often and from the same seed")
    classes = tuple(
        (one.name, difference(one.AP, two.AP, a.class_AP[:, k], b.class_AP[:, k]))
        for k, (one, two) in enumerate(zip(first.result.classes, second.result.classes, strict=True))
    )
    numbers = {
        name: difference(first.value(name), second.value(name), a.values[name], b.values[name]) for name in RESAMPLED
    }
    return Comparison(numbers, classes, second)
