"""`encode` and `decode` of the anchor-based detectors: exact inverses, and the published formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.coding import anchor_grid, cell_offsets, decode, encode, flatten_levels
from yolojax.structures import Level

ANCHORS = np.array([[10, 13], [62, 45], [373, 326]], np.float32)


def boxes_over_cells(stride, input_size=640, seed=0):
    """Centres over a whole cell, corners and edges included, sides from 2 pixels to the input image, every anchor."""
    rng = np.random.default_rng(seed)
    offset = np.concatenate([rng.uniform(0, 1, (400, 2)), [[0, 0], [1, 1], [0, 1], [1e-7, 1 - 1e-7]]])
    cells = rng.integers(0, input_size // stride, offset.shape).astype(np.float64)
    size = np.exp(rng.uniform(np.log(2), np.log(input_size), offset.shape))
    size[:2] = [[2, input_size], [input_size, 2]]
    centre = (cells + offset) * stride
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1)
    return tuple(jnp.asarray(a, jnp.float32) for a in (boxes, cells, ANCHORS[rng.integers(0, 3, len(offset))]))


@pytest.mark.parametrize("stride", [8, 32])
@pytest.mark.parametrize("scale_x_y", [1.0, 1.05, 1.2])
def test_decode_inverts_encode_to_a_thousandth_of_a_pixel(stride, scale_x_y):
    boxes, cells, anchors = boxes_over_cells(stride)
    raw = encode(boxes, cells, stride, anchors, scale_x_y=scale_x_y)
    again = decode(raw, cells, stride, anchors, scale_x_y=scale_x_y)
    assert jnp.abs(again - boxes).max() < 1e-3


def test_encode_inverts_decode():
    rng = np.random.default_rng(1)
    raw = jnp.asarray(rng.uniform(-4, 4, (400, 4)), jnp.float32)
    _, cells, anchors = boxes_over_cells(16)
    cells, anchors = cells[:400], anchors[:400]
    again = encode(decode(raw, cells, 16, anchors), cells, 16, anchors)
    # At |t| = 4 the sigmoid's slope is 0.018, and pixels near 640 carry an error of 3e-5.
    np.testing.assert_allclose(again[:, :2], raw[:, :2], atol=1e-3)
    wide = np.asarray((jnp.exp(raw[:, 2:]) * anchors).min(-1) > 2)  # the difference of two edges rounds by 6e-5
    np.testing.assert_allclose(again[wide, 2:], raw[wide, 2:], atol=2e-4)


@pytest.mark.parametrize("scale_x_y", [1.0, 1.1])
def test_decode_equals_the_published_formula(scale_x_y):
    rng = np.random.default_rng(2)
    raw = rng.normal(0, 2, (200, 4))
    _, cells, anchors = boxes_over_cells(8)
    cells, anchors = (np.asarray(a[:200], np.float64) for a in (cells, anchors))
    offset = 1 / (1 + np.exp(-raw[:, :2])) * scale_x_y - (scale_x_y - 1) / 2
    centre, size = (offset + cells) * 8, anchors * np.exp(raw[:, 2:])
    expected = np.concatenate([centre - size / 2, centre + size / 2], -1)
    got = decode(
        *(jnp.asarray(a, jnp.float32) for a in (raw, cells)), 8, jnp.asarray(anchors, jnp.float32), scale_x_y=scale_x_y
    )
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-3)


def test_zero_predicts_the_anchor_in_the_middle_of_the_cell():
    got = decode(jnp.zeros((1, 4)), jnp.array([[3.0, 2.0]]), 8, jnp.array([[10.0, 20.0]]))
    np.testing.assert_array_equal(got, [[23, 10, 33, 30]])


def test_extremes_stay_finite_with_their_gradients():
    raw = jnp.array([[1e4, -1e4, 1e4, -1e4]] * 2)
    cells, anchors = jnp.zeros((2, 2)), jnp.full((2, 2), 16.0)
    slope = jax.grad(lambda r: decode(r, cells, 32, anchors).sum())(raw)
    assert jnp.isfinite(decode(raw, cells, 32, anchors)).all() and jnp.isfinite(slope).all()
    boxes = jnp.array([[5.0, 5.0, 5.0, 5.0], [-1e9, 9.0, 1e9, 3.0]])
    assert jnp.isfinite(encode(boxes, cells, 32, anchors)).all()


def test_offsets_are_what_sigmoid_and_logarithm_are_compared_with():
    box = jnp.array([[[16.0, 8.0, 32.0, 48.0]]])
    offset, log_ratio = cell_offsets(box, jnp.array([[[1.0, 1.0]]]), 16, jnp.array([[[16.0, 20.0]]]))
    np.testing.assert_allclose(offset, [[[0.5, 0.75]]])
    np.testing.assert_allclose(log_ratio, [[[0.0, np.log(2)]]], rtol=1e-6)


def test_anchor_grid_follows_the_maps():
    levels = (Level(2, 3, 8), Level(1, 2, 16))
    anchors = jnp.arange(8.0).reshape(2, 2, 2)
    cells, strides, sizes = anchor_grid(levels, anchors)
    maps = []
    for i, (h, w, stride) in enumerate(levels):
        m = np.zeros((1, h, w, 2, 5), np.float32)
        for y in range(h):
            for x in range(w):
                for a in range(2):
                    m[0, y, x, a] = [x, y, stride, *np.asarray(anchors)[i, a]]
        maps.append(jnp.asarray(m))
    np.testing.assert_array_equal(
        flatten_levels(maps)[0], np.concatenate([cells, np.asarray(strides)[:, None], sizes], -1)
    )
