"""The report on a data set: counted by hand on a made-up set, and its pictures."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from yolojax.data import open_dataset, shapes_dataset, write_voc
from yolojax.data.check import check_dataset, class_bars, label_sheet, plot_labels, write_report
from yolojax.data.opening import read_dataset
from yolojax.errors import DataError
from yolojax.fonts import font_for


def made_up(tmp_path):
    """Three images: two small cats, one of them twice; a medium dog and a large difficult one; nothing."""
    base = shapes_dataset(3, size=(200, 300))
    objects = [
        ([[0, 0, 10, 10], [5, 5, 21, 21], [5, 5, 21, 21]], [0, 0, 0], [False] * 3),
        ([[0, 0, 32, 32], [0, 0, 200, 200]], [1, 1], [False, True]),
        ([], [], []),
    ]
    records = []
    for record, (boxes, classes, hard) in zip(base.records, objects, strict=True):
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        records.append(
            dataclasses.replace(
                record,
                boxes=boxes,
                classes=np.array(classes, np.int32),
                crowd=np.array(hard, bool),
                difficult=np.array(hard, bool),
                areas=((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).astype(np.float64),
                annotation_ids=np.arange(len(boxes)),
            )
        )
    names = ("cat", "dog", "emu", "fox", "gnu", "hen")
    write_voc({"train": dataclasses.replace(base, records=tuple(records), class_names=names)}, tmp_path)
    return open_dataset(tmp_path, "train", class_names=names, skip_bad=True)


def test_counts_of_a_made_up_set(tmp_path):
    calls = []
    report = check_dataset(made_up(tmp_path), progress=lambda *a: calls.append(a))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert (report.images, report.background, report.objects, report.crowd) == (3, 1, 5, 1)
    assert report.per_class == {"cat": 3, "dog": 1, "emu": 0, "fox": 0, "gnu": 0, "hen": 0}
    assert (report.small, report.medium, report.large) == (3, 1, 0)
    assert report.per_image == (0, 1, 2, 2.5, 3) and report.sides == (10, 16, 16, 32, 200)
    assert report.image_sizes == ((200, 300), (200, 300)) and report.identical == 1
    assert not report.errors and not report.summary.findings
    text = report.text()
    for line in (
        "images    3 (1 without objects), 300 x 200 pixels",
        "objects   5 (1 crowd or difficult)",
        "no errors",
    ):
        assert line in text
    assert text.endswith("no errors")
    assert [w.split(":")[0] for w in report.warnings] == [
        "4 of 6 classes have no object",
        "2 classes have fewer than 10 objects; their accuracy will mean little",
        "1 objects repeat another of the same class and box exactly",
        "1 of 3 images have no object",
    ]
    assert all(f"warning: {w}" in text for w in report.warnings)


def test_bars_are_in_proportion_and_never_vanish():
    lines = class_bars({"rare": 1, "common": 1000, "half": 500, "none": 0})
    assert lines == [
        "common  1000  66.6%  " + "#" * 40,
        "half     500  33.3%  " + "#" * 20,
        "rare       1   0.1%  #",
        "none       0   0.0%",
    ]
    assert class_bars({}) == []


def test_an_image_that_breaks_off_is_an_error_of_the_report(tmp_path):
    data = made_up(tmp_path)
    broken = tmp_path / "JPEGImages" / "train_000001.png"
    broken.write_bytes(broken.read_bytes()[:3000])
    report = check_dataset(data)
    assert report.images == 2 and [f.where for f in report.errors] == ["train_000001.png"]
    assert "no errors" not in report.text() and "train_000001.png: " in report.text()
    assert not check_dataset(data, decode=False).errors
    assert label_sheet(data).shape[1] < label_sheet(data.take([0, 0, 0])).shape[1]
    assert label_sheet(data.take([0, 1, 2]), images=2).shape == label_sheet(data.take([0, 2]), images=2).shape
    assert label_sheet(data.take([1, 2, 0]), images=1).shape == label_sheet(data.take([2]), images=1).shape
    with pytest.raises(DataError, match="none of the images"):
        label_sheet(data.take([1]))


def test_repairs_are_named_in_the_text_up_to_a_limit(tmp_path):
    data = made_up(tmp_path)
    xml = tmp_path / "Annotations" / "train_000000.xml"
    xml.write_text(xml.read_text().replace("<xmin>5</xmin>", "<xmin>21</xmin>"))
    report = check_dataset(open_dataset(tmp_path, "train", class_names=data.class_names))
    assert "boxes without extent dropped: 2" in report.text()
    assert f"{xml} object 2: box (21, 5, 21, 21) has no extent" in report.text()
    assert f"{xml} object 3" not in report.text(limit=1) and "... and 1 more" in report.text(limit=1)


def test_the_report_on_disk(tmp_path):
    data = shapes_dataset(5, size=(64, 96))
    report = check_dataset(data)
    paths = write_report(data, report, tmp_path / "deep" / "out")
    assert [p.name for p in paths] == ["summary.txt", "labels.png", "sheet.png"]
    assert paths[0].read_text().rstrip() == report.text(limit=1000).rstrip()
    for path in paths[1:]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert min(pixels.shape[:2]) > 200 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_background_images_alone_can_be_reported(tmp_path):
    data = shapes_dataset(60, size=(32, 32))
    empty = [i for i, r in enumerate(data.records) if not len(r.boxes)]
    report = check_dataset(data.take(empty))
    assert report.objects == 0 and report.background == len(empty) > 0 and report.sides == ()
    assert "box side  none" in report.text()
    assert len(write_report(data.take(empty), report, tmp_path)) == 3


def test_names_that_no_font_here_can_write_are_told_apart(tmp_path, monkeypatch):
    """matplotlib would warn, which is an error in tests, and draw the same empty boxes for all of them."""
    monkeypatch.setattr("yolojax.fonts._wide_files", tuple)
    names = ("\u732b", "\u72d7", "Gr\xf6\xdfe", "$x_1$", "a\nb", "x" * 500)
    data = dataclasses.replace(shapes_dataset(4, size=(64, 96)), class_names=names)
    plot_labels(data, check_dataset(data), tmp_path / "labels.png")
    shown = [font_for(name, 10)[1] for name in names[:-1]]
    assert shown == ["\\u732b", "\\u72d7", "Gr\xf6\xdfe", "$x_1$", "a b"]


def test_a_data_set_that_comes_to_nothing_says_why(tmp_path):
    """In every layout; what a list names and is not there is named by other tests."""
    path = tmp_path / "x.json"
    path.write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}')
    assert f"{path}: its list of images is empty" in check_dataset(read_dataset(path)).text()
    with pytest.raises(DataError, match=r"holds no usable image; .*x\.json: its list of images is empty"):
        open_dataset(path)

    write_voc({"train": shapes_dataset(1, size=(40, 40))}, tmp_path / "voc")
    listed = tmp_path / "voc" / "ImageSets" / "Main" / "train.txt"
    listed.write_text("\n")
    assert f"{listed}: the list is empty" in check_dataset(read_dataset(tmp_path / "voc", "train")).text()

    (tmp_path / "yolo" / "images").mkdir(parents=True)
    (tmp_path / "yolo" / "data.yaml").write_text("names: [a]\ntrain: images\n")
    (tmp_path / "yolo" / "images" / "a.psd").write_bytes(b"8BPS")
    with pytest.raises(DataError, match=r"no images in images of .*; what lies there is not read, such as .*a\.psd: "):
        open_dataset(tmp_path / "yolo")
