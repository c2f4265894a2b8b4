"""Every lowering of a convolution gives the values and gradients of the plain one."""

import jax
import numpy as np
import pytest

from yolojax.models import convolution


def close_to_plain(lowering, x_shape, kernel_shape, stride):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], x_shape), jax.random.normal(keys[1], kernel_shape)
    out = jax.eval_shape(lambda x, k: convolution.plain(x, k, stride), x, kernel)
    cotangent = jax.random.normal(keys[2], out.shape)

    def run(function):
        value, pullback = jax.vjp(function, x, kernel)
        return value, *pullback(cotangent)

    got = jax.jit(lambda: run(lowering))()
    want = jax.jit(lambda: run(lambda x, k: convolution.plain(x, k, stride)))()
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize("size", [(8, 12), (2, 2)])
def test_pointwise(size):
    close_to_plain(convolution.pointwise, (2, *size, 5), (1, 1, 5, 7), 1)


@pytest.mark.parametrize("size", [(8, 12), (2, 2)])
@pytest.mark.parametrize("kernel", [(3, 3), (7, 7), (1, 1)])
def test_strided_by_columns(size, kernel):
    close_to_plain(convolution.strided_by_columns, (2, *size, 3), (*kernel, 3, 7), 2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("size", [(8, 12), (7, 5)])
def test_convolve_chooses_only_equal_lowerings(stride, groups, kernel, size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 4))
    k = jax.random.normal(jax.random.key(1), (kernel, kernel, 4 // groups, 6))
    got = jax.jit(lambda x, k: convolution.convolve(x, k, stride, groups))(x, k)
    want = jax.jit(lambda x, k: convolution.plain(x, k, stride, groups))(x, k)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
