"""What looks wrong in a data set as a whole is said with its evidence, and right data are not doubted."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yolojax.config import DataConfig
from yolojax.data import open_dataset, shapes_dataset, write_coco, write_voc, write_yolo
from yolojax.data.check import check_dataset
from yolojax.data.doubts import doubts_of_areas, doubts_of_boxes
from yolojax.data.paths import lie_apart, real_paths
from yolojax.errors import DataError
from yolojax.progress import Quiet
from yolojax.training.data import open_data

H, W = 100, 200
RNG = np.random.default_rng(0)
SIZES = np.tile([H, W], (40, 1)).astype(float)


def right_boxes(n: int = 40) -> np.ndarray:
    """Corners of boxes inside an image of 200 x 100 pixels, a few of them drawn one pixel too far."""
    extent = RNG.uniform([20, 10], [120, 60], (n, 2))
    corner = RNG.uniform(0, 1, (n, 2)) * ([W, H] - extent)
    boxes = np.concatenate([corner, corner + extent], 1)
    boxes[:3, 2] = W + 1
    return boxes


def centre_form(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def corner_form(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def from_centre(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[:, :2] - rows[:, 2:] / 2, rows[:, :2] + rows[:, 2:] / 2], 1)


def from_corner(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], 1)


def test_right_boxes_are_not_doubted():
    for rows in ("xyxy", "xywh", "cxcywh"):
        assert doubts_of_boxes(right_boxes(), SIZES, rows) == []


@pytest.mark.parametrize(
    ("read", "rows", "says"),
    [
        (
            lambda b: from_corner(b),
            "xywh",
            "if their rows were corners (x1 y1 x2 y2) in place of the left upper corner",
        ),
        (lambda b: from_corner(centre_form(b)), "xywh", "if their rows were the centre and the size"),
        (from_centre, "cxcywh", "if their rows were corners (x1 y1 x2 y2) in place of the centre"),
        (lambda b: from_centre(corner_form(b)), "cxcywh", "if their rows were the left upper corner and the size"),
        (corner_form, "xyxy", "if their rows were the left upper corner and the size"),
        (centre_form, "xyxy", "if their rows were the centre and the size"),
        (lambda b: b[:, [1, 0, 3, 2]], "xyxy", "with x and y swapped"),
        (lambda b: b[:, [2, 3, 0, 1]], "xyxy", "if the lesser of two coordinates came first"),
        (lambda b: [0, H, 0, H] + [1, -1, 1, -1] * b, "xyxy", "or y is counted from the lower edge"),
        (lambda b: b[:, [0, 2, 1, 3]], "xyxy", "if their rows were x1 x2 y1 y2"),
        (lambda b: b / 2, "xyxy", "all 40 boxes lie in the left upper quarter of their images: do they"),
        (lambda b: b * 2, "xyxy", "do they belong to images of another size?"),
        (lambda b: b / [W, H, W, H], "xyxy", "37 of 40 boxes lie within one pixel of the corner"),
        (lambda b: b / [W, H, W, H], "cxcywh", "divide them by its width and height only once"),
        (lambda b: b - np.tile(b[:, :2], 2), "xyxy", "touch the left upper corner"),
        (lambda b: np.tile([0.0, 0, W, H], (40, 1)), "xyxy", "cover their whole image"),
        (lambda b: np.concatenate([b[:, :2], b[:, :2] + 0.5], 1), "xyxy", "less than a pixel wide or high"),
    ],
)
def test_boxes_of_another_kind(read, rows, says):
    found = doubts_of_boxes(read(right_boxes()), SIZES, rows)
    assert len(found) == 1 and says in found[0], found


def test_percent_of_images_that_are_large():
    (found,) = doubts_of_boxes(right_boxes() / [W, H, W, H] * 99, SIZES * 4, "xyxy")
    assert "left upper quarter" in found and "are they in percent" in found


def test_areas():
    boxes = right_boxes()
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for share in (1.0, 0.6, 0.1):
        assert doubts_of_areas(boxes, own * share) == []
    assert doubts_of_areas(boxes, np.full(40, np.nan)) == []
    for area in (np.ones(40), np.zeros(40), own / (W * H), np.full(40, 9e9)):
        (found,) = doubts_of_areas(boxes, area)
        assert "40 of 40 stated areas lie far" in found and "small, medium and large" in found


@pytest.mark.parametrize("write", [write_voc, write_coco, write_yolo])
def test_written_data_sets_are_not_doubted(write, tmp_path):
    write({"train": shapes_dataset(12, size=(48, 64))}, tmp_path)
    assert not open_dataset(tmp_path, "train").summary.findings


def yolo(root: Path, rows: dict[str, str], size=(H, W)) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "labels").mkdir(exist_ok=True)
    for name, text in rows.items():
        if not (root / "images" / name).is_file():
            Image.fromarray(RNG.integers(0, 255, (*size, 3), np.uint8)).save(root / "images" / name)
        (root / "labels" / f"{Path(name).stem}.txt").write_text(text)
    (root / "data.yaml").write_text("names: [cat]\ntrain: images\n")
    return root


def test_corners_in_label_files_are_named_by_data_check_and_by_training(tmp_path):
    boxes = right_boxes(20)[3:] / [W, H, W, H]
    rows = {f"{i}.png": "0 " + " ".join(f"{v:.6f}" for v in box) + "\n" for i, box in enumerate(boxes)}
    data = open_dataset(yolo(tmp_path, rows))
    (doubt,) = data.summary.of("doubtful")
    assert "if their rows were corners" in doubt.detail and "to be looked at: 1" in check_dataset(data).text()
    told: list[str] = []

    class Listening(Quiet):
        def say(self, text: str) -> None:
            told.append(text)

    open_data(DataConfig(path=tmp_path), 0, None, Listening())
    assert any("if their rows were corners" in text for text in told)


def test_every_object_twice_is_said_by_training(tmp_path):
    told: list[str] = []

    class Listening(Quiet):
        def say(self, text: str) -> None:
            told.append(text)

    root = yolo(tmp_path, {"a.png": "0 .5 .5 .1 .1\n0 .3 .3 .1 .1\n"})
    open_data(DataConfig(path=root), 0, None, Listening())
    assert not told
    yolo(tmp_path, {"a.png": "0 .5 .5 .1 .1\n" * 2 + "0 .3 .3 .1 .1\n" * 2})
    open_data(DataConfig(path=root), 0, None, Listening())
    assert told == ["train: 2 of 4 objects repeat another of the same class and box exactly"]


@pytest.mark.parametrize(("step", "says"), [(0.002, True), (0.1, False)])
def test_objects_that_almost_repeat_are_named_by_data_check(tmp_path, step, says):
    rows = "".join(f"0 {x:.3f} .5 .1 .1\n0 {x + step:.3f} .5 .1 .1\n" for x in (0.1, 0.3, 0.5, 0.7, 0.85))
    text = check_dataset(open_dataset(yolo(tmp_path, {"a.png": rows}))).text()
    assert ("5 of 10 objects that were compared lie almost exactly (IoU 0.95)" in text) == says


def test_images_of_two_parts_are_said(tmp_path):
    root = yolo(tmp_path, {"a.png": "0 .5 .5 .1 .1\n", "b.png": "0 .5 .5 .1 .1\n"})
    (root / "data.yaml").write_text("names: [cat]\ntrain: images\nval: list.txt\n")
    (root / "list.txt").write_text("images/b.png\n")
    (note,) = open_dataset(root).summary.of("note")
    assert note.detail.startswith("1 images stand under train and under val, e.g. ")
    told: list[str] = []

    class Listening(Quiet):
        def say(self, text: str) -> None:
            told.append(text)

    open_data(DataConfig(path=root), 0, None, Listening())
    assert told == ["1 of 1 validation images are trained on as well: what is measured on them flatters"]


@pytest.mark.parametrize("link", ["none", "file", "folder", "part of a folder"])
def test_images_of_both_parts_are_found_through_links(tmp_path, link):
    """Folders that lie apart and hold no links are not looked at file by file."""
    for name in ("train/a.png", "train/b.png", "val/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    val = [tmp_path / "val" / "c.png"]
    if link == "file":
        val[0].unlink()
        val[0].symlink_to(tmp_path / "train" / "b.png")
    elif link == "folder":
        (tmp_path / "other").symlink_to(tmp_path / "train")
        val = [tmp_path / "other" / "b.png"]
    elif link == "part of a folder":
        (tmp_path / "val" / "more").symlink_to(tmp_path / "train")
        val += [tmp_path / "val" / "more" / "b.png"]
    train = [str(tmp_path / "train" / name) for name in ("a.png", "b.png")]
    assert lie_apart(train, val) == (link == "none")
    both = set(real_paths(train)) & set(real_paths(val))
    assert both == (set() if link == "none" else {os.path.realpath(train[1])})


@pytest.mark.parametrize("flag", ["iscrowd", "ignore"])
def test_a_set_of_crowd_regions_alone_is_not_trained_on(tmp_path, flag):
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(tmp_path / "a.png")
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 50, 50], flag: 1}
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [one],
        "categories": [{"id": 1, "name": "a"}],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="all 1 objects of the training images are crowd regions or difficult"):
        open_data(DataConfig(path=tmp_path / "x.json"), 0, None, Quiet())
    report = check_dataset(open_dataset(tmp_path / "x.json"))
    assert any("all objects are crowd regions" in warning for warning in report.warnings)
    content["annotations"].append({**one, "id": 2, flag: 0})
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert open_data(DataConfig(path=tmp_path / "x.json"), 0, None, Quiet()).train.object_count == 2


def test_classes_that_differ_only_in_capitals(tmp_path):
    root = yolo(tmp_path, {"a.png": "0 .5 .5 .1 .1\n"})
    (root / "data.yaml").write_text("names: [cat, ' Cat', dog]\ntrain: images\n")
    warnings = check_dataset(open_dataset(root)).warnings
    assert any("the classes 'cat', ' Cat' differ only in capitals or blanks" in w for w in warnings)


# Images


def test_images_of_few_bits_in_sixteen(tmp_path):
    (tmp_path / "images").mkdir()
    grey = RNG.integers(0, 4096, (H, W)).astype(np.uint16)
    for i in range(3):
        Image.fromarray(grey).save(tmp_path / "images" / f"{i}.png")
    root = yolo(tmp_path, {f"{i}.png": "0 .5 .5 .1 .1\n" for i in range(3)})
    (doubt,) = open_dataset(root).summary.of("doubtful")
    assert "3 images of 16 bits use few of them" in doubt.detail and "they seem to hold 12 bits" in doubt.detail
    Image.fromarray(grey * 16).save(tmp_path / "images" / "2.png")
    (doubt,) = open_dataset(root).summary.of("doubtful")
    assert "2 of 3 images of 16 bits that were looked at use few" in doubt.detail and "hold 12 bits" in doubt.detail
    Image.fromarray(grey // 4).save(tmp_path / "images" / "1.png")  # two dark scenes, but no two of one depth
    assert not open_dataset(root).summary.findings


@pytest.mark.parametrize(("dark", "says"), [({4}, None), ({0, 11}, "2 of 6 images"), ({0, 7}, "2 of 6 images")])
def test_one_dark_image_among_those_of_all_sixteen_bits_is_not_doubted(tmp_path, dark, says):
    """One may show a dark scene, several of the same few bits are no chance; of twelve images six are looked at."""
    (tmp_path / "images").mkdir()
    grey = RNG.integers(0, 4096, (H, W)).astype(np.uint16)
    for i in range(12):
        Image.fromarray(grey if i in dark else grey * 16).save(tmp_path / "images" / f"{i:02}.png")
    root = yolo(tmp_path, {f"{i:02}.png": "0 .5 .5 .1 .1\n" for i in range(12)})
    doubts = [finding.detail for finding in open_dataset(root).summary.of("doubtful")]
    assert not doubts if says is None else (len(doubts) == 1 and says in doubts[0])


def test_images_of_few_bits_in_thirty_two(tmp_path):
    """A TIFF of 32-bit integers is read as one of 16 bits, unless its values are those of 8."""
    (tmp_path / "images").mkdir()
    for i, most in enumerate((3000, 255)):
        pixels = RNG.integers(0, most + 1, (H, W)).astype(np.int32)
        pixels[0, 0] = most
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.tif")
    root = yolo(tmp_path, {f"{i}.tif": "0 .5 .5 .1 .1\n" for i in range(2)})
    (doubt,) = open_dataset(root).summary.of("doubtful")
    assert "up to 3000 of 65535" in doubt.detail and "they seem to hold 12 bits" in doubt.detail
    (tmp_path / "images" / "0.tif").unlink()
    assert not open_dataset(root, skip_bad=True).summary.of("doubtful")


def test_colours_of_sixteen_bits(tmp_path):
    """Pillow reduces them to 8 bits by itself: what held 12 is then almost black."""
    import struct
    import zlib

    def png(values: np.ndarray) -> bytes:
        raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        parts = (
            (b"IHDR", struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(raw)),
            (b"IEND", b""),
        )
        chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

    values = RNG.integers(0, 4096, (H, W * 3))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(values))
    root = yolo(tmp_path, {"a.png": "0 .5 .5 .1 .1\n"})
    assert "1 images of 16 bits use few of them" in open_dataset(root).summary.of("doubtful")[0].detail
    (tmp_path / "images" / "a.png").write_bytes(png(values * 16))
    assert not open_dataset(root).summary.findings


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp", "a.png"])
def test_pages_after_the_first_are_named(tmp_path, name):
    frames = [Image.fromarray(np.full((H, W, 3), value, np.uint8)) for value in (10, 120, 240)]
    (tmp_path / "images").mkdir()
    frames[0].save(tmp_path / "images" / name, save_all=True, append_images=frames[1:])
    root = yolo(tmp_path, {name: "0 .5 .5 .1 .1\n"})
    (doubt,) = open_dataset(root).summary.findings
    assert "1 images have several pages or frames, of which only the first is read" in doubt.detail
    frames[0].save(tmp_path / "images" / name)
    assert not open_dataset(root).summary.findings


@pytest.mark.parametrize(
    ("box", "upright", "says"),
    [
        ((10, 10, 150, 90), False, "read as stored: that is the size"),
        ((10, 110, 90, 190), True, "turned upright: its boxes fit only so"),
        ((10, 10, 90, 90), False, "its boxes fit both ways, so look at them"),
        ((110, 110, 190, 190), False, "its boxes fit neither way, so look at them"),
    ],
)
def test_boxes_decide_the_orientation_where_the_stored_size_is_stated(tmp_path, box, upright, says):
    image = Image.fromarray(np.zeros((H, W, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    x1, y1, x2, y2 = box
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
    entry = {"id": 1, "file_name": "a.jpg", "width": W, "height": H}
    content = {"images": [entry], "annotations": [one], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    data = open_dataset(tmp_path / "x.json")
    (record,) = data.records
    assert record.upright == upright and record.size == ((W, H) if upright else (H, W))
    assert record.pixels().shape[:2] == record.size
    assert says in data.summary.of("orientation")[0].detail
    assert len(data.summary.of("doubtful")) == ("look at them" in says)


def test_a_size_with_width_and_height_swapped_is_named(tmp_path):
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(tmp_path / "a.png")
    entry = {"id": 1, "file_name": "a.png", "width": H, "height": W}
    content = {"images": [entry], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="width and height seem to be swapped"):
        open_dataset(tmp_path / "x.json")
