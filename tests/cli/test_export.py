"""``yolojax export``, and ``predict``, ``val`` and ``info`` on what it wrote."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from tests.export.conftest import SMALL, open_shapes, same_set, stirred
from yolojax import zoo
from yolojax.data import open_dataset
from yolojax.weights.released import save_released

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CHEAP = ["--conf", ".01", "--max-det", "20"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A released detector of 64 x 64 pixels with random parameters, which finds much, each with a score of its own."""
    names = open_dataset("shapes:val?count=1&size=64").class_names
    detector = zoo.build("compact", names, (64, 64), **SMALL)
    folder = tmp_path_factory.mktemp("released")
    variables = jax.device_get(stirred(detector.init(jax.random.key(0))))
    save_released(folder, variables, {"detector": zoo.describe(detector)})
    return folder


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """Both formats."""
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
    want, *others = (
        (np.array([x["box"] for x in found]), np.array([x["score"] for x in found]), [x["class"] for x in found])
        for found in told.values()
    )
    assert len(want[1]) == 20
    for got in others:
        same_set(want, got)


def test_val_measures_what_the_file_gives(files, yolojax):
    data = "shapes:val?count=3&size=64"
    ended = yolojax("val", "--model", files / "x.onnx", "--data", data, "--runtime", "onnxruntime", "--samples", 0)
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
    int8 = [*export, "--format", "onnx", "--data", "x", "--int8"]
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
        ([*int8, "static", "--calibrate", "nowhere"], "--calibrate nowhere: no such folder"),
        ([*int8, "weights", "--half"], "two forms of the same weights"),
        ([*int8, "static", "--calibrate", ".", "--letterbox"], "leave --letterbox out"),
        ([*export, "--format", "onnx", "--calibrate", "."], "belongs to --int8 static"),
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
    for kind, mend in {"onnx": "pip install 'yolojax[export]'", "stablehlo": "pip install flatbuffers"}.items():
        ended = yolojax("export", "--model", trained, "--format", kind)
        assert ended.code == 2 and mend in ended.err


@pytest.mark.slow  # two programs of evaluation, twice
def test_eight_bits_are_measured_first(trained, yolojax, tmp_path, photo):
    export = ["export", "--model", trained, "--format", "onnx", "--data", "shapes:val?count=3&size=64", "--int8"]
    for kind in (["weights"], ["static", "--calibrate", photo], ["static-7bit", "--calibrate", photo]):
        out = f"{kind[0]}.onnx"
        with open_shapes():
            ended = yolojax(*export, *kind, "--out", out)
        assert ended.code == 0, ended.err
        assert re.search(r"AP [\d.]+ before, [\d.]+ after \(3 images\)", ended.out) and (tmp_path / out).exists()
        model = onnx.load(tmp_path / out)
        onnx.checker.check_model(model, full_check=True)
        kinds = {node.op_type for node in model.graph.node}
        assert "DequantizeLinear" in kinds and ("QuantizeLinear" in kinds) == (kind[0] != "weights")
        largest = max(
            int(np.abs(onnx.numpy_helper.to_array(one).astype(int)).max())
            for one in model.graph.initializer
            if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4
        )
        assert largest == 64 if kind[0] == "static-7bit" else 126 <= largest <= 128
        told = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(told["yolojax"])["facts"]["int8"] == kind[0]


def test_eight_bits_that_lose_too_much_are_not_written(trained, yolojax, tmp_path, monkeypatch):
    """The AP is what the evaluation says: .5 before, and .48 after."""
    found = iter([0.5, 0.48, 0.5, 0.48])
    monkeypatch.setattr(
        "yolojax.inference.evaluate.evaluate", lambda *_, **__: SimpleNamespace(result=SimpleNamespace(AP=next(found)))
    )
    export = ["export", "--model", trained, "--format", "onnx", "--data", "shapes:val?count=3&size=64"]
    export += ["--int8", "weights", "--out", "w.onnx"]
    with open_shapes():
        ended = yolojax(*export)
        assert ended.code == 2 and "lost more than --max-loss 0.01: AP 0.5000 before, 0.4800 after" in ended.err
        assert not (tmp_path / "w.onnx").exists()
        ended = yolojax(*export, "--max-loss", ".03")
    assert ended.code == 0 and (tmp_path / "w.onnx").exists(), ended.err
