"""Tiles by the command: ``predict --tile``, ``val --tile``, ``data tile``."""

import json

import numpy as np
import pytest
from PIL import Image

from yolojax.data import open_dataset
from yolojax.data.tiles import tile_dataset
from yolojax.tiling import Tiling


@pytest.mark.slow  # four predictions, of which two compile
def test_a_large_photo_in_tiles(trained, yolojax, tmp_path):
    photo = open_dataset("shapes:val?count=1&size=150").records[0].pixels()
    Image.fromarray(photo).save(tmp_path / "large.png")
    common = ("predict", "large.png", "--model", trained, "--json", "--conf", ".01", "--max-det", "20")
    ended = yolojax(*common, "--tile", "64", "--overlap", ".25", "--out", "found")
    assert ended.code == 0, ended.err
    (entry,) = json.loads(ended.out)
    assert (entry["height"], entry["width"]) == (150, 150)
    boxes = np.array([d["box"] for d in entry["detections"]])
    assert 0 < len(boxes) <= 20 and boxes.min() >= 0 and boxes.max() <= 150
    # What is found spreads over the photo, and no box is larger than a tile.
    assert (boxes[:, 2:] - boxes[:, :2]).max() <= 64 and np.ptp(boxes[:, 0]) > 64
    assert json.loads(yolojax(*common, "--tile", "200").out) == json.loads(yolojax(*common).out)
    ended = yolojax(*common, "--overlap", ".3")
    assert ended.code == 2 and "give --tile as well" in ended.err


@pytest.mark.slow  # three validations, each of which compiles
def test_val_in_tiles_of_whole_images_is_val(trained, yolojax, tmp_path):
    numbers = []
    for options in ((), ("--tile", "64"), ("--tile", "48", "--overlap", ".5", "--whole")):
        out = tmp_path / f"val{len(numbers)}"
        data = ("--data", "shapes:val?count=4&size=64", "--samples", "0")
        ended = yolojax("val", "--model", trained, *data, "--out", out, *options)
        assert ended.code == 0, ended.err
        numbers.append(json.loads((out / "detections.json").read_text()))
    plain, one_tile, tiles = numbers
    # The plain program folds BatchNorm inside it, so that the last digits differ.
    for name, tolerance in (("bbox", 0.01), ("score", 1e-4)):
        np.testing.assert_allclose(*([row[name] for row in rows] for rows in (plain, one_tile)), atol=tolerance)
    assert len(plain) != len(tiles) or plain != tiles
    assert {row["image_id"] for row in tiles} == {1, 2, 3, 4}


@pytest.mark.parametrize("layout", ["coco", "yolo", "voc"])
def test_what_the_command_writes_is_read_back(layout, yolojax, tmp_path):
    options = ("--tile", "64", "--overlap", ".25", "--layout", layout)
    ended = yolojax("data", "tile", "shapes:val?count=2&size=96x160", "--out", "tiles", *options)
    assert ended.code == 0, ended.err
    source = tile_dataset(open_dataset("shapes:val?count=2&size=96x160"), Tiling(64, 0.25))
    tiles = open_dataset(tmp_path / "tiles", "val")
    assert len(tiles) == len(source) == 12 and f"val: 12 tiles with {source.object_count} objects" in ended.out
    wanted = {r.file_name: r for r in source.records}
    for record in tiles.records:
        other = wanted[record.file_name.rpartition("/")[2]]
        kept = np.ones(len(other.boxes), bool) if layout != "yolo" else ~other.crowd
        np.testing.assert_array_equal(record.pixels(), other.pixels())
        np.testing.assert_allclose(record.boxes, other.boxes[kept], atol=1e-3)
        np.testing.assert_array_equal(record.crowd, other.crowd[kept])


@pytest.mark.parametrize("command", [("tile",), ("convert", "--to", "yolo")])
def test_what_was_repaired_or_doubted_is_said(command, yolojax, tmp_path):
    assert yolojax("data", "convert", "shapes:val?count=2&size=64", "--to", "yolo", "--out", "set").code == 0
    labels = sorted((tmp_path / "set" / "labels" / "val").iterdir())
    labels[0].write_text("0 .5 .5 .2 .2\n" * 30 + "0 .9 .5 .4 .2\n")
    labels[1].rename(labels[1].with_name("other.txt"))
    (tmp_path / "new").mkdir()
    ended = yolojax("data", command[0], "set", *command[1:], "--out", "new")
    assert ended.code == 0, ended.err
    assert not [path.name for path in (tmp_path / "new").iterdir() if path.name.startswith(".")]
    for said in ("boxes clipped to their image: 1", "other.txt: no image belongs", "val: 29 of 31 objects repeat"):
        assert said in ended.err


@pytest.mark.parametrize("command", [("tile",), ("convert", "--to", "yolo", "--png")])
def test_what_fails_leaves_no_part_of_a_data_set(command, yolojax, tmp_path):
    assert yolojax("data", "convert", "shapes:val?count=2&size=64", "--to", "yolo", "--out", "set").code == 0
    photo = sorted((tmp_path / "set" / "images" / "val").iterdir())[-1]
    photo.write_bytes(photo.read_bytes()[:-300])
    ended = yolojax("data", command[0], "set", *command[1:], "--out", "new")
    assert ended.code == 2 and f"error: set/images/val/{photo.name}: damaged image" in ended.err, ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tile", "8"), "tile size = 8: give at least 32"),
        (("--overlap", "1"), "tile overlap = 1: give a share"),
        (("--visible", "2"), "visible = 2"),
        (("--split", "none"), "no split 'none'"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(options, message, yolojax):
    ended = yolojax("data", "tile", "shapes:?count=1", "--out", "tiles", *options)
    assert ended.code == 2 and message in ended.err and ended.err.count("\n") == 1
