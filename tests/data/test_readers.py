"""Readers: what is written in a format comes back from it, and the rules of each format hold."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

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
    with pytest.raises(DataError, match="several COCO files; name one of the splits train, val"):
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
def test_an_unknown_class_is_an_error_or_its_objects_are_left_out(name, folders, splits):
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


# Pascal VOC


def voc_object(name, box, extra=""):
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{sides}</bndbox></object>"


def voc(root, name="a", objects="", size=(20, 10), suffix="png", filename=None):
    """One image of 20 x 10 pixels and its XML file."""
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((10, 20, 3), 50, np.uint8)).save(root / "JPEGImages" / f"{name}.{suffix}")
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    text = f"<annotation><filename>{filename or name}</filename><path>/etc/passwd</path>{stated}{objects}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(text)
    return root


def test_voc_boxes_are_not_shifted_and_repairs_are_named(tmp_path):
    objects = (
        voc_object("dog", (1, 2, 20, 10))
        + voc_object("cat", (-3, 2, 25.5, 8))
        + voc_object("cat", (4, 4, 4, 9))
        + voc_object("cat", (9, 4, 5, 9))
        + voc_object("cat", (21, 1, 25, 5))
        + voc_object("cat", (0, 0, 20.01, 10))
    )
    data = open_dataset(voc(tmp_path, objects=objects))
    assert data.class_names == ("cat", "dog") and data.summary.counts() == {"clipped": 1, "dropped": 3}
    record = data.records[0]
    np.testing.assert_array_equal(record.boxes, [[1, 2, 20, 10], [0, 2, 20, 8], [0, 0, 20, 10]])
    np.testing.assert_array_equal(record.classes, [1, 0, 0])
    xml = str(tmp_path / "Annotations" / "a.xml")
    assert [f.where for f in data.summary.findings] == [f"{xml} object {k}" for k in (2, 3, 4, 5)]
    assert "outside the image of 20 x 10" in data.summary.of("dropped")[2].detail
    assert "boxes without extent dropped: 3" in data.summary.text()


def test_voc_parts_of_an_object_are_not_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    data = open_dataset(voc(tmp_path, objects=voc_object("person", (1, 1, 9, 9), extra=part)))
    assert data.class_names == ("person",) and data.object_count == 1
    np.testing.assert_array_equal(data.records[0].boxes, [[1, 1, 9, 9]])


def test_voc_classes_are_those_of_the_whole_folder_in_every_split(tmp_path):
    voc(tmp_path, "a", voc_object("cat", (1, 1, 5, 5)))
    voc(tmp_path, "b", voc_object("ant", (1, 1, 5, 5)))
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n\na  1\n")
    (tmp_path / "ImageSets" / "Main" / "cat_train.txt").write_text("a 1\n")
    data = open_dataset(tmp_path, "train")
    assert data.class_names == ("ant", "cat") and len(data) == 1 and list_splits(tmp_path) == ("train",)
    assert [f.where[-16:] for f in data.summary.of("duplicate")] == ["train.txt line 3"]


def test_voc_in_a_subfolder_and_images_under_other_names(tmp_path):
    root = voc(tmp_path / "deep", objects=voc_object("cat", (1, 1, 5, 5)), size=None, suffix="JPG")
    voc(root, "b", voc_object("cat", (1, 1, 5, 5)), filename="other.png")
    (root / "JPEGImages" / "b.png").rename(root / "JPEGImages" / "other.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / "JPEGImages" / "alone.png")
    data = open_dataset(tmp_path)
    assert data.root == root and [r.file_name for r in data.records] == ["a.JPG", "other.png"]
    assert [f.where for f in data.summary.of("unlabelled")] == [str(root / "JPEGImages" / "alone.png")]
    voc(tmp_path / "second")
    with pytest.raises(DataError, match=r"several VOC data sets \(deep, second\)"):
        open_dataset(tmp_path)


def test_voc_xml_beside_its_images_or_with_images_elsewhere(tmp_path):
    root = voc(tmp_path / "x", objects=voc_object("cat", (1, 1, 5, 5)))
    flat, bare = tmp_path / "flat", tmp_path / "bare"
    flat.mkdir()
    bare.mkdir()
    for target in (flat, bare):
        (target / "a.xml").write_bytes((root / "Annotations" / "a.xml").read_bytes())
    (flat / "a.png").write_bytes((root / "JPEGImages" / "a.png").read_bytes())
    assert open_dataset(flat).object_count == 1
    assert open_dataset(bare, images=root / "JPEGImages").records[0].source == root / "JPEGImages" / "a.png"


# COCO


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


def test_coco_degenerate_boxes_are_dropped_everywhere(tmp_path):
    flat, negative = {**FULL, "id": 1, "bbox": [3, 3, 0, 4]}, {**FULL, "id": 2, "bbox": [9, 3, -2, 4]}
    data = open_dataset(coco(tmp_path, [flat, FULL, negative]))
    assert [f.where[-12:] for f in data.summary.of("dropped")] == ["annotation 1", "annotation 2"]
    assert [a["id"] for a in data.to_coco()["annotations"]] == [11] and data.object_count == 1


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


# YOLO txt


def yolo(root, rows="", names=("cat", "dog"), **extra):
    """One image of 20 x 10 pixels in ``images/train``, and ``data.yaml``."""
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((10, 20, 3), 50, np.uint8)).save(root / "images" / "train" / "a.png")
    (root / "labels" / "train" / "a.txt").write_text(rows)
    content = {"train": "images/train", "names": list(names), **extra}
    (root / "data.yaml").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return root


def test_yolo_rows_become_pixels(tmp_path):
    data = open_dataset(yolo(tmp_path, "1 0.5 0.5 0.2 0.4\n\n0 0.95 0.5 0.2 1.0\n1 0.3 0.3 0 0.1\n"))
    np.testing.assert_allclose(data.records[0].boxes, [[8, 3, 12, 7], [17, 0, 20, 10]], atol=1e-5)
    np.testing.assert_array_equal(data.records[0].classes, [1, 0])
    label = str(tmp_path / "labels" / "train" / "a.txt")
    assert [(f.kind, f.where) for f in data.summary.findings] == [
        ("clipped", f"{label} line 3"),
        ("dropped", f"{label} line 4"),
    ]


def test_yolo_rounding_beyond_the_edge_is_not_reported(tmp_path):
    data = open_dataset(yolo(tmp_path, "0 0.5 0.5 1.000001 1.000001\n"))
    np.testing.assert_array_equal(data.records[0].boxes, [[0, 0, 20, 10]])
    assert not data.summary.findings


def test_yolo_images_without_labels_are_background_and_labels_without_images_are_named(tmp_path):
    root = yolo(tmp_path, "0 0.5 0.5 0.5 0.5\n")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / "images" / "train" / "b.png")
    (root / "labels" / "train" / "ghost.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "labels" / "train" / "classes.txt").write_text("cat\ndog\n")
    data = open_dataset(root)
    assert [len(r.boxes) for r in data.records] == [1, 0]
    assert [f.where for f in data.summary.of("orphan")] == [str(root / "labels" / "train" / "ghost.txt")]
    assert data.summary.counts() == {"orphan": 1}


@pytest.mark.parametrize("names", [["cat", "dog"], {0: "cat", 1: "dog"}])
def test_yolo_names_as_list_or_mapping(tmp_path, names):
    root = yolo(tmp_path, "1 0.5 0.5 0.5 0.5\n")
    lines = [f"  - {n}" for n in names] if isinstance(names, list) else [f"  {k}: {v}" for k, v in names.items()]
    (root / "data.yaml").write_text("\n".join(["train: images/train", "nc: 2", "names:", *lines]))
    assert open_dataset(root).class_names == ("cat", "dog")
    (root / "data.yaml").rename(root / "config.yaml")
    assert open_dataset(root).class_names == ("cat", "dog")


def test_yolo_lists_of_images(tmp_path):
    root = yolo(tmp_path, "0 0.5 0.5 0.5 0.5\n", train=["list.txt"])
    absolute = root / "images" / "train" / "a.png"
    (root / "list.txt").write_text(f"./images/train/a.png\n\n{absolute}\n")
    data = open_dataset(root, "train")
    assert len(data) == 1 and data.object_count == 1
    assert [f.where for f in data.summary.of("duplicate")] == [str(absolute)]


def test_yolo_labels_beside_their_images(tmp_path):
    root = yolo(tmp_path, "0 0.5 0.5 0.5 0.5\n", train="all")
    (root / "all").mkdir()
    (root / "images" / "train" / "a.png").rename(root / "all" / "a.png")
    (root / "labels" / "train" / "a.txt").rename(root / "all" / "a.txt")
    assert open_dataset(root).object_count == 1


def test_yolo_path_to_another_folder_is_said(tmp_path):
    yolo(tmp_path / "data", "0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "my.yaml").write_text("path: ../data\ntrain: images/train\nnames: [cat, dog]\n")
    data = open_dataset(tmp_path / "configs" / "my.yaml")
    assert data.object_count == 1 and [f.detail for f in data.summary.of("note")] == [
        f"its path leads to another folder: {tmp_path / 'data'}"
    ]


def test_yolo_folders_written_one_level_up_are_found_beside_the_file(tmp_path):
    root = yolo(tmp_path / "deep", "0 0.5 0.5 0.5 0.5\n", train="../images/train", val="../images/gone")
    data = open_dataset(root, "train")
    assert data.object_count == 1 and data.records[0].source.is_relative_to(root)


def test_yolo_splits_without_images_are_noted_when_all_are_read(tmp_path):
    root = yolo(tmp_path, "0 0.5 0.5 0.5 0.5\n", val="images/val")
    assert [f.where for f in open_dataset(root).summary.of("note")] == [f"{root / 'data.yaml'} val"]
    with pytest.raises(DataError, match="neither a folder of images nor"):
        open_dataset(root, "val")


def test_voc_folders_in_lower_case(tmp_path):
    root = voc(tmp_path, objects=voc_object("cat", (1, 1, 5, 5)))
    (root / "Annotations").rename(root / "annotations")
    (root / "JPEGImages").rename(root / "images")
    data = open_dataset(root)
    assert data.object_count == 1 and data.records[0].source == root / "images" / "a.png"
