"""Bootstrap intervals: each sample is what an evaluation of that data set gives."""

import numpy as np
import pytest

from yolojax.errors import ConfigError
from yolojax.eval.bootstrap import RESAMPLED, bootstrap, difference, percentile_interval
from yolojax.eval.coco import METRICS, evaluate_coco
from yolojax.eval.inputs import read_detections, read_ground_truth
from yolojax.eval.weighted import resample_weights


def test_weights_draw_as_many_images_as_there_are() -> None:
    weights = resample_weights(0, 200, 12).T
    assert (weights.sum(axis=1) == 12).all() and (weights >= 0).all()
    # Each weight is binomial(12, 1/12): mean 1, variance 11/12; 2400 draws are within 5 standard errors.
    assert abs(weights.var() - 11 / 12) < 5 * 0.05


def resampled_data_set(truth: dict, found: list[dict], weights: np.ndarray) -> tuple[dict, list[dict]]:
    """The data set with each image as often as its weight says."""
    copies: dict = {"categories": truth["categories"], "images": [], "annotations": []}
    rows: list[dict] = []
    for record, weight in zip(truth["images"], weights, strict=True):
        for _ in range(weight):
            new = len(copies["images"]) + 1
            copies["images"].append({"id": new})
            copies["annotations"] += [
                {**a, "image_id": new} for a in truth["annotations"] if a["image_id"] == record["id"]
            ]
            rows += [{**d, "image_id": new} for d in found if d["image_id"] == record["id"]]
    return copies, rows


def test_samples_are_evaluations(make_case) -> None:
    """Every number of a sample is what `evaluate_coco` says of the data set with its images repeated and left out."""
    truth, found = make_case(2)
    columns = read_ground_truth(truth)
    got = bootstrap(columns, read_detections(found, columns), samples=4, seed=5)
    assert set(got.values) == set(RESAMPLED) and got.samples == 4 and got.class_AP.shape == (4, 3)
    weights = resample_weights(5, 4, 6).T.astype(int)
    for k in range(4):
        result = evaluate_coco(*resampled_data_set(truth, found, weights[k]))
        expected = {name: getattr(result, name) for name in (*METRICS, "precision", "recall")}
        expected["f1"] = result.at_confidence.f1
        for name, value in expected.items():
            assert got.values[name][k] == pytest.approx(np.nan if value is None else value, abs=1e-6, nan_ok=True), name
        for c, one in enumerate(result.classes):
            assert got.class_AP[k, c] == pytest.approx(np.nan if one.AP is None else one.AP, abs=1e-6, nan_ok=True)
            assert got.class_AP50[k, c] == pytest.approx(
                np.nan if one.AP50 is None else one.AP50, abs=1e-6, nan_ok=True
            )


def test_parts_of_the_work_change_nothing(make_case, monkeypatch) -> None:
    """Numbers are the same to the last bit however classes, rows and resamples are worked on together."""
    truth, found = make_case(4, images=30, classes=12, objects=12)
    columns = read_ground_truth(truth)
    detections = read_detections(found, columns)
    whole = bootstrap(columns, detections, samples=20)
    monkeypatch.setattr("yolojax.eval.weighted.ROWS", 5)
    monkeypatch.setattr("yolojax.eval.weighted.MOST_VALUES", 1)
    monkeypatch.setattr("yolojax.eval.weighted.CACHED_ROWS", 3)
    monkeypatch.setattr("yolojax.eval.running.PIECE", 2)
    in_parts = bootstrap(columns, detections, samples=20)
    for name in RESAMPLED:
        np.testing.assert_array_equal(in_parts.values[name], whole.values[name])
    np.testing.assert_array_equal(in_parts.class_AP, whole.class_AP)


def test_of_nothing(make_case) -> None:
    """No detections: 0 in every sample. No objects: nothing to measure."""
    truth, found = make_case(2)
    columns = read_ground_truth(truth)
    empty = bootstrap(columns, read_detections([], columns), samples=2)
    assert (empty.values["AP"] == 0).all() and np.isnan(empty.values["precision"]).all()
    bare = read_ground_truth({**truth, "annotations": []})
    assert np.isnan(bootstrap(bare, read_detections(found, bare), samples=2).values["AP"]).all()
    with pytest.raises(ConfigError, match="1 resamples of 6 images"):
        bootstrap(columns, read_detections([], columns), samples=1)


def test_a_pair_is_compared_on_the_same_images() -> None:
    first, second = np.array([0.5, 0.6, 0.7, np.nan]), np.array([0.4, 0.6, 0.8, 0.1])
    got = difference(0.61, 0.6, first, second)
    assert (got.difference, got.wins, got.ties) == (pytest.approx(0.01), 1 / 3, 1 / 3)
    assert got.interval is not None and got.interval.low == pytest.approx(-0.095)
    assert difference(None, 0.6, first, second)[2:] == (None, None, None, None)


def test_interval_of_known_values() -> None:
    interval = percentile_interval(np.append(np.arange(101.0), np.nan), level=0.9)
    assert (interval.low, interval.high) == (pytest.approx(5.0), pytest.approx(95.0))
    assert interval.standard_error == pytest.approx(np.arange(101).std(ddof=1))
    assert percentile_interval(np.full(9, 0.3)) == (pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0), 0.95)


@pytest.mark.parametrize(("values", "level"), [(np.ones(3), 1.0), (np.array([np.nan, 0.1]), 0.9)])
def test_intervals_that_cannot_be_are_refused(values: np.ndarray, level: float) -> None:
    with pytest.raises(ConfigError):
        percentile_interval(values, level)
