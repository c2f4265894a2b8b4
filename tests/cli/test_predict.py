"""``yolojax predict``: drawings, JSON, and photos that cannot be read."""

import json

import numpy as np
import pytest
from PIL import Image

from yolojax.data import open_dataset


@pytest.fixture(autouse=True)
def compile_once(load_once, monkeypatch):
    """Most of a command's time is compilation; the detector is the same in all these tests."""
    monkeypatch.setattr("yolojax.predict.load", load_once)


@pytest.fixture
def folder(tmp_path):
    """Photos of several sizes and formats in a folder, beside files that are none."""
    photos = tmp_path / "photos"
    (photos / "inner").mkdir(parents=True)
    record = open_dataset("shapes:val?count=1&size=96").records[0].pixels()
    Image.fromarray(record).save(photos / "a.jpg")
    Image.fromarray(record[:40]).save(photos / "a.png")
    Image.fromarray(record[:, :50]).save(photos / "b.BMP")
    Image.fromarray(record).save(photos / "inner" / "c.png")
    (photos / "notes.txt").write_text("no photo")
    return photos


def test_a_photo_is_drawn_and_told(trained, folder, yolojax, tmp_path, load_once):
    ended = yolojax("predict", folder / "a.png", "--model", trained, "--confidence", ".01")
    assert ended.code == 0
    assert ended.out.splitlines()[0].startswith(f"{folder / 'a.png'}: ")
    assert {p.name for p in (tmp_path / "predictions").iterdir()} == {"a.png", "predictions.json"}
    (told,) = json.loads((tmp_path / "predictions" / "predictions.json").read_text())
    result = load_once(trained, max_detections=100, batch_size=1)(folder / "a.png", confidence=0.01)
    assert told == {"image": str(folder / "a.png"), **result.as_dict()}
    drawn = np.asarray(Image.open(tmp_path / "predictions" / "a.png"))
    np.testing.assert_array_equal(drawn, result.draw(np.asarray(Image.open(folder / "a.png"))))


def test_every_photo_of_a_folder(trained, folder, yolojax, tmp_path):
    ended = yolojax("predict", folder, folder / "a.jpg", "--model", trained, "--out", "found")
    assert ended.code == 0
    assert {p.name for p in (tmp_path / "found").iterdir()} == {"a.jpg", "a.png", "b.png", "predictions.json"}
    entries = json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert [e["image"] for e in entries] == [str(folder / n) for n in ("a.jpg", "a.png", "b.BMP")]
    assert [(e["height"], e["width"]) for e in entries] == [(96, 96), (40, 96), (96, 50)]


def test_json_is_all_that_is_printed(trained, folder, yolojax, tmp_path):
    ended = yolojax("predict", folder, "--model", trained, "--json", "--confidence", ".01", "--max-detections", "2")
    assert ended.code == 0
    entries = json.loads(ended.out)
    assert len(entries) == 3 and all(len(e["detections"]) == 2 for e in entries)
    assert "raise --max-detections" in ended.err
    assert not (tmp_path / "predictions").exists()
    with_files = yolojax("predict", folder, "--model", trained, "--json", "--out", "found")
    assert json.loads(with_files.out) == json.loads((tmp_path / "found" / "predictions.json").read_text())


def test_photos_that_cannot_be_read_are_named_and_the_others_done(trained, folder, yolojax):
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    ended = yolojax("predict", folder, "missing.jpg", "--model", trained, "--json")
    assert ended.code == 2
    entries = json.loads(ended.out)
    assert len(entries) == 5
    assert [e["image"].rpartition("/")[2] for e in entries if "error" in e] == ["broken.jpg", "missing.jpg"]
    assert "2 of 5 photos could not be read" in ended.err and "broken.jpg" in ended.err
    assert "Traceback" not in ended.err


def test_drawings_of_the_same_name_do_not_overwrite_each_other(trained, folder, yolojax, tmp_path):
    ended = yolojax("predict", folder / "a.png", folder / "b.BMP", folder / "inner", "--model", trained)
    assert ended.code == 0
    (folder / "inner" / "a.png").write_bytes((folder / "inner" / "c.png").read_bytes())
    yolojax("predict", folder / "a.png", folder / "inner", "--model", trained, "--out", "twice")
    assert {p.name for p in (tmp_path / "twice").iterdir()} == {"a.png", "a_2.png", "c.png", "predictions.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "RUN"], "which photos?"),
        (["empty", "--model", "RUN"], "empty: no image in this folder"),
        (["photos", "--model", "nowhere"], "nowhere: no such folder"),
        (["photos", "--model", "RUN", "--confidence", "2"], "confidence = 2.0"),
        (["photos", "--model", "RUN", "--iou", "0"], "iou = 0.0"),
        (["photos", "--model", "RUN", "--max-detections", "0"], "max_detections = 0"),
        (["photos", "--model", "RUN", "--out", "photos/notes.txt"], "photos/notes.txt exists already"),
    ],
)
def test_errors_are_one_line(arguments, said, trained, folder, yolojax, tmp_path):
    (tmp_path / "empty").mkdir()
    ended = yolojax("predict", *[str(trained) if a == "RUN" else a for a in arguments])
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and said in ended.err
