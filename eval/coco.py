"""COCO-style evaluation of boxes: pycocotools' own numbers from checked input; whatever is left out is counted.

The precision tables are computed by pycocotools, the authority, or on request by hotcoco, which is faster.
"""

import contextlib
import io
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from yolojax.errors import ConfigError
from yolojax.eval.confidence import OperatingPoint, best_f1, operating_point
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

Backend = Literal["pycocotools", "hotcoco"]
AREAS = ("all", "small", "medium", "large")
"""Area ranges, both ends included: up to 32 x 32, up to 96 x 96, beyond (an area of 1024 is small and medium)."""

CHECKED_IMAGES = 32
"""Images on which hotcoco must equal pycocotools before it is used."""

COCO_CAPS = (1, 10, 100)
DENSE_CAPS = (10, 100, 1000)
"""Caps on detections per image and class, for photos with more than 100 objects of a class."""

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class PrecisionTables:
    """What COCO's summary numbers are read from; -1 where a class has no object of that area.

    Axes: ``T`` IoU thresholds, ``R`` recall points, ``K`` categories, 4 areas (`AREAS`), 3 caps on detections per image
    and class. ``scores`` is the confidence at which each recall is reached.
    """

    iou_thresholds: Float64[np.ndarray, " T"]
    recall_points: Float64[np.ndarray, " R"]
    precision: Float64[np.ndarray, "T R K 4 3"]
    recall: Float64[np.ndarray, "T K 4 3"]
    scores: Float64[np.ndarray, "T R K 4 3"]


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


def precision_tables(
    truth: GroundTruth, detections: ScoredBoxes, caps: tuple[int, int, int], backend: Backend = "pycocotools"
) -> PrecisionTables:
    """The precision tables, computed on renumbered copies without printing anything.

    Raises:
      ConfigError: if hotcoco is asked for but not installed, or differs from pycocotools on a sample of the images.
    """
    if not truth.image_ids or not truth.category_ids:
        return _empty_tables(len(truth.category_ids))
    if backend == "hotcoco":
        _check_hotcoco(truth, detections, caps)
    return _tables(truth, detections, caps, backend)


def _check_hotcoco(truth: GroundTruth, detections: ScoredBoxes, caps: tuple[int, int, int]) -> None:
    """Evaluate some of the images with both programs; raises `ConfigError` unless every number is the same.

    It is proven equal by tests, but another release is another program.
    """
    images = np.unique(np.linspace(0, len(truth.image_ids) - 1, CHECKED_IMAGES).astype(np.int64))
    of_objects, of_rows = np.isin(truth.images, images), np.isin(detections.images, images)
    objects = {name: getattr(truth, name)[of_objects] for name in ("images", "categories", "boxes", "areas", "crowd")}
    rows = {n: getattr(detections, n)[of_rows] for n in ("images", "categories", "boxes", "scores", "rows")}
    few = replace(truth, **objects), replace(detections, **rows)
    one, other = _tables(*few, caps, "pycocotools"), _tables(*few, caps, "hotcoco")
    if not all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("precision", "recall", "scores")):
        raise ConfigError(
            f"hotcoco gives other numbers than pycocotools on {len(images)} of these images, so it is not used; leave "
            "the backend out, and please report the version of hotcoco"
        )


def _tables(
    truth: GroundTruth, detections: ScoredBoxes, caps: tuple[int, int, int], backend: Backend
) -> PrecisionTables:
    # The programs print their progress to the terminal.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = (_pycocotools if backend == "pycocotools" else _hotcoco)(truth, detections)
        evaluator.params.maxDets = list(caps)
        evaluator.evaluate()
        evaluator.accumulate()
    table = evaluator.eval
    return PrecisionTables(
        iou_thresholds=np.array(evaluator.params.iouThrs, np.float64),
        recall_points=np.array(evaluator.params.recThrs, np.float64),
        precision=np.array(table["precision"], np.float64),
        recall=np.array(table["recall"], np.float64),
        scores=np.array(table["scores"], np.float64),
    )


def _pycocotools(truth: GroundTruth, detections: ScoredBoxes) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # Not `loadRes`: it raises on an empty list, changes the list it is given and adds polygons that boxes do not need.
    results: Any = COCO()
    results.dataset = _dataset(truth, _detection_records(detections))
    results.createIndex()
    objects: Any = COCO()
    objects.dataset = _dataset(truth, _object_records(truth))
    objects.createIndex()
    return COCOeval(objects, results, "bbox")


def _hotcoco(truth: GroundTruth, detections: ScoredBoxes) -> Any:
    try:
        import hotcoco  # pyright: ignore[reportMissingImports]
    except ImportError as reason:
        raise ConfigError("the hotcoco backend is not installed: pip install 'yolojax[fast-eval]'") from reason
    objects = hotcoco.COCO(_dataset(truth, _object_records(truth)))
    rows = np.column_stack(
        [detections.images + 1, detections.boxes, detections.scores, detections.categories + 1]
    ).astype(np.float64)
    return hotcoco.COCOeval(objects, objects.loadRes(rows), "bbox")


def _dataset(truth: GroundTruth, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"id": k + 1, "width": 1, "height": 1, "file_name": ""} for k in range(len(truth.image_ids))],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(len(truth.category_ids))],
        "annotations": annotations,
    }


def _object_records(truth: GroundTruth) -> list[dict[str, Any]]:
    columns = (truth.images + 1, truth.categories + 1, truth.boxes, truth.areas, truth.crowd.astype(int))
    return [
        {"id": k + 1, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}
        for k, (image, category, box, area, crowd) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
    ]


def _detection_records(detections: ScoredBoxes) -> list[dict[str, Any]]:
    areas = detections.boxes[:, 2] * detections.boxes[:, 3]
    columns = (detections.images + 1, detections.categories + 1, detections.boxes, areas, detections.scores)
    return [
        {"id": k + 1, "image_id": image, "category_id": c, "bbox": box, "area": area, "score": score, "iscrowd": 0}
        for k, (image, c, box, area, score) in enumerate(zip(*(column.tolist() for column in columns), strict=True))
    ]


def _empty_tables(categories: int) -> PrecisionTables:
    shape = (10, 101, categories, 4, 3)
    return PrecisionTables(
        iou_thresholds=np.linspace(0.5, 0.95, 10),
        recall_points=np.linspace(0, 1, 101),
        precision=np.full(shape, -1.0),
        recall=np.full(shape[:1] + shape[2:], -1.0),
        scores=np.full(shape, -1.0),
    )
