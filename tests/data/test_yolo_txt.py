"""The rules of YOLO txt: rows, lists, and the places of images and labels."""

import json

import numpy as np
import pytest
from PIL import Image

from yolojax.data import open_dataset
from yolojax.errors import DataError


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


def test_yolo_images_that_share_a_label_file_are_named(tmp_path):
    root = yolo(tmp_path, "0 0.5 0.5 0.5 0.5\n")
    other = root / "images" / "train" / "a.bmp"
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(other)
    data = open_dataset(root)
    assert data.object_count == 2 and data.summary.counts() == {"note": 1}
    assert data.summary.of("note")[0].where == str(root / "images" / "train" / "a.png")


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


def test_yolo_splits_without_images_are_named_when_all_are_read(tmp_path):
    root = yolo(tmp_path, "0 0.5 0.5 0.5 0.5\n", val="images/val")
    assert [f.where for f in open_dataset(root).summary.of("missing")] == [f"{root / 'data.yaml'} val"]
    with pytest.raises(DataError, match=r"images/val does not exist, while these parts do: train \(.*images/train\)"):
        open_dataset(root, "val")
