"""Pascal VOC's average precision at one IoU, for data sets and papers that report it.

M. Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2; the 11-point rule was
VOC's until 2009, the area under the whole interpolated curve since.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from yolojax.eval.inputs import (
    DetectionSource,
    GroundTruth,
    GroundTruthSource,
    ScoredBoxes,
    Unknown,
    read_detections,
    read_ground_truth,
)
from yolojax.eval.matching import groups, overlaps

Interpolation = Literal["all_points", "eleven_points"]


@dataclass(frozen=True)
class VocClassResult:
    """One class: ``AP`` is None where it has no object that counts. The curve has a point per counted detection."""

    name: str
    objects: int
    AP: float | None
    precision: Float64[np.ndarray, " n"]
    recall: Float64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class VocResult:
    """``mAP`` is the mean over the classes that have objects, None where none has."""

    mAP: float | None
    classes: tuple[VocClassResult, ...]


def evaluate_voc(
    ground_truth: GroundTruthSource,
    detections: DetectionSource,
    *,
    iou: float = 0.5,
    interpolation: Interpolation = "all_points",
    whole_pixels: bool = False,
    difficult: Literal["ignored", "counted"] = "ignored",
    unknown: Unknown = "refuse",
) -> VocResult:
    """VOC's average precision per class and its mean.

    By falling score, each detection is judged by the object of its class that it overlaps most, found before or not: a
    true positive if that overlap is at least ``iou`` and nothing found the object before, a false positive otherwise,
    and neither if that object is difficult. (COCO would give it the next best object that is still free.)

    Args:
      ground_truth: a COCO data set, parsed or as a file, whose ``ignore`` (or ``iscrowd``) marks difficult objects.
      detections: as for `evaluate_coco`; ties stand as listed, and by image id.
      iou: threshold, inclusive as in the development kit.
      interpolation: ``all_points`` is the area under the curve made monotone (VOC 2010 and later), ``eleven_points``
        the mean of the precision at recalls 0, .1, ... 1 (VOC 2007).
      whole_pixels: boxes name the first and last pixel *inside*, so that sides are one longer (the development kit).
      difficult: ``ignored`` as in VOC, or ``counted`` like other objects.
      unknown: as for `evaluate_coco`.

    Raises:
      DataError, ResultError: on input that cannot be evaluated.
    """
    truth = read_ground_truth(ground_truth, ignore_means="crowd", unknown=unknown)
    found = read_detections(detections, truth, unknown=unknown)
    ignored = truth.crowd if difficult == "ignored" else np.zeros_like(truth.crowd)
    classes = tuple(
        _class_result(k, truth, found, ignored, iou, interpolation, whole_pixels)
        for k in range(len(truth.category_ids))
    )
    measured = [c.AP for c in classes if c.AP is not None]
    return VocResult(float(np.mean(measured)) if measured else None, classes)


def _class_result(
    k: int,
    truth: GroundTruth,
    found: ScoredBoxes,
    ignored: Bool[np.ndarray, " G"],
    iou: float,
    interpolation: Interpolation,
    whole_pixels: bool,
) -> VocClassResult:
    longer = np.array([0.0, 0.0, 1.0, 1.0]) if whole_pixels else np.zeros(4)
    mine = np.flatnonzero(truth.categories == k)
    objects_of = groups(truth.images[mine])
    rows = np.flatnonzero(found.categories == k)
    hit, counts = np.zeros(len(rows), bool), np.ones(len(rows), bool)
    for image, positions in groups(found.images[rows]).items():
        objects = mine[objects_of[image]] if image in objects_of else mine[:0]
        if not len(objects):
            continue
        plain = np.zeros(len(objects), bool)
        table = overlaps(found.boxes[rows[positions]] + longer, truth.boxes[objects] + longer, plain)
        free = np.ones(len(objects), bool)
        for position, overlap in zip(positions, table, strict=True):  # by falling score within the image
            best = int(np.argmax(overlap))
            if overlap[best] < iou:
                continue
            if ignored[objects[best]]:
                counts[position] = False
            elif free[best]:
                hit[position], free[best] = True, False
    order = np.argsort(-found.scores[rows], kind="stable")
    order = order[counts[order]]
    true, total = np.cumsum(hit[order]), int(np.sum(~ignored[mine]))
    precision = true / np.arange(1, len(order) + 1)
    average = None
    if total:
        average = (_eleven_points if interpolation == "eleven_points" else _all_points)(true, precision, total)
    return VocClassResult(
        name=truth.category_names[k],
        objects=total,
        AP=average,
        precision=precision,
        recall=true / total if total else np.full(len(order), np.nan),
        scores=found.scores[rows][order],
    )


def _all_points(true: np.ndarray, precision: np.ndarray, total: int) -> float:
    """Area under the precision made monotone: each new true positive adds a step of recall ``1 / total``."""
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(best_from_here * np.diff(true, prepend=0)) / total)


def _eleven_points(true: np.ndarray, precision: np.ndarray, total: int) -> float:
    """Mean of the best precision at recalls of at least 0, .1, ... 1.

    The grid is of floats, as in every published evaluation: a recall of exactly 3 / 10 lies below its 3 * .1 =
    .30000000000000004 (likewise .6 and .7), which moves the mean of a hundred images by .005.
    """
    recall = true / total
    return float(np.mean([np.max(precision[recall >= level], initial=0.0) for level in np.arange(11) * 0.1]))
