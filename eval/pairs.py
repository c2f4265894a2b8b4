"""Pairs of a detection and an object that overlap, in columns: the basis of all matching on the host.

Time and memory grow with the pairs on the same image (and of the same class, where that is asked for), never with
images times classes. Pairs are computed in blocks of bounded size and only those that overlap enough are kept.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.ordering import stable_order

BLOCK = 1 << 20
"""Pairs whose overlap is computed at once."""


class Pairs(NamedTuple):
    """Overlapping pairs, by detection and, for each, in the order of the objects."""

    detections: Int64[np.ndarray, " P"]
    objects: Int64[np.ndarray, " P"]
    overlaps: Float64[np.ndarray, " P"]


def overlapping_pairs(
    truth: GroundTruth,
    found: ScoredBoxes,
    least: float,
    *,
    same_class: bool,
    detections: Int64[np.ndarray, " d"] | None = None,
    objects: Int64[np.ndarray, " g"] | None = None,
    crowd_as_regions: bool = True,
) -> Pairs:
    """All pairs on the same image that overlap by at least ``least`` (greater than 0).

    Args:
      truth, found: checked columns.
      least: of the IoU; for a crowd region, of the intersection over the detection's own area.
      same_class: whether both must be of one class.
      detections, objects: rising positions of those to be looked at; all by default.
      crowd_as_regions: whether crowd regions have an overlap of their own, as in COCO, or an ordinary IoU.
    """
    detections = np.arange(len(found.scores)) if detections is None else detections
    objects = np.arange(len(truth.images)) if objects is None else objects
    classes = max(len(truth.category_ids), 1)
    detection_keys, object_keys = found.images[detections], truth.images[objects]
    if same_class:
        detection_keys = detection_keys * classes + found.categories[detections]
        object_keys = object_keys * classes + truth.categories[objects]
    order = stable_order(object_keys)
    object_keys, objects = object_keys[order], objects[order]
    first = np.searchsorted(object_keys, detection_keys, side="left")
    count = np.searchsorted(object_keys, detection_keys, side="right") - first
    some = np.flatnonzero(count)
    detections, first, count = detections[some], first[some], count[some]
    crowd = truth.crowd & crowd_as_regions
    parts = [
        _block(truth, found, least, detections, objects, first, count, crowd, start, end)
        for start, end in _blocks(count)
    ]
    if not parts:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _blocks(count: Int64[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """Ranges of detections with about `BLOCK` pairs each."""
    total = np.cumsum(count)
    if not len(total):
        return []
    cuts = np.searchsorted(total, np.arange(BLOCK, int(total[-1]) + BLOCK, BLOCK), side="left") + 1
    edges = np.unique(np.minimum(np.append(0, cuts), len(count)))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _block(
    truth: GroundTruth,
    found: ScoredBoxes,
    least: float,
    detections: np.ndarray,
    objects: np.ndarray,
    first: np.ndarray,
    count: np.ndarray,
    crowd: np.ndarray,
    start: int,
    end: int,
) -> Pairs:
    count = count[start:end]
    which = np.repeat(detections[start:end], count)
    ends = np.cumsum(count)
    at = np.arange(int(ends[-1])) - np.repeat(ends - count, count) + np.repeat(first[start:end], count)
    about = objects[at]
    values = pair_overlaps(found.boxes[which], truth.boxes[about], crowd[about])
    kept = np.flatnonzero(values >= least)
    return Pairs(which[kept], about[kept], values[kept])


def pair_overlaps(
    detections: Float64[np.ndarray, "P 4"], objects: Float64[np.ndarray, "P 4"], crowd: Bool[np.ndarray, " P"]
) -> Float64[np.ndarray, " P"]:
    """IoU of xywh boxes, row by row; for a crowd region, intersection over the detection's own area.

    The order of the operations is that of pycocotools' `bbIou`, so that the last digit is the same. Where the union is
    0 the overlap is 0.
    """
    (x, y, w, h), (gx, gy, gw, gh) = detections.T, objects.T
    width = np.minimum(w + x, gw + gx) - np.maximum(x, gx)
    height = np.minimum(h + y, gh + gy) - np.maximum(y, gy)
    common = np.maximum(width, 0) * np.maximum(height, 0)
    area = w * h
    union = np.where(crowd, area, area + gw * gh - common)
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
