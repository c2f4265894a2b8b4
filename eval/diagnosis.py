"""Reads a row of metrics: says what is wrong with a detector and which experiment to run next.

The first rule that holds gives the diagnosis, so the order of the rules matters: a mistake in the input and a total
mismatch come first, since no training mends them; rough boxes (AP50 > .6, AP < .2) imply
AP50 - AP > .4 and must come before loose localisation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from yolojax.errors import ResultError
from yolojax.eval.coco import CocoResult
from yolojax.eval.confusion import ConfusionMatrix
from yolojax.eval.mistakes import Mistake

Rule = Literal[
    "mistake",
    "no_match",
    "rough_boxes",
    "loose_localisation",
    "over_predicting",
    "under_predicting",
    "class_imbalance",
    "ambiguous_classes",
    "plateau",
]

CONFUSED = 0.1
"""Two classes are ambiguous when at least this share of the objects of each is detected as the other class."""
SYMMETRY = 0.5
"""Two classes are ambiguous only if the smaller of these two shares is at least this part of the larger."""


@dataclass(frozen=True)
class Diagnosis:
    """The rule that held, what it found, and what to try next; `str` gives the two lines."""

    rule: Rule
    diagnosis: str
    next: str

    def __str__(self) -> str:
        return f"diagnosis: {self.diagnosis}\nnext: {self.next}"


def diagnose(
    *,
    precision: float | None,
    recall: float,
    AP50: float,
    AP: float,
    class_recall: Mapping[str, float | None] | None = None,
    confusions: Mapping[tuple[str, str], float] | None = None,
    mistakes: Sequence[Mistake] = (),
) -> Diagnosis:
    """Read precision and recall (IoU .5, at one confidence threshold), AP50 and AP.

    Args:
      precision: None where no detection passes the threshold.
      recall, AP50, AP: 0..1.
      class_recall: recall of each class; None for a class without objects.
      confusions: share of the first class's objects that are taken for the second (`ConfusionMatrix.shares`).
      mistakes: what the input seems to have wrong (`find_mistakes`); a decisive one is the diagnosis.

    Raises:
      ResultError: if a number is not within 0..1, or ``AP`` exceeds ``AP50``.
    """
    for name, value in (("precision", precision), ("recall", recall), ("AP50", AP50), ("AP", AP)):
        if value is not None and not 0 <= value <= 1 + 1e-9:  # also refuses NaN
            raise ResultError(f"{name} is {value}; the metric reader needs numbers from 0 to 1")
    if AP > AP50 + 1e-9:
        raise ResultError(f"AP {AP} exceeds AP50 {AP50}, which cannot be: are they swapped?")
    shown = "n/a (nothing above the threshold)" if precision is None else f"{precision:.3f}"
    no_false_alarms = precision is None or precision > 0.7

    decisive = next((mistake for mistake in mistakes if mistake.decisive), None)
    if decisive is not None and decisive.kind == "no_match":
        return Diagnosis("no_match", decisive.message, decisive.mend)
    if decisive is not None:
        return Diagnosis("mistake", f"the input looks wrong: {decisive.message}", decisive.mend)
    if AP50 < 0.01 and recall < 0.02:
        return Diagnosis(
            "no_match",
            f"almost nothing matches: AP50 is {AP50:.3f} and recall {recall:.3f}, which a trained detector never gives",
            "check that image ids, classes and box format are those of the ground truth; if they are, the detector has "
            "learnt nothing yet: look at its loss",
        )
    if AP50 > 0.6 and AP < 0.2:
        return Diagnosis(
            "rough_boxes",
            f"boxes are rough: AP50 is {AP50:.3f} but AP only {AP:.3f}; objects are found, their outlines are not",
            "train longer and at several scales; then fit the anchors to the boxes of this data set",
        )
    if AP50 - AP > 0.35:
        return Diagnosis(
            "loose_localisation",
            f"localisation is loose: AP falls by {AP50 - AP:.3f} from AP50 {AP50:.3f} to AP {AP:.3f}",
            "a CIoU or DIoU box loss; then a higher input resolution, or another prediction level",
        )
    if precision is not None and precision < 0.5 and recall > 0.7:
        return Diagnosis(
            "over_predicting",
            f"over-predicting: recall is {recall:.3f} but precision only {precision:.3f}",
            "raise the confidence threshold; then add hard negatives, or raise lambda_noobj",
        )
    if no_false_alarms and recall < 0.4:
        return Diagnosis(
            "under_predicting",
            f"under-predicting: precision is {shown} but recall only {recall:.3f}",
            "lower the confidence threshold; then widen the range of anchors and check the assignment of objects",
        )
    measured = {name: value for name, value in (class_recall or {}).items() if value is not None}
    low = sorted((value, name) for name, value in measured.items() if value < 0.5)
    if 0 < len(low) <= 2 and len(low) < len(measured):
        named = " and ".join(f"{name} ({value:.3f})" for value, name in low)
        return Diagnosis(
            "class_imbalance",
            f"class imbalance: recall is below 0.5 for {named} alone, and {recall:.3f} over all classes",
            f"oversample images with {' and '.join(name for _, name in low)}, and check the labels there",
        )
    pair = _symmetric_pair(confusions or {})
    if pair is not None:
        a, b, there, back = pair
        return Diagnosis(
            "ambiguous_classes",
            f"{a} and {b} are ambiguous: {there:.1%} of {a} are taken for {b}, {back:.1%} of {b} for {a}",
            f"look at these images side by side; then merge {a} and {b}, or label what separates them",
        )
    return Diagnosis(
        "plateau",
        f"no single fault stands out: precision {shown}, recall {recall:.3f}, AP50 {AP50:.3f}, AP {AP:.3f}",
        "a longer schedule; then test-time augmentation; compare over two seeds before believing a gain",
    )


def diagnose_result(result: CocoResult, confusion: ConfusionMatrix | None = None) -> Diagnosis:
    """Read a whole evaluation.

    Raises:
      ResultError: if the data set has no objects, so that there is nothing to read.
    """
    if result.AP is None or result.AP50 is None or result.recall is None:
        raise ResultError("the data set has no objects, so there is nothing to diagnose")
    return diagnose(
        precision=result.precision,
        recall=result.recall,
        AP50=result.AP50,
        AP=result.AP,
        class_recall={one.name: one.at_confidence.recall for one in result.classes},
        confusions=confusion.shares() if confusion else None,
        mistakes=result.mistakes,
    )


def _symmetric_pair(confusions: Mapping[tuple[str, str], float]) -> tuple[str, str, float, float] | None:
    """The pair confused most both ways, if any is; of equal ones the first by name."""
    best, weight = None, -math.inf
    for a, b in sorted(confusions):
        there, back = confusions[a, b], confusions.get((b, a), 0.0)
        smaller, larger = min(there, back), max(there, back)
        if a < b and smaller >= CONFUSED and smaller >= SYMMETRY * larger and smaller > weight:
            best, weight = (a, b, there, back), smaller
    return best
