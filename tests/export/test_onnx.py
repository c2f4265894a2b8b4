"""ONNX files: the detector's own detections from onnxruntime and OpenVINO, in any batch, and what the files say."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.export.conftest import NAMES, SETTINGS, SIZE, open_shapes, same_set, some_images
from yolojax import zoo
from yolojax.config import ValidationConfig
from yolojax.data import Dataset
from yolojax.data.input_images import make_input_image
from yolojax.errors import CheckpointError, ConfigError
from yolojax.export import ExportSettings, load_exported, to_onnx, to_stablehlo
from yolojax.export.program import candidates_of
from yolojax.geometry import Preprocess, batch_to_original
from yolojax.inference.evaluate import evaluate
from yolojax.inference.loading import load_detector
from yolojax.inference.predict import Predictor

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    with open_shapes():
        path.write_bytes(to_onnx(small[0], small[1], SETTINGS))
    return path


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
    assert (
        json.loads(told["imgsz"]) == list(SIZE)
        and told["task"] == "detect"
        and told["stride"] == str(max(small[0].spec.strides))
    )
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
def test_the_same_predictor(file, expected, runtime):
    pytest.importorskip(runtime)
    images, want = expected
    results = Predictor(*load_exported(file, runtime=runtime), batch_size=2)(list(images))
    for boxes, scores, classes, valid, got in zip(*want[:4], results, strict=True):
        assert valid.any()
        boxes = np.clip(boxes, 0, (SIZE[1], SIZE[0]) * 2)
        same_set((boxes[valid], scores[valid], classes[valid]), (got.boxes, got.scores, got.classes))


ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, numpy as np
from yolojax.export.onnx_running import OnnxModel, Port, call_outside

kind, shape = np.dtype("float32"), (8, 1000)
model = OnnxModel(None, (), (Port("y", shape, kind),), {}, lambda x: [x.reshape(8, -1)[:, :1000].astype(kind)])
run = jax.jit(lambda x: call_outside(model, x + 1, [shape], [kind])[0].sum())
images = np.ones((8, 640, 640, 3), np.uint8)
print([float(x) for x in jax.device_get([run(images) for _ in range(4)])])
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not tie a process to a core")
def test_one_core_is_enough():
    """Images of real size, several batches under way: the program must not wait for a thread that waits for it."""
    command = [sys.executable, "-c", ONE_CORE]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0 and ended.stdout.strip() == str([16000.0] * 4), ended.stderr


def test_raw_candidates(small, tmp_path):
    detector, variables = small
    path = tmp_path / "raw.onnx"
    path.write_bytes(to_onnx(small[0], small[1], ExportSettings(batch=2, raw=True)))
    images = some_images(2)
    want = jax.device_get(jax.jit(lambda v, x: candidates_of(detector, detector.fold(v))(x))(variables, images))
    found = run(path, images)
    np.testing.assert_allclose(found["boxes"], want.boxes, atol=0.01)
    np.testing.assert_allclose(found["scores"], want.scores, atol=1e-5)


@pytest.mark.slow  # two programs of evaluation
def test_raw_candidates_are_measured_like_the_detector(small, tmp_path):
    path = tmp_path / "raw.onnx"
    path.write_bytes(to_onnx(small[0], small[1], ExportSettings(batch=2, raw=True)))
    data = Dataset.from_arrays(some_images(5), [[[10, 10, 40, 40]]] * 5, [[0], [1], [2], [0], [1]], NAMES)
    # Of pairs that overlap by nearly the threshold, rounding would decide which suppression removes.
    whole = ValidationConfig(suppress="none")
    want, got = (evaluate(model, data, validation=whole) for model in (small, load_detector(path)))
    assert len(want.detections) == len(got.detections) > 20
    ours, theirs = (sorted(row["score"] for row in found.detections) for found in (want, got))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert want.result.AP is not None and got.result.AP is not None
    np.testing.assert_allclose(want.result.AP, got.result.AP, atol=1e-3)


@pytest.mark.parametrize("preprocess", [Preprocess(), Preprocess(align="topleft"), Preprocess(resize="stretch")])
def test_photos_are_resized_by_nodes(preprocess, small):
    """The pixels are Pillow's but for one level, and boxes come back into the photo."""
    from onnx import TensorProto, helper

    from yolojax.export._graph import GraphBuilder
    from yolojax.export._letterbox import add_letterbox
    from yolojax.export.settings import describe_export

    detector = small[0]._replace(spec=replace(small[0].spec, preprocess=preprocess))
    description = describe_export(detector, small[1], replace(SETTINGS, letterbox=True))
    graph = GraphBuilder()
    made, placed = add_letterbox(graph, "photos", description)
    graph.rename(made, "images")
    graph.rename(placed("found", "classes"), "boxes")
    kinds = (("photos", TensorProto.UINT8, [1, "h", "w", 3]), ("found", TensorProto.FLOAT, [1, 3, 4]))
    inputs = [helper.make_tensor_value_info(*port) for port in (*kinds, ("classes", TensorProto.INT32, [1, 3]))]
    outputs = [helper.make_tensor_value_info(n, k, None) for n, k in (("images", 2), ("boxes", 1))]
    model = helper.make_model(graph.finish("test", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = np.array([[[20, 10, 60, 50], [-5, -5, 200, 200], [1, 1, 2, 2]]], np.float32)
    for seed, size in enumerate([(50, 120), (131, 77), (64, 96), (9, 5)]):
        photo = some_images(1, (max(size), max(size)), seed)[0, : size[0], : size[1]]
        given = {"photos": photo[None], "found": found, "classes": np.array([[0, 1, -1]], np.int32)}
        images, boxes = session.run(["images", "boxes"], given)
        want, placement = make_input_image(photo, SIZE, preprocess)
        difference = np.abs(images[0].astype(int) - want.astype(int))
        # Pillow stretches some tall photos down first and across then, which rounds other values in between.
        assert difference.max() <= 1 and (difference > 0).mean() < (0.3 if preprocess.resize == "stretch" else 0.05)
        back = batch_to_original(found, np.array([placement.content]), np.array([size]))
        np.testing.assert_allclose(boxes[:, :2], back[:, :2], atol=1e-3)
        assert not boxes[0, 2].any()


@pytest.mark.slow  # a network more in each format
def test_sixteen_bits(small, tmp_path):
    """Half the size; detections differ by what 16 bits lose."""
    detector, variables = small
    images = some_images(2)
    want = jax.jit(lambda v, x: candidates_of(detector, detector.fold(v))(x))(variables, images)
    for kind, dtype, make in (("onnx", "float16", to_onnx), ("stablehlo", "bfloat16", to_stablehlo)):
        narrow = zoo.build(
            "compact", NAMES, SIZE, widths=(8, 8, 16), depths=(0, 0, 1), head_width=8, reg_max=8, dtype=dtype
        )
        path = tmp_path / f"half.{kind}"
        path.write_bytes(make(narrow, variables, ExportSettings(batch=2, raw=True, half=True), dtype=dtype))
        exported, nothing = load_exported(path)
        got = jax.jit(candidates_of(exported, nothing))(images)
        assert got.scores.dtype == np.float32
        np.testing.assert_allclose(got.scores, want.scores, atol=0.01 if kind == "onnx" else 0.05)
        if kind == "onnx":
            model = onnx.load(path)
            onnx.checker.check_model(model, full_check=True)
            kernels = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
            types = {tensor.data_type for tensor in model.graph.initializer if tensor.name in kernels}
            assert types == {onnx.TensorProto.FLOAT16}


@pytest.mark.slow  # a detector more
def test_photos_of_any_size(small, tmp_path):
    path = tmp_path / "photos.onnx"
    settings = replace(SETTINGS, batch=1, letterbox=True)
    path.write_bytes(to_onnx(small[0], small[1], settings))
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
        path.write_bytes(to_int8_onnx(small[0], small[1], SETTINGS, "weights"))
    onnx.checker.check_model(onnx.load(path), full_check=True)
    kernels = [tensor for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4]
    assert sum(tensor.data_type == onnx.TensorProto.INT8 for tensor in kernels) > 5
    assert not [tensor for tensor in kernels if tensor.data_type == onnx.TensorProto.FLOAT and min(tensor.dims) > 1]
    images, want = expected
    found = run(path, images)
    assert abs(int(found["count"].sum()) - int(want.valid.sum())) <= 3
    np.testing.assert_allclose(found["scores"][:, 0], want.scores[:, 0], atol=0.05)
    with pytest.raises(ConfigError, match="choose one of both"):
        to_int8_onnx(small[0], small[1], ExportSettings(half=True), "weights")


@pytest.mark.parametrize(
    ("processor", "flags", "lacks"),
    [
        ("x86_64", "flags\t\t: fpu avx2 fma", True),
        ("AMD64", "flags\t\t: fpu avx512f avx512_vnni", False),
        ("x86_64", "flags\t\t: fpu avx2 avx_vnni", False),
        ("x86_64", "", False),
        ("aarch64", "Features\t: asimd", False),
    ],
)
def test_a_processor_without_vnni_is_known(processor, flags, lacks):
    from yolojax.export.quantise import lacks_vnni

    assert lacks_vnni(processor, flags) is lacks


def test_last_convolutions_are_those_that_no_other_reads():
    from yolojax.export.quantise import last_convolutions

    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["image", "w"], ["a"], name="stem"),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w"], ["boxes"], name="boxes"),
        node("Conv", ["b", "w"], ["c"], name="middle"),
        node("Sigmoid", ["c"], ["d"]),
        node("Conv", ["d", "w"], ["e"], name="scores"),
        node("Concat", ["boxes", "e"], ["out"], axis=1),
    ]
    assert set(last_convolutions(onnx.helper.make_graph(nodes, "g", [], []))) == {"boxes", "scores"}


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
    with pytest.raises(ConfigError, match="dtype = 'bfloat16': an ONNX file computes in float32 or float16"):
        to_onnx(small[0], small[1], dtype="bfloat16")
