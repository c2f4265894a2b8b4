"""Maximum over neighbours: its derivatives are XLA's own of a window's maximum, and a float64 oracle's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from yolojax.models.blocks import max_pool, max_pool_same

SHAPE = (2, 7, 9, 3)


def windows(x, size):
    """Rows, then columns, by XLA's maximum and its derivative."""
    reach = (size // 2, size // 2)
    return max_pool(max_pool(x, (size, 1), (1, 1), (reach, (0, 0))), (1, size), (1, 1), ((0, 0), reach))


def slopes(pool, x, weights, size):
    return jax.jit(jax.grad(lambda x: jnp.sum((pool(x, size) * weights).astype(jnp.float32))))(x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 13])
def test_values_and_gradients_are_those_of_xla_with_many_equal_maxima(size, dtype):
    x = jax.random.randint(jax.random.key(0), SHAPE, 0, 5).astype(dtype)
    # Weights that add up without rounding, so that the order of sums does not matter.
    weights = jax.random.randint(jax.random.key(1), SHAPE, -8, 9).astype(dtype)
    np.testing.assert_array_equal(max_pool_same(x, size), windows(x, size))
    np.testing.assert_array_equal(slopes(max_pool_same, x, weights, size), slopes(windows, x, weights, size))


def test_the_slope_goes_to_the_place_of_the_maximum():
    x, weights = (np.asarray(jax.random.normal(jax.random.key(i), SHAPE), np.float64) for i in range(2))
    want = np.zeros(SHAPE)
    for b, i, j, c in np.ndindex(*SHAPE):
        top, left = max(i - 2, 0), max(j - 2, 0)
        window = x[b, top : i + 3, left : j + 3, c]
        row, column = np.unravel_index(np.argmax(window), window.shape)
        want[b, top + row, left + column, c] += weights[b, i, j, c]
    np.testing.assert_allclose(
        slopes(max_pool_same, jnp.float32(x), jnp.float32(weights), 5), want, rtol=1e-5, atol=1e-6
    )


def test_forward_and_backward_mode_agree_and_batches_map():
    x, direction, weights = (jax.random.normal(jax.random.key(i), SHAPE) for i in range(3))
    value, slope = jax.jvp(lambda x: max_pool_same(x, 5), (x,), (direction,))
    np.testing.assert_array_equal(value, max_pool_same(x, 5))
    back = jax.vjp(lambda x: max_pool_same(x, 5), x)[1](weights)[0]
    np.testing.assert_allclose(jnp.vdot(slope, weights), jnp.vdot(direction, back), rtol=1e-5)
    single = jax.vmap(lambda x, w: slopes(max_pool_same, x[None], w[None], 5)[0])(x, weights)
    np.testing.assert_allclose(single, slopes(max_pool_same, x, weights, 5), rtol=1e-6)


def test_what_is_not_a_number_reaches_all_that_see_it():
    x = jax.random.normal(jax.random.key(0), SHAPE).at[0, 3, 4, 1].set(jnp.nan)
    value = jax.jvp(lambda x: max_pool_same(x, 5), (x,), (x,))[0]
    np.testing.assert_array_equal(value, windows(x, 5))
    assert int(jnp.isnan(value).sum()) == 25


def test_the_derivative_scatters_nothing():
    x = jnp.zeros(SHAPE)
    text = jax.jit(jax.grad(lambda x: jnp.sum(lax.square(max_pool_same(x, 5))))).lower(x).as_text()
    assert "scatter" not in text and "scatter" in jax.jit(jax.grad(lambda x: windows(x, 5).sum())).lower(x).as_text()


def test_an_even_window_has_no_middle():
    with pytest.raises(ValueError, match="odd"):
        max_pool_same(jnp.zeros(SHAPE), 4)
