"""Which detection finds which object at one IoU: COCO's greedy rule, without its cap on detections per image.

The status of a detection depends only on those that score higher, so one matching of all detections gives precision and
recall at every confidence threshold at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes


@dataclass(frozen=True)
class Matches:
    """Per detection, in the order of the `ScoredBoxes`: the object found, or -1; and whether it counts at all.

    ``ignored`` detections found no object but lie in a crowd region: neither true nor false positives.
    """

    object_of: Int64[np.ndarray, " D"]
    ignored: Bool[np.ndarray, " D"]


def overlaps(
    detections: Float64[np.ndarray, "D 4"], objects: Float64[np.ndarray, "G 4"], crowd: Bool[np.ndarray, " G"]
) -> Float64[np.ndarray, "D G"]:
    """IoU of xywh boxes; for a crowd region, intersection over the detection's own area (pycocotools' `bbIou`).

    Where the union is 0 the overlap is 0.
    """
    low = np.maximum(detections[:, None, :2], objects[None, :, :2])
    high = np.minimum(detections[:, None, :2] + detections[:, None, 2:], objects[None, :, :2] + objects[None, :, 2:])
    intersection = np.prod(np.maximum(high - low, 0), axis=-1)
    area_d, area_g = np.prod(detections[:, 2:], axis=-1), np.prod(objects[:, 2:], axis=-1)
    union = np.where(crowd[None, :], area_d[:, None], area_d[:, None] + area_g[None, :] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def groups(keys: Int64[np.ndarray, " N"]) -> dict[int, Int64[np.ndarray, " n"]]:
    """Positions of each key, in their order."""
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True)) if len(keys) else {}


def image_class_groups(
    truth: GroundTruth, detections: ScoredBoxes
) -> Iterator[tuple[int, Int64[np.ndarray, " d"], Int64[np.ndarray, " g"]]]:
    """``(category, detections by falling score, objects)`` of every image and class that has at least one detection."""
    n = max(len(truth.category_ids), 1)
    objects, none = groups(truth.images * n + truth.categories), np.empty(0, np.int64)
    for key, rows in groups(detections.images * n + detections.categories).items():
        yield key % n, rows, objects.get(key, none)


def match_detections(truth: GroundTruth, detections: ScoredBoxes, iou: float = 0.5) -> Matches:
    """Greedy matching within image and class, by falling score.

    Each detection takes the free object that it overlaps most, if by at least ``iou``; of equal overlaps the last
    listed. One that finds none but lies in a crowd region (intersection over its own area of at least ``iou``) is
    ignored; a crowd region takes any number. This is what pycocotools' `evaluateImg` does for the area range ``all``.
    """
    object_of, ignored = np.full(len(detections.scores), -1, np.int64), np.zeros(len(detections.scores), bool)
    threshold = min(iou, 1 - 1e-10)
    for _, rows, objects in image_class_groups(truth, detections):
        if not len(objects):
            continue
        crowd = truth.crowd[objects]
        table = overlaps(detections.boxes[rows], truth.boxes[objects], crowd)
        free = ~crowd
        for row, overlap in zip(rows, table, strict=True):
            candidates = np.where(free, overlap, -1.0)
            best = len(candidates) - 1 - int(np.argmax(candidates[::-1]))
            if candidates[best] >= threshold:
                free[best] = False
                object_of[row] = objects[best]
            elif (overlap[crowd] >= threshold).any():
                ignored[row] = True
    return Matches(object_of, ignored)
