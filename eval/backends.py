"""The two programs that compute COCO's precision tables: pycocotools, the authority, and hotcoco, on request."""

import contextlib
import io
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from yolojax.errors import ConfigError
from yolojax.eval.inputs import GroundTruth, ScoredBoxes

Backend = Literal["pycocotools", "hotcoco"]
AREAS = ("all", "small", "medium", "large")
"""Area ranges, both ends included: up to 32 x 32, up to 96 x 96, beyond (an area of 1024 is small and medium)."""

CHECKED_IMAGES = 32
"""Images on which hotcoco has to prove itself before it is used."""


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
    truth: GroundTruth, detections: ScoredBoxes, caps: tuple[int, int, int], backend: Backend = "pycocotools"
) -> PrecisionTables:
    """The tables for boxes, computed in silence on renumbered copies.

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
