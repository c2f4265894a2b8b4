"""What kind of mistakes cost AP50: the error breakdown of TIDE.

D. Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv 2008.08115, section 2. Every
false positive and every missed object gets one of six kinds; the cost of a kind is by how much AP50 rises when an
oracle mends all of that kind and nothing else. The costs do not add up to the AP50 that is missing.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.eval.host_accumulate import class_average_precision
from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import Matches, match_detections
from yolojax.eval.ordering import by_key_and_score, falling_order, stable_order
from yolojax.eval.pairs import Pairs, overlapping_pairs

ErrorKind = Literal["classification", "localisation", "both", "duplicate", "background", "missed"]
KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


@dataclass(frozen=True)
class ErrorCost:
    """How often an error occurs, and the AP50 (0..1) to be gained by mending it alone; at least 0."""

    count: int
    cost: float


@dataclass(frozen=True)
class TideErrors:
    """AP50, over classes that have objects and without a cap on detections, and what each kind of error costs.

    Attributes:
      classification: on an object of another class (IoU >= .5).
      localisation: near an object of its class (.1 <= IoU < .5).
      both: near an object of another class (.1 < IoU < .5): neither class nor place is right.
      duplicate: on an object that a higher score has found.
      background: on nothing (IoU <= .1 with every object).
      missed: objects that nothing found, and no misclassified or misplaced detection points at.
      false_positives: all false positives below every true positive (count: of false positives).
      false_negatives: no object missed that is missed now (count: of all missed objects).
    """

    AP50: float | None
    classification: ErrorCost
    localisation: ErrorCost
    both: ErrorCost
    duplicate: ErrorCost
    background: ErrorCost
    missed: ErrorCost
    false_positives: ErrorCost
    false_negatives: ErrorCost


def tide_errors(
    truth: GroundTruth,
    detections: ScoredBoxes,
    *,
    foreground: float = 0.5,
    background: float = 0.1,
    matches: Matches | None = None,
    classified: tuple[Int64[np.ndarray, " D"], Int64[np.ndarray, " D"]] | None = None,
) -> TideErrors:
    """The breakdown at the paper's thresholds, unless chosen otherwise.

    Matching is COCO's (`match_detections`), and detections that it leaves out for a crowd region are no errors. A
    false positive gets the first kind that fits of localisation, classification, duplicate, background, both. Of the
    misclassified and misplaced detections that point at the same object, the highest score is mended and the others
    are dropped, as they are where the object has been found already; duplicates, background and both are dropped.
    ``matches`` are those at ``foreground``, and ``classified`` is what `classify_errors` says of the detections that
    count and found nothing, where they are at hand.
    """
    matches = matches or match_detections(truth, detections, foreground)
    counted, hit, category = ~matches.ignored, matches.object_of >= 0, detections.categories
    kinds, points_at = classified or classify_errors(truth, detections, counted & ~hit, foreground, background)
    false_positives, real, classes = int(np.sum(counted & ~hit)), ~truth.crowd, len(truth.category_ids)
    if not real.any():
        none = {kind: ErrorCost(int(np.sum(kinds == k)), 0.0) for k, kind in enumerate(KINDS)}
        return TideErrors(
            None, **none, false_positives=ErrorCost(false_positives, 0.0), false_negatives=ErrorCost(0, 0.0)
        )
    found, pointed_at = np.zeros(len(real), bool), np.zeros(len(real), bool)
    found[matches.object_of[hit]] = True
    fixable = np.isin(kinds, [KINDS.index("classification"), KINDS.index("localisation")])
    pointed_at[points_at[fixable]] = True
    mended = _highest_per_object(detections.scores, points_at, fixable & ~found[points_at])
    total = np.bincount(truth.categories[real], minlength=classes)

    falling = falling_order(detections.scores)
    listed = by_key_and_score(category, detections.scores, falling)

    def ap50(kept=counted, hit=hit, category=category, objects=total, scores=detections.scores, order=listed) -> float:
        each = class_average_precision(category, scores, kept & hit, kept & ~hit, objects, order=order)
        return float(np.mean(np.nan_to_num(each[total > 0], nan=0.0)))  # a class without objects left counts as 0

    base = ap50()
    costs = {}
    for k, kind in enumerate(KINDS):
        wrong = kinds == k
        fixed = wrong & mended
        moved = np.where(fixed, truth.categories[points_at], category)
        order = by_key_and_score(moved, detections.scores, falling) if (moved != category).any() else listed
        after = ap50(kept=(counted & ~wrong) | fixed, hit=hit | fixed, category=moved, order=order)
        costs[kind] = ErrorCost(int(wrong.sum()), max(after - base, 0.0))
    missed = real & ~found & ~pointed_at
    without_missed = total - np.bincount(truth.categories[missed], minlength=classes)
    costs["missed"] = ErrorCost(int(missed.sum()), max(ap50(objects=without_missed) - base, 0.0))
    hits_first = np.where(hit, 1.0, 0.0)
    only_found = np.bincount(truth.categories[real & found], minlength=classes)
    return TideErrors(
        base,
        **costs,
        false_positives=ErrorCost(
            false_positives, ap50(scores=hits_first, order=stable_order(2 * category + ~hit)) - base
        ),
        false_negatives=ErrorCost(int(np.sum(real & ~found)), ap50(objects=only_found) - base),
    )


def classify_errors(
    truth: GroundTruth,
    detections: ScoredBoxes,
    false: Bool[np.ndarray, " D"],
    foreground: float = 0.5,
    background: float = 0.1,
) -> tuple[Int64[np.ndarray, " D"], Int64[np.ndarray, " D"]]:
    """Index into `KINDS` of each ``false`` positive (-1: none), and the object that it is about.

    That is the nearest of its class for misplaced and duplicate detections, the nearest of another class for
    misclassified ones and both, and without meaning for background. The kind does not depend on a confidence
    threshold: it follows from the objects alone.
    """
    kinds = np.full(len(false), -1, np.int64)
    pairs = overlapping_pairs(
        truth,
        detections,
        background,
        same_class=False,
        detections=np.flatnonzero(false),
        objects=np.flatnonzero(~truth.crowd),
        crowd_as_regions=False,
    )
    alike = detections.categories[pairs.detections] == truth.categories[pairs.objects]
    nearest_own, own = _nearest(pairs, alike, len(false))
    nearest_other, other = _nearest(pairs, ~alike, len(false))
    tests = (
        ("localisation", (nearest_own >= background) & (nearest_own < foreground)),
        ("classification", nearest_other >= foreground),
        ("duplicate", nearest_own >= foreground),
        ("background", np.maximum(nearest_own, nearest_other) <= background),
    )
    found = np.select([test for _, test in tests], [KINDS.index(kind) for kind, _ in tests], KINDS.index("both"))
    kinds[false] = found[false]
    of_own = np.isin(kinds, [KINDS.index("localisation"), KINDS.index("duplicate")])
    points_at = np.where(of_own, own, other)
    points_at[~false] = 0
    return kinds, points_at


def _nearest(
    pairs: Pairs, eligible: Bool[np.ndarray, " P"], detections: int
) -> tuple[Float64[np.ndarray, " D"], Int64[np.ndarray, " D"]]:
    """The greatest overlap of each detection among the eligible pairs, 0 without any, and with which object (the
    first of equal ones)."""
    which, about, values = (column[eligible] for column in pairs)
    order = np.lexsort((about, -values, which))
    rows, first = np.unique(which[order], return_index=True)
    nearest, at = np.zeros(detections), np.zeros(detections, np.int64)
    nearest[rows], at[rows] = values[order][first], about[order][first]
    return nearest, at


def _highest_per_object(
    scores: Float64[np.ndarray, " D"], points_at: Int64[np.ndarray, " D"], eligible: Bool[np.ndarray, " D"]
) -> Bool[np.ndarray, " D"]:
    """Of the eligible detections that point at the same object, the one with the highest score (of ties the first)."""
    rows = np.flatnonzero(eligible)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    _, first = np.unique(points_at[rows], return_index=True)
    chosen = np.zeros(len(scores), bool)
    chosen[rows[first]] = True
    return chosen
