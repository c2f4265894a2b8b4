"""The coder of the anchor-free detectors against formulas written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from yolojax.coding import (
    boxes_to_distances,
    cell_centres,
    decode_distributions,
    dfl_expectation,
    distances_to_boxes,
    flatten_levels,
    levels_of,
)
from yolojax.structures import Level

LEVELS = (Level(2, 3, 8), Level(1, 2, 16))


def test_cell_centres_run_level_by_level_and_row_by_row():
    points, strides = cell_centres(LEVELS)
    np.testing.assert_array_equal(points, [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8]])
    np.testing.assert_array_equal(strides, [8] * 6 + [16] * 2)


def test_flatten_levels_keeps_the_order_of_cell_centres():
    maps = [jnp.arange(level.h * level.w, dtype=jnp.bfloat16).reshape(1, level.h, level.w, 1) for level in LEVELS]
    flat = flatten_levels(maps)
    assert flat.dtype == jnp.float32
    np.testing.assert_array_equal(flat[0, :, 0], [0, 1, 2, 3, 4, 5, 0, 1])
    assert levels_of(maps, (8, 16)) == LEVELS


def test_expectation_equals_float64():
    logits = np.random.default_rng(0).normal(0, 4, (50, 16))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    got = dfl_expectation(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(got, (p * np.arange(16)).sum(-1), rtol=1e-5, atol=1e-6)


def test_expectation_at_the_extremes():
    one_hot = jnp.where(jnp.eye(16, dtype=bool), 1e4, -1e4)
    np.testing.assert_array_equal(dfl_expectation(one_hot), np.arange(16))
    np.testing.assert_allclose(dfl_expectation(jnp.zeros((1, 16))), [7.5])
    assert jnp.isfinite(jax.grad(lambda x: dfl_expectation(x).sum())(one_hot)).all()


def test_distances_are_left_top_right_bottom():
    points = jnp.array([[10.0, 20.0]])
    boxes = distances_to_boxes(points, jnp.array([[1.0, 2.0, 3.0, 4.0]]))
    np.testing.assert_array_equal(boxes, [[9, 18, 13, 24]])
    np.testing.assert_array_equal(boxes_to_distances(points, boxes), [[1, 2, 3, 4]])


def test_decode_counts_bins_in_strides():
    points, strides = cell_centres(LEVELS)
    bins = np.array([1, 0, 2, 3])  # left, top, right, bottom
    logits = np.full((1, 8, 4, 4), -1e4, np.float32)
    logits[:, :, np.arange(4), bins] = 1e4
    got = decode_distributions(jnp.asarray(logits.reshape(1, 8, 16)), points, strides)
    p, s = np.asarray(points), np.asarray(strides)[:, None]
    np.testing.assert_array_equal(got[0], np.concatenate([p - s * [1, 0], p + s * [2, 3]], -1))
