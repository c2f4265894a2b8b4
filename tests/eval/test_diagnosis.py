"""Every rule of the metric reader can speak, in its order, and quotes its numbers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolojax.errors import ResultError
from yolojax.eval.coco import evaluate_coco
from yolojax.eval.confusion import confusion_matrix
from yolojax.eval.diagnosis import diagnose, diagnose_result
from yolojax.eval.inputs import read_detections, read_ground_truth

GOOD = {"precision": 0.75, "recall": 0.75, "AP50": 0.7, "AP": 0.5}
CASES = [
    ({"AP50": 0.65, "AP": 0.15}, "rough_boxes", ("0.650", "0.150"), "longer"),
    ({"AP50": 0.58, "AP": 0.18}, "loose_localisation", ("0.580", "0.180", "0.400"), "CIoU"),
    ({"AP50": 0.9, "AP": 0.5}, "loose_localisation", ("0.900", "0.500"), "DIoU"),
    ({"precision": 0.3, "recall": 0.8}, "over_predicting", ("0.300", "0.800"), "raise the confidence"),
    ({"precision": 0.9, "recall": 0.3}, "under_predicting", ("0.900", "0.300"), "lower the confidence"),
    ({"precision": None, "recall": 0.2, "AP50": 0.3, "AP": 0.1}, "under_predicting", ("n/a", "0.200"), "lower"),
    ({"precision": None, "recall": 0.0, "AP50": 0.0, "AP": 0.0}, "no_match", ("0.000",), "image ids"),
    ({"class_recall": {"cat": 0.2, "dog": 0.9, "fox": 0.8, "owl": None}}, "class_imbalance", ("0.200",), "oversample"),
    ({"class_recall": {"cat": 0.2, "dog": 0.9, "fox": 0.4}}, "class_imbalance", ("cat", "fox", "0.400"), "cat and fox"),
    ({"confusions": {("cat", "dog"): 0.2, ("dog", "cat"): 0.15}}, "ambiguous_classes", ("20.0%", "15.0%"), "merge"),
    ({}, "plateau", ("0.750", "0.700", "0.500"), "longer schedule"),
    ({"precision": 0.2, "recall": 0.2, "AP50": 0.1, "AP": 0.05}, "plateau", ("0.200",), "two seeds"),
]


@pytest.mark.parametrize(("change", "rule", "quoted", "advice"), CASES)
def test_every_rule_speaks(change: dict, rule: str, quoted: tuple, advice: str) -> None:
    reading = diagnose(**{**GOOD, **change})
    assert reading.rule == rule and advice in reading.next
    assert all(number in reading.diagnosis for number in quoted)
    lines = str(reading).split("\n")
    assert len(lines) == 2 and lines[0].startswith("diagnosis: ") and lines[1].startswith("next: ")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"AP50": 0.6, "AP": 0.2}, "loose_localisation"),  # rough boxes need more than .6
        ({"AP50": 0.75, "AP": 0.4}, "plateau"),  # .35 is not more than .35
        ({"precision": 0.5, "recall": 0.8}, "plateau"),
        ({"precision": 0.4, "recall": 0.7}, "plateau"),
        ({"precision": 0.7, "recall": 0.3}, "plateau"),
        ({"precision": 0.8, "recall": 0.4}, "plateau"),
        ({"class_recall": {"cat": 0.5, "dog": 0.9}}, "plateau"),
        ({"class_recall": {"cat": 0.2}}, "plateau"),  # one of one is no imbalance
        ({"class_recall": {"cat": 0.2, "dog": 0.1}}, "plateau"),
        ({"class_recall": {"a": 0.2, "b": 0.1, "c": 0.1, "d": 0.9}}, "plateau"),  # three are not "one or two"
        ({"confusions": {("cat", "dog"): 0.4}}, "plateau"),  # one-sided
        ({"confusions": {("cat", "dog"): 0.4, ("dog", "cat"): 0.15}}, "plateau"),  # lopsided
        ({"confusions": {("cat", "dog"): 0.09, ("dog", "cat"): 0.09}}, "plateau"),  # rare
    ],
)
def test_edges_of_the_rules(change: dict, rule: str) -> None:
    assert diagnose(**{**GOOD, **change}).rule == rule


def test_earlier_rules_speak_first() -> None:
    everything = {
        "class_recall": {"cat": 0.2, "dog": 0.9},
        "confusions": {("cat", "dog"): 0.2, ("dog", "cat"): 0.2},
    }
    assert diagnose(precision=0.3, recall=0.8, AP50=0.7, AP=0.1, **everything).rule == "rough_boxes"
    assert diagnose(precision=0.3, recall=0.8, AP50=0.8, AP=0.3, **everything).rule == "loose_localisation"
    assert diagnose(precision=0.3, recall=0.8, AP50=0.5, AP=0.3, **everything).rule == "over_predicting"
    assert diagnose(**GOOD, **everything).rule == "class_imbalance"


def test_the_pair_confused_most_is_named() -> None:
    shares = {("a", "b"): 0.2, ("b", "a"): 0.2, ("c", "b"): 0.3, ("b", "c"): 0.4, ("a", "c"): 0.5, ("c", "a"): 0.1}
    assert diagnose(**GOOD, confusions=shares).diagnosis.startswith("b and c are ambiguous: 40.0% of b")


unit = st.floats(0, 1)


@settings(max_examples=50, deadline=None)
@given(unit, unit, unit, unit)
def test_always_two_lines_and_never_more_data_first(precision: float, recall: float, ap50: float, part: float) -> None:
    text = str(diagnose(precision=precision, recall=recall, AP50=ap50, AP=ap50 * part))
    assert text.count("\n") == 1 and "more data" not in text and "more images" not in text


@pytest.mark.parametrize("change", [{"recall": math.nan}, {"AP": 1.2}, {"precision": -0.1}, {"AP": 0.8, "AP50": 0.7}])
def test_impossible_numbers_are_refused(change: dict) -> None:
    with pytest.raises(ResultError):
        diagnose(**{**GOOD, **change})


def test_a_whole_evaluation_is_read(make_case) -> None:
    truth, found = make_case(0, crowd=0.0)
    perfect = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9} for a in truth["annotations"]]
    assert diagnose_result(evaluate_coco(truth, perfect)).rule == "plateau"
    assert diagnose_result(evaluate_coco(truth, [])).rule == "mistake"
    with pytest.raises(ResultError, match="no objects"):
        diagnose_result(evaluate_coco({**truth, "annotations": []}, found))


def test_swapped_classes_are_called_ambiguous() -> None:
    """Of 10 cats and 10 dogs, 2 of each are taken for the other: recall .8, and the matrix says why."""
    boxes = [[30.0 * k, 0.0, 20.0, 20.0] for k in range(20)]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1 + k // 10, "bbox": b} for k, b in enumerate(boxes)],
    }
    found = [
        {"image_id": 1, "category_id": 1 + (k // 10 + (k % 10 < 2)) % 2, "bbox": b, "score": 0.9 - k / 100}
        for k, b in enumerate(boxes)
    ]
    columns = read_ground_truth(truth)
    matrix = confusion_matrix(columns, read_detections(found, columns))
    assert matrix.counts.tolist() == [[8, 2, 0], [2, 8, 0], [0, 0, 0]]
    reading = diagnose_result(evaluate_coco(truth, found), matrix)
    assert reading.rule == "ambiguous_classes" and "20.0% of cat" in reading.diagnosis
