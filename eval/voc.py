"""Pascal VOC's average precision at one IoU, for data sets and papers that report it.

M. Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2; the 11-point rule was
VOC's until 2009, the area under the whole interpolated curve since.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from yolojax.eval.host_accumulate import class_average_precision
from yolojax.eval.inputs import (
    DetectionSource,
    GroundTruth,
    GroundTruthSource,
    ScoredBoxes,
    read_detections,
    read_ground_truth,
)
from yolojax.eval.joining import Unknown
from yolojax.eval.pairs import overlapping_pairs
from yolojax.eval.result_format import COCO_FORMAT, ResultFormat

VocInterpolation = Literal["all_points", "eleven_points"]


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
    interpolation: VocInterpolation = "all_points",
    whole_pixels: bool = False,
    difficult: Literal["ignored", "counted"] = "ignored",
    unknown: Unknown = "refuse",
    result_format: ResultFormat = COCO_FORMAT,
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
      unknown, result_format: as for `evaluate_coco`.

    Raises:
      DataError, ResultError: on input that cannot be evaluated.
    """
    truth = read_ground_truth(ground_truth, ignore_means="crowd", unknown=unknown)
    found = read_detections(detections, truth, unknown=unknown, result_format=result_format)
    ignored = truth.crowd if difficult == "ignored" else np.zeros_like(truth.crowd)
    hit, counts = _match(truth, found, ignored, iou, whole_pixels)
    total = np.bincount(truth.categories[~ignored], minlength=len(truth.category_ids))
    average = class_average_precision(found.categories, found.scores, hit, counts & ~hit, total, interpolation)
    classes = []
    for k, name in enumerate(truth.category_names):
        rows = np.flatnonzero((found.categories == k) & counts)
        rows = rows[np.argsort(-found.scores[rows], kind="stable")]
        true, objects = np.cumsum(hit[rows]), int(total[k])
        classes.append(
            VocClassResult(
                name=name,
                objects=objects,
                AP=float(average[k]) if objects else None,
                precision=true / np.arange(1, len(rows) + 1),
                recall=true / objects if objects else np.full(len(rows), np.nan),
                scores=found.scores[rows],
            )
        )
    measured = [c.AP for c in classes if c.AP is not None]
    return VocResult(float(np.mean(measured)) if measured else None, tuple(classes))


def _match(
    truth: GroundTruth, found: ScoredBoxes, ignored: Bool[np.ndarray, " G"], iou: float, whole_pixels: bool
) -> tuple[Bool[np.ndarray, " D"], Bool[np.ndarray, " D"]]:
    """Which detections are true positives, and which count at all, by the rule of `evaluate_voc`."""
    longer = np.array([0.0, 0.0, 1.0, 1.0]) if whole_pixels else np.zeros(4)
    pairs = overlapping_pairs(
        replace(truth, boxes=truth.boxes + longer),
        replace(found, boxes=found.boxes + longer),
        max(iou, 1e-300),
        same_class=True,
        crowd_as_regions=False,
    )
    order = np.lexsort((pairs.objects, -pairs.overlaps, pairs.detections))  # of equal overlaps the first
    rows, first = np.unique(pairs.detections[order], return_index=True)
    best = pairs.objects[order][first]
    hit, counts = np.zeros(len(found.scores), bool), np.ones(len(found.scores), bool)
    counts[rows[ignored[best]]] = False
    rows, best = rows[~ignored[best]], best[~ignored[best]]
    _, earliest = np.unique(best, return_index=True)  # rows of an image stand by falling score
    hit[rows[earliest]] = True
    return hit, counts
