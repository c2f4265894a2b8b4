"""Thresholds and suppression as ONNX nodes against `yolojax.postprocess.postprocess`: the same rows, bit for bit."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.export.settings import FileThresholds
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

N, C, K = 60, 3, 12


@cache
def session(iou: float | None, multi_label: bool, confidence: float):
    from onnx import TensorProto, helper

    from yolojax.export._graph import GraphBuilder
    from yolojax.export._suppression import add_detections

    graph = GraphBuilder()
    thresholds = FileThresholds(confidence, iou, K)
    names = add_detections(graph, "b", "s", C, thresholds, multi_label=multi_label)
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT32)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", N, side]) for n, side in (("b", 4), ("s", C))]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=True)]
    model = helper.make_model(graph.finish("nms", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@partial(jax.jit, static_argnums=(2, 3))
def ours(boxes, scores, iou, multi_label, confidence):
    return postprocess(
        Candidates(boxes, scores),
        confidence,
        iou,
        suppress="none" if iou is None else "nms",
        max_detections=K,
        multi_label=multi_label,
    )


def scene(seed: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes on a coarse grid, so that equal IoUs, equal boxes and equal scores occur, and some that are not finite."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 6, (batch, N, 2)) * 4.0
    boxes = np.concatenate([low, low + rng.integers(1, 5, (batch, N, 2)) * 4.0], -1).astype(np.float32)
    scores = (rng.integers(0, 12, (batch, N, C)) / 12).astype(np.float32)
    boxes[0, 3, 1], boxes[-1, 5, 2] = np.nan, np.inf
    scores[0, 7, 1], scores[-1, 9, 0] = np.nan, np.inf
    return boxes, scores


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("iou", [0.5, None])
def test_the_same_rows(iou, multi_label):
    scenes = [(0, 2, 0.25), (1, 2, 0.5), (2, 2, 0.95)]
    if multi_label:  # one image alone costs another compilation
        scenes.append((3, 1, 0.25))
    for seed, batch, confidence in scenes:
        boxes, scores = scene(seed, batch)
        want = ours(jnp.asarray(boxes), jnp.asarray(scores), iou, multi_label, confidence)
        got = session(iou, multi_label, confidence).run(None, {"b": boxes, "s": scores})
        np.testing.assert_array_equal(got[3], np.asarray(want.valid).sum(-1))
        assert confidence > 0.5 or got[3].min() > 0
        for mine, theirs in zip((want.boxes, want.scores, want.classes), got[:3], strict=True):
            np.testing.assert_array_equal(np.asarray(mine), theirs)


def test_nothing_at_all():
    boxes, scores = scene(0, 2)
    got = session(0.5, False, 0.999).run(None, {"b": boxes, "s": np.zeros_like(scores)})
    assert got[3].tolist() == [0, 0] and (got[2] == -1).all() and not got[0].any()
