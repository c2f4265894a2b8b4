"""Scores against truth, bin by bin, against a loop over the detections."""

import numpy as np
import pytest

from yolojax.eval.coco import read_both
from yolojax.eval.confidence import calibration
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
