"""The reader of data sets and the reader of the evaluation take and refuse the same COCO files."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from yolojax.cli.evaluate import with_own_ids
from yolojax.data import open_dataset
from yolojax.errors import DataError
from yolojax.eval.coco import METRICS, evaluate_coco
from yolojax.eval.inputs import read_ground_truth

IMAGES = [{"id": k, "file_name": f"{k}.png", "width": 60, "height": 50} for k in (1, 2)]
OBJECTS = [
    {"id": k, "image_id": k, "category_id": k, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0} for k in (1, 2)
]
PLAIN = {"images": IMAGES, "annotations": OBJECTS, "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}

FIELDS = [
    (kind, key, value)
    for kind, key, values in (
        (
            "annotations",
            "bbox",
            (
                [],
                None,
                [1, 2, 3],
                ["1", "1", "5", "5"],
                [5, 5, -1, 4],
                [5, 5, 0, 4],
                [50, 40, 30, 30],
                [70, 5, 9, 9],
                [0, 0, float("inf"), 4],
                [0, 0, 2e9, 4],
                [True, 1, 5, 5],
                {"x": 1},
            ),
        ),
        ("annotations", "area", (None, 0, -5, -1e-9, "400", 9e9, 1e17, float("nan"), [400], True)),
        ("annotations", "iscrowd", (None, 1, 2, 0.0, 1.0, True, "0", [])),
        ("annotations", "ignore", (None, 1, 2, "1")),
        ("annotations", "id", (None, 0, 2, "uuid", 2**62)),
        ("annotations", "image_id", (1.0, 1.5, "1", None, True, 7, float("nan"), [1], 2**62, 2**70)),
        ("annotations", "category_id", (1.0, 1.5, "1", "cat", None, False, 7, {})),
        ("images", "id", (1.0, 1.5, "1", None, 2, True, 2**62, 2**63, 2**70)),
        ("images", "file_name", (["1.png"], 1, "2.png", "./1.png", "x\\1.png", "")),
        ("images", "width", (None, 0, 60.0, "60", -1)),
        ("categories", "id", (1.0, 1.5, "1", None, 2, 2**62, 2**63, 2**70)),
        ("categories", "name", ("dog", None, 5, ["cat"], "Cat ", "", " ", "x" * 500, "x" * 501, "\ud800")),
    )
    for value in values
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("rules")
    for image in IMAGES:
        Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(made / image["file_name"])
    return made


def refusal(read) -> str | None:
    try:
        read()
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("kind", "key", "value"), FIELDS, ids=lambda v: str(v)[:20])
def test_a_file_is_taken_by_both_or_by_none(folder, kind, key, value):
    """And where it is taken, training, validation and evaluation measure the same objects."""
    content = copy.deepcopy(PLAIN)
    content[kind][0][key] = value
    path = folder / "x.json"
    path.write_text(json.dumps(content))
    of_data, of_evaluation = refusal(lambda: open_dataset(path)), refusal(lambda: read_ground_truth(path))
    assert (of_data is None) == (of_evaluation is None), (of_data, of_evaluation)
    if of_data is None:
        mine, files = read_ground_truth(open_dataset(path).to_coco()), read_ground_truth(path)
        for name in ("boxes", "areas", "crowd", "images", "categories"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(files, name))


def test_objects_without_extent_count_as_missed_whichever_way_they_are_read(folder):
    content = copy.deepcopy(PLAIN)
    flat = {"category_id": 1, "iscrowd": 0}
    content["annotations"][:0] = [
        {**flat, "id": 8, "image_id": 1, "bbox": [3, 3, 0, 9], "area": None},
        {**flat, "id": 9, "image_id": 1, "bbox": [300, 3, 9, 9], "area": 81},
    ]
    path = folder / "flat.json"
    path.write_text(json.dumps(content))
    data = open_dataset(path)
    found = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9}]
    results = [evaluate_coco(truth, found) for truth in (path, data.to_coco(), data.take([0, 1]).to_coco())]
    assert data.object_count == 2 and [a["id"] for a in data.to_coco()["annotations"]] == [8, 9, 1, 2]
    assert len({tuple(getattr(result, name) for name in METRICS) for result in results}) == 1
    assert [result.counters.unmatchable_objects for result in results] == [2, 2, 2]
    assert [a["id"] for a in data.take([1]).to_coco()["annotations"]] == [2]


def test_texts_as_ids_keep_their_order_and_come_back(folder):
    """Ties depend on the order of the images, so the numbers have the order of the texts."""
    content = copy.deepcopy(PLAIN)
    for entry, name in zip(content["images"], ("b", "a"), strict=True):
        entry["id"] = name
    for entry, name in zip(content["annotations"], ("b", "a"), strict=True):
        entry["image_id"] = name
    path = folder / "texts.json"
    path.write_text(json.dumps(content))
    data = open_dataset(path)
    assert [record.image_id for record in data.records] == [2, 1]
    np.testing.assert_array_equal(read_ground_truth(data.to_coco()).images, read_ground_truth(path).images)
    content["categories"] = [{"id": "x", "name": "cat"}, {"id": "y", "name": "dog"}]
    for entry, name in zip(content["annotations"], ("x", "y"), strict=True):
        entry["category_id"] = name
    path.write_text(json.dumps(content))
    data = open_dataset(path)
    found = [
        {"image_id": record.image_id, "category_id": data.category_ids[c], "bbox": [10, 10, 20, 20], "score": 0.9}
        for record in data.records
        for c in record.classes
    ]
    written = with_own_ids(found, data)
    assert [(row["image_id"], row["category_id"]) for row in written] == [("b", "x"), ("a", "y")]
    assert evaluate_coco(path, written).AP == evaluate_coco(data.to_coco(), found).AP == pytest.approx(1)
