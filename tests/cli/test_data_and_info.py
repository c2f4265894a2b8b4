"""``yolojax data check`` and ``info``."""

import pytest
from PIL import Image

from tests.cli.small_run import DATA
from yolojax import zoo
from yolojax.predict import load_detector


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


@pytest.mark.parametrize("path", ["nowhere", "shapes:?count=0"])
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


def test_info_of_nothing(yolojax):
    ended = yolojax("info", "nowhere")
    assert ended.code == 2 and "nowhere: no such folder" in ended.err
