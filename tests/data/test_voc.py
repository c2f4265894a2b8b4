"""The rules of Pascal VOC: boxes without a shift, direct children only, images by the name of their XML file."""

import numpy as np
import pytest
from PIL import Image

from yolojax.data import list_splits, open_dataset
from yolojax.errors import DataError


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
    assert data.class_names == ("cat", "dog") and data.summary.counts() == {"doubtful": 1, "clipped": 1, "dropped": 3}
    record = data.records[0]
    np.testing.assert_array_equal(record.boxes, [[1, 2, 20, 10], [0, 2, 20, 8], [0, 0, 20, 10]])
    np.testing.assert_array_equal(record.classes, [1, 0, 0])
    xml = str(tmp_path / "Annotations" / "a.xml")
    assert [f.where for f in data.summary.findings[:-1]] == [f"{xml} object {k}" for k in (2, 3, 4, 5)]
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


def test_voc_folders_in_lower_case(tmp_path):
    root = voc(tmp_path, objects=voc_object("cat", (1, 1, 5, 5)))
    (root / "Annotations").rename(root / "annotations")
    (root / "JPEGImages").rename(root / "images")
    data = open_dataset(root)
    assert data.object_count == 1 and data.records[0].source == root / "images" / "a.png"
