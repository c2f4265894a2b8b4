"""The form of BatchNorm for GPUs: sums of pairs, with gradients written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.layers import BatchNorm
from yolojax.processor.platform import for_platform


def make_loss(norm, x, weight):
    """A loss of a normalised map, with what it also gives, and variables to begin with."""
    variables = norm.init(jax.random.key(0), x, True)
    variables["params"]["scale"] = jnp.asarray([1.0, 0.5, -2.0, 3.0])

    def loss(params, x):
        y, new = norm.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
        return jnp.sum(weight * y.astype(jnp.float32) ** 3), (y, new)

    return loss, variables["params"]


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_the_form_for_a_gpu_has_the_values_and_gradients_of_the_other(dtype, rtol):
    norm = BatchNorm(0.9, 1e-3)
    rng = np.random.default_rng(0)
    # Means of several deviations, where E[x^2] - E[x]^2 loses digits.
    x = jnp.asarray(rng.normal(size=(3, 5, 7, 4)) * [1, 2, 0.1, 3] + [0, 5, 1, -20], dtype)
    weight = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    loss, params = make_loss(norm, x, weight)

    def run(platform):
        step = for_platform(platform, jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        return jax.jit(step)(params, x)

    def close(a, b):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())

    jax.tree.map(close, run("gpu"), run("cpu"))


@pytest.fixture
def differentiated():
    """A loss, and directions in which it and its gradient are differentiated forwards."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, 3, 4)), jnp.float32)
    loss, params = make_loss(BatchNorm(0.9, 1e-3), x, 1.0)
    points = params, x
    return loss, points, jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), points)


def close_to(found, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, want)


def test_the_form_for_a_gpu_has_products_with_the_hessian(differentiated):
    loss, points, directions = differentiated

    def product(params, x):
        return jax.jvp(jax.grad(lambda *a: loss(*a)[0], argnums=(0, 1)), (params, x), directions)[1]

    close_to(for_platform("gpu", product)(*points), for_platform("cpu", product)(*points))


@pytest.mark.any_platform
def test_a_program_for_any_platform_has_derivatives_forwards(differentiated):
    loss, points, directions = differentiated

    def slope(params, x):
        return jax.jvp(lambda *a: loss(*a)[0], (params, x), directions)[1]

    close_to(jax.jit(slope)(*points), for_platform("cpu", slope)(*points))
