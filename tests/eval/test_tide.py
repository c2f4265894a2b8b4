"""The error breakdown equals the authors' own program, and each kind can be made by hand."""

import json
from pathlib import Path

import pytest

from yolojax.eval.coco import evaluate_coco
from yolojax.eval.inputs import read_detections, read_ground_truth
from yolojax.eval.tide import KINDS, TideErrors, tide_errors

GOLDEN = Path(__file__).resolve().parent.parent / "goldens" / "tide.json"


def breakdown(truth: dict, found: list[dict]) -> TideErrors:
    columns = read_ground_truth(truth)
    return tide_errors(columns, read_detections(found, columns))


def test_equals_the_authors_program() -> None:
    case = json.loads(GOLDEN.read_text())
    errors, golden = breakdown(case["truth"], case["found"]), case["tidecv"]
    assert pytest.approx(golden["AP50"] / 100, abs=1e-12) == errors.AP50
    for kind, cost in golden["costs"].items():
        assert getattr(errors, kind).cost == pytest.approx(cost / 100, abs=1e-12), kind
    assert {kind: getattr(errors, kind).count for kind in KINDS} == golden["counts"]


@pytest.mark.parametrize("seed", range(3))
def test_baseline_is_cocos_and_every_false_positive_has_one_kind(make_case, seed: int) -> None:
    truth, found = make_case(seed, crowd=0.2)
    errors, result = breakdown(truth, found), evaluate_coco(truth, found, confidence=0.0)
    assert pytest.approx(result.AP50, abs=1e-12) == errors.AP50
    assert sum(getattr(errors, kind).count for kind in KINDS if kind != "missed") == errors.false_positives.count
    assert errors.false_positives.count == result.at_confidence.false_positives
    assert errors.false_negatives.count == result.counters.objects - result.at_confidence.true_positives


def box_at(x: float, width: float = 10.0) -> list[float]:
    return [x, 0.0, width, 10.0]


TRUTH = {
    "images": [{"id": 1}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": box_at(0)},
        {"image_id": 1, "category_id": 2, "bbox": box_at(100)},
    ],
}


def found(*rows: tuple[int, list[float], float]) -> list[dict]:
    return [{"image_id": 1, "category_id": c, "bbox": box, "score": score} for c, box, score in rows]


CAT, DOG = (1, box_at(0), 0.8), (2, box_at(100), 0.8)


@pytest.mark.parametrize(
    ("kind", "rows", "cost"),
    [
        ("classification", [CAT, (1, box_at(100), 0.9)], 0.75),  # cat AP .5 -> 1, dog 0 -> 1
        ("localisation", [CAT, (2, box_at(106), 0.9)], 0.5),  # IoU .25
        ("both", [CAT, DOG, (1, box_at(106), 0.9)], 0.25),  # cat AP .5 -> 1
        ("duplicate", [(1, box_at(1), 0.9), CAT, DOG], 0.0),  # after the only object it costs nothing
        ("background", [CAT, DOG, (1, box_at(50), 0.9)], 0.25),
        ("missed", [CAT], 0.0),  # no detection of dogs: without objects its AP stays 0
    ],
)
def test_each_kind_by_hand(kind: str, rows: list, cost: float) -> None:
    errors = breakdown(TRUTH, found(*rows))
    assert {k: getattr(errors, k).count for k in KINDS if getattr(errors, k).count} == {kind: 1}
    assert getattr(errors, kind).cost == pytest.approx(cost, abs=1e-12)


def test_only_the_best_of_several_wrong_ones_is_mended() -> None:
    """Both misplaced dogs point at the same object: mending gives one true positive, not two."""
    errors = breakdown(TRUTH, found(CAT, (2, box_at(106), 0.9), (2, box_at(94), 0.95)))
    assert (errors.localisation.count, errors.missed.count) == (2, 0)
    assert pytest.approx(0.5) == errors.AP50 and errors.localisation.cost == pytest.approx(0.5)


def test_crowd_regions_and_emptiness() -> None:
    truth = {**TRUTH, "annotations": [*TRUTH["annotations"], {**TRUTH["annotations"][0], "iscrowd": 1}]}
    truth["annotations"][2]["bbox"] = box_at(200, 100)
    errors = breakdown(truth, found(CAT, DOG, (1, box_at(250), 0.9)))
    assert pytest.approx(1) == errors.AP50 and errors.false_positives.count == 0
    nothing = breakdown({**TRUTH, "annotations": []}, found(CAT))
    assert nothing.AP50 is None and nothing.background.count == nothing.false_positives.count == 1
    assert breakdown(TRUTH, []).missed.count == 2
