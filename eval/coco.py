"""COCO-style evaluation of boxes: pycocotools' own numbers from checked input; whatever is left out is counted.

The precision tables are computed by pycocotools, the authority, or by hotcoco, which is faster, where it is installed
and gives the same numbers.
"""

import contextlib
import io
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

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
from yolojax.eval.joining import COCO_FORMAT, ResultFormat, Unknown
from yolojax.eval.matching import Matches, match_detections
from yolojax.eval.mistakes import Mistake, find_mistakes
from yolojax.processor.memory import without_garbage_collection
from yolojax.progress import Quiet, Reporter, Task

Backend = Literal["auto", "pycocotools", "hotcoco"]
"""``auto`` is hotcoco where it is installed and agrees with pycocotools on a sample, else pycocotools."""

MANY = 50_000
"""Detections from which pycocotools takes long enough that something faster is worth a line."""

AREAS = ("all", "small", "medium", "large")
"""Area ranges, both ends included: up to 32 x 32, up to 96 x 96, beyond (an area of 1024 is small and medium)."""

CHECKED_IMAGES, CHECKED_CLASSES = 12, 6
"""Images, and the classes most frequent there, on which hotcoco must equal pycocotools before it is used."""

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
    curves: Curves
    counters: Counters
    mistakes: tuple[Mistake, ...]
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


def precision_tables(
    truth: GroundTruth,
    detections: ScoredBoxes,
    caps: tuple[int, int, int],
    backend: Backend = "auto",
    reporter: Reporter | None = None,
) -> tuple[PrecisionTables, Backend]:
    """The precision tables, computed on renumbered copies without printing anything, and by which program.

    Raises:
      ConfigError: if hotcoco is asked for but not installed, or differs from pycocotools on a sample of the images.
    """
    if backend == "auto":
        backend = "hotcoco" if find_spec("hotcoco") is not None else "pycocotools"
        if backend == "hotcoco" and not _hotcoco_agrees(truth, detections, caps):
            backend = "pycocotools"
    elif backend == "hotcoco":
        if find_spec("hotcoco") is None:
            raise ConfigError("the hotcoco backend is not installed: pip install 'yolojax[fast-eval]'")
        if not _hotcoco_agrees(truth, detections, caps):
            raise ConfigError(
                "hotcoco gives other numbers than pycocotools on a sample of these images, so it is not used; leave "
                "the backend out, and please report the version of hotcoco"
            )
    if not truth.image_ids or not truth.category_ids:
        return _empty_tables(len(truth.category_ids)), backend
    return _tables(truth, detections, caps, backend, reporter), backend


def _hotcoco_agrees(truth: GroundTruth, detections: ScoredBoxes, caps: tuple[int, int, int]) -> bool:
    """Whether both programs give the same numbers, to the last bit, for some images and classes.

    hotcoco is proven equal by tests, but another release is another program.
    """
    if not truth.image_ids or not truth.category_ids:
        return True
    images = np.unique(np.linspace(0, len(truth.image_ids) - 1, CHECKED_IMAGES).astype(np.int64))
    of_objects, of_rows = np.isin(truth.images, images), np.isin(detections.images, images)
    common = np.bincount(truth.categories[of_objects], minlength=len(truth.category_ids))
    classes = np.argsort(-common, kind="stable")[:CHECKED_CLASSES]
    of_objects &= np.isin(truth.categories, classes)
    of_rows &= np.isin(detections.categories, classes)
    image_at, class_at = np.zeros(len(truth.image_ids), np.int64), np.zeros(len(truth.category_ids), np.int64)
    image_at[images], class_at[classes] = np.arange(len(images)), np.arange(len(classes))
    objects = {name: getattr(truth, name)[of_objects] for name in ("boxes", "areas", "crowd")}
    rows = {name: getattr(detections, name)[of_rows] for name in ("boxes", "scores", "rows")}
    few = (
        replace(
            truth,
            images=image_at[truth.images[of_objects]],
            categories=class_at[truth.categories[of_objects]],
            image_ids=tuple(range(len(images))),
            category_ids=tuple(range(len(classes))),
            **objects,
        ),
        replace(
            detections,
            images=image_at[detections.images[of_rows]],
            categories=class_at[detections.categories[of_rows]],
            **rows,
        ),
    )
    one, other = _tables(*few, caps, "pycocotools"), _tables(*few, caps, "hotcoco")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("precision", "recall", "scores"))


def _tables(
    truth: GroundTruth,
    detections: ScoredBoxes,
    caps: tuple[int, int, int],
    backend: Backend,
    reporter: Reporter | None = None,
) -> PrecisionTables:
    steps = len(truth.image_ids) * len(truth.category_ids) * len(AREAS)
    reporter = reporter or Quiet()
    if backend == "pycocotools" and len(detections.scores) >= MANY and find_spec("hotcoco") is None:
        reporter.say("pip install 'yolojax[fast-eval]' gives the same numbers in a hundredth of the time")
    # The programs print their progress to the terminal.
    with (
        reporter.task(f"matching with {backend}", steps) as advance,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        with without_garbage_collection():
            evaluator = (_pycocotools if backend == "pycocotools" else _hotcoco)(truth, detections)
        evaluator.params.maxDets = list(caps)
        if backend == "pycocotools":
            _count_calls(evaluator, advance)
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


def _count_calls(evaluator: Any, advance: Task) -> None:
    """Reports how many images, classes and area ranges have been matched."""
    match, done = evaluator.evaluateImg, 0

    def counted(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done % 10_000 == 0:
            advance(done)
        return match(*arguments)

    evaluator.evaluateImg = counted


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
    import hotcoco  # pyright: ignore[reportMissingImports]

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
