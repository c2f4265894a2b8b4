"""``yolojax data convert``: what the layouts have in common survives any way round, and what is lost is named."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from yolojax.data import list_splits, lost_in, open_dataset, shapes_dataset, write_coco

WAYS = [("coco", "yolo"), ("yolo", "voc"), ("voc", "coco"), ("coco", "voc"), ("voc", "yolo"), ("yolo", "coco")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two parts, JPEG files and a PNG."""
    folder = tmp_path_factory.mktemp("photos")
    write_coco(
        {"train": shapes_dataset(3, size=(32, 48)), "val": shapes_dataset(1, size=(32, 48), split="val")}, folder
    )
    for path in sorted((folder / "images" / "train").iterdir())[:2]:
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
        listing = folder / "annotations" / "instances_train.json"
        listing.write_text(listing.read_text().replace(path.name, path.with_suffix(".jpg").name))
    return folder


def same(one, other):
    """Both data sets hold the same objects and pixels, whatever the order of their images and classes."""
    key = lambda record: record.file_name.rpartition("/")[2]  # noqa: E731
    for a, b in zip(sorted(one.records, key=key), sorted(other.records, key=key), strict=True):
        assert key(a) == key(b) and a.size == b.size
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
        assert [one.class_names[i] for i in a.classes] == [other.class_names[i] for i in b.classes]
        if str(a.source).endswith(".jpg"):
            assert a.source.read_bytes() == b.source.read_bytes()
        np.testing.assert_array_equal(a.pixels(), b.pixels())


@pytest.mark.parametrize(("first", "second"), WAYS)
def test_objects_and_pixels_survive(first, second, photos, yolojax, tmp_path):
    assert yolojax("data", "convert", photos, "--out", "one", "--to", first).code == 0
    ended = yolojax("data", "convert", "one", "--out", "two", "--to", second)
    assert ended.code == 0 and f"in the layout {second.upper()}" in ended.out
    assert set(list_splits("two")) == {"train", "val"}
    for split in ("train", "val"):
        same(open_dataset(photos, split), open_dataset(tmp_path / "two", split))


def test_what_is_lost_is_counted(photos, yolojax, tmp_path):
    listing = photos / "annotations" / "instances_train.json"
    content = json.loads(listing.read_text())
    content["annotations"][0] |= {"iscrowd": 1, "segmentation": [[0, 0, 5, 0, 5, 5]], "area": 3.0}
    marked = tmp_path / "marked"
    (marked / "annotations").mkdir(parents=True)
    (marked / "annotations" / "instances_train.json").write_text(json.dumps(content))
    images = ["--images", photos / "images" / "train"]
    to_yolo = yolojax("data", "convert", marked, "--out", "y", "--to", "yolo", *images)
    assert to_yolo.code == 0 and "1 crowd regions are left out" in to_yolo.out
    assert "1 areas of masks" in to_yolo.out and "1 objects have polygons" in to_yolo.out
    to_voc = yolojax("data", "convert", marked, "--out", "v", "--to", "voc", *images)
    assert to_voc.code == 0 and "1 crowd regions become difficult" in to_voc.out
    back = yolojax("data", "convert", "v", "--out", "b", "--to", "yolo")
    assert back.code == 0 and "1 difficult objects become ordinary ones" in back.out
    assert "pose, truncated" in back.out
    assert "not kept" not in yolojax("data", "convert", marked, "--out", "c", "--to", "coco", *images).out


def test_nothing_is_lost_from_coco_to_coco():
    assert lost_in(shapes_dataset(2, size=(32, 32)), "coco") == []


def test_a_folder_that_is_in_use_is_refused(photos, yolojax):
    ended = yolojax("data", "convert", photos, "--out", photos, "--to", "voc")
    assert ended.code == 2 and "exists already and is not empty" in ended.err


def test_photos_turned_by_exif_are_written_upright(photos, yolojax, tmp_path):
    source = tmp_path / "turned"
    write_coco({"train": shapes_dataset(1, size=(32, 48))}, source)
    (path,) = (source / "images" / "train").iterdir()
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(np.asarray(Image.open(path))[::-1, ::-1]).save(path, exif=exif)
    assert yolojax("data", "convert", source, "--out", "flat", "--to", "yolo").code == 0
    same(open_dataset(source, "train"), open_dataset(tmp_path / "flat", "train"))
    (written,) = (tmp_path / "flat" / "images" / "train").iterdir()
    assert Image.open(written).getexif().get(274, 1) == 1


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1bb.png", os.fsdecode(b"a\xff.png")])
@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_names_that_no_annotation_can_hold_are_refused(name, layout, yolojax, tmp_path):
    """They would be written into files that are not read again."""
    (tmp_path / "set" / "images").mkdir(parents=True)
    image = tmp_path / "set" / "images" / name
    try:
        Image.new("RGB", (20, 10)).save(image)
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    (tmp_path / "set" / "images" / f"{name[:-4]}.txt").write_text("0 .5 .5 .4 .4\n")
    (tmp_path / "set" / "data.yaml").write_text("train: images\nnames: [cat]\n")
    ended = yolojax("data", "convert", "set", "--out", "new", "--to", layout)
    assert ended.code == 2 and "has characters that no file with annotations can hold; rename the image" in ended.err
    assert yolojax("data", "convert", "set", "--out", "yolo", "--to", "yolo").code == 0
    assert open_dataset(tmp_path / "yolo").object_count == 1
