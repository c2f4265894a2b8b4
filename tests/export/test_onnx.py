"""ONNX files: the detector's own detections from onnxruntime and OpenVINO, in any batch, and what the files say."""

import ast
import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.export.conftest import NAMES, SIZE, open_shapes, some_images
from yolojax.data import shapes_dataset
from yolojax.detect import detect
from yolojax.errors import CheckpointError, ConfigError
from yolojax.export import ExportSettings, load_exported, to_onnx
from yolojax.inference.evaluate import evaluate
from yolojax.inference.loading import load_detector
from yolojax.inference.predict import Predictor

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SETTINGS = ExportSettings(batch=None, confidence=0.2, iou=0.5, max_detections=20)


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    with open_shapes():
        path.write_bytes(to_onnx(*small, SETTINGS))
    return path


@pytest.fixture(scope="module")
def expected(small):
    detector, variables = small
    images = some_images(3)
    found = jax.jit(lambda v, x: detect(detector, detector.fold(v), x, 0.2, 0.5, max_detections=20))(variables, images)
    return images, jax.device_get(found)


def same(found: dict[str, np.ndarray], want, rows: slice = slice(None)) -> None:
    np.testing.assert_array_equal(found["count"], want.valid[rows].sum(-1))
    np.testing.assert_array_equal(found["classes"], want.classes[rows])
    np.testing.assert_allclose(found["scores"], want.scores[rows], atol=1e-5)
    np.testing.assert_allclose(found["boxes"], want.boxes[rows], atol=0.01)


def run(path, images) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))


def test_detections_in_any_batch(file, expected):
    images, want = expected
    assert want.valid.sum() > 10
    same(run(file, images), want)
    same(run(file, images[1:2]), want, slice(1, 2))


def test_openvino(file, expected):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images, want = expected
    for rows in (slice(None), slice(0, 1)):
        found = compiled(images[rows])
        same({port.get_any_name(): found[port] for port in compiled.outputs}, want, rows)


def test_what_the_file_says(file, small):
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert ast.literal_eval(told["names"]) == dict(enumerate(NAMES))
    assert json.loads(told["imgsz"]) == list(SIZE) and told["task"] == "detect" and told["stride"] == "32"
    assert json.loads(told["yolojax"])["thresholds"]["iou"] == 0.5
    kinds = {node.op_type for node in model.graph.node}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    # Biases are part of the convolutions, images are turned once.
    assert all(len(node.input) == 3 for node in convolutions) and "BatchNormalization" not in kinds
    before = model.graph.node[: [n.op_type for n in model.graph.node].index("Conv")]
    assert sum(node.op_type == "Transpose" for node in before) == 1
    (port,) = model.graph.input
    assert [d.dim_value or d.dim_param for d in port.type.tensor_type.shape.dim] == ["batch", *SIZE, 3]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_same_predictor(file, small, runtime):
    pytest.importorskip(runtime)
    detector, variables = small
    photos = [some_images(1, (50, 120), 4)[0], some_images(1, (90, 60), 5)[0], some_images(1, SIZE, 6)[0]]
    ours = Predictor(detector, variables, max_detections=20, batch_size=2)(photos, confidence=0.25, iou=0.5)
    theirs = Predictor(*load_exported(file, runtime=runtime), batch_size=2)(photos, confidence=0.25)
    for a, b in zip(ours, theirs, strict=True):
        assert len(a) and len(a) == len(b)
        np.testing.assert_array_equal(a.classes, b.classes)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.02)


def test_raw_candidates_are_measured_like_the_detector(small, tmp_path):
    path = tmp_path / "raw.onnx"
    path.write_bytes(to_onnx(*small, ExportSettings(batch=2, raw=True)))
    assert run(path, some_images(2))["scores"].shape[2] == 3
    data = shapes_dataset(5, size=SIZE)
    want, got = (evaluate(model, data) for model in (small, load_detector(path)))
    assert len(want.detections) == len(got.detections) > 20
    np.testing.assert_allclose([x["score"] for x in want.detections], [x["score"] for x in got.detections], atol=1e-5)


def test_photos_of_any_size(small, tmp_path):
    path = tmp_path / "photos.onnx"
    settings = replace(SETTINGS, batch=1, letterbox=True)
    path.write_bytes(to_onnx(*small, settings))
    predictor = Predictor(*small, max_detections=20)
    for seed, size in enumerate([(50, 120), (200, 150)]):
        photo = some_images(1, size, seed + 7)[0]
        found = {name: value[0] for name, value in run(path, photo[None]).items()}
        want = predictor(photo, confidence=0.2, iou=0.5)
        assert abs(int(found["count"]) - len(want)) <= 1 and len(want) > 2
        np.testing.assert_allclose(found["scores"][:3], want.scores[:3], atol=0.01)
        np.testing.assert_allclose(found["boxes"][:3], want.boxes[:3], atol=0.5)


def test_weights_of_eight_bits(small, tmp_path, file, expected):
    from yolojax.export.quantise import to_int8_onnx

    path = tmp_path / "int8.onnx"
    with open_shapes():
        path.write_bytes(to_int8_onnx(*small, SETTINGS, "weights"))
    onnx.checker.check_model(onnx.load(path), full_check=True)
    kernels = [tensor for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4]
    assert sum(tensor.data_type == onnx.TensorProto.INT8 for tensor in kernels) > 5
    assert not [tensor for tensor in kernels if tensor.data_type == onnx.TensorProto.FLOAT and min(tensor.dims) > 1]
    images, want = expected
    found = run(path, images)
    assert abs(int(found["count"].sum()) - int(want.valid.sum())) <= 3
    np.testing.assert_allclose(found["scores"][:, 0], want.scores[:, 0], atol=0.05)
    with pytest.raises(ConfigError, match="choose one of both"):
        to_int8_onnx(*small, ExportSettings(half=True), "weights")


def test_what_is_wrong_is_said(file, small, tmp_path):
    content = file.read_bytes()
    for name, damaged in (("short", content[: len(content) // 2]), ("other", b"no graph")):
        (tmp_path / f"{name}.onnx").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cannot read it"):
            load_exported(tmp_path / f"{name}.onnx")
    with pytest.raises(ConfigError, match="export it again with that size"):
        load_detector(file, size=128)
    with pytest.raises(ConfigError, match="leave dtype out"):
        load_detector(file, dtype="bfloat16")
    with pytest.raises(ConfigError, match="cannot be trained"):
        load_exported(file)[0].init(jax.random.key(0))
