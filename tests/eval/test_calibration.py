"""Scores against truth, bin by bin, against a loop over the detections."""

from dataclasses import replace

import numpy as np
import pytest

from yolojax.eval.coco import read_both
from yolojax.eval.confidence import calibration, confidence_curves, operating_point
from yolojax.eval.matching import match_detections


def test_bins_and_error_from_the_definition(make_case) -> None:
    truth, found = read_both(*make_case(3, crowd=0.3))
    matches = match_detections(truth, found)
    got = calibration(found, matches, bins=10)
    error = 0.0
    for k in range(10):
        low, high = k / 10, (k + 1) / 10
        inside = [i for i, s in enumerate(found.scores) if low <= s < high and not matches.ignored[i]]
        hits = [i for i in inside if matches.object_of[i] >= 0]
        assert (got.true[k], got.false[k]) == (len(hits), len(inside) - len(hits))
        mean = float(np.mean(found.scores[inside]))
        assert got.mean_score[k] == pytest.approx(mean) and got.precision[k] == pytest.approx(len(hits) / len(inside))
        error += len(inside) / np.sum(~matches.ignored) * abs(mean - len(hits) / len(inside))
    assert got.error == pytest.approx(error)


def test_curves_are_the_counts_at_each_threshold(make_case) -> None:
    truth, found = read_both(*make_case(3, crowd=0.3))
    # Scores on the thresholds themselves: they pass, as they do in `operating_point`.
    found = replace(found, scores=np.round(found.scores, 1))
    matches = match_detections(truth, found)
    got = confidence_curves(truth, found, matches, thresholds=11)
    for row, category in enumerate([*range(len(truth.category_ids)), None]):
        for column, confidence in enumerate(got.confidence):
            point = operating_point(truth, found, matches, confidence, category)
            for values, wanted in ((got.precision, point.precision), (got.recall, point.recall), (got.f1, point.f1)):
                assert values[row, column] == pytest.approx(np.nan if wanted is None else wanted, nan_ok=True)


def test_emptiness_and_scores_outside(make_case) -> None:
    truth, found = make_case(3)
    nothing = calibration(*_matched(truth, []))
    assert nothing.error is None and np.isnan(nothing.precision).all() and nothing.true.sum() == 0
    odd = calibration(*_matched(truth, [{**found[0], "score": 7.0}, {**found[1], "score": -1.0}, found[2]]), bins=2)
    assert (odd.true + odd.false).sum() == 3
    huge = calibration(*_matched(truth, [{**found[0], "score": 1e6}]), bins=2)
    assert (huge.true + huge.false).tolist() == [0, 1]


def _matched(truth: dict, found: list[dict]):
    columns, rows = read_both(truth, found)
    return rows, match_detections(columns, rows)
