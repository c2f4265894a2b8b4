"""The coders of YOLOv5 / v7 and of YOLOX: exact inverses, and their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.coding import decode_yolov5, decode_yolox, encode_yolov5, encode_yolox

INPUT_SIDE = 640


def as_jax(*arrays):
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def boxes_with(offset, size, stride, rng):
    cells = rng.integers(1, INPUT_SIDE // stride - 1, offset.shape)
    centre = (cells + offset) * stride
    return np.concatenate([centre - size / 2, centre + size / 2], -1), cells


@pytest.mark.parametrize("stride", [8, 32])
def test_squared_inverse_over_its_whole_reach(stride):
    rng = np.random.default_rng(stride)
    anchors = np.exp(rng.uniform(np.log(8), np.log(400), (400, 2)))
    size = np.clip(anchors * rng.uniform(0.05, 3.99, anchors.shape), 2, INPUT_SIDE)
    anchors = np.maximum(anchors, size / 3.99)
    offset = np.concatenate([rng.uniform(-0.5, 1.5, (398, 2)), [[-0.5, 1.5], [0, 1]]])
    boxes, cells, anchors = as_jax(*boxes_with(offset, size, stride, rng), anchors)
    raw = encode_yolov5(boxes, cells, stride, anchors)
    assert jnp.abs(decode_yolov5(raw, cells, stride, anchors) - boxes).max() < 1e-3


def test_squared_formula():
    rng = np.random.default_rng(0)
    raw, cells, anchors = rng.normal(0, 2, (100, 4)), rng.integers(0, 20, (100, 2)), rng.uniform(5, 300, (100, 2))
    share = 1 / (1 + np.exp(-raw))
    centre, size = (2 * share[:, :2] - 0.5 + cells) * 16, anchors * (2 * share[:, 2:]) ** 2
    expected = np.concatenate([centre - size / 2, centre + size / 2], -1)
    got = decode_yolov5(*as_jax(raw, cells), 16, *as_jax(anchors))
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-3)


@pytest.mark.parametrize("stride", [8, 32])
def test_direct_inverse_also_outside_of_the_cell(stride):
    rng = np.random.default_rng(stride)
    size = np.exp(rng.uniform(np.log(2), np.log(INPUT_SIDE), (400, 2)))
    boxes, cells = as_jax(*boxes_with(rng.uniform(-3, 4, (400, 2)), size, stride, rng))
    raw = encode_yolox(boxes, cells, stride)
    assert jnp.abs(decode_yolox(raw, cells, stride) - boxes).max() < 1e-3


def test_direct_formula():
    rng = np.random.default_rng(0)
    raw, cells = rng.normal(0, 1, (100, 4)), rng.integers(0, 20, (100, 2))
    centre, size = (raw[:, :2] + cells) * 16, np.exp(raw[:, 2:]) * 16
    expected = np.concatenate([centre - size / 2, centre + size / 2], -1)
    np.testing.assert_allclose(decode_yolox(*as_jax(raw, cells), 16), expected, rtol=2e-6, atol=1e-3)


def test_extremes_stay_finite_with_their_gradients():
    raw = jnp.array([[1e4, -1e4, 1e4, -1e4]])
    cells, anchors = jnp.zeros((1, 2)), jnp.full((1, 2), 16.0)
    for f in (lambda r: decode_yolov5(r, cells, 32, anchors), lambda r: decode_yolox(r, cells, 32)):
        assert jnp.isfinite(f(raw)).all() and jnp.isfinite(jax.grad(lambda r: f(r).sum())(raw)).all()  # noqa: B023
    box = jnp.array([[5.0, 5.0, 5.0, 1.0]])
    assert jnp.isfinite(encode_yolov5(box, cells, 32, anchors)).all()
    assert jnp.isfinite(encode_yolox(box, cells, 32)).all()
