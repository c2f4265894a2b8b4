"""How far AP would move on other images of the same kind: bootstrap confidence intervals over images.

B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals). Images, not
objects, are drawn with replacement, since the objects of one image are not independent. Training noise is not in these
intervals: for that, train with several seeds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from yolojax.errors import ConfigError
from yolojax.eval.device import accumulate, judge, object_counts, pad_columns, rank
from yolojax.eval.inputs import GroundTruth, ScoredBoxes


class Interval(NamedTuple):
    """A percentile interval that holds ``level`` of the resampled values, and their standard deviation."""

    low: float
    high: float
    standard_error: float
    level: float


def resample_weights(key: PRNGKeyArray, samples: int, images: int) -> Int[Array, "S I"]:
    """How often each image occurs in each of ``samples`` draws of ``images`` with replacement."""
    drawn = jax.random.randint(key, (samples, images), 0, images)
    return jax.vmap(lambda row: jnp.zeros(images, jnp.int32).at[row].add(1))(drawn)


def bootstrap_average_precision(
    truth: GroundTruth, detections: ScoredBoxes, weights: Int[Array, "S I"]
) -> Float[np.ndarray, " S"]:
    """COCO's AP of every resampled data set; NaN for one that holds no object.

    A class without objects in a sample is left out of that sample's mean, as `evaluate_coco` would. To compare two
    detectors on the same images, give both the same weights and take the interval of the difference.
    """
    columns = pad_columns(truth, detections)
    classes = len(truth.category_ids)

    @jax.jit
    def every(columns, weights: Array) -> Array:
        ranked, objects = rank(judge(*columns)), object_counts(columns[0], classes=classes)
        return jax.lax.map(lambda weight: accumulate(ranked, objects, weight).mean(), weights)

    return np.asarray(every(columns, weights))


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
