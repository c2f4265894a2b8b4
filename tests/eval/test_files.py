"""What an evaluation writes, on disk and in the terminal."""

import json
from pathlib import Path

import numpy as np
import pytest

from yolojax.errors import ResultError
from yolojax.eval.coco import METRICS, evaluate_coco
from yolojax.eval.files import detections_to_coco, json_text, metrics, write_json
from yolojax.eval.table import format_notes, format_number, format_result


def test_detections_to_coco_keeps_every_digit() -> None:
    boxes = np.array([[0.1, 0.2, 10.3, 20.7], [5, 5, 6, 9]], np.float32)
    rows = detections_to_coco(42, boxes, np.array([0.9, 1 / 3], np.float32), np.array([1, 0]), [7, 90])
    assert [(r["image_id"], r["category_id"]) for r in rows] == [(42, 90), (42, 7)]
    exact = boxes.astype(np.float64)
    assert rows[0]["bbox"] == [*exact[0, :2], exact[0, 2] - exact[0, 0], exact[0, 3] - exact[0, 1]]
    assert rows[1]["score"] == float(np.float32(1 / 3))
    assert json.loads(json.dumps(rows)) == rows
    assert detections_to_coco(1, np.empty((0, 4)), np.empty(0), np.empty(0, int), [1]) == []


@pytest.mark.parametrize("label", [-1, 2])
def test_detections_to_coco_refuses_classes_without_id(label: int) -> None:
    with pytest.raises(ResultError, match=f"image 3: class {label} has no category id"):
        detections_to_coco(3, np.ones((1, 4)), np.ones(1), np.array([label]), [7, 90])


def test_detections_to_coco_refuses_what_is_not_finite() -> None:
    with pytest.raises(ResultError, match="image 3, row 1"):
        detections_to_coco(3, np.ones((2, 4)), np.array([1, np.nan]), np.array([0, 0]), [7])


def test_write_json_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"AP": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"AP": float("nan")})
    with pytest.raises(TypeError):
        write_json(path, {"AP": object()})
    assert json.loads(path.read_text()) == {"AP": 0.5}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_metrics_file_round_trips(make_case, tmp_path: Path) -> None:
    truth, found = make_case(1)
    result = evaluate_coco(truth, found)
    write_json(tmp_path / "metrics.json", metrics(result))
    read = json.loads((tmp_path / "metrics.json").read_text())
    assert read == metrics(result)
    assert list(read)[:14] == [*METRICS, "precision", "recall"]
    assert read["AP"] == result.AP and read["counters"]["objects"] == result.counters.objects
    assert read["best_f1"]["confidence"] == result.best_f1.confidence


def test_what_was_not_measured_is_null_and_not_available(tmp_path: Path) -> None:
    result = evaluate_coco({"images": [], "categories": [], "annotations": []}, [])
    write_json(tmp_path / "metrics.json", metrics(result))
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] is None
    assert format_number(None) == "n/a" and "-1" not in format_result(result)
    assert format_result(result).count("n/a") == 14


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"a": {}, "b": [[], {}]},
        {"rows": [[1, 2.5, None], [True, "a\n,{"]], "points": [{"x": 1, "y": (2, 3)}], 7: {"é": 1e-7}},
        [(1, [2, {"deep": [3]}]), "text"],
        "text",
    ],
)
def test_indented_text_is_that_of_json(value) -> None:
    for indent in (1, 3):
        assert json_text(value, indent=indent) == json.dumps(value, indent=indent) + "\n"
    with pytest.raises(ValueError, match="JSON"):
        json_text({"a": [value, [float("nan")]]}, indent=1)


def test_table_quotes_the_numbers(make_case) -> None:
    truth, found = make_case(2, ties=True)
    result = evaluate_coco(truth, found)
    text = format_result(result)
    for value in (result.AP, result.AP50, result.APl, result.AR1, result.precision, result.classes[1].AP75):
        assert format_number(value) in text
    assert "class5" in text and "class5" not in format_result(result, classes=False)
    assert f"{result.counters.tied_share:.1%} of the detections share their score" in text
    assert max(len(line) for line in text.splitlines()) < 120


def test_notes_are_empty_when_all_is_in_order(make_case) -> None:
    truth, found = make_case(0, crowd=0.0)
    assert format_notes(evaluate_coco(truth, found).counters, 100) == []
    found[0]["score"] = 3.0
    truth["annotations"][0]["ignore"] = 1
    notes = format_notes(evaluate_coco(truth, found).counters, 100)
    assert len(notes) == 2 and notes[0].startswith("1 annotations have the flag 'ignore'")
