"""The precision tables that COCO's numbers are read from, computed by pycocotools or by hotcoco; nothing is printed.

pycocotools is the authority. hotcoco is taken where it is installed and equals pycocotools on a sample of the images.
"""

import contextlib
import io
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from yolojax.errors import ConfigError
from yolojax.eval.inputs import GroundTruth, ScoredBoxes
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
