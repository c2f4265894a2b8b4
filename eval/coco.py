"""COCO-style evaluation of boxes: pycocotools' own numbers from checked input; whatever is left out is counted.

The precision tables are computed by pycocotools, the authority, or by hotcoco, which is faster, where it is installed
and gives the same numbers.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float64

from yolojax.errors import ConfigError
from yolojax.eval.confidence import OperatingPoint, best_f1, class_points, operating_point
from yolojax.eval.counters import Counters, count_findings
from yolojax.eval.inputs import (
    Areas,
    DetectionSource,
    GroundTruth,
    GroundTruthSource,
    IgnoreMeans,
    ScoredBoxes,
    Ties,
    read_detections,
    read_ground_truth,
)
from yolojax.eval.joining import Unknown
from yolojax.eval.matching import Matches, match_detections
from yolojax.eval.mistakes import Mistake, find_mistakes
from yolojax.eval.precision_tables import AREAS, Backend, PrecisionTables, precision_tables
from yolojax.eval.result_format import COCO_FORMAT, ResultFormat
from yolojax.processor.memory import without_garbage_collection
from yolojax.progress import Reporter

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
    ``mistakes`` are what the input seems to have wrong, the decisive ones first.
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
    curves: Curves = field(repr=False)
    counters: Counters
    mistakes: tuple[Mistake, ...]
    caps: tuple[int, int, int]
    backend: Backend

    def __str__(self) -> str:
        """The table that the commands print."""
        from yolojax.eval.table import format_result  # it builds on this module

        return format_result(self)  # pyright: ignore[reportArgumentType] (this folder is eval and yolojax.eval)

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
    areas: Areas = "given",
    result_format: ResultFormat = COCO_FORMAT,
    backend: Backend = "auto",
    reporter: Reporter | None = None,
) -> CocoResult:
    """Evaluate detections against a COCO data set; nothing is printed, and neither argument is changed.

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
      areas: what decides small, medium and large (`read_ground_truth`).
      result_format: the conventions of ``detections`` (`ResultFormat`), where they are not COCO's.
      backend: ``auto`` takes hotcoco where it is installed: it gives the numbers of pycocotools, to the last bit, in a
        hundredth of the time, which is checked on a sample each time. ``pycocotools`` computes with pycocotools.
      reporter: where the progress of pycocotools goes, and a word about what would be faster.

    Raises:
      DataError, ResultError: on input that cannot be evaluated; the message names file, image and row.
      ConfigError: on caps or a backend that cannot be used.
    """
    truth, found = read_both(
        ground_truth,
        detections,
        ignore_means=ignore_means,
        unknown=unknown,
        ties=ties,
        areas=areas,
        result_format=result_format,
    )
    return evaluate_columns(truth, found, confidence=confidence, caps=caps, backend=backend, reporter=reporter)


def read_both(
    ground_truth: GroundTruthSource,
    detections: DetectionSource,
    *,
    ignore_means: IgnoreMeans = "ordinary",
    unknown: Unknown = "refuse",
    ties: Ties = "listed",
    areas: Areas = "given",
    result_format: ResultFormat = COCO_FORMAT,
) -> tuple[GroundTruth, ScoredBoxes]:
    """Ground truth and detections as checked columns; the arguments are those of `evaluate_coco`."""
    with without_garbage_collection():
        truth = read_ground_truth(ground_truth, ignore_means=ignore_means, unknown=unknown, areas=areas)
        if ties == "canonical":
            truth = _by_file_name(truth)
        return truth, read_detections(detections, truth, unknown=unknown, ties=ties, result_format=result_format)


def evaluate_columns(
    truth: GroundTruth,
    found: ScoredBoxes,
    *,
    confidence: float = 0.25,
    caps: tuple[int, int, int] = COCO_CAPS,
    backend: Backend = "auto",
    matches: Matches | None = None,
    reporter: Reporter | None = None,
) -> CocoResult:
    """`evaluate_coco` of columns that have been read already (`read_both`), and perhaps matched at IoU .5."""
    if len(caps) != 3 or min(caps) < 1 or list(caps) != sorted(set(caps)):
        raise ConfigError(f"caps must be three rising numbers of at least 1, such as {COCO_CAPS}, not {caps}")
    if not 0 <= confidence <= 1:  # also refuses NaN
        raise ConfigError(f"confidence must lie within 0..1, not at {confidence}")
    tables, used = precision_tables(truth, found, caps, backend, reporter)
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
        classes=_class_results(truth, found, matches, tables, confidence),
        curves=Curves(tables.iou_thresholds, tables.recall_points, shown, tables.scores[..., 0, -1]),
        counters=count_findings(truth, found, matches, caps[-1]),
        mistakes=find_mistakes(truth, found, matches),
        caps=caps,
        backend=used,
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


def _class_results(
    truth: GroundTruth, found: ScoredBoxes, matches: Matches, tables: PrecisionTables, confidence: float
) -> tuple[ClassResult, ...]:
    n = len(truth.category_ids)
    objects = np.bincount(truth.categories[~truth.crowd], minlength=n).tolist()
    detections = np.bincount(found.categories, minlength=n).tolist()
    points = class_points(truth, found, matches, confidence)
    half, three_quarters = (nearest(tables.iou_thresholds, iou) for iou in (0.5, 0.75))
    return tuple(
        ClassResult(
            id=truth.category_ids[k],
            name=truth.category_names[k],
            objects=objects[k],
            detections=detections[k],
            AP=_average(tables.precision[:, :, k, 0, -1]),
            AP50=_average(tables.precision[half, :, k, 0, -1]),
            AP75=_average(tables.precision[three_quarters, :, k, 0, -1]),
            AR=_average(tables.recall[:, k, 0, -1]),
            at_confidence=points[k][0],
            best_f1=points[k][1],
        )
        for k in range(n)
    )
