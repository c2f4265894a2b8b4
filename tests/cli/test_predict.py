"""``yolojax predict``: drawings, JSON, and photos that cannot be read."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yolojax.data import open_dataset
from yolojax.data.video import Video, video_writer


@pytest.fixture(autouse=True)
def compile_once(load_once, monkeypatch):
    """Most of a command's time is compilation; the detector is the same in all these tests."""
    monkeypatch.setattr("yolojax.inference.predict.load", load_once)


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
    own = {"size": None, "dtype": "float32", "max_detections": None, "batch_size": 1, "tta": None, "suppress": None}
    own |= {"runtime": None}
    result = load_once(trained, **own)(folder / "a.png", confidence=0.01)
    assert told == {"image": str(folder / "a.png"), **result.as_dict()}
    drawn = np.asarray(Image.open(tmp_path / "predictions" / "a.png"))
    np.testing.assert_array_equal(drawn, result.plot())


def test_every_photo_of_a_folder(trained, folder, yolojax, tmp_path):
    ended = yolojax("predict", folder, folder / "a.jpg", "--model", trained, "--out", "found")
    assert ended.code == 0
    assert {p.name for p in (tmp_path / "found").iterdir()} == {"a.jpg", "a_2.png", "b.png", "predictions.json"}
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
    assert "missing.jpg: no such file; check the path" in ended.err and "annotation" not in ended.err
    assert "Traceback" not in ended.err


def test_a_folder_is_done_in_batches_and_in_order(trained, folder, yolojax, tmp_path):
    """More photos than are read ahead of the network at a time, bad ones among them."""
    photo = (folder / "a.jpg").read_bytes()
    for number in range(30):
        (folder / f"many{number:02d}.jpg").write_bytes(photo[: 300 if number in (3, 17) else None])
    ended = yolojax("predict", folder, "--model", trained, "--out", "found", "--json", "--txt", "--conf", ".01")
    assert ended.code == 2 and "2 of 33 photos could not be read" in ended.err
    entries = json.loads(ended.out)
    assert entries == json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert [Path(e["image"]).name for e in entries] == sorted(
        p.name for p in folder.iterdir() if p.suffix != ".txt" and p.is_file()
    )
    many = [e for e in entries if "many" in e["image"]]
    assert [number for number, e in enumerate(many) if "error" in e] == [3, 17]
    assert len({json.dumps(e["detections"]) for e in many if "error" not in e}) == 1
    assert len(list((tmp_path / "found" / "labels").iterdir())) == 31
    assert not list((tmp_path / "found").glob(".*"))


def test_augmentations_of_a_photo(trained, folder, yolojax):
    options = ("--tta-scales", "1", "1.5", "--tta-fusion", "wbf")
    ended = yolojax("predict", folder / "a.png", "--model", trained, "--json", "--conf", ".01", "--tta", *options)
    assert ended.code == 0 and json.loads(ended.out)[0]["detections"]
    assert "4 augmentations, 64 x 64, 96 x 96 pixels, each also mirrored, combined by weighted box fusion" in ended.err
    for wrong, said in ((options, "give --tta as well"), (("--tta", "--tta-scales", "0"), "0 is out of range")):
        ended = yolojax("predict", folder / "a.png", "--model", trained, *wrong)
        assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err


def test_suppression_by_name(trained, folder, yolojax):
    def found(*options):
        ended = yolojax("predict", folder / "a.png", "--model", trained, "--json", "--conf", ".01", *options)
        assert ended.code == 0, ended.err
        return [(d["score"], d["box"]) for d in json.loads(ended.out)[0]["detections"]]

    plain, named = found(), found("--suppress", "nms", "--iou", ".45")
    assert plain == named
    few, many = (found("--suppress", "fast", "--suppress-parameter", value) for value in (".1", ".9"))
    assert len(few) < len(many)


def test_a_photo_whose_files_cannot_be_written_is_named_and_the_others_done(trained, folder, yolojax, monkeypatch):
    save, failing = Image.Image.save, "a.jpg"

    def refuse(self, path, *args, **kwargs):
        if str(path).endswith(failing):
            raise OSError("encoder error -2 when writing image file")
        return save(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", refuse)
    ended = yolojax("predict", folder, "--model", trained, "--out", "found")
    assert ended.code == 2 and "not written: " in ended.err and "a.jpg: its files cannot be written (enc" in ended.err
    first, *others = json.loads(Path("found/predictions.json").read_text())
    assert {"detections", "error"} <= set(first) and not any("error" in entry for entry in others)
    assert {p.name for p in Path("found").iterdir()} == {"a_2.png", "b.png", "predictions.json"}


def test_what_jpeg_cannot_hold_becomes_png(trained, folder, yolojax):
    """Its sides end at 65500 pixels."""
    Image.new("RGB", (66000, 1)).save(folder / "wide.png")
    (folder / "wide.png").rename(folder / "wide.jpg")
    ended = yolojax("predict", folder / "wide.jpg", "--model", trained, "--out", "found")
    assert ended.code == 0 and {p.name for p in Path("found").iterdir()} == {"wide.png", "predictions.json"}


def test_without_standard_input(trained, folder, yolojax, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # as where the command was started with it closed
    assert yolojax("predict", folder / "a.png", "--model", trained, "--json").code == 0
    ended = yolojax("predict", "-", "--model", trained)
    assert ended.code == 2 and "standard input is closed" in ended.err


def test_labels_and_crops_instead_of_drawings(trained, folder, yolojax, tmp_path):
    ended = yolojax(
        *("predict", folder / "a.jpg", folder / "a.png", "--txt", "--crop", "--conf", ".01", "--max-det", "3"),
        *("--model", trained),
    )
    assert ended.code == 0 and ended.out.splitlines()[-1] == "predictions: predictions.json and labels/ and crops/"
    made = tmp_path / "predictions"
    assert {p.name for p in made.iterdir()} == {"predictions.json", "labels", "crops"}
    assert {p.name for p in (made / "labels").iterdir()} == {"a.txt", "a_2.txt"}
    entries = json.loads((made / "predictions.json").read_text())
    for entry, name in zip(entries, ("a.txt", "a_2.txt"), strict=True):
        lines = [line.split() for line in (made / "labels" / name).read_text().splitlines()]
        assert [int(line[0]) for line in lines] == [d["class_index"] for d in entry["detections"]]
        x, y, w, h = np.array(lines[0][1:5], float) * ([entry["width"], entry["height"]] * 2)
        np.testing.assert_allclose(
            [x - w / 2, y - h / 2, x + w / 2, y + h / 2], entry["detections"][0]["box"], atol=1e-3
        )
    found = [d["class"] for entry in entries for d in entry["detections"]]
    assert sorted(p.parent.name for p in (made / "crops").glob("*/*.jpg")) == sorted(found)


def test_patterns_classes_and_photos_after_the_model(trained, folder, yolojax):
    arguments = ("--conf", ".01", "--json", "--classes", "ellipse", "2", "--model", trained, f"{folder}/**/*.png")
    entries = json.loads(yolojax("predict", *arguments).out)
    assert [e["image"] for e in entries] == [str(folder / "a.png"), str(folder / "inner" / "c.png")]
    kinds = {(d["class"], d["class_index"]) for e in entries for d in e["detections"]}
    assert kinds and {index for _, index in kinds} <= {1, 2}


def test_standard_input_is_a_photo_or_names(trained, folder, yolojax, monkeypatch):
    def give(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    give((folder / "a.png").read_bytes())
    (entry,) = json.loads(yolojax("predict", "-", "--model", trained, "--json").out)
    assert (entry["image"], entry["height"], entry["width"]) == ("standard input", 40, 96)
    give(f"{folder / 'a.png'}\n\n{folder / 'b.BMP'}\n".encode())
    entries = json.loads(yolojax("predict", "-", "--model", trained, "--json").out)
    assert [e["image"] for e in entries] == [str(folder / "a.png"), str(folder / "b.BMP")]
    give(b"")
    assert "standard input is empty" in yolojax("predict", "-", "--model", trained).err
    give(b"\xff\xd8\xff\xe0 no photo")
    ended = yolojax("predict", "-", "--model", trained, "--json")
    assert ended.code == 2 and "standard input: damaged image" in ended.err


def test_video_without_opencv_says_what_to_install(trained, yolojax, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "film.mp4").write_bytes(b"")
    ended = yolojax("predict", "film.mp4", "--model", trained, "--json")
    assert (
        ended.code == 2 and "film.mp4: video needs OpenCV; install it with: pip install 'yolojax[video]'" in ended.err
    )


def test_every_frame_of_a_video(trained, yolojax, tmp_path):
    pytest.importorskip("cv2")
    with video_writer(tmp_path / "film.mp4", 10.0) as append:
        for i in range(5):
            append(np.full((48, 64, 3), 40 * i, np.uint8))
    ended = yolojax("predict", "film.mp4", "--model", trained, "--save", "--txt", "--conf", ".01")
    assert ended.code == 0 and "film.mp4: 5 frames; at most on one: " in ended.out
    (entry,) = json.loads((tmp_path / "predictions" / "predictions.json").read_text())
    assert entry["frames_per_second"] == 10 and len(entry["frames"]) == 5
    assert len(list((tmp_path / "predictions" / "labels").glob("film_00000?.txt"))) == 5
    drawn = [frame.image for frame in Video(tmp_path / "predictions" / "film.mp4")]
    assert len(drawn) == 5 and min(drawn[0].shape[:2]) >= 240
    (tmp_path / "film.mp4").write_bytes(b"no film")
    ended = yolojax("predict", "film.mp4", "missing.mp4", "--model", trained, "--json")
    assert ended.code == 2 and [set(e) for e in json.loads(ended.out)] == [{"video", "error"}] * 2


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
        (["photos", "--model", "RUN", "--classes", "dragon"], "'dragon' is none of the 6 classes"),
        (["photos", "--model", "RUN", "--size", "100"], "size = 100: give a multiple of 8, such as 96 or 104"),
        (["photos", "--model", "RUN", "--suppress-parameter", ".3"], "give --suppress as well"),
        (
            ["photos", "--model", "RUN", "--suppress", "nms", "--suppress-parameter", ".3"],
            "the threshold of nms is iou",
        ),
        (["photos", "--model", "RUN", "--suppress", "fast", "--suppress-parameter", "2"], "above 0, at most 1"),
        (["photos", "--model", "RUN", "--suppress", "soft-gaussian", "--iou", ".5"], "is the threshold of greedy"),
        (["no*.png", "--model", "RUN"], "no image matches this pattern"),
        (["photos", "--model", "RUN", "--out", "photos/notes.txt"], "photos/notes.txt exists already"),
    ],
)
def test_errors_are_one_line(arguments, said, trained, folder, yolojax, tmp_path):
    (tmp_path / "empty").mkdir()
    ended = yolojax("predict", *[str(trained) if a == "RUN" else a for a in arguments])
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and said in ended.err
