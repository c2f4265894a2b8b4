"""Data sets as common tools lay them out are read as they are; what is understood otherwise is said."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yolojax.cli.data import Check
from yolojax.data import list_splits, open_dataset, open_splits
from yolojax.data.check import check_dataset
from yolojax.data.opening import separate_parts
from yolojax.errors import ConfigError, DataError

BOX = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"


def picture(path: Path, value: int = 50, size: tuple[int, int] = (10, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


def xml(
    path: Path, filename: str = "", size: str = "<size><width>20</width><height>10</height></size>", rest: str = ""
):
    """A VOC file with one cat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cat = f"<object><name>cat</name>{rest}{BOX}</object>"
    path.write_text(f"<annotation><filename>{filename}</filename>{size}{cat}</annotation>")
    return path


def coco(path: Path, *names: str, categories: object = None, **changes: object) -> Path:
    """A COCO file with one object on each image of 20 x 10 pixels; ``changes`` are made to each annotation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": n, "width": 20, "height": 10} for i, n in enumerate(names, 1)]
    one = {"category_id": 1, "bbox": [2, 2, 7, 6], "area": 42, "iscrowd": 0}
    annotations = [{"id": i, "image_id": i, **one, **changes} for i in range(1, len(names) + 1)]
    content = {"images": images, "annotations": annotations, "categories": categories or [{"id": 1, "name": "cat"}]}
    path.write_text(json.dumps(content))
    return path


def edit(path: Path, change) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def no_pictures(monkeypatch):
    """``data check`` without its plots, which take longer than all of the rest."""
    monkeypatch.setattr("yolojax.data.check.write_report", lambda dataset, report, folder: [])


def notes(data):
    return [finding.detail for finding in data.summary.findings]


# Pascal VOC


@pytest.mark.parametrize(
    ("xmls", "images"),
    [
        ("Annotations/a.xml", "JPEGImages/a.jpg"),
        ("annots/a.xml", "images/a.jpg"),
        ("Annots/a.XML", "Images/a.JPG"),
        ("xml/a.xml", "img/a.png"),
        ("labels/a.xml", "photos/a.png"),
        ("annotations/a.xml", "pictures of cats/a.png"),
        ("a.xml", "a.jpg"),
        ("a.xml", "images/a.jpg"),
        ("images/a.xml", "images/a.jpg"),
        ("Annotations/deep/a.xml", "JPEGImages/deep/a.jpg"),
        ("Annotations/deep/a.xml", "JPEGImages/a.jpg"),
        ("VOC2007/Annotations/a.xml", "VOC2007/JPEGImages/a.jpg"),
    ],
)
def test_voc_folders_of_other_names(tmp_path, xmls, images):
    picture(tmp_path / images)
    xml(tmp_path / xmls)
    data = open_dataset(tmp_path)
    assert data.format == "voc" and data.object_count == 1 and not notes(data)
    assert data.records[0].source == tmp_path / images


@pytest.mark.parametrize("layout", ["{part}/{name}", "{part}/Annotations/{name}", "annotations/{part}/{name}"])
def test_voc_folders_are_splits(tmp_path, layout):
    for part, name in (("train", "a"), ("train", "b"), ("valid", "c")):
        file = xml(tmp_path / layout.format(part=part, name=f"{name}.xml"))
        beside = {"annotations": tmp_path / "images" / part, "Annotations": file.parent.parent / "JPEGImages"}
        picture(
            beside.get(layout.split("/")[-2] if "Ann" in layout else layout.split("/")[0], file.parent) / f"{name}.jpg"
        )
    assert list_splits(tmp_path) == ("train", "valid")
    train, val = open_splits(tmp_path)
    assert val is not None and (len(train), len(val), train.class_names) == (2, 1, ("cat",))
    if separate_parts(tmp_path):
        with pytest.raises(DataError, match=r"several VOC data sets \(train, valid\); name one of them as the split"):
            open_dataset(tmp_path)
    else:
        assert len(open_dataset(tmp_path)) == 3


def test_voc_filename_decides_among_pictures_of_one_name(tmp_path):
    picture(tmp_path / "JPEGImages" / "a.jpg", 30)
    picture(tmp_path / "JPEGImages" / "a.png", 220)
    xml(tmp_path / "Annotations" / "a.xml", "a.png")
    data = open_dataset(tmp_path)
    assert data.records[0].pixels()[0, 0, 0] == 220
    (note,) = notes(data)
    assert "a.png is read, and not a.jpg: <filename> names that one" in note
    xml(tmp_path / "Annotations" / "a.xml", "")
    data = open_dataset(tmp_path)
    assert data.records[0].pixels()[0, 0, 0] < 40 and "and not a.png" in notes(data)[0]


def test_voc_filename_of_another_picture(tmp_path):
    for name, value in (("a", 30), ("b", 220)):
        picture(tmp_path / "JPEGImages" / f"{name}.png", value)
    xml(tmp_path / "Annotations" / "a.xml", "b.png")
    data = open_dataset(tmp_path)
    assert data.records[0].file_name == "b.png" and "says 'b.png'; a.png is not read" in notes(data)[0]
    xml(tmp_path / "Annotations" / "b.xml", "b.png")  # then the name is one that was left after a copy
    data = open_dataset(tmp_path)
    assert [r.file_name for r in data.records] == ["a.png", "b.png"]
    assert "belongs to another XML file; a.png is taken" in notes(data)[0]


@pytest.mark.parametrize(
    "size",
    [
        "<size><width>0</width><height>0</height><depth>3</depth></size>",
        "<size/>",
        "<size><width></width><height></height></size>",
    ],
)
def test_voc_sizes_that_state_nothing(tmp_path, size):
    picture(tmp_path / "a.png")
    xml(tmp_path / "a.xml", size=size)
    data = open_dataset(tmp_path)
    assert data.records[0].size == (10, 20) and "states none; the size of the image counts" in notes(data)[0]


@pytest.mark.parametrize(
    ("text", "hard"),
    [
        ("1", True),
        ("true", True),
        (" True ", True),
        ("0", False),
        ("false", False),
        ("", False),
        ("Unspecified", False),
    ],
)
def test_voc_difficult(tmp_path, text, hard):
    picture(tmp_path / "a.png")
    xml(tmp_path / "a.xml", rest=f"<difficult>{text}</difficult>")
    assert open_dataset(tmp_path).records[0].difficult.tolist() == [hard]


@pytest.mark.parametrize("number", ["\u0662", "1_0", "1,5", "0x2", "nan", "1e999", "9" * 200])
def test_voc_numbers_are_plain(tmp_path, number):
    picture(tmp_path / "a.png")
    file = xml(tmp_path / "a.xml")
    file.write_text(file.read_text().replace("<xmin>2<", f"<xmin>{number}<"), encoding="utf-8")
    with pytest.raises(DataError, match=r"object 1: <xmin> is .* not a finite number"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("prefix", ["", "v:"])
def test_voc_namespaces_change_nothing(tmp_path, prefix):
    picture(tmp_path / "a.png")
    text = xml(tmp_path / "a.xml").read_text()
    text = text.replace("</", "</v:").replace("<", "<v:").replace("<v:/v:", "</v:").replace("v:", prefix)
    name = f"{prefix}annotation"
    (tmp_path / "a.xml").write_text(text.replace(f"<{name}", f'<{name} xmlns{":v" if prefix else ""}="urn:x"', 1))
    data = open_dataset(tmp_path)
    assert data.class_names == ("cat",) and data.records[0].boxes.tolist() == [[2, 2, 9, 8]]


def test_voc_objects_within_another_element_are_named(tmp_path):
    picture(tmp_path / "a.png")
    file = xml(tmp_path / "a.xml")
    file.write_text(
        file.read_text().replace("<object>", "<objects><object>").replace("</object>", "</object></objects>")
    )
    with pytest.raises(DataError, match=r"a\.xml: 1 of 1 <object> elements do not stand directly within <annotation>"):
        open_dataset(tmp_path)


def test_voc_lists_with_an_underscore_are_splits_unless_they_flag_a_class(tmp_path):
    """``train_set.txt`` is a part; ``cat_train.txt`` of the development kit, whose rows end in -1, 0 or 1, is none."""
    for name in ("a", "b", "c 1", "d 0"):
        picture(tmp_path / "JPEGImages" / f"{name}.png", value=ord(name[0]))
        xml(tmp_path / "Annotations" / f"{name}.xml")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train_set.txt").write_text("a\nb\n")
    (lists / "val_2017.txt").write_text("c 1\nd 0\n")  # names with blanks, which are there
    (lists / "cat_train_set.txt").write_text("a  1\nb -1\n")
    assert list_splits(tmp_path) == ("train_set", "val_2017")
    train, val = open_splits(tmp_path)
    assert val is not None and (len(train), len(val)) == (2, 2) and not notes(train) + notes(val)
    (lists / "dog_train.txt").write_text("a  0\nb  0\n")
    (said,) = notes(open_dataset(tmp_path, "train"))
    assert said.startswith("1 lists are not read as parts") and "(dog_train.txt)" in said
    for name in ("train_set", "val_2017"):
        (lists / f"{name}.txt").unlink()
    assert list_splits(tmp_path) == ()
    (said,) = notes(open_dataset(tmp_path))
    assert said.startswith("2 lists are not read as parts") and "(cat_train_set.txt, dog_train.txt)" in said
    (lists / "my_val.txt").write_text("a\n")
    with pytest.raises(ConfigError, match=r"none of its splits \(my_val\) is clearly the one to train on"):
        open_splits(tmp_path)


@pytest.mark.parametrize(
    "line", ["a b", "a b 1", "a b.png", "a b.xml", "JPEGImages/a b.png", "/data/Annotations/a b.xml"]
)
def test_voc_lists_as_tools_write_them(tmp_path, line):
    for name in ("a b", "c"):
        picture(tmp_path / "JPEGImages" / f"{name}.png")
        xml(tmp_path / "Annotations" / f"{name}.xml")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text(f"{line}\nc  -1\n")
    if line == "a b 1":  # blanks in a name leave no place for a flag
        with pytest.raises(DataError, match=r"a\.xml: annotation file is missing"):
            open_dataset(tmp_path, "train")
    else:
        assert [Path(r.file_name).stem for r in open_dataset(tmp_path, "train").records] == ["a b", "c"]


def test_voc_encodings(tmp_path):
    for name, encoding in (("a", "gb2312"), ("b", "shift_jis"), ("c", "utf-16"), ("d", "latin-1"), ("e", "nonsense")):
        picture(tmp_path / f"{name}.png")
        text = xml(tmp_path / f"{name}.xml").read_text()
        if name in "abc":
            text = text.replace("cat", "\u732b")
        declared = f'<?xml version="1.0" encoding="{encoding}"?>{text}'
        (tmp_path / f"{name}.xml").write_bytes(declared.encode("latin-1" if name == "e" else encoding))
    with pytest.raises(DataError, match=r"e\.xml: cannot be read"):
        open_dataset(tmp_path)
    (tmp_path / "e.xml").unlink()
    data = open_dataset(tmp_path)
    assert [data.class_names[r.classes[0]] for r in data.records] == ["\u732b"] * 3 + ["cat"]


def test_voc_where_no_xml_file_can_be_read_the_cause_is_named(tmp_path):
    picture(tmp_path / "JPEGImages" / "a.png")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><object>")
    with pytest.raises(DataError, match=r"not one of its 1 XML files can be read; the first: .*malformed XML"):
        open_dataset(tmp_path)


def test_voc_where_no_object_has_a_name_that_is_said(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / "JPEGImages" / f"{name}.png")
    nameless = xml(tmp_path / "Annotations" / "b.xml", "b.png")
    nameless.write_text(nameless.read_text().replace("<name>cat</name>", "<name> </name>"))
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation></annotation>")
    (tmp_path / "Annotations" / "c.xml").write_text(nameless.read_text().replace("<name> </name>", ""))
    with pytest.raises(DataError, match=r"not one object of the 2 XML files .* has a name.*b.xml: write"):
        open_dataset(tmp_path)


# COCO


@pytest.mark.parametrize(
    ("place", "image", "name"),
    [
        ("annotations/instances_train.json", "images/train/a.png", "a.png"),
        ("annotations/custom_train.json", "train2017/a.png", "a.png"),
        ("annots/train.json", "photos/deep/a.png", "a.png"),
        ("result.json", "images/a.png", "images\\a.png"),
        ("result.json", "images/a.png", "../../label-studio/media/upload/1/a.png"),
        ("labels.json", "data/a.png", "a.png"),
        ("train/train.json", "train/a.png", "a.png"),
        ("annotations/instances_train.json", "images/a.png", "/home/me/set/images/a.png"),
        ("annotations/instances_train.json", "images/a.png", "C:\\set\\a.png"),
        ("annotations/instances_train.json", "images/a.png", "/a.png"),
        ("annotations/instances_train.json", "images/a.png", "http://host/set/a.png?d=1"),
        ("annotations/instances_train.json", "images/a b.png", "a%20b.png"),
        ("annotations/instances_train.json", "images/A.PNG", "a.png"),
        ("annotations/instances_default.json", "images/default/a.png", "a.png"),
    ],
)
def test_coco_files_and_images_in_other_places(tmp_path, place, image, name):
    source = picture(tmp_path / image)
    coco(tmp_path / place, name)
    data = open_dataset(tmp_path)
    assert data.format == "coco" and data.records[0].source == source and data.object_count == 1
    direct = name.replace("\\", "/")
    is_plain = source.as_posix().endswith("/" + direct)
    assert bool(notes(data)) != is_plain
    if not is_plain:
        assert "not where their file_name says" in notes(data)[0]
    assert len(list_splits(tmp_path)) == 1


def test_coco_images_that_are_nowhere(tmp_path):
    coco(tmp_path / "annotations" / "train.json", "a.png", "b.png")
    picture(tmp_path / "images" / "other.png")
    with pytest.raises(DataError, match=r"image file is missing for each of the 2 images .* with --images"):
        open_dataset(tmp_path)
    for name in ("a.png", "b.png"):
        picture(tmp_path.with_name(tmp_path.name + "_far") / "deep" / name)
    assert len(open_dataset(tmp_path, images=tmp_path.with_name(tmp_path.name + "_far"))) == 2
    train, _ = open_splits(tmp_path, images=tmp_path.with_name(tmp_path.name + "_far"))
    assert len(train) == 2


def test_ground_truth_without_images_where_sizes_are_stated(tmp_path):
    coco(tmp_path / "c" / "annotations" / "train.json", "a.png", "b.png")
    xml(tmp_path / "v" / "Annotations" / "a.xml")
    for root in (tmp_path / "c", tmp_path / "v"):
        with pytest.raises(DataError, match="missing"):
            open_dataset(root)
        data = open_dataset(root, images_needed=False)
        assert data.to_coco()["images"][0]["width"] == 20 and data.object_count == len(data)
        assert notes(data) == [f"{len(data)} images are not there; their sizes are those that are stated"]
    xml(tmp_path / "v" / "Annotations" / "a.xml", size="")
    with pytest.raises(DataError, match="its image is missing"):
        open_dataset(tmp_path / "v", images_needed=False)


def test_coco_grouping_categories(tmp_path):
    """Roboflow's exports begin with a category that no object has, which may bear the name of a class."""
    grouping = [{"id": 0, "name": "car", "supercategory": "none"}, {"id": 1, "name": "car", "supercategory": "car"}]
    picture(tmp_path / "train" / "a.png")
    path = coco(tmp_path / "train" / "_annotations.coco.json", "a.png", categories=grouping)
    data = open_dataset(tmp_path)
    assert data.class_names == ("car",) and data.category_ids == (1,)
    assert [c["id"] for c in data.to_coco()["categories"]] == [1]
    assert notes(data) == ["category 0 only groups others of the name 'car'; left out"]
    edit(path, lambda c: c["annotations"].clear())
    assert open_dataset(tmp_path).category_ids == (1,)
    edit(
        path, lambda c: c["annotations"].extend({"image_id": 1, "category_id": k, "bbox": [1, 1, 5, 5]} for k in (0, 1))
    )
    with pytest.raises(DataError, match="the name 'car' belongs to another category already"):
        open_dataset(tmp_path)


def test_coco_images_of_another_data_set_are_not_taken(tmp_path):
    """A file that lies alone in its folder may belong to a folder beside it, where that holds all of its images."""
    picture(tmp_path / "other" / "a.png")
    path = coco(tmp_path / "mine" / "x.json", "a.png", "b.png")
    assert open_dataset(path, images_needed=False).records[0].source == tmp_path / "mine" / "a.png"
    with pytest.raises(DataError, match="image file is missing for each of the 2 images"):
        open_dataset(path)
    picture(tmp_path / "other" / "b.png")
    data = open_dataset(path)
    assert data.records[0].source == tmp_path / "other" / "a.png"
    assert notes(data) == [f"its images are taken from {tmp_path / 'other'}, beside the folder of the file"]


def test_coco_images_that_are_not_listed_are_noted(tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.png", "inner/e.png", "inner/f.png", "other/g.png", "._a.png"):
        picture(tmp_path / "images" / name)
    (tmp_path / "images" / "readme.txt").write_text("no image")
    path = coco(tmp_path / "annotations" / "train.json", "a.png", "inner/e.png")
    for change in (lambda content: None, lambda content: content["images"][0].update(file_name="images%2Fa.png")):
        edit(path, change)  # the second is found under another name, entry by entry
        said = [finding for finding in open_dataset(path).summary.findings if "does not list" in finding.detail]
        assert [finding.kind for finding in said] == ["note"] and said[0].where == str(tmp_path / "images")
        assert said[0].detail == "4 images that train.json does not list are not read, such as b.png, c.png, d.png, ..."


def test_coco_images_of_other_files_are_not_called_unlisted(tmp_path):
    """Files of several parts that share a folder of images list it together; parts with a folder each do not."""
    for name in ("a.png", "b.png"):
        picture(tmp_path / "images" / name)
    path = coco(tmp_path / "annotations" / "instances_train.json", "a.png")
    coco(tmp_path / "annotations" / "instances_val.json", "b.png")
    assert notes(open_dataset(path)) == []
    for name in ("train/a.png", "train/b.png", "val/b.png"):
        picture(tmp_path / "parts" / "images" / name)
    path = coco(tmp_path / "parts" / "annotations" / "instances_train.json", "a.png")
    coco(tmp_path / "parts" / "annotations" / "instances_val.json", "b.png")
    coco(tmp_path / "parts" / "annotations" / "captions_train.json", "a.png")
    assert notes(open_dataset(path)) == ["1 images that instances_train.json does not list are not read, such as b.png"]
    assert notes(open_dataset(path, images_needed=False)) == []


def test_coco_ids_that_are_texts(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    path = coco(tmp_path / "x.json", "a.png", "b.png", category_id="cat")

    def texts(content):
        for image in content["images"]:
            image["id"] = image["file_name"]
        for annotation, name in zip(content["annotations"], ("b.png", "a.png"), strict=True):
            annotation.update(image_id=name, id=f"7f-{name}")
        content["categories"] = [{"id": "cat", "name": "cat"}]

    data = open_dataset(edit(path, texts))
    assert [r.image_id for r in data.records] == [1, 2] and data.object_count == 2
    assert {a["image_id"] for a in data.to_coco()["annotations"]} == {1, 2}
    assert {a["category_id"] for a in data.to_coco()["annotations"]} == {1}
    assert [note.partition("are numbered ")[2] for note in notes(data) if "are numbered" in note] == [
        "in the order of the file",
        "in their order",
    ]
    edit(path, lambda c: c["annotations"][0].update(image_id=1))
    with pytest.raises(DataError, match=r"image_id is 1, but the ids of that list \(image\) are texts; write both"):
        open_dataset(path)
    coco(path, "a.png", "b.png", image_id="1")
    with pytest.raises(DataError, match="image_id is the text '1', but the ids of that list are numbers"):
        open_dataset(path)


@pytest.mark.parametrize(
    "size", [{"width": None, "height": None}, {"width": 0, "height": 0}, {"height": None}, {"width": "20"}]
)
def test_coco_sizes_that_state_nothing(tmp_path, size):
    picture(tmp_path / "a.png")
    path = edit(coco(tmp_path / "x.json", "a.png"), lambda c: c["images"][0].update(size))
    assert open_dataset(path).records[0].size == (10, 20)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"area": -5}, "area is -5; correct it"),
        ({"area": float("nan")}, "area is"),
        ({"bbox": [9, 3, -2, 4]}, "negative width or height; is it x1, y1, x2, y2"),
        ({"bbox": [0, 0, 2e9, 4]}, "not 4 finite numbers up to 1e"),
        ({"iscrowd": "0"}, "iscrowd is '0'"),
        ({"image_id": float("nan")}, "image_id is nan"),
        ({"bbox": ["x" * 10**6] * 4}, "bbox is"),
    ],
)
def test_coco_what_the_evaluation_refuses_is_refused(tmp_path, change, says):
    picture(tmp_path / "a.png")
    with pytest.raises(DataError) as caught:
        open_dataset(coco(tmp_path / "x.json", "a.png", **change))
    assert says in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("change", [{"area": None}, {"iscrowd": None}, {"ignore": None}, {"id": None}])
def test_coco_null_is_as_good_as_missing(tmp_path, change):
    picture(tmp_path / "a.png")
    data = open_dataset(coco(tmp_path / "x.json", "a.png", **change))
    (annotation,) = data.to_coco()["annotations"]
    assert annotation["area"] == 42 and annotation["iscrowd"] == 0 and annotation["id"] == 1


@pytest.mark.parametrize("name", ["x.json", "data.yaml"])
def test_keys_given_twice_are_refused(tmp_path, name):
    picture(tmp_path / "a.png")
    path = coco(tmp_path / "x.json", "a.png")
    path.write_text(path.read_text()[:-1] + ', "annotations": []}')
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: .\nnames: [b]\n")
    with pytest.raises(DataError, match=r"the key '(annotations|names)' stands twice"):
        open_dataset(tmp_path / name)


# YOLO


def yolo(root: Path, rows: str = "0 .5 .5 .4 .4\n", **data: object) -> Path:
    picture(root / "images" / "a.png")
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels" / "a.txt").write_text(rows)
    (root / "data.yaml").write_text(json.dumps({"names": ["cat"], "train": "images", **data}))
    return root


def test_yolo_polygons_become_boxes(tmp_path):
    root = yolo(tmp_path, "0 .1 .2 .5 .2 .5 .8\n0 .5 .5 .4 .4\n0 .2 .2 .4 .2 .4 .6 .2 .6\n")
    data = open_dataset(root)
    np.testing.assert_allclose(data.records[0].boxes, [[2, 2, 10, 8], [6, 3, 14, 7], [4, 2, 8, 6]], atol=1e-5)
    assert [(f.kind, f.detail) for f in data.summary.findings] == [("polygon", "2 of 3 rows are polygons")]
    assert "label files with polygons, of which the boxes are taken: 1" in data.summary.text()


def test_yolo_key_points_follow_their_box(tmp_path):
    root = yolo(tmp_path, "0 .5 .5 .4 .4 .1 .1 2 .9 .9 0\n", kpt_shape=[2, 3])
    data = open_dataset(root)
    np.testing.assert_allclose(data.records[0].boxes, [[6, 3, 14, 7]], atol=1e-5)
    assert not notes(data)


def pose_rows(rng: np.random.Generator, count: int, points: int, values: int) -> str:
    rows: list[str] = []
    for _ in range(count):
        side = rng.uniform(0.05, 0.3, 2)
        centre = rng.uniform(side / 2, 1 - side / 2)
        found = centre + rng.uniform(-0.5, 0.5, (points, 2)) * side
        found[1:][rng.random(points - 1) < 0.2] = 0
        columns = np.column_stack([found, (found != 0).any(1) * 2])[:, :values]
        rows.append(" ".join(f"{value:.6g}" for value in (0, *centre, *side, *columns.ravel())))
    return "\n".join(rows)


def of_key_points(data) -> list[str]:
    return [finding.detail for finding in data.summary.of("doubtful") if "kpt_shape" in finding.detail]


@pytest.mark.parametrize(("points", "values"), [(1, 2), (5, 2), (17, 2), (4, 3)])
def test_yolo_rows_that_look_like_key_points_are_doubted(tmp_path, points, values):
    rows = pose_rows(np.random.default_rng(0), 12, points, values)
    data = open_dataset(yolo(tmp_path / "unstated", rows))
    (said,) = of_key_points(data)
    assert "its 12 rows" in said and f"state kpt_shape: [{points}, {values}]" in said
    assert not of_key_points(open_dataset(yolo(tmp_path / "stated", rows, kpt_shape=[points, values])))
    # One polygon among them, or too few different rows, are no evidence.
    for other in (rows + "\n0 .1 .1 .4 .1 .4 .4\n", "\n".join(rows.splitlines()[:4] * 3)):
        assert not of_key_points(open_dataset(yolo(tmp_path / "other", other)))


@pytest.mark.parametrize("corners", [3, 4, 9])
def test_yolo_polygons_are_not_taken_for_key_points(tmp_path, corners):
    rng = np.random.default_rng(corners)
    for k in range(8):
        rows: list[str] = []
        for _ in range(6):
            angles = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
            centre, radii = rng.uniform(0.1, 0.9, 2), rng.uniform(0.01, 0.5, 2)
            outline = np.clip(centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1), 0, 1)
            rows.append(" ".join(f"{value:.6g}" for value in (0, *outline.ravel())))
        assert not of_key_points(open_dataset(yolo(tmp_path / str(k), "\n".join(rows))))


def test_yolo_folders_outside_are_read_and_named(tmp_path):
    far = yolo(tmp_path / "far")
    near = tmp_path / "near"
    near.mkdir()
    for entry in (str(far / "images"), "../far/images"):
        (near / "data.yaml").write_text(json.dumps({"names": ["cat"], "train": entry}))
        data = open_dataset(near)
        assert data.object_count == 1 and "its images lie in another folder" in notes(data)[0]
        assert not os.path.isabs(data.records[0].file_name) and ".." not in data.records[0].file_name
    (near / "train.txt").write_text(f"{far / 'images' / 'a.png'}\n")
    (near / "data.yaml").write_text(json.dumps({"names": ["cat"], "train": "train.txt"}))
    data = open_dataset(near)
    assert data.object_count == 1 and "1 of its images lie outside the folder" in notes(data)[0]


def test_yolo_paths_of_another_machine(tmp_path):
    root = yolo(tmp_path, train="/content/drive/set/train.txt")
    (root / "train.txt").write_text("/content/drive/set/images/a.png\n")
    data = open_dataset(root)
    assert data.object_count == 1 and len(notes(data)) == 2
    assert open_dataset(yolo(tmp_path, train="/content/drive/set/images/"), images=root / "images").object_count == 1


def test_yolo_a_missing_part_is_named_with_those_that_exist(tmp_path, no_pictures):
    root = yolo(tmp_path, val="valid/images")
    with pytest.raises(
        DataError, match=r"val: .*valid/images does not exist, while these parts do: train .*remove val"
    ):
        open_splits(root)
    assert [f.detail for f in open_dataset(root).summary.of("missing")] == [
        f"{root}/valid/images does not exist; left out"
    ]
    assert Check(str(root), out=tmp_path / "out").run() == 2  # although what is there was read
    assert not check_dataset(open_dataset(root, "train")).errors
    tested = yolo(tmp_path, test="test/images")  # as exporters write it
    assert any("test/images does not exist; left out" in one for one in notes(open_dataset(tested)))
    assert Check(str(tested), out=tmp_path / "tested").run() == 0
    (root / "data.yaml").write_text(json.dumps({"names": ["cat"], "train": "images", "valid": "images"}))
    assert list_splits(root) == ("train", "val")


def test_yolo_patterns_of_file_names_are_not_read(tmp_path):
    root, says = yolo(tmp_path, val="images/*.png"), "patterns of file names are not read: name the folder"
    assert says in open_dataset(root).summary.of("missing")[0].detail
    with pytest.raises(DataError, match=rf"val: .* does not exist.*; {says}"):
        open_dataset(root, "val")
    (root / "data.yaml").write_text(json.dumps({"names": ["cat"], "train": "images/*.png"}))
    with pytest.raises(DataError, match=rf"no images in images/\*\.png of .*; {says}"):
        open_dataset(root)


def test_yolo_classes_as_tools_write_them(tmp_path):
    assert open_dataset(yolo(tmp_path, nc="1")).class_names == ("cat",)
    assert open_dataset(yolo(tmp_path, names={"0": "cat", "1": "dog"})).class_names == ("cat", "dog")
    with pytest.raises(DataError, match=r"nc is 2\.0, but names lists 1"):
        open_dataset(yolo(tmp_path, nc="2"))
    with pytest.raises(DataError, match=r"nc is \[1\], not the number of classes"):
        open_dataset(yolo(tmp_path, nc=[1]))


# All


def test_images_of_two_parts_are_named_by_data_check(tmp_path, no_pictures, capsys):
    """In every layout, and where one of the two is a link to the other; ``trainval`` is meant to hold both."""
    for name in "abc":
        picture(tmp_path / "voc" / "JPEGImages" / f"{name}.png", value=ord(name))
        xml(tmp_path / "voc" / "Annotations" / f"{name}.xml")
        picture(tmp_path / "coco" / "images" / f"{name}.png", value=ord(name))
        picture(tmp_path / "yolo" / "train" / f"{name}.png", value=ord(name)).with_suffix(".txt").write_text(
            "0 .5 .5 .4 .4\n"
        )
    lists = tmp_path / "voc" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name, listed in {"train": "a\nb\n", "val": "b\nc\n", "trainval": "a\nb\nc\n"}.items():
        (lists / f"{name}.txt").write_text(listed)
    coco(tmp_path / "coco" / "annotations" / "instances_train.json", "a.png", "b.png")
    coco(tmp_path / "coco" / "annotations" / "instances_val.json", "b.png", "c.png")
    (tmp_path / "yolo" / "val").mkdir()
    for name in ("b.png", "b.txt"):
        (tmp_path / "yolo" / "val" / name).symlink_to(tmp_path / "yolo" / "train" / name)
    (tmp_path / "yolo" / "data.yaml").write_text("names: [cat]\ntrain: train\nval: val\n")
    for name in ("voc", "coco", "yolo"):
        assert Check(str(tmp_path / name), out=tmp_path / "out" / name).run() == 0
        printed = capsys.readouterr().out
        assert printed.count(" stand under ") == 1
        assert "1 images stand under train and under val, e.g. " in printed and "b.png: what is measured" in printed
    written = (tmp_path / "out" / "coco" / "summary.txt").read_text()  # of parts that are read one by one
    assert written.startswith("train: 2 images; see train/summary.txt\nval: 2 images") and " stand under " in written


def test_files_of_macos_are_no_data(tmp_path):
    root = yolo(tmp_path)
    double = b"\0\x05\x16\x07" + bytes(60)
    for place in ("images/._a.png", "labels/._a.txt", "._data.yaml", "labels/._b.txt"):
        (root / place).write_bytes(double)
    data = open_dataset(root)
    assert len(data) == 1 and notes(data) == ["1 files ._NAME of macOS are no images; left out"]
    picture(root / "images" / "._c.png")  # a picture, whatever its name
    assert len(open_dataset(root)) == 2
    picture(tmp_path / "v" / "a.png")
    xml(tmp_path / "v" / "a.xml")
    (tmp_path / "v" / "._a.xml").write_bytes(double)
    (tmp_path / "v" / "._a.png").write_bytes(double)
    assert len(open_dataset(tmp_path / "v")) == 1


def test_images_of_every_format_are_read_and_others_named(tmp_path):
    root = yolo(tmp_path)
    for name in ("b.jfif", "c.jpe", "d.mpo", "e.webp", "f.tga", "g.pbm", "h.jp2", "i.avif", "j.jpg "):
        content = {"j.jpg ": "JPEG", "b.jfif": "JPEG", "c.jpe": "JPEG", "d.mpo": "MPO", "h.jp2": "JPEG2000"}
        image = Image.fromarray(np.full((10, 20, 3), 50, np.uint8))
        image = image.convert("1") if name == "g.pbm" else image
        image.save(root / "images" / name, format=content.get(name) or Image.registered_extensions()[name[1:]])
    for name in ("x.dng", "y.psd", "z.txt"):
        (root / "images" / name).write_bytes(b"not a picture")
    (root / "images" / "w.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    data = open_dataset(root)
    assert len(data) == 10
    for record in data.records:
        assert record.pixels().shape == (10, 20, 3)
    unread = {Path(f.where).name: f.detail for f in data.summary.of("unread")}
    assert set(unread) == {"x.dng", "y.psd", "w.heic"} and "yolojax[heic]" in unread["w.heic"]


@pytest.mark.parametrize("stated", ["/content/datasets/set", "datasets/set", "../set2", "C:\\Users\\me\\set"])
def test_yolo_a_root_of_another_machine(tmp_path, stated):
    """The parts lie beside the file, as most archives have them."""
    root = tmp_path / "set"
    for part in ("train", "val"):
        picture(root / "images" / part / "a.png")
        (root / "labels" / part).mkdir(parents=True)
        (root / "labels" / part / "a.txt").write_text("0 .5 .5 .4 .4\n")
    content = {"path": stated, "train": "images/train", "val": "images\\val", "names": ["cat"]}
    (root / "data.yaml").write_text(json.dumps(content))
    data = open_dataset(root)
    assert data.object_count == 2 and "are taken from the folder of this file" in notes(data)[0]
    (root / "data.yaml").write_text(json.dumps({**content, "val": "elsewhere/val"}))
    with pytest.raises(DataError, match="which does not exist; correct it"):
        open_dataset(root)


def test_the_folder_in_an_unpacked_archive_is_read(tmp_path):
    picture(tmp_path / "a" / "b" / "JPEGImages" / "a.jpg")
    xml(tmp_path / "a" / "b" / "Annotations" / "a.xml")
    (tmp_path / "__MACOSX").mkdir()
    data = open_dataset(tmp_path)
    assert data.object_count == 1 and "the data set is taken from" in notes(data)[0]
    assert list_splits(tmp_path) == ()
    picture(tmp_path / "other" / "b.jpg")
    with pytest.raises(DataError, match="no data set recognised"):
        open_dataset(tmp_path)
