"""How far the numbers would move on other images of the same kind: bootstrap intervals over images.

B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals). Images, not
objects, are drawn with replacement, since the objects of one image are not independent. Training noise is not in these
intervals: for that, train with several seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Float32, Float64

from yolojax.errors import ConfigError
from yolojax.eval.coco import METRICS
from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import Matches, match_detections
from yolojax.eval.weighted import Prepared, WeightedNumbers, resample_weights, weighted_numbers

AT_ONCE = 1000
"""Most resamples that are computed together, between two words of progress: many at once cost less each."""

DETECTIONS_AT_ONCE = 500_000_000
"""Detections times resamples that are computed together, which takes some seconds."""

LARGEST_WEIGHTS = 50_000_000
"""Weights (images times resamples) that are kept at once."""

RESAMPLED = (*METRICS, "precision", "recall", "f1")


class Interval(NamedTuple):
    """A percentile interval that holds ``level`` of the resampled values, and their standard deviation."""

    low: float
    high: float
    standard_error: float
    level: float


@dataclass(frozen=True)
class Resampled:
    """Every number of `RESAMPLED`, and AP and AP50 per class, on each of ``S`` resampled data sets; NaN: not there."""

    values: dict[str, Float64[np.ndarray, " S"]]
    class_AP: Float64[np.ndarray, "S C"]
    class_AP50: Float64[np.ndarray, "S C"]
    seed: int

    @property
    def samples(self) -> int:
        return len(self.class_AP)


class Difference(NamedTuple):
    """Of one number of two detectors on the same images: theirs, first less second, and how sure that is.

    ``wins`` and ``ties`` are shares of the resamples in which the first is greater, or both are equal; the interval is
    of the difference. All three are None where there are too few resamples with a number.
    """

    first: float | None
    second: float | None
    difference: float | None
    interval: Interval | None
    wins: float | None
    ties: float | None


def bootstrap(
    truth: GroundTruth,
    detections: ScoredBoxes,
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.25,
    caps: tuple[int, int, int] = (1, 10, 100),
    matches: Matches | None = None,
    progress: Callable[[int], None] | None = None,
) -> Resampled:
    """Evaluate ``samples`` data sets, each drawn with replacement from the images of this one.

    The same seed draws the same images for every detector, so that two can be compared pair by pair (`compare`). A
    class without objects in a sample is left out of that sample's means, as `evaluate_coco` would.

    Args:
      truth, detections: checked columns.
      samples: 1000 give the ends of a 95 % interval to about a tenth of its width.
      seed: of the draws.
      confidence: of precision, recall and F1.
      caps: as for `evaluate_coco`.
      matches: of the detections at IoU .5, where they are at hand.
      progress: told the number of samples done.

    Raises:
      ConfigError: if there are no images, or fewer than two samples are asked for.
    """
    images = len(truth.image_ids)
    if samples < 2 or not images:
        raise ConfigError(f"{samples} resamples of {images} images: intervals need two resamples and one image")
    prepared = Prepared(truth, detections, caps)
    matches = matches or match_detections(truth, detections, 0.5)
    per_image = _counts_per_image(truth, detections, matches, confidence)
    count = max(len(detections.scores), 1)
    at_once = max(min(AT_ONCE, LARGEST_WEIGHTS // images, DETECTIONS_AT_ONCE // count), 1)
    parts: list[tuple[WeightedNumbers, dict[str, np.ndarray]]] = []
    for first in range(0, samples, at_once):
        weights = resample_weights(seed, min(at_once, samples - first), images, first)
        parts.append((weighted_numbers(prepared, weights), _at_confidence(per_image, weights)))
        if progress is not None:
            progress(first + weights.shape[1])
    values = {name: np.concatenate([found.overall[name] for found, _ in parts]) for name in METRICS}
    values |= {name: np.concatenate([counts[name] for _, counts in parts]) for name in parts[0][1]}
    return Resampled(
        values=values,
        class_AP=np.concatenate([found.class_ap for found, _ in parts]),
        class_AP50=np.concatenate([found.class_ap50 for found, _ in parts]),
        seed=seed,
    )


def _counts_per_image(
    truth: GroundTruth, detections: ScoredBoxes, matches: Matches, confidence: float
) -> Float64[np.ndarray, "I 3"]:
    """True positives, counted detections and objects of each image at a confidence."""
    images = len(truth.image_ids)
    counted = (detections.scores >= confidence) & ~matches.ignored
    hit = counted & (matches.object_of >= 0)
    columns = (detections.images[hit], detections.images[counted], truth.images[~truth.crowd])
    return np.stack([np.bincount(which, minlength=images) for which in columns], axis=1).astype(np.float64)


def _at_confidence(
    per_image: Float64[np.ndarray, "I 3"], weights: Float32[np.ndarray, "I S"]
) -> dict[str, Float64[np.ndarray, " S"]]:
    """Precision, recall and F1 of every sample from the counts of each image."""
    exact = float(per_image.sum()) * float(weights.max(initial=0)) < 2**24  # in float32, which spares a copy
    # BLAS takes ten times as long for three rows.
    true, found, objects = scipy.sparse.csr_array(per_image.astype(np.float32 if exact else np.float64).T) @ weights

    def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = a.astype(np.float64), b.astype(np.float64)
        return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)

    return {"precision": ratio(true, found), "recall": ratio(true, objects), "f1": ratio(2 * true, found + objects)}


def percentile_interval(values: Float[np.ndarray, " S"], level: float = 0.95) -> Interval:
    """The interval of resampled values, NaN left out.

    Raises:
      ConfigError: if ``level`` is not between 0 and 1, or fewer than two values are numbers.
    """
    measured = values[~np.isnan(values)].astype(np.float64)
    if not 0 < level < 1:
        raise ConfigError(f"the level of an interval lies between 0 and 1, not at {level}")
    if len(measured) < 2:
        raise ConfigError(f"{len(measured)} of {len(values)} resampled values are numbers; an interval needs two")
    low, high = np.quantile(measured, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), float(np.std(measured, ddof=1)), level)


def interval_or_none(values: Float[np.ndarray, " S"], level: float = 0.95) -> Interval | None:
    """`percentile_interval`, or None where it needs more numbers than there are."""
    return percentile_interval(values, level) if np.sum(~np.isnan(values)) >= 2 else None


def difference(
    first: float | None,
    second: float | None,
    first_values: Float64[np.ndarray, " S"],
    second_values: Float64[np.ndarray, " S"],
) -> Difference:
    """One number of two detectors, from the same resamples of the same images."""
    both = ~np.isnan(first_values) & ~np.isnan(second_values)
    if first is None or second is None or both.sum() < 2:
        return Difference(first, second, None, None, None, None)
    apart = first_values[both] - second_values[both]
    wins, ties = float(np.mean(apart > 0)), float(np.mean(apart == 0))
    return Difference(first, second, first - second, percentile_interval(apart), wins, ties)
