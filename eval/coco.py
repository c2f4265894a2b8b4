"""COCO-style evaluation of boxes: pycocotools' own numbers, from checked input, with nothing left out in silence."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from yolojax.errors import ConfigError
from yolojax.eval.backends import AREAS, Backend, PrecisionTables, precision_tables
from yolojax.eval.counters import Counters, count_findings
from yolojax.eval.inputs import (
    DetectionSource,
    GroundTruth,
    GroundTruthSource,
    IgnoreMeans,
    ScoredBoxes,
    Ties,
    Unknown,
    read_detections,
    read_ground_truth,
)
from yolojax.eval.matching import Matches, match_detections
from yolojax.eval.operating_point import OperatingPoint, best_f1, operating_point

COCO_CAPS = (1, 10, 100)
DENSE_CAPS = (10, 100, 1000)
"""Caps on detections per image and class, for photos with more than 100 objects of a class."""

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class ClassResult:
    """One category: None where it has no object. ``AR`` is at the largest cap. Objects exclude crowd regions."""

    id: int | float | str
    name: str
    objects: int
    detections: int
    AP: float | None
    AP50: float | None
    AP75: float | None
    AR: float | None
    at_confidence: OperatingPoint
    best_f1: OperatingPoint | None


@dataclass(frozen=True)
class Curves:
    """Interpolated precision at COCO's recall points, per IoU threshold and category (area ``all``, largest cap).

    NaN for categories without objects. ``scores`` is the confidence at which each recall is reached, 0 where it is not.
    """

    iou_thresholds: Float64[np.ndarray, " T"]
    recall: Float64[np.ndarray, " R"]
    precision: Float64[np.ndarray, "T R K"]
    scores: Float64[np.ndarray, "T R K"]

    def at_iou(self, iou: float) -> Float64[np.ndarray, "R K"]:
        """Precision curves at the nearest IoU threshold (they are floats: .75 is not found by equality)."""
        return self.precision[nearest(self.iou_thresholds, iou)]


@dataclass(frozen=True)
class CocoResult:
    """COCO's twelve numbers (None: there is nothing to measure), and what else one evaluation knows.

    ``AR1``, ``AR10`` and ``AR100`` are recalls at the three ``caps``, which are 1, 10 and 100 unless chosen otherwise.
    ``precision`` and ``recall`` are at IoU .5 and the confidence of ``at_confidence`` (.25), micro-averaged over the
    classes, after greedy matching by score; ``best_f1`` is the threshold that would have been best on these images.
    """

    AP: float | None
    AP50: float | None
    AP75: float | None
    APs: float | None
    APm: float | None
    APl: float | None
    AR1: float | None
    AR10: float | None
    AR100: float | None
    ARs: float | None
    ARm: float | None
    ARl: float | None
    at_confidence: OperatingPoint
    best_f1: OperatingPoint | None
    classes: tuple[ClassResult, ...]
    curves: Curves
    counters: Counters
    caps: tuple[int, int, int]
    backend: Backend

    @property
    def precision(self) -> float | None:
        return self.at_confidence.precision

    @property
    def recall(self) -> float | None:
        return self.at_confidence.recall


def evaluate_coco(
    ground_truth: GroundTruthSource,
    detections: DetectionSource,
    *,
    confidence: float = 0.25,
    caps: tuple[int, int, int] = COCO_CAPS,
    ignore_means: IgnoreMeans = "ordinary",
    unknown: Unknown = "refuse",
    ties: Ties = "listed",
    backend: Backend = "pycocotools",
) -> CocoResult:
    """Evaluate detections against a COCO data set; silent, and neither argument is changed.

    Args:
      ground_truth: a parsed data set or the path of its file (`read_ground_truth`).
      detections: a result list, a scored data set, an array or a path (`read_detections`); may be empty.
      confidence: threshold of ``precision`` and ``recall``; AP and AR read all detections.
      caps: how many detections per image and class count, three rising numbers; `DENSE_CAPS` for dense photos.
      ignore_means: what the flag ``ignore`` of an annotation does (`read_ground_truth`).
      unknown: whether rows on unknown images or classes are refused, or left out and counted.
      ties: the order of equal scores, on which AP depends. ``listed`` gives COCO's numbers: as listed within an image,
        by image id between images. ``canonical`` is by content and file name, so that neither the order of the list nor
        the ids change anything.
      backend: ``pycocotools``, or ``hotcoco``, which gives the same numbers sooner.

    Raises:
      DataError, ResultError: on input that cannot be evaluated; the message names file, image and row.
      ConfigError: on caps or a backend that cannot be used.
    """
    truth, found = read_both(ground_truth, detections, ignore_means=ignore_means, unknown=unknown, ties=ties)
    return evaluate_columns(truth, found, confidence=confidence, caps=caps, backend=backend)


def read_both(
    ground_truth: GroundTruthSource,
    detections: DetectionSource,
    *,
    ignore_means: IgnoreMeans = "ordinary",
    unknown: Unknown = "refuse",
    ties: Ties = "listed",
) -> tuple[GroundTruth, ScoredBoxes]:
    """Ground truth and detections as checked columns; the arguments are those of `evaluate_coco`."""
    truth = read_ground_truth(ground_truth, ignore_means=ignore_means, unknown=unknown)
    if ties == "canonical":
        truth = _by_file_name(truth)
    return truth, read_detections(detections, truth, unknown=unknown, ties=ties)


def evaluate_columns(
    truth: GroundTruth,
    found: ScoredBoxes,
    *,
    confidence: float = 0.25,
    caps: tuple[int, int, int] = COCO_CAPS,
    backend: Backend = "pycocotools",
    matches: Matches | None = None,
) -> CocoResult:
    """`evaluate_coco` of columns that have been read already (`read_both`), and perhaps matched at IoU .5."""
    if len(caps) != 3 or min(caps) < 1 or list(caps) != sorted(set(caps)):
        raise ConfigError(f"caps must be three rising numbers of at least 1, such as {COCO_CAPS}, not {caps}")
    if not 0 <= confidence <= 1:  # also refuses NaN
        raise ConfigError(f"confidence must lie within 0..1, not at {confidence}")
    tables = precision_tables(truth, found, caps, backend)
    matches = matches or match_detections(truth, found, iou=0.5)
    average = {
        **{f"AP{suffix}": _average(tables.precision[..., a, -1]) for a, suffix in enumerate(("", "s", "m", "l"))},
        "AP50": _average(tables.precision[nearest(tables.iou_thresholds, 0.5), ..., 0, -1]),
        "AP75": _average(tables.precision[nearest(tables.iou_thresholds, 0.75), ..., 0, -1]),
        **{f"AR{cap}": _average(tables.recall[..., 0, m]) for m, cap in enumerate(COCO_CAPS)},
        **{f"AR{area[0]}": _average(tables.recall[..., a, -1]) for a, area in enumerate(AREAS) if a},
    }
    absent = tables.precision[0, 0, :, 0, -1] < 0
    shown = np.where(absent, np.nan, tables.precision[..., 0, -1])
    return CocoResult(
        **average,
        at_confidence=operating_point(truth, found, matches, confidence),
        best_f1=best_f1(truth, found, matches),
        classes=tuple(_class_result(k, truth, found, matches, tables, confidence) for k in range(len(absent))),
        curves=Curves(tables.iou_thresholds, tables.recall_points, shown, tables.scores[..., 0, -1]),
        counters=count_findings(truth, found, matches, caps[-1]),
        caps=caps,
        backend=backend,
    )


def _by_file_name(truth: GroundTruth) -> GroundTruth:
    """The same ground truth with its images in the order of their names instead of their ids."""
    order = sorted(range(len(truth.image_ids)), key=lambda k: truth.file_names[k])
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return replace(
        truth,
        image_ids=tuple(truth.image_ids[k] for k in order),
        file_names=tuple(truth.file_names[k] for k in order),
        sizes=truth.sizes[order],
        images=place[truth.images],
    )


def nearest(grid: Float64[np.ndarray, " n"], value: float) -> int:
    """Index of the nearest point of a grid."""
    return int(np.argmin(np.abs(grid - value)))


def _average(values: np.ndarray) -> float | None:
    """Mean over what was measured (-1 marks what was not), None where nothing was."""
    measured = values[values > -1]
    return float(np.mean(measured)) if measured.size else None


def _class_result(
    k: int, truth: GroundTruth, found: ScoredBoxes, matches: Matches, tables: PrecisionTables, confidence: float
) -> ClassResult:
    precision = tables.precision[:, :, k, 0, -1]
    return ClassResult(
        id=truth.category_ids[k],
        name=truth.category_names[k],
        objects=int(np.sum((truth.categories == k) & ~truth.crowd)),
        detections=int(np.sum(found.categories == k)),
        AP=_average(precision),
        AP50=_average(precision[nearest(tables.iou_thresholds, 0.5)]),
        AP75=_average(precision[nearest(tables.iou_thresholds, 0.75)]),
        AR=_average(tables.recall[:, k, 0, -1]),
        at_confidence=operating_point(truth, found, matches, confidence, k),
        best_f1=best_f1(truth, found, matches, k),
    )
