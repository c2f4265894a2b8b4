"""One analysis holds what its parts say; two are compared on the same images."""

import numpy as np
import pytest

from yolojax.errors import ConfigError
from yolojax.eval.analysis import analyse, compare
from yolojax.eval.coco import METRICS, evaluate_coco
from yolojax.eval.tide import KINDS


@pytest.fixture(scope="module")
def case(make_case):
    return make_case(4)


@pytest.fixture(scope="module")
def analysis(case):
    return analyse(*case, samples=20)


def test_numbers_are_those_of_the_evaluation(case, analysis) -> None:
    result = evaluate_coco(*case)
    assert {n: analysis.value(n) for n in METRICS} == {n: getattr(result, n) for n in METRICS}
    assert analysis.value("f1") == result.at_confidence.f1
    for name in (*METRICS, "precision", "recall", "f1"):
        interval = analysis.interval(name)
        assert 0 <= interval.low <= interval.high <= 1
    for k, kind in enumerate(KINDS[:-1]):  # a missed object is no detection
        assert np.sum(analysis.kinds == k) == getattr(analysis.errors, kind).count
    assert analyse(*case, samples=0, result=result).result is result
    assert analyse(*case, samples=0).interval("AP") is None


def test_a_detector_against_itself_and_against_a_worse_one(case, analysis) -> None:
    same = compare(analysis, analysis)
    assert all(d.difference == 0 and (d.wins, d.ties) == (0, 1) for d in same.numbers.values())
    truth, found = case
    worse = analyse(truth, [{**d, "bbox": [v + 9 for v in d["bbox"]]} for d in found], samples=20)
    ap = compare(analysis, worse).numbers["AP"]
    assert ap.difference == pytest.approx(analysis.result.AP - worse.result.AP) and ap.wins == 1
    assert ap.interval.low > 0
    assert [name for name, _ in same.classes] == [c.name for c in analysis.result.classes]


def test_what_cannot_be_compared_is_refused(case, analysis) -> None:
    truth, found = case
    with pytest.raises(ConfigError, match="resampled, as often and from the same seed"):
        compare(analysis, analyse(truth, found, samples=20, seed=1))
    with pytest.raises(ConfigError, match="resampled"):
        compare(analysis, analyse(truth, found, samples=0))
    fewer = {**truth, "images": truth["images"][1:]}
    with pytest.raises(ConfigError, match="same images and classes"):
        compare(analysis, analyse(fewer, found, samples=0, unknown="count"))


@pytest.mark.parametrize("samples", [-1, 1])
def test_a_number_of_samples_that_says_nothing(case, samples: int) -> None:
    with pytest.raises(ConfigError, match="at least two"):
        analyse(*case, samples=samples)
