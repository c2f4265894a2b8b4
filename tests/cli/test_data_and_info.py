"""``yolojax data check`` and ``info``."""

import json

import pytest
from PIL import Image

from tests.cli.small_run import DATA
from yolojax import zoo
from yolojax.inference.predict import load_detector
from yolojax.weights.released import load_description, load_weights, save_released


def test_data_check(yolojax, tmp_path):
    ended = yolojax("data", "check", DATA, "--out", "look")
    assert ended.code == 0
    assert "images    8" in ended.out and "no errors" in ended.out
    assert {p.name for p in (tmp_path / "look").iterdir()} == {"summary.txt", "labels.png", "sheet.png"}


def test_data_check_names_every_error(yolojax, tmp_path):
    images, labels = tmp_path / "set" / "images", tmp_path / "set" / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 30)).save(images / f"{i}.png")
        (labels / f"{i}.txt").write_text("0 .5 .5 .2 .2\n")
    (labels / "1.txt").write_text("0 .5 .5 wide .2\n")
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:60])
    (tmp_path / "set" / "data.yaml").write_text("train: images\nval: images\nnames: [cell]\n")
    ended = yolojax("data", "check", "set", "--split", "train")
    assert ended.code == 2
    assert "1.txt" in ended.out and "2.png" in ended.out and "no errors" not in ended.out


def coco_file(folder, split, names, content=None):
    """A COCO file of images that are there, or of files with other content."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / split).mkdir()
    for name in names:
        if content is None:
            Image.new("RGB", (40, 30)).save(folder / split / name)
        else:
            (folder / split / name).write_bytes(content)
    images = [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)]
    whole = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(whole))


def test_data_check_names_every_error_where_nothing_can_be_used(yolojax, tmp_path):
    coco_file(tmp_path / "set", "train", ("a.png", "b.png"), b"junk")
    ended = yolojax("data", "check", "set", "--out", "look")
    assert ended.code == 2 and "images    none that can be used" in ended.out
    assert "unusable files or objects skipped: 2" in ended.out and "a.png" in ended.out and "b.png" in ended.out
    assert ended.out.endswith("look: summary.txt\n") and [p.name for p in (tmp_path / "look").iterdir()] == [
        "summary.txt"
    ]


def test_data_check_of_several_coco_files(yolojax, tmp_path):
    coco_file(tmp_path / "set", "train", ("a.png",))
    coco_file(tmp_path / "set", "val", ("b.png",), b"junk")
    ended = yolojax("data", "check", "set", "--out", "look")
    assert ended.code == 2 and "[train]" in ended.out and "[val]" in ended.out and ended.out.count("no errors") == 1
    assert {p.name for p in (tmp_path / "look" / "train").iterdir()} == {"summary.txt", "labels.png", "sheet.png"}
    assert yolojax("data", "check", "set", "--split", "train").code == 0


def test_anchors_of_a_data_set_without_objects(yolojax, tmp_path):
    coco_file(tmp_path / "set", "train", ("a.png",))
    assert "the data set holds no object; give another part" in yolojax("anchors", "set").err


def test_a_place_that_cannot_be_written_to_is_noticed_before_any_work(yolojax, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("yolojax.data.opening.read_dataset", None)
    for command in (["data", "check", "shapes"], ["data", "assign", "shapes"], ["train", "shapes"], ["demo"]):
        ended = yolojax(*command, "--out", "file/x")
        assert ended.code == 2 and "file/x cannot be made: file is not a folder; give another --out" in ended.err


@pytest.mark.parametrize("path", ["nowhere", "shapes:?count=0", "shapes:?size=99999999", "/dev/null", "~nobody-x/a"])
def test_data_that_cannot_be_opened(path, yolojax):
    ended = yolojax("data", "check", path)
    assert ended.code == 2 and ended.err.count("\n") == 1 and path.partition("?")[0] in ended.err


def test_info(trained, yolojax):
    ended = yolojax("info", trained)
    assert ended.code == 0 and ended.err == ""
    rows = dict(line.split(maxsplit=1) for line in ended.out.splitlines() if not line.startswith("written"))
    detector, variables = load_detector(trained)
    assert rows["detector"] == "compact" and rows["classes"].startswith("6: cross, ellipse")
    assert rows["input"].startswith("64 x 64") and rows["strides"] == "8"
    assert int(rows["parameters"].replace(",", "")) == zoo.parameter_count(variables)
    assert float(rows["work"].split()[0]) == pytest.approx(zoo.forward_flops(detector) / 1e9, rel=1e-2)
    assert rows["trained"] == "4 steps" and "AP50" in rows["measured"]


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("training", [1], "entry 'training' is [1], not named values"),
        ("versions", "9", "entry 'versions' is '9'"),
        ("training", {"validation": 3}, "entry 'validation' is 3"),
        ("detector", [], "has no 'detector' entry"),
        (
            "detector",
            {"name": "compact", "class_names": [1], "input_size": [64, 64], "options": {}},
            "does not make a detector",
        ),
        ("detector", {"name": "compact", "class_names": ["a"], "input_size": "x", "options": None}, "does not make"),
    ],
)
def test_info_of_a_malformed_description(part, value, said, trained, yolojax, tmp_path):
    weights, description = load_weights(trained / "best" / "weights.safetensors"), load_description(trained / "best")
    del description["format"]
    save_released(tmp_path / "odd", weights, {**description, part: value})
    ended = yolojax("info", "odd")
    assert ended.code == 2 and ended.out == "" and ended.err.startswith("yolojax: error: odd") and said in ended.err


def test_info_of_nothing(yolojax):
    ended = yolojax("info", "nowhere")
    assert ended.code == 2 and "nowhere: no such folder" in ended.err
