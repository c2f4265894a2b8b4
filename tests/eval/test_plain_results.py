"""A result list in its usual form is read like any other, but sooner; the unusual is left to the general reader."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from yolojax.errors import ResultError
from yolojax.eval import inputs, plain_results
from yolojax.eval.inputs import read_detections, read_ground_truth
from yolojax.eval.plain_results import read_plain_rows

ROW = {"image_id": 1, "category_id": 2, "bbox": [1, 2.5, 3, 4], "score": 0.5}

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
keys = st.integers(-(2**70), 2**70) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
rows = st.fixed_dictionaries(
    {"image_id": keys, "category_id": keys, "bbox": st.lists(numbers, min_size=4, max_size=4), "score": numbers}
)


@given(st.lists(rows, max_size=4), st.sampled_from([None, 1]))
def test_columns_are_the_values_that_json_reads(records, indent):
    content = json.dumps(records, indent=indent).encode()
    found = read_plain_rows(content)
    if found is None:  # a quotation mark within a text looks like a key that stands twice
        values = [v for one in records for v in (one["image_id"], one["category_id"], one["score"], *one["bbox"])]
        assert b'\\"' in content or any(not isinstance(value, str) and abs(value) >= 2**63 for value in values)
        return
    assert found.image_ids == [one["image_id"] for one in records]
    assert found.category_ids == [one["category_id"] for one in records]
    np.testing.assert_array_equal(found.boxes, np.array([one["bbox"] for one in records], np.float64).reshape(-1, 4))
    np.testing.assert_array_equal(found.scores, np.array([one["score"] for one in records], np.float64))


def changed(**to) -> str:
    return json.dumps([ROW, ROW | to])


@pytest.mark.parametrize(
    "text",
    [
        changed(image_id=1.0),
        changed(image_id=True),
        changed(category_id=None),
        changed(score="0.5"),
        changed(score=True),
        changed(score=float("nan")),
        changed(bbox=[1, 2, 3]),
        changed(bbox=[1, 2, 3, 4, 5]),
        changed(bbox=[1, 2, 3, None]),
        changed(file_name="a.jpg"),
        changed(image_id=2**63),
        changed(category_id=-(2**63) - 1),
        changed(score=2**64),
        changed(bbox=[1, 2, 3, 2**64]),
        changed().replace('"score": 0.5}]', '"score": 0.5, "score": 0.6}]'),
        changed().replace('"score": 0.5}]', '"score": 1e999}]'),
        changed().replace('"image_id": 1', '"image_id": "a\\"b"'),
        changed()[:-1],
        "\ufeff" + changed(),
        json.dumps(ROW),
        '{"annotations": []}',
        "",
        "[" * 100_000,
    ],
)
def test_anything_else_is_left_to_the_general_reader(text):
    assert read_plain_rows(text.encode()) is None


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"image_id": "b"},
        {"image_id": "nowhere"},
        {"image_id": 7},
        {"category_id": "dog"},
        {"category_id": 9},
        {"bbox": [1, 2, -3, 4]},
        {"bbox": [1, 2, 3, 1e12]},
        {"score": 1e18},
    ],
)
def test_both_readers_give_the_same_columns_and_the_same_errors(change, tmp_path, monkeypatch):
    truth = read_ground_truth(
        {
            "images": [{"id": k, "file_name": f"{name}.jpg", "width": 9, "height": 9} for k, name in enumerate("abc")],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [],
        }
    )
    path = tmp_path / "results.json"
    path.write_text(json.dumps([ROW, ROW | {"score": 0.75}, ROW | change]))
    assert read_plain_rows(path.read_bytes()) is not None

    def read():
        try:
            return read_detections(path, truth)
        except ResultError as error:
            return str(error)

    soon = read()
    monkeypatch.setattr(inputs, "read_plain_rows", lambda content: None)
    slow = read()
    if isinstance(soon, str):
        assert soon == slow
    else:
        assert vars(soon).keys() == vars(slow).keys()
        for name, value in vars(soon).items():
            np.testing.assert_equal(value, getattr(slow, name))


def test_without_the_reader_of_the_extra_nothing_is_plain(monkeypatch):
    monkeypatch.setattr(plain_results, "_decoder", lambda: None)
    assert read_plain_rows(json.dumps([ROW]).encode()) is None
