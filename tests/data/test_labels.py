"""No label is lost: every label file is read for its image, or named, whatever its folder, place and case."""

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yolojax.data import list_splits, open_dataset
from yolojax.errors import DataError

ROW = "0 .5 .5 .4 .4\n"


def lay(root: Path, images: str, labels: str, **data: object) -> Path:
    """Images and label files at these places (blanks part them), and ``data.yaml``; returns the root."""
    for name in images.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 20, 3), 50, np.uint8)).save(root / name)
    for name in labels.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(ROW)
    (root / "data.yaml").write_text(json.dumps({"names": ["cat"], "train": "images", **data}))
    return root


@pytest.mark.parametrize(
    ("images", "labels", "train"),
    [
        ("images/a.png", "labels/a.txt", "images"),
        ("images/a.png", "images/a.txt", "images"),
        ("images/a.png images/b.png", "labels/a.txt images/b.txt", "images"),
        ("images/a.png images/b.png", "labels/a.TXT labels/b.Txt", "images"),
        ("Images/a.png", "Labels/a.txt", "Images"),
        ("Images/a.png", "labels/a.txt", "Images"),
        ("images/a.png", "Labels/a.txt", "images"),
        ("IMAGES/train/a.png", "LABELS/train/a.txt", "IMAGES/train"),
        ("images/train/a.png", "labels/a.txt", "images/train"),
        ("images/train/a.png", "Labels/A.TXT", "images/train"),
        ("img/a.png", "label/a.txt", "img"),
        ("JPEGImages/a.png", "labels/a.txt", "JPEGImages"),
        ("train/a.png", "labels/train/a.txt", "train"),
        ("train/a.png", "train/labels/a.txt", "train"),
        ("train/images/a.png", "train/labels/a.txt", "train/images"),
        ("train/images/a.png", "labels/train/a.txt", "train/images"),
        ("images/a.png", "labels/A.txt", "images"),
    ],
)
def test_labels_are_found(tmp_path, images, labels, train):
    data = open_dataset(lay(tmp_path, images, labels, train=train))
    assert [len(record.boxes) for record in data.records] == [1] * len(images.split())
    assert not data.summary.findings


@pytest.mark.parametrize("extra", [{"path": "images"}, {"path": "images", "train": ["train"]}])
def test_a_root_that_is_itself_called_images(tmp_path, extra):
    root = lay(tmp_path, "images/train/a.png", "labels/train/a.txt", **{"train": "train", **extra})
    data = open_dataset(root)
    assert data.object_count == 1 and not data.summary.findings
    (root / "data.yaml").write_text(
        json.dumps({"path": str(root / "images"), "train": str(root / "images" / "train"), "names": ["cat"]})
    )
    assert open_dataset(root).object_count == 1


@pytest.mark.parametrize(
    ("labels", "orphan", "reason"),
    [
        ("labels/a.txt images/a.txt", "images/a.txt", "labels/a.txt is read for the image"),
        ("labels/a.txt labels/ghost.txt", "labels/ghost.txt", "no image belongs"),
        ("labels/a.txt labels/ghost.TXT", "labels/ghost.TXT", "no image belongs"),
        ("labels/a.txt images/ghost.txt", "images/ghost.txt", "no image belongs"),
        ("labels/a.txt labels/deep/er/ghost.txt", "labels/deep/er/ghost.txt", "no image belongs"),
        ("labels/a.txt elsewhere/b.txt", "elsewhere/b.txt", "the label file of"),
        ("labels/a.txt b.txt", "b.txt", "the label file of"),
        ("labels/a.txt labels/a.TXT", "labels/a.TXT", "labels/a.txt is read for the image"),
        ("labels/a.txt labels/b.png.txt", "labels/b.png.txt", "without .png"),
    ],
)
def test_labels_that_no_image_claims_are_named(tmp_path, labels, orphan, reason):
    data = open_dataset(lay(tmp_path, "images/a.png images/b.png", labels))
    assert [len(record.boxes) for record in data.records] == [1, 0]
    (finding,) = data.summary.findings
    assert (finding.kind, finding.where) == ("orphan", str(tmp_path / orphan)) and reason in finding.detail


@pytest.mark.parametrize("row", ["0,.5,.5,.4,.4", "0; .5; .5; .4; .4"])
def test_a_label_with_commas_that_no_image_claims_is_named(tmp_path, row):
    """Among labels; elsewhere it may be any table."""
    root = lay(tmp_path, "images/a.png", "labels/a.txt")
    for name in ("labels/ghost.txt", "table.txt"):
        (root / name).write_text(row + "\n")
    (finding,) = open_dataset(root).summary.findings
    assert finding.kind == "orphan" and finding.where == str(root / "labels" / "ghost.txt")


def test_other_text_files_are_no_labels(tmp_path):
    root = lay(tmp_path, "images/a.png", "labels/a.txt", train="train.txt")
    (root / "train.txt").write_text("images/a.png\n")
    (root / "labels" / "classes.txt").write_text("cat\n")
    (root / "README.txt").write_text("1 2 3 4 5 are the first numbers\n")
    (root / "requirements.txt").write_text("numpy\n")
    (root / "notes").mkdir()
    (root / "notes" / "todo.txt").write_text("label more cats\n")
    assert not open_dataset(root).summary.findings


def test_labels_of_another_part_are_no_orphans(tmp_path):
    images = "images/train/a.png images/val/b.png images/spare/c.png"
    root = lay(tmp_path, images, "labels/train/a.txt labels/val/b.txt labels/spare/c.txt",
               train="images/train", val="images/val")  # fmt: skip
    for split in ("train", "val"):
        assert not open_dataset(root, split).summary.findings
    (finding,) = open_dataset(root).summary.findings
    assert finding.where.endswith("spare/c.txt") and "belongs to no part of the data set" in finding.detail


def test_a_label_file_that_could_belong_to_two_images_is_refused(tmp_path):
    root = lay(tmp_path, "images/train/a.png images/val/a.png images/val/b.png", "labels/a.txt labels/b.txt",
               train="images/train", val="images/val")  # fmt: skip
    with pytest.raises(DataError, match=r"labels/a\.txt: .*train/a\.png and .*val/a\.png both could be the image"):
        open_dataset(root, "train")
    (root / "labels" / "val").mkdir()
    (root / "labels" / "val" / "a.txt").write_text(ROW)
    assert open_dataset(root, "train").object_count == 1
    assert [len(r.boxes) for r in open_dataset(root, "val").records] == [1, 1]


def test_where_no_label_is_found_the_message_says_where_some_lie(tmp_path):
    root = lay(tmp_path, "images/a.png", "annots/a.txt")
    with pytest.raises(
        DataError, match=r"labels/a\.txt: put the labels there \(label files lie in .*annots, such as a\.txt\)"
    ):
        open_dataset(root)


def test_darknet_data_files_and_their_parts(tmp_path):
    """CVAT's export YOLO 1.1: paths begin with Darknet's own folder ``data``."""
    root = lay(tmp_path, "obj_default_data/a.png", "obj_default_data/a.txt")
    (root / "data.yaml").unlink()
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "default.txt").write_text("data/obj_default_data/a.png\n")
    for key in ("train", "default"):
        (root / "obj.data").write_text(
            f"classes = 2\n{key} = data/default.txt\nnames = data/obj.names\nbackup = backup/\n"
        )
        data = open_dataset(root)
        assert data.class_names == ("cat", "dog") and data.object_count == 1 and list_splits(root) == (key,)
        assert {finding.kind for finding in data.summary.findings} == {"note"}
        assert open_dataset(root, key).object_count == open_dataset(root / "obj.data", key).object_count == 1
    (root / "obj.data").write_text("classes = 3\ntrain = default.txt\nnames = obj.names\n")
    with pytest.raises(DataError, match=r"classes is 3, but .*obj.names lists 2"):
        open_dataset(root)
    (root / "obj.data").write_text("train = default.txt\n")
    with pytest.raises(DataError, match="needs names = FILE"):
        open_dataset(root)


def test_other_parts_of_a_yaml_file_are_parts(tmp_path):
    root = lay(tmp_path, "images/a.png images2/b.png", "labels/a.txt images2/b.txt", default="images2", author="me")
    assert list_splits(root) == ("train", "default")
    assert open_dataset(root, "default").object_count == 1


def test_classes_txt_beside_images_is_a_data_set(tmp_path):
    """What Label Studio and labelImg write."""
    root = lay(tmp_path, "images/a.png images/b.png", "labels/a.txt labels/b.txt")
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("cat\ndog\n")
    data = open_dataset(root)
    assert data.class_names == ("cat", "dog") and data.object_count == 2 and not data.summary.findings
    assert list_splits(root) == ()


@pytest.mark.skipif(os.name != "posix", reason="links and named pipes are POSIX")
def test_links_are_followed_and_what_they_miss_is_named(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / "store" / kind).mkdir(parents=True)
        (tmp_path / "set" / kind).mkdir(parents=True)
        (tmp_path / "set" / kind / "train").symlink_to(tmp_path / "store" / kind)
        (tmp_path / "set" / kind / "loop").symlink_to(tmp_path / "set")
    for name in "ab":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "store" / "images" / f"{name}.png")
        (tmp_path / "store" / "labels" / f"{name}.txt").write_text("0 .5 .5 .4 .4\n")
    (tmp_path / "set" / "data.yaml").write_text("names: [cat]\ntrain: images\n")
    data = open_dataset(tmp_path / "set")
    assert (len(data), data.object_count, data.summary.findings) == (2, 2, ())
    image, label = (tmp_path / "store" / place for place in ("images/b.png", "labels/a.txt"))
    for file, says in ((image, "image file is missing"), (label, "cannot be read")):
        file.unlink()
        file.symlink_to(tmp_path / "nowhere")
        with pytest.raises(DataError, match=says):
            open_dataset(tmp_path / "set")


@pytest.mark.parametrize("name", ["labels/b.xml", "labels/b.JSON", "labels/b.csv", "images/b.xml", "labels/b.text"])
def test_labels_in_other_formats_are_named(tmp_path, name):
    root = lay(tmp_path, "images/a.png images/b.png", "labels/a.txt")
    (root / name).write_text("<annotation/>")
    (root / "images" / "b.json").write_text("{}")  # what a camera says, for one
    (root / "labels" / "c.txt").write_text(ROW)
    Image.fromarray(np.full((10, 20, 3), 50, np.uint8)).save(root / "images" / "c.png")
    (finding,) = open_dataset(root).summary.findings
    assert finding.kind == "orphan" and finding.where == str(root / name) and "expected in a .txt" in finding.detail


def test_a_flat_label_of_another_image_is_not_shared(tmp_path):
    """labels/a.txt is that of images/a.png; images/deep/a.png has none."""
    data = open_dataset(lay(tmp_path, "images/a.png images/deep/a.png", "labels/a.txt"))
    assert {r.file_name: len(r.boxes) for r in data.records} == {"images/a.png": 1, "images/deep/a.png": 0}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_macos_and_others_are_the_same(tmp_path, forms):
    """macOS takes letters and accents apart; a set that went through it has both spellings."""
    image, label = (unicodedata.normalize(form, "caf\u00e9") for form in forms)
    yolo = open_dataset(lay(tmp_path / "yolo", f"images/{image}.png", f"labels/{label}.txt"))
    assert yolo.object_count == 1 and not yolo.summary.findings
    coco = lay(tmp_path / "coco", f"{image}.png", "")
    (coco / "data.yaml").unlink()
    content = {
        "images": [{"id": 1, "file_name": f"{label}.png", "width": 20, "height": 10}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (coco / "labels.json").write_text(json.dumps(content))
    assert open_dataset(coco).object_count == 1
    voc = lay(tmp_path / "voc", f"JPEGImages/{image}.png", "")
    (voc / "data.yaml").unlink()
    (voc / "Annotations").mkdir()
    (voc / "Annotations" / f"{label}.xml").write_text(
        "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
        "</object></annotation>"
    )
    assert open_dataset(voc).object_count == 1


def test_labels_called_after_the_whole_name_of_their_image(tmp_path):
    """Some tools write ``a.png.txt``; the message says which name is read."""
    root = lay(tmp_path, "images/a.png images/b.png", "labels/a.txt labels/b.png.txt")
    (orphan,) = open_dataset(root).summary.of("orphan")
    assert orphan.where.endswith("b.png.txt") and "is sought at" in orphan.detail and "without .png" in orphan.detail
    (root / "labels" / "a.txt").unlink()
    with pytest.raises(DataError, match=r"labels/a\.txt: put the labels there .*, such as b\.png\.txt"):
        open_dataset(root)


def test_a_folder_in_the_place_of_a_label_file_is_named(tmp_path):
    root = lay(tmp_path, "images/a.png images/b.png", "labels/b.txt")
    (root / "labels" / "a.txt").mkdir()
    (root / "labels" / "c.txt").mkdir()
    with pytest.raises(DataError, match=r"labels/a.txt: a folder; give a text file"):
        open_dataset(root)
    summary = open_dataset(root, skip_bad=True).summary
    assert [finding.where for finding in summary.of("skipped")] == [str(root / "images" / "a.png")]
    assert [finding.where for finding in summary.of("orphan")] == [str(root / "labels" / "c.txt")]


def test_listed_images_that_are_not_there(tmp_path):
    """The list and its line are named; where nothing is there, labels are not what is missing."""
    root = lay(tmp_path, "images/a.png", "labels/a.txt", train="train.txt")
    (root / "train.txt").write_text("images/a.png\nimages/b.png\n")
    with pytest.raises(DataError, match=r"train\.txt line 2: the image .*b\.png is not there; restore it, or correct"):
        open_dataset(root)
    assert len(open_dataset(root, skip_bad=True)) == 1
    (root / "train.txt").write_text("data/images/b.png\ndata/images/c.png\n")
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=r"train\.txt line 1: .*b\.png is not there, nor is any other .* --images"):
            open_dataset(root, skip_bad=skip_bad)
    (root / "train.txt").write_text("images\n")
    with pytest.raises(DataError, match=r"train\.txt line 1: 'images' is a folder; name it in the data file"):
        open_dataset(root)
