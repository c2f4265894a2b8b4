"""The rules of COCO JSON: what comes back, what is filled in, where images lie."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from yolojax.data import list_splits, open_dataset


def coco(root, annotations=(), images=None, categories=None, **extra):
    """One image of 20 x 10 pixels; categories 7 (cat) and 3 (dog)."""
    root.mkdir(exist_ok=True)
    Image.fromarray(np.full((10, 20, 3), 50, np.uint8)).save(root / "a.png")
    content = {
        "images": [{"id": 4, "file_name": "a.png", "width": 20, "height": 10, "license": 2}]
        if images is None
        else images,
        "annotations": list(annotations),
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}] if categories is None else categories,
        **extra,
    }
    path = root / "instances_x.json"
    path.write_text(json.dumps(content))
    return path


FULL = {
    "id": 11,
    "image_id": 4,
    "category_id": 7,
    "bbox": [1.5, 2.25, 10.5, 20.0],
    "area": 33.3,
    "iscrowd": 0,
    "segmentation": [[1, 2, 3, 4, 5, 6]],
    "mine": "kept",
}


def test_coco_entries_come_back_untouched(tmp_path):
    crowd = {**FULL, "id": 12, "iscrowd": 1, "category_id": 3, "segmentation": {"counts": [1, 2], "size": [10, 20]}}
    path = coco(tmp_path, [FULL, crowd], info={"year": 2020})
    data = open_dataset(path)
    assert (data.class_names, data.category_ids) == (("dog", "cat"), (3, 7))
    np.testing.assert_array_equal(data.records[0].boxes[0], [1.5, 2.25, 12, 10])
    np.testing.assert_array_equal(data.records[0].crowd, [False, True])
    np.testing.assert_array_equal(data.records[0].areas, [33.3, 33.3])
    assert data.summary.counts() == {"clipped": 2}
    assert data.to_coco() == json.loads(path.read_text())


def test_coco_ground_truth_may_be_changed_by_its_reader(tmp_path):
    """`pycocotools` adds keys to what it is given; a second evaluation must find the first one's input."""
    data = open_dataset(coco(tmp_path, [FULL]))
    first = data.to_coco()
    before = copy.deepcopy(first)
    for entries in (first["annotations"], first["images"], first["categories"]):
        entries[0]["ignore"] = 1
    assert data.to_coco() == before


def test_coco_defaults_are_filled_in_and_ids_start_at_one(tmp_path):
    bare = {"id": 0, "image_id": 4, "category_id": 3, "bbox": [1, 1, 4, 5]}
    data = open_dataset(coco(tmp_path, [bare, {**bare, "id": 5}, {**bare, "id": 5}]))
    annotations = data.to_coco()["annotations"]
    assert [a["id"] for a in annotations] == [1, 2, 3] and list(data.summary.counts()) == ["renumbered"]
    assert all(a["area"] == 20 and a["iscrowd"] == 0 for a in annotations)


def test_coco_degenerate_boxes_are_dropped_for_training_and_kept_for_the_evaluation(tmp_path):
    flat, outside = {**FULL, "id": 1, "bbox": [3, 3, 0, 4]}, {**FULL, "id": 2, "bbox": [30, 3, 2, 4]}
    data = open_dataset(coco(tmp_path, [flat, FULL, outside]))
    assert [f.where[-12:] for f in data.summary.of("dropped")] == ["annotation 1", "annotation 2"]
    assert [a["id"] for a in data.to_coco()["annotations"]] == [1, 11, 2] and data.object_count == 1


def test_coco_ignore_is_difficult(tmp_path):
    data = open_dataset(coco(tmp_path, [{**FULL, "ignore": 1}]))
    assert data.records[0].difficult.all() and data.records[0].crowd.all()
    assert data.to_coco()["annotations"][0]["iscrowd"] == 0


def test_coco_duplicate_images_are_left_out(tmp_path):
    entry = {"id": 4, "file_name": "a.png", "width": 20, "height": 10}
    data = open_dataset(coco(tmp_path, [FULL], images=[entry, dict(entry)]))
    assert len(data) == 1 and data.summary.counts() == {"duplicate": 1, "clipped": 1}


@pytest.mark.parametrize("place", ["images/x", "x", "images", "."])
def test_coco_images_are_found_where_they_usually_lie(tmp_path, place):
    path = coco(tmp_path, [FULL])
    (tmp_path / "annotations").mkdir()
    path.rename(tmp_path / "annotations" / path.name)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "a.png").rename(tmp_path / place / "a.png")
    assert open_dataset(tmp_path, "x").records[0].source == tmp_path / place / "a.png"


def test_coco_in_one_folder_a_split(tmp_path):
    for split in ("train", "valid"):
        path = coco(tmp_path / split, [FULL])
        path.rename(path.with_name("_annotations.coco.json"))
    assert list_splits(tmp_path) == ("train", "valid")
    assert open_dataset(tmp_path, "val").records[0].source == tmp_path / "valid" / "a.png"
