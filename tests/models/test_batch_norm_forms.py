"""The form of BatchNorm for GPUs: sums of pairs, with gradients written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.layers import BatchNorm
from yolojax.processor.platform import for_platform


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_the_form_for_a_gpu_has_the_values_and_gradients_of_the_other(dtype, rtol):
    norm = BatchNorm(0.9, 1e-3)
    rng = np.random.default_rng(0)
    # Means of several deviations, where E[x^2] - E[x]^2 loses digits.
    x = jnp.asarray(rng.normal(size=(3, 5, 7, 4)) * [1, 2, 0.1, 3] + [0, 5, 1, -20], dtype)
    weight = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    variables = norm.init(jax.random.key(0), x, True)
    variables["params"]["scale"] = jnp.asarray([1.0, 0.5, -2.0, 3.0])

    def loss(params, x):
        y, new = norm.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
        return jnp.sum(weight * y.astype(jnp.float32) ** 3), (y, new)

    def run(platform):
        step = for_platform(platform, jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        return jax.jit(step)(variables["params"], x)

    def close(a, b):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())

    jax.tree.map(close, run("gpu"), run("cpu"))
