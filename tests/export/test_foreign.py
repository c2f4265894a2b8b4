"""ONNX files of other tools: known boxes come out of graphs with their ports, and others are refused by name."""

import jax
import numpy as np
import pytest

from yolojax.errors import CheckpointError, ConfigError
from yolojax.export import load_exported
from yolojax.export.program import candidates_of
from yolojax.inference.predict import Predictor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3
BOXES = np.array([[10, 20, 30, 50], [40, 8, 90, 40], [41, 8, 90, 41]], np.float32)
SCORES = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.7]], np.float32)


def centres(boxes):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def write(path, output, *, metadata=None, sides=(1, 3, *SIZE), first=None, kind=1):
    """A graph that gives ``output`` plus ``first`` times its first pixel, and takes an image of these sides."""
    from onnx import helper, numpy_helper

    tensors = [numpy_helper.from_array(np.asarray(output, np.float32)[None], "fixed")]
    gain = np.zeros_like(output) if first is None else first
    tensors.append(numpy_helper.from_array(np.asarray(gain, np.float32)[None], "gain"))
    tensors += [numpy_helper.from_array(np.array(x, np.int64), name) for name, x in (("lo", [0] * 3), ("hi", [1] * 3))]
    tensors.append(numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"))
    nodes = [
        helper.make_node("Slice", ["images", "lo", "hi", "axes"], ["pixel"]),
        helper.make_node("Squeeze", ["pixel", "last"], ["one"]),
        helper.make_node("Mul", ["one", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "fixed"], ["output0"]),
    ]
    tensors.append(numpy_helper.from_array(np.array([3], np.int64), "last"))
    shape = list(np.shape(output))
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("images", kind, list(sides))],
        [helper.make_tensor_value_info("output0", 1, [sides[0], *shape])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


NAMED = {"names": "{0: 'cat', 1: 'dog'}"}


def found(path, *names):
    """The record of a file, and its candidates for an image of one colour."""
    image = np.full((1, *SIZE, 3), (255, 0, 51), np.uint8)
    detector, variables = load_exported(path, class_names=names or None)
    assert detector.spec.class_names == ("cat", "dog") and detector.spec.input_size == SIZE
    return detector, jax.device_get(jax.jit(candidates_of(detector, variables))(image))


def expected(candidates, rows=(0, 1, 2)):
    """The known boxes lie in these rows, and no other has a score."""
    rows = list(rows)
    np.testing.assert_allclose(candidates.boxes[0, rows], BOXES[: len(rows)], atol=1e-3)
    np.testing.assert_allclose(candidates.scores[0, rows], SCORES[: len(rows)], atol=1e-5)
    assert not (np.delete(candidates.scores[0], rows, 0) > 0).any()


def test_ultralytics_raw(tmp_path):
    """Pixels arrive as red, green, blue from 0 to 1."""
    output = np.zeros((6, CELLS), np.float32)
    output[:4, :3], output[4:, :3] = centres(BOXES).T, SCORES.T
    first = np.zeros_like(output)
    output[4, 0], first[4, 0] = 0.4, 0.5  # the first pixel's red is 1
    path = write(tmp_path / "raw.onnx", output, metadata=NAMED, first=first)
    detector, candidates = found(path)
    expected(candidates)
    assert detector.spec.suppression == "nms"
    result = Predictor(*load_exported(path))(np.full((2 * SIZE[0], 2 * SIZE[1], 3), (255, 0, 51), np.uint8))
    assert result.names == ["cat", "dog"]  # the third overlaps the second
    np.testing.assert_allclose(result.boxes, 2 * BOXES[:2], atol=1e-3)
    np.testing.assert_allclose(result.scores, [0.9, 0.8], atol=1e-5)


def test_end_to_end(tmp_path):
    """Rows of a box, a score and a class; rows of zeros are padding."""
    output = np.zeros((300, 6), np.float32)
    output[0], output[1] = [*BOXES[0], 0.9, 0], [*BOXES[1], 0.8, 1]
    detector, candidates = found(write(tmp_path / "e2e.onnx", output[:50], metadata=NAMED))
    np.testing.assert_allclose(candidates.boxes[0, :2], BOXES[:2], atol=1e-3)
    scores = np.full((50, 2), -np.inf)
    scores[0, 0], scores[1, 1] = 0.9, 0.8
    np.testing.assert_allclose(candidates.scores[0], scores, atol=1e-5)
    assert detector.spec.suppression == "none"
    with pytest.raises(ConfigError, match="iou"):
        Predictor(detector, {"params": {}})(np.zeros((*SIZE, 3), np.uint8), iou=0.5)


MEGVII_ROWS = (4 * 12 + 2, 3 * 12 + 8, 3 * 12 + 9)
"""Of the finest level, which has 12 cells in a row."""


def megvii(decoded):
    """The known boxes in some rows, either in pixels or of their cells."""
    output = np.zeros((CELLS, 7), np.float32)
    centre = centres(BOXES)
    output[:, 2:4] = 1.0 if decoded else -1.0
    for row, box, score in zip(MEGVII_ROWS, centre, SCORES, strict=True):
        cell = np.array([row % 12, row // 12])
        output[row, :4] = box if decoded else [*(box[:2] / 8 - cell), *np.log(box[2:] / 8)]
        output[row, 4], output[row, 5:] = 1.0, score
    return output


@pytest.mark.parametrize("decoded", [False, True])
def test_megvii(decoded, tmp_path):
    """Pixels arrive as blue, green, red from 0 to 255; there are no metadata."""
    output = megvii(decoded)
    first = np.zeros_like(output)
    row = MEGVII_ROWS[0]
    output[row, 5], first[row, 5] = 0.9 - 0.51, 0.01  # the first pixel's blue is 51
    path = write(tmp_path / "yolox.onnx", output, first=first)
    expected(found(path, "cat", "dog")[1], MEGVII_ROWS)
    with pytest.raises(CheckpointError, match="does not name its 2 classes"):
        load_exported(path)
    with pytest.raises(ConfigError, match="2 classes and 3 names"):
        load_exported(path, class_names=("a", "b", "c"))


def test_yolov5(tmp_path):
    output = np.zeros((3 * CELLS, 7), np.float32)
    output[:3, :4], output[:3, 4], output[:3, 5:] = centres(BOXES), 1.0, SCORES
    expected(found(write(tmp_path / "v5.onnx", output, metadata=NAMED))[1])


def test_what_is_not_understood_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"not understood, with the ports .*output0 \[1, 1, 5\]"):
        load_exported(write(tmp_path / "classifier.onnx", np.zeros(5, np.float32).reshape(5)))
    output = np.zeros((6, CELLS), np.float32)
    with pytest.raises(CheckpointError, match="its task is pose"):
        load_exported(write(tmp_path / "pose.onnx", output, metadata={**NAMED, "task": "pose"}))
    with pytest.raises(CheckpointError, match="input size is open"):
        load_exported(write(tmp_path / "open.onnx", output, metadata=NAMED, sides=("b", 3, "h", "w")))
    path = write(tmp_path / "dynamic.onnx", output, metadata={**NAMED, "imgsz": "[64, 96]"}, sides=("b", 3, "h", "w"))
    assert load_exported(path)[0].spec.input_size == SIZE
