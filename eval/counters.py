"""Counts of what the checks of an evaluation found. None of it stops an evaluation; all of it may explain a number."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import Matches
from yolojax.eval.ordering import by_key_and_score


@dataclass(frozen=True)
class Counters:
    """Counts of what the checks found.

    Attributes:
      images, objects, crowd_regions, detections: what was evaluated.
      renumbered_ids: annotations whose id was missing, 0 or repeated (pycocotools would score those wrongly).
      filled_areas, filled_iscrowd: annotations without these fields: the box's area, and 0, were taken.
      ignore_flags: annotations flagged ``ignore`` but not ``iscrowd``.
      repeated_images, grouping_categories: images listed twice, and unused categories with the name of a class; both
        are left out and change no number.
      unknown_annotations, unknown_images, unknown_categories: rows left out, the latter two by their id.
      images_over_cap, detections_over_cap: where an image has more detections of a class than the largest cap, which
        drops the lowest.
      images_beyond_cap: images with more *objects* of a class than the largest cap: recall 1 is out of reach.
      tied_share: share of detections whose score another one of the same class has too, so that AP depends on their
        order (see `evaluate_coco`); scores computed in low precision make ties.
      unmatchable_objects: objects without width or height, or outside their image, which COCO's numbers count as
        missed.
      empty_boxes: detections of zero width or height; they can match nothing.
      scores_outside_unit_interval: scores below 0 or above 1; the confidence threshold then means little.
      false_positives_without_objects: classes without a single object, with their false positives, which cost nothing
        in AP.
    """

    images: int
    objects: int
    crowd_regions: int
    detections: int
    renumbered_ids: int
    filled_areas: int
    filled_iscrowd: int
    ignore_flags: int
    unknown_annotations: int
    repeated_images: int
    grouping_categories: int
    unknown_images: dict[str, int]
    unknown_categories: dict[str, int]
    images_over_cap: int
    detections_over_cap: int
    images_beyond_cap: int
    tied_share: float
    unmatchable_objects: int
    empty_boxes: int
    scores_outside_unit_interval: int
    false_positives_without_objects: dict[str, int]


def count_findings(truth: GroundTruth, found: ScoredBoxes, matches: Matches, cap: int) -> Counters:
    """The counters of one evaluation, matched at IoU .5, under a cap on detections per image and class."""
    classes = max(len(truth.category_ids), 1)
    keys, per_key = np.unique(found.images * classes + found.categories, return_counts=True)
    object_keys, objects_per_key = np.unique(
        (truth.images * classes + truth.categories)[~truth.crowd], return_counts=True
    )
    order = by_key_and_score(found.categories, found.scores)
    same = (np.diff(found.categories[order]) == 0) & (np.diff(found.scores[order]) == 0)
    shared = int(np.sum(np.append(same, False) | np.append(False, same))) if len(order) else 0
    false = np.bincount(found.categories[(matches.object_of < 0) & ~matches.ignored], minlength=classes)
    objects = np.bincount(truth.categories[~truth.crowd], minlength=classes)
    return Counters(
        images=len(truth.image_ids),
        objects=int(objects.sum()),
        crowd_regions=int(truth.crowd.sum()),
        detections=len(found.scores),
        **truth.repairs,
        unknown_images=found.unknown_images,
        unknown_categories=found.unknown_categories,
        images_over_cap=len(np.unique(keys[per_key > cap] // classes)),
        detections_over_cap=int(np.maximum(per_key - cap, 0).sum()),
        images_beyond_cap=len(np.unique(object_keys[objects_per_key > cap] // classes)),
        tied_share=shared / max(len(found.scores), 1),
        unmatchable_objects=int(np.sum(_cannot_match(truth) & ~truth.crowd)),
        empty_boxes=int(np.sum(found.boxes[:, 2:].min(axis=1, initial=np.inf) == 0)),
        scores_outside_unit_interval=int(np.sum((found.scores < 0) | (found.scores > 1))),
        false_positives_without_objects={
            name: int(false[k]) for k, name in enumerate(truth.category_names) if false[k] and not objects[k]
        },
    )


def _cannot_match(truth: GroundTruth) -> Bool[np.ndarray, " G"]:
    """Objects without area, and objects outside their image where its size is stated."""
    low, side, size = truth.boxes[:, :2], truth.boxes[:, 2:], truth.sizes[truth.images][:, ::-1]
    outside = (size > 0).all(axis=1) & ((low >= size) | (low + side <= 0)).any(axis=1)
    return outside | (side.min(axis=1, initial=np.inf) == 0)
