"""Deformable attention and the position of places, against transcriptions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.transformer import deformable_attention, inverse_sigmoid, offset_bias, sine_position

SHAPES, POINTS, HEADS, DEPTH, QUERIES = ((3, 5), (2, 2)), (3, 2), 2, 4, 6


def reference(values, locations, weights):
    """Equation 3 of arXiv 2010.04159 with torch's ``grid_sample`` (bilinear, zeros, corners not aligned)."""
    batch, _, heads, depth = values.shape
    out = np.zeros((batch, QUERIES, heads, depth))
    for b, q, h in np.ndindex(batch, QUERIES, heads):
        start, point = 0, 0
        for (rows, columns), n in zip(SHAPES, POINTS, strict=True):
            table = values[b, start : start + rows * columns, h].reshape(rows, columns, depth)
            for p in range(point, point + n):
                x = locations[b, q, h, p, 0] * columns - 0.5
                y = locations[b, q, h, p, 1] * rows - 0.5
                for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                    for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                        if 0 <= row < rows and 0 <= column < columns:
                            share = (1 - abs(x - column)) * (1 - abs(y - row))
                            out[b, q, h] += weights[b, q, h, p] * share * table[row, column]
            start, point = start + rows * columns, point + n
    return out.reshape(batch, QUERIES, heads * depth)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 19, HEADS, DEPTH))
    # Some points lie outside, some far outside, one on the centre of a place and one on the border.
    locations = rng.uniform(-0.3, 1.3, (2, QUERIES, HEADS, sum(POINTS), 2))
    locations[0, 0, 0, 0], locations[0, 0, 1, 0] = (0.5, 0.5), (0.0, 1.0)
    locations[1, 0, 0] *= 1e6
    weights = rng.dirichlet(np.ones(sum(POINTS)), (2, QUERIES, HEADS))
    return tuple(x.astype(np.float32) for x in (values, locations, weights))


def test_deformable_attention_is_the_weighted_sum_of_sampled_values(scene):
    found = jax.jit(lambda v, x, w: deformable_attention(v, SHAPES, x, w, POINTS))(*scene)
    np.testing.assert_allclose(found, reference(*(x.astype(np.float64) for x in scene)), rtol=0, atol=1e-5)


def test_its_gradient_is_that_of_differences(scene):
    """Of all three arguments, at one entry each, by central differences of the transcription."""
    values, locations, weights = (x.astype(np.float64) for x in scene)
    towards = np.random.default_rng(1).normal(size=(2, QUERIES, HEADS * DEPTH))

    def total(v, x, w):
        return jnp.sum(deformable_attention(v, SHAPES, x, w, POINTS) * jnp.asarray(towards, jnp.float32))

    gradients = jax.jit(jax.grad(total, (0, 1, 2)))(*scene)
    for position, index in ((0, (0, 7, 1, 2)), (1, (0, 2, 1, 3, 0)), (1, (1, 3, 0, 1, 1)), (2, (1, 4, 1, 2))):
        moved = []
        for step in (-1e-5, 1e-5):
            arguments = [values.copy(), locations.copy(), weights.copy()]
            arguments[position][index] += step
            moved.append(np.sum(reference(*arguments) * towards))
        assert float(gradients[position][index]) == pytest.approx((moved[1] - moved[0]) / 2e-5, abs=2e-3)


def test_positions_of_places():
    """Rows first; the lowest frequency is nearly constant, the highest has a period of 2 pi."""
    found = np.asarray(sine_position(3, 5, 8))
    rates = np.array([1.0, 10_000.0**-0.5])
    for place, (row, column) in enumerate(np.ndindex(3, 5)):
        expected = np.concatenate([f(x * rates) for x in (row, column) for f in (np.sin, np.cos)])
        np.testing.assert_allclose(found[place], expected, atol=1e-6)


def test_heads_look_into_directions_of_their_own():
    bias = np.asarray(offset_bias(4, (2, 1))).reshape(4, 3, 2)
    np.testing.assert_allclose(bias[:, 0], [[1, 0], [0, 1], [-1, 0], [0, -1]], atol=1e-6)
    np.testing.assert_allclose(bias[:, 1], 2 * bias[:, 0], atol=1e-6)
    np.testing.assert_allclose(bias[:, 2], bias[:, 0], atol=1e-6)


def test_inverse_sigmoid_has_limits():
    x = jnp.asarray([0.0, 1e-7, 0.25, 1.0])
    np.testing.assert_allclose(jax.nn.sigmoid(inverse_sigmoid(x)), [1e-5, 1e-5, 0.25, 1 - 1e-5], rtol=1e-3)
