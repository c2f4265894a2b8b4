"""Readers: what is written in a format comes back from it, and the rules of each format hold."""

import dataclasses

import numpy as np
import pytest

from yolojax.data import list_splits, open_dataset, shapes_dataset, write_coco, write_voc, write_yolo
from yolojax.errors import DataError

WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}
TOLERANCE = {"voc": 0, "coco": 0, "yolo": 1e-6}  # pixels; YOLO txt holds decimal fractions of the image


@pytest.fixture(scope="module")
def splits():
    """Two small splits with background images; some objects of the first are difficult."""
    train, val = shapes_dataset(12, seed=1, size=(48, 64)), shapes_dataset(5, seed=1, size=(64, 48), split="val")
    records = []
    for r in train.records:
        hard = np.arange(len(r.boxes)) % 3 == 2
        records.append(dataclasses.replace(r, difficult=hard, crowd=hard))
    assert any(len(r.boxes) == 0 for r in records) and any(r.crowd.any() for r in records)
    return {"train": dataclasses.replace(train, records=tuple(records)), "val": val}


@pytest.fixture(scope="module")
def folders(splits, tmp_path_factory):
    made = {}
    for name, write in WRITERS.items():
        made[name] = tmp_path_factory.mktemp(name)
        write(splits, made[name])
    return made


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_comes_back(name, split, splits, folders):
    written, read = splits[split], open_dataset(folders[name], split)
    assert (read.format, read.split, len(read.summary.findings)) == (name, split, 0)
    assert read.class_names == written.class_names and len(read) == len(written)
    for a, b in zip(written.records, read.records, strict=True):
        np.testing.assert_array_equal(a.pixels(), b.pixels())
        np.testing.assert_allclose(a.boxes, b.boxes, rtol=0, atol=TOLERANCE[name])
        np.testing.assert_array_equal(a.classes, b.classes)
        np.testing.assert_allclose(a.areas, b.areas)
        assert a.size == b.size and b.file_name.endswith(a.file_name)
        if name == "voc":
            np.testing.assert_array_equal(a.difficult, b.difficult)
            np.testing.assert_array_equal(a.crowd, b.crowd)
        if name == "coco":
            np.testing.assert_array_equal(a.annotation_ids, b.annotation_ids)
            assert a.image_id == b.image_id


@pytest.mark.parametrize("name", WRITERS)
def test_the_coco_ground_truth_agrees_across_formats(name, splits, folders):
    """Image names, boxes and class names of `to_coco`, by hand from the records that were written."""
    coco = open_dataset(folders[name], "val").to_coco()
    class_of = {c["id"]: c["name"] for c in coco["categories"]}
    name_of = {i["id"]: i["file_name"].rsplit("/", 1)[-1] for i in coco["images"]}
    got = sorted((name_of[a["image_id"]], class_of[a["category_id"]], *a["bbox"]) for a in coco["annotations"])
    expected = sorted(
        (r.file_name, splits["val"].class_names[c], x1, y1, x2 - x1, y2 - y1)
        for r in splits["val"].records
        for c, (x1, y1, x2, y2) in zip(r.classes, r.boxes.tolist(), strict=True)
    )
    assert [e[:2] for e in got] == [e[:2] for e in expected]
    np.testing.assert_allclose([e[2:] for e in got], [e[2:] for e in expected], rtol=0, atol=TOLERANCE[name])
    assert sorted(a["id"] for a in coco["annotations"]) == list(range(1, len(expected) + 1))
    assert all(a["iscrowd"] == 0 and a["area"] > 0 for a in coco["annotations"])


def test_difficult_objects_are_crowd_in_training_and_ordinary_in_coco(folders, splits):
    data = open_dataset(folders["voc"], "train")
    hard = sum(int(r.difficult.sum()) for r in splits["train"].records)
    annotations = data.to_coco()["annotations"]
    assert hard > 0 and sum(int(r.crowd.sum()) for r in data.records) == hard
    assert len(annotations) == data.object_count
    assert sum(a.get("difficult", 0) for a in annotations) == hard and not any(a["iscrowd"] for a in annotations)


@pytest.mark.parametrize("name", WRITERS)
def test_splits_are_listed_and_found_by_their_beginning(name, folders):
    assert set(list_splits(folders[name])) == {"train", "val"}
    assert open_dataset(folders[name], "va").split == "val"
    with pytest.raises(DataError, match=r"no split 'test'; the splits there: train, val"):
        open_dataset(folders[name], "test")


@pytest.mark.parametrize("name", ["voc", "yolo"])
def test_without_a_split_all_images_are_read(name, folders):
    assert len(open_dataset(folders[name])) == 17


def test_a_coco_folder_with_several_files_asks_for_a_split(folders):
    with pytest.raises(DataError, match="several COCO files; give --split with one of train, val"):
        open_dataset(folders["coco"])
    assert len(open_dataset(folders["coco"] / "annotations" / "instances_val.json")) == 5


@pytest.mark.parametrize("name", WRITERS)
def test_listed_classes_set_the_order(name, folders, splits):
    order = (*reversed(splits["val"].class_names), "dog")
    plain, turned = open_dataset(folders[name], "val"), open_dataset(folders[name], "val", class_names=order)
    assert turned.class_names == order and len(set(turned.category_ids)) == 7
    for a, b in zip(plain.records, turned.records, strict=True):
        assert [plain.class_names[c] for c in a.classes] == [order[c] for c in b.classes]
    ids = {c["name"]: c["id"] for c in turned.to_coco()["categories"]}
    assert tuple(ids[n] for n in order) == turned.category_ids


@pytest.mark.parametrize("name", WRITERS)
def test_a_class_that_is_not_asked_for_is_an_error_or_its_objects_are_left_out(name, folders, splits):
    """The caller's own list says that these objects are none: their images stay, unlike those of faulty objects."""
    few = splits["val"].class_names[:3]
    with pytest.raises(DataError, match=r"unknown class .*the classes are cross, ellipse, rectangle"):
        open_dataset(folders[name], "val", class_names=few)
    data = open_dataset(folders[name], "val", class_names=few, skip_bad=True)
    kept = sum(int((r.classes < 3).sum()) for r in splits["val"].records)
    assert len(data) == 5 and data.object_count == kept
    assert len(data.summary.of("skipped")) == splits["val"].object_count - kept


def test_a_folder_with_several_formats_is_read_as_coco_and_says_so(splits, tmp_path):
    for write in WRITERS.values():
        write(splits, tmp_path)
    data = open_dataset(tmp_path, "val")
    assert data.format == "coco"
    assert [f.where for f in data.summary.of("note")] == [str(tmp_path), str(tmp_path / "data.yaml")]
    assert open_dataset(tmp_path / "data.yaml", "val").format == "yolo"


def test_fingerprints_tell_data_sets_apart(folders):
    val = open_dataset(folders["voc"], "val")
    assert val.fingerprint() == open_dataset(folders["voc"], "val").fingerprint()
    assert val.fingerprint() != val.take([0, 1]).fingerprint()
