"""The command on a pair of Darknet files, which hold no run."""

import json

import pytest

from tests.darknet_cases import random_weights, yolov3_tiny
from yolojax.weights.darknet import Header, parse_cfg, stored_arrays, write_weights


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("darknet")
    text = yolov3_tiny((64, 64), 1 / 16, 6)
    cfg = parse_cfg(text)
    (folder / "tiny.cfg").write_text(text)
    (folder / "tiny.names").write_text("cross\nellipse\nrectangle\nring\nstar\ntriangle\n")
    write_weights(folder / "tiny.weights", cfg, random_weights(stored_arrays(cfg), 1), Header())
    return [str(folder / f"tiny.{suffix}") for suffix in ("cfg", "weights", "names")]


def test_info(files, yolojax):
    ended = yolojax("info", *files)
    assert ended.code == 0 and ended.err == ""
    rows = {line[:11].strip(): line[12:] for line in ended.out.splitlines()}
    assert rows["detector"] == "darknet" and files[1] in rows["read from"]
    assert rows["classes"].startswith("6: cross, ellipse") and rows["strides"] == "16, 32"


def test_val(files, yolojax, tmp_path):
    out = str(tmp_path / "out")
    data = ("--data", "shapes:?count=4", "--out", out, "--samples", "0")
    ended = yolojax("val", "--model", *files, *data)
    assert ended.code == 0, ended.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= metrics["AP"] < 0.5
    ended = yolojax("val", "--model", *files[:2], "--out", str(tmp_path / "other"))
    assert ended.code == 2 and "tiny.cfg is no run of ours; give --data" in ended.err


def test_what_is_wrong_with_the_files_is_one_line(files, yolojax, tmp_path):
    broken = tmp_path / "broken.cfg"
    with open(files[0]) as file:
        broken.write_text(file.read().replace("[upsample]", "[upsamble]"))
    ended = yolojax("info", str(broken), files[1])
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1
    assert "broken.cfg: line " in ended.err and "[upsamble] is not supported" in ended.err
    ended = yolojax("info", files[0], files[2], str(tmp_path / "none.weights"))
    assert ended.code == 2 and "none.weights: cannot be read" in ended.err
