"""``yolojax export``, and ``predict``, ``val`` and ``info`` on what it wrote."""

import json

import numpy as np
import pytest
from PIL import Image

from yolojax.data import open_dataset

pytest.importorskip("onnxruntime")

CHEAP = ["--conf", ".01", "--max-det", "20"]


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """Both formats of the small run."""
    from yolojax.cli import main

    folder = tmp_path_factory.mktemp("exported")
    for kind in ("onnx", "stablehlo"):
        arguments = ["export", "--model", str(trained), "--format", kind, "--out", str(folder / f"x.{kind}"), *CHEAP]
        assert main(arguments) == 0
    return folder


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(open_dataset("shapes:val?count=1&size=96").records[0].pixels()).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_predict_finds_the_same(trained, files, photo, yolojax):
    told = {}
    for model in (trained, files / "x.onnx", files / "x.stablehlo"):
        ended = yolojax("predict", photo, "--model", model, "--json", *CHEAP)
        assert ended.code == 0, ended.err
        told[model] = json.loads(ended.out)[0]["detections"]
    want, *others = told.values()
    assert want
    for got in others:
        assert [x["class"] for x in got] == [x["class"] for x in want]
        np.testing.assert_allclose([x["score"] for x in got], [x["score"] for x in want], atol=1e-4)
        np.testing.assert_allclose([x["box"] for x in got], [x["box"] for x in want], atol=0.05)


def test_val_measures_what_the_file_gives(files, yolojax):
    ended = yolojax(
        "val", "--model", files / "x.onnx", "--data", "shapes:val?count=3&size=64", "--validation.samples", 0
    )
    assert ended.code == 0, ended.err
    assert "from the score 0.01 on" in ended.err and "AP" in ended.out


def test_info_tells_what_a_file_is(files, yolojax):
    for kind in ("onnx", "stablehlo"):
        ended = yolojax("info", files / f"x.{kind}")
        assert ended.code == 0, ended.err
        assert "uint8" in ended.out and "64 x 64" in ended.out and "confidence 0.01" in ended.out


def test_what_is_wrong_is_one_line(trained, files, yolojax, photo, tmp_path):
    (tmp_path / "taken.onnx").write_text("")
    export = ["export", "--model", trained]
    for arguments, said in (
        ([*export, "--format", "tflite"], "stablehlo"),
        ([*export, "--format", "onnx", "--size", "100"], "give a multiple of"),
        ([*export, "--format", "onnx", "--out", "taken.onnx"], "exists already"),
        ([*export, "--format", "onnx", "--out", "x.stablehlo"], "ends in .onnx"),
        ([*export, "--format", "onnx", "--batch", "some"], "or dynamic"),
        ([*export, "--format", "stablehlo", "--raw", "--conf", ".3"], "raw candidates"),
        ([*export, "--format", "stablehlo", "--int8", "weights"], "for the format onnx"),
        ([*export, "--format", "onnx", "--int8", "weights"], "give --data"),
        ([*export, "--format", "onnx", "--int8", "static", "--data", "x"], "--calibrate"),
        ([*export, "--format", "onnx", "--calibrate", "."], "belongs to --int8"),
        (["export", "--model", files / "x.onnx", "--format", "onnx"], "exported already"),
        (["predict", photo, "--model", files / "x.onnx", "--iou", ".3"], "suppresses by itself"),
        (["predict", photo, "--model", files / "x.onnx", "--conf", ".001"], "from 0.01 on"),
        (["predict", photo, "--model", trained, "--runtime", "openvino"], "is run by JAX"),
        (["predict", photo, "--model", tmp_path / "taken.onnx"], "cannot read it"),
    ):
        ended = yolojax(*arguments)
        assert ended.code == 2 and said in ended.err.replace("\n", " "), (arguments, ended.err)
        if "tflite" not in arguments:
            assert len(ended.err.strip().splitlines()) == 1, ended.err


def test_a_missing_package_is_named(trained, yolojax, monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name in ("onnx", "flatbuffers"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for kind in ("onnx", "stablehlo"):
        ended = yolojax("export", "--model", trained, "--format", kind)
        assert ended.code == 2 and "pip install 'yolojax[export]'" in ended.err


def test_eight_bits_are_measured_first(trained, yolojax, tmp_path):
    export = ["export", "--model", trained, "--format", "onnx", "--data", "shapes:val?count=3&size=64", "--int8"]
    ended = yolojax(*export, "weights", "--out", "w.onnx")
    assert ended.code == 0, ended.err
    assert "before" in ended.out and (tmp_path / "w.onnx").exists()
