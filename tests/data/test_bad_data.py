"""Whatever is wrong with a data set: the error names file and place, or `skip_bad` names what it skipped."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from yolojax.data import list_splits, open_dataset, shapes_dataset, write_coco, write_voc, write_yolo
from yolojax.errors import DataError


def refused(path, says, split=None, **options):
    """Opening raises one `DataError` whose message holds every part of ``says``."""
    with pytest.raises(DataError) as caught:
        open_dataset(path, split, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in [says] if isinstance(says, str) else says:
        assert part in message, message


@pytest.fixture
def splits():
    data = shapes_dataset(4, seed=5, size=(40, 40))
    assert len(data.records[0].boxes) and len(data.records[1].boxes)
    return {"train": data}


@pytest.fixture
def voc(splits, tmp_path):
    write_voc(splits, tmp_path)
    return tmp_path


@pytest.fixture
def coco(splits, tmp_path):
    write_coco(splits, tmp_path)
    return tmp_path


@pytest.fixture
def yolo(splits, tmp_path):
    write_yolo(splits, tmp_path)
    return tmp_path


FIRST = "train_000000"


# Paths


def test_nothing_there(tmp_path):
    refused(tmp_path / "gone", ["gone: no such file or folder", "expected a folder with Annotations"])
    refused(tmp_path, ["no data set recognised", "expected a folder with Annotations"])
    (tmp_path / "a.csv").write_text("x")
    refused(tmp_path / "a.csv", "not a data set")
    with pytest.raises(DataError, match="no such file or folder"):
        list_splits(tmp_path / "gone")
    assert list_splits(tmp_path) == () and list_splits(tmp_path / "a.csv") == ()


def test_a_wrong_folder_of_images(voc):
    refused(voc, "no such folder of images", images=voc / "gone")


@pytest.mark.parametrize("writer", [write_voc, write_coco, write_yolo])
def test_no_classes_or_a_class_twice(writer, splits, tmp_path):
    writer(splits, tmp_path)
    refused(tmp_path, "no classes", "train", class_names=())
    refused(tmp_path, "classes listed more than once: a", "train", class_names=("a", "a"))


# Images: the same damage in every format


def the_image(root):
    (path,) = root.rglob(f"{FIRST}.png")
    return path


def one_skipped(root, name=f"{FIRST}.png"):
    data = open_dataset(root, "train", skip_bad=True)
    assert len(data) == 3 and data.skip_bad
    (finding,) = data.summary.of("skipped")
    assert name in finding.where + finding.detail


@pytest.mark.parametrize("writer", [write_voc, write_coco, write_yolo])
def test_unreadable_images(writer, splits, tmp_path):
    writer(splits, tmp_path)
    the_image(tmp_path).write_bytes(b"")
    refused(tmp_path, [f"{FIRST}.png", "not an image that can be read"], "train")
    one_skipped(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable image; all were skipped, the first: .*not an image"):
        open_dataset(tmp_path, "train", skip_bad=True)


@pytest.mark.parametrize("writer", [write_voc, write_coco])
def test_images_of_another_size_than_stated(writer, splits, tmp_path):
    writer(splits, tmp_path)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(the_image(tmp_path))
    refused(tmp_path, ["states an image of 40 x 40 pixels, but ", f"{FIRST}.png has 50 x 40"], "train")
    one_skipped(tmp_path)


def test_missing_images(splits, tmp_path):
    for writer, says in ((write_voc, "its image is missing"), (write_coco, "image file is missing")):
        root = tmp_path / writer.__name__
        writer(splits, root)
        next(root.rglob(f"{FIRST}.png")).unlink()
        refused(root, [FIRST, says], "train")
        data = open_dataset(root, "train", skip_bad=True)
        assert len(data) == 3 and len(data.summary.of("skipped")) == 1


# Pascal VOC


def voc_case(voc, old, new, says):
    path = voc / "Annotations" / f"{FIRST}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    refused(voc, [f"{FIRST}.xml", says], "train")
    data = open_dataset(voc, "train", skip_bad=True)
    assert len(data) == 3 and f"{FIRST}.xml" in data.summary.of("skipped")[0].where


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("</annotation>", "", "malformed XML"),
        ("<xmin>", "<xmin>nan", "object 1: <xmin> is 'nan"),
        ("<xmax>", "<xmax>inf</xmax><xmax>", "object 1: <xmax> is 'inf', not a finite number"),
        ("<ymin>", "<top>1</top><ymin></ymin><ymin>", "object 1: <ymin> is ''"),
        ("<bndbox>", "<box></box><!--", "malformed XML"),
        ("<width>40</width>", "", "<size> without a width and height"),
        ("<width>40</width>", "<width>4</width>", "states an image of 4 x 40"),
        ("<difficult>0</difficult>", "<difficult>2</difficult>", "object 1: <difficult> is '2', not 0 or 1"),
        ("<difficult>", "<difficult>1</difficult><difficult>", "object 1: <difficult> stands there 2 times"),
        ("<name>", "<name>other</name><name>", "object 1: <name> stands there 2 times"),
        ("<xmin>", "<xmin>1</xmin><xmin>", "object 1: <xmin> stands there 2 times"),
        ("<bndbox>", "<bndbox><xmin>1</xmin></bndbox><bndbox>", "object 1: <bndbox> stands there 2 times"),
        ("<size>", "<size><width>9</width><height>9</height></size><size>", "<size> stands there 2 times"),
        ("<object>", "<object><objects><object></object></objects>", "1 of 2 <object> elements do not stand directly"),
        ("</annotation>", "<Object></Object></annotation>", "1 of 2 <object> elements do not stand directly"),
    ],
)
def test_voc_malformed(voc, old, new, says):
    voc_case(voc, old, new, says)


def test_voc_object_without_a_box(voc):
    path = voc / "Annotations" / f"{FIRST}.xml"
    text = path.read_text()
    cut = text[: text.index("<bndbox>")] + text[text.index("</bndbox>") + len("</bndbox>") :]
    path.write_text(cut)
    refused(voc, [f"{FIRST}.xml object 1", "no <bndbox>"], "train")


def test_voc_object_without_a_name(voc):
    path = voc / "Annotations" / f"{FIRST}.xml"
    path.write_text(re.sub("<name>.*?</name>", "<name> </name>", path.read_text(), count=1))
    refused(voc, [f"{FIRST}.xml object 1", "unknown class ''"], "train")
    one_skipped(voc, f"{FIRST}.xml")


def test_voc_entities_are_refused(voc):
    """An external entity would read any file of the reader's machine; nested ones fill its memory."""
    path = voc / "Annotations" / f"{FIRST}.xml"
    body = path.read_text()
    path.write_text('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + body.replace("cross", "&x;"))
    refused(voc, [f"{FIRST}.xml", "entities or external references", "is refused"], "train")


def test_voc_something_else_in_xml(voc):
    (voc / "Annotations" / f"{FIRST}.xml").write_text("<html></html>")
    refused(voc, [f"{FIRST}.xml", "not a VOC annotation"], "train")


def test_voc_listed_image_without_annotation(voc):
    (voc / "Annotations" / f"{FIRST}.xml").unlink()
    refused(voc, [f"{FIRST}.xml", "annotation file is missing"], "train")


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "..\\..\\secret", "C:/secret"])
def test_names_that_lead_out_of_the_folder_are_refused(name, splits, tmp_path):
    voc, coco, yolo = tmp_path / "voc", tmp_path / "coco", tmp_path / "yolo"
    write_voc(splits, voc)
    (voc / "JPEGImages" / f"{FIRST}.png").unlink()
    xml = voc / "Annotations" / f"{FIRST}.xml"
    xml.write_text(xml.read_text().replace(f"{FIRST}.png", name))
    refused(voc, [f"{FIRST}.xml", "lies outside the data set's folder"], "train")
    (voc / "ImageSets" / "Main" / "train.txt").write_text(f"{name}\n")
    refused(voc, ["train.txt line 1", "lies outside the data set"], "train")

    write_coco(splits, coco)
    path = coco / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    refused(coco, ["image 1", "lies outside the data set's folder"], "train")

    write_yolo(splits, yolo)
    (yolo / "list.txt").write_text(f"{name}\n")
    (yolo / "data.yaml").write_text(json.dumps({"train": "list.txt", "val": name, "names": ["a"]}))
    refused(yolo, ["list.txt line 1", "lies outside the data set's folder"], "train")
    refused(yolo, ["data.yaml val", "lies outside the data set's folder"], "val")


def test_voc_without_any_object_has_no_classes(splits, tmp_path):
    write_voc(splits, tmp_path)
    for path in (tmp_path / "Annotations").iterdir():
        path.write_text("<annotation></annotation>")
    refused(tmp_path, "no XML file there holds an object", "train")
    assert open_dataset(tmp_path, "train", class_names=["a"]).object_count == 0


# COCO


def change(coco, edit):
    path = coco / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"images": [],\n "annotations": ]', "line 2: malformed JSON"),
        ("[]", "not COCO instances"),
        ('{"images": [], "annotations": []}', "not COCO instances"),
        ('{"images": [1], "annotations": [], "categories": []}', "not COCO instances"),
        ('{"images": [], "annotations": [], "categories": []}', "no classes"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "no usable image"),
        ("[" * 100000, "nested too deeply"),
        ("9" * 10000, "malformed JSON"),
    ],
)
def test_coco_malformed_files(tmp_path, text, says):
    (tmp_path / "instances_a.json").write_text(text)
    refused(tmp_path / "instances_a.json", says)


def test_coco_not_text(tmp_path):
    (tmp_path / "instances_a.json").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path, ["instances_a.json", "not UTF-8"])


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("bbox", [1, 2, 3], "bbox is [1, 2, 3], not 4 finite numbers"),
        ("bbox", [1, 2, 3, float("nan")], "not 4 finite numbers"),
        ("bbox", [1, 2, 3, "4"], "not 4 finite numbers"),
        ("bbox", None, "bbox is None"),
        ("area", float("inf"), "area is inf"),
        ("image_id", 99, "image_id 99 is not among the images"),
        ("image_id", "x", "image_id is 'x', not an integer"),
        ("category_id", 99, "unknown class 'category 99'"),
        ("category_id", None, "category_id is None"),
        ("id", 1.5, "id is 1.5, not an integer"),
        ("id", 10**40, "id is 10000"),
        ("bbox", [1, 2, 3, 10**400], "not 4 finite numbers"),
        ("iscrowd", "0", "iscrowd is '0', not 0 or 1"),
        ("ignore", 2, "ignore is 2, not 0 or 1"),
    ],
)
def test_coco_malformed_annotations(coco, key, value, says):
    change(coco, lambda c: c["annotations"][0].update({key: value}))
    refused(coco, ["annotation", says], "train")
    data = open_dataset(coco, "train", skip_bad=True)
    assert len(data.summary.of("skipped")) == 1
    # The image would teach that its object is background; without an image id nobody knows which one that is.
    assert len(data) == (4 if key == "image_id" else 3)
    lacks = [f.detail for f in data.summary.of("doubtful") if "1 annotations belong to no image" in f.detail]
    assert len(lacks) == (key == "image_id")


def test_coco_images_that_cannot_be_told_apart_are_both_left_out(coco):
    """Of two entries with one id nobody knows whose the objects are, nor of one file with two ids whether all are."""
    before = open_dataset(coco, "train")
    path = coco / "annotations" / "instances_train.json"
    text = path.read_text()
    change(coco, lambda c: c["images"][1].update(id=1))
    assert len(open_dataset(coco, "train", skip_bad=True)) == len(before) - 2
    path.write_text(text)
    change(coco, lambda c: c["images"].append({**c["images"][0], "id": 77}))
    change(coco, lambda c: c["annotations"][0].update(image_id=77))
    data = open_dataset(coco, "train", skip_bad=True)
    assert [r.image_id for r in data.records] == [2, 3, 4] and not data.summary.of("doubtful")


def use_a_name_twice(content):
    first = content["annotations"][0]
    (name,) = [c["name"] for c in content["categories"] if c["id"] == first["category_id"]]
    content["categories"].append({"id": 9, "name": name})
    content["annotations"].append({**first, "id": 999, "category_id": 9})


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c["images"][0].update(file_name=None), "image number 1: file_name is None"),
        (lambda c: c["images"][0].update(id="x"), "image number 1: id is 'x'"),
        (lambda c: c["images"][0].update(height="x"), "image 1: height is 'x'"),
        (lambda c: c["images"][0].update(file_name="\0"), "is not a file name"),
        (lambda c: c["images"][0].update(file_name="a\nb.png"), "is not a file name"),
        (lambda c: c["images"][0].update(file_name="a" * 300), "is not a file name"),
        (lambda c: c["images"][0].update(file_name="\ud800.png"), "is not a file name"),
        (lambda c: c["images"][1].update(id=1), f"has the id 1 of {FIRST}.png"),
        (lambda c: c["images"].append({**c["images"][0], "id": 77}), f"{FIRST}.png has the ids 1 and 77"),
        (lambda c: c["categories"].append({"id": 1, "name": "z"}), "id 1 belongs to 'cross' already"),
        (use_a_name_twice, "belongs to another category already"),
        (lambda c: c["categories"].append({"id": 9, "name": None}), "category number 7: name is None"),
        (lambda c: c["categories"].append({"id": 9, "name": "\ud800"}), "class 6 is called '\\ud800'"),
        (lambda c: c["categories"].append({"id": 9, "name": "x" * 10**6}), "class 6 is called 'xxxx"),
    ],
)
def test_coco_malformed_images_and_categories(coco, edit, says):
    change(coco, edit)
    refused(coco, ["instances_train.json", says], "train")


# YOLO txt


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0 .5 .5 .1", "4 columns, but a row has 5"),
        ("0 .5 .5 .1 .1 .9", "6 columns, but a row has 5"),
        ("0 .1 .1 .2 .2 .3 nan", "no finite number"),
        ("0 .1 .1 .2 .2 .3 30", "seems to be in pixels"),
        ("0 .5 .5 nan .1", "no finite number"),
        ("0 .5 x .1 .1", "no finite number; correct the row"),
        ("0,0.5,0.5,0.1,0.1", "1 columns, but a row has 5 (class cx cy w h); blanks separate the columns, not commas"),
        ("0, 0.5, 0.5, 0.1, 0.1", "no finite number; blanks separate the columns, not commas"),
        ("0;0,5;0,5;0,1;0,1", "blanks separate the columns, not semicolons"),
        ("0 0,5 0,5 0,1 0,1", "no finite number; decimals have a point, not a comma"),
        ("cross .5 .5 .1 .1", "no finite number"),
        ("# class x y w h", "does not begin with the index of a class"),
        ("cross .9 10 10 50 50", "does not begin with the index of a class"),
        (
            "0 .5 .5 .1 .1 " + ".1 .1 2 " * 17,
            "56 columns, but a row has 5 (class cx cy w h); for boxes with key points, "
            "state kpt_shape: [17, 3] in the data file",
        ),
        ("6 .5 .5 .1 .1", "class 6 is not an index from 0 to 5"),
        ("-1 .5 .5 .1 .1", "class -1 is not an index"),
        ("0.5 .5 .5 .1 .1", "class 0.5 is not an index"),
        ("0 20 20 5 5", "seems to be in pixels; divide by the image's width and height, or by 100"),
    ],
)
def test_yolo_malformed_rows(yolo, row, says):
    path = yolo / "labels" / "train" / f"{FIRST}.txt"
    path.write_text("0 .5 .5 .1 .1\n" + row)
    refused(yolo, [f"{FIRST}.txt line 2", says], "train")
    data = open_dataset(yolo, "train", skip_bad=True)
    assert len(data) == 3 and f"{FIRST}.txt line 2" in data.summary.of("skipped")[0].detail


def test_yolo_labels_that_are_not_text(yolo):
    (yolo / "labels" / "train" / f"{FIRST}.txt").write_bytes(b"\xff\xfe0 .5")
    refused(yolo, [f"{FIRST}.txt", "not UTF-8"], "train")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("names: [a, b", "malformed YAML"),
        ("- a", "not a YOLO data file"),
        ("train: images/train", "not a YOLO data file"),
        ("names: [a]", "names no images"),
        ("train: images/train\nnames: {0: a, 2: b}", "must have the keys 0, 1, ..., 1"),
        ("train: images/train\nnames: [yes, no]", "quote words such as yes and no"),
        ("train: images/train\nnames: []", "no classes"),
        ("train: images/train\nnames: [a, a]", "classes listed more than once: a"),
        ("train: images/train\nnc: 3\nnames: [a]", "nc is 3, but names lists 1"),
        ("path: gone\ntrain: images/gone\nnames: [a]", "which does not exist"),
        ("train: images/gone\nnames: [a]", "images/gone does not exist"),
        ("train: data.yaml\nnames: [a]", "neither a folder of images nor"),
        ("train: labels/train\nnames: [a]", "no images in labels/train"),
        ("train: 2020-99-99\nnames: [a]", "malformed YAML"),
        ("train: !!python/object/apply:os.system ['true']\nnames: [a]", "malformed YAML"),
    ],
)
def test_yolo_malformed_data_files(yolo, text, says):
    (yolo / "data.yaml").write_text(text)
    refused(yolo, ["data.yaml", says], "train" if "train" in text and "names" in text else None)


def test_yolo_without_one_label_is_refused(yolo):
    (yolo / "labels").rename(yolo / "annots")
    refused(yolo, ["not one image has a label file", "labels/train/train_000000.txt: put the labels there"], "train")


def test_writers_refuse_what_would_collide(splits, tmp_path):
    train = splits["train"]
    once = {"train": train, "val": train}
    for writer, part in (
        (write_voc, once),
        (write_coco, {"a": train.take([0, 0])}),
        (write_yolo, {"a": train.take([0, 0])}),
    ):
        with pytest.raises(DataError, match=f"several images would be written as {FIRST}"):
            writer(part, tmp_path)
    for writer in (write_coco, write_yolo):  # every split has a folder of its own
        writer(once, tmp_path / writer.__name__)
        for split in once:
            data = open_dataset(tmp_path / writer.__name__, split)
            assert len(data) == len(train) and all(split in str(r.source).split("/") for r in data.records)
    other = shapes_dataset(1, size=(40, 40), split="val")
    object.__setattr__(other, "class_names", (*other.class_names[:-1], "dog"))
    with pytest.raises(DataError, match="other classes"):
        write_yolo({**splits, "val": other}, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX")
def test_a_pipe_in_place_of_a_file_does_not_hang(yolo):
    path = yolo / "images" / "train" / f"{FIRST}.png"
    path.unlink()
    os.mkfifo(path)
    assert len(open_dataset(yolo, "train")) == 3
