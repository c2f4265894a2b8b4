"""Bootstrap intervals: each sample is what an evaluation of that data set gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.errors import ConfigError
from yolojax.eval.bootstrap import bootstrap_average_precision, percentile_interval, resample_weights
from yolojax.eval.coco import evaluate_coco
from yolojax.eval.inputs import read_detections, read_ground_truth


def test_weights_draw_as_many_images_as_there_are() -> None:
    weights = np.asarray(resample_weights(jax.random.key(0), 200, 12))
    assert (weights.sum(axis=1) == 12).all() and (weights >= 0).all()
    # Each weight is binomial(12, 1/12): mean 1, variance 11/12; 2400 draws are within 5 standard errors.
    assert abs(weights.var() - 11 / 12) < 5 * 0.05


def test_samples_are_evaluations(make_case) -> None:
    """Weights 1 give the AP itself; leaving an image out gives the AP of the data set without it."""
    truth, found = make_case(2)
    columns = read_ground_truth(truth)
    weights = np.ones((2, 6), np.int32)
    weights[1, 2] = 0
    values = bootstrap_average_precision(columns, read_detections(found, columns), jnp.asarray(weights))
    assert values[0] == pytest.approx(evaluate_coco(truth, found).AP, abs=1e-6)
    gone = truth["images"][2]["id"]
    fewer = {
        **truth,
        "images": [r for r in truth["images"] if r["id"] != gone],
        "annotations": [a for a in truth["annotations"] if a["image_id"] != gone],
    }
    rest = [d for d in found if d["image_id"] != gone]
    assert values[1] == pytest.approx(evaluate_coco(fewer, rest).AP, abs=1e-6)


def test_interval_of_known_values() -> None:
    interval = percentile_interval(np.append(np.arange(101.0), np.nan), level=0.9)
    assert (interval.low, interval.high) == (pytest.approx(5.0), pytest.approx(95.0))
    assert interval.standard_error == pytest.approx(np.arange(101).std(ddof=1))
    assert percentile_interval(np.full(9, 0.3)) == (pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0), 0.95)


@pytest.mark.parametrize(("values", "level"), [(np.ones(3), 1.0), (np.array([np.nan, 0.1]), 0.9)])
def test_intervals_that_cannot_be_are_refused(values: np.ndarray, level: float) -> None:
    with pytest.raises(ConfigError):
        percentile_interval(values, level)
