"""Every lowering of a convolution gives the values and gradients of the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.processor import convolution


def close_to_plain(lowering, x_shape, kernel_shape, stride, groups=1):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], x_shape), jax.random.normal(keys[1], kernel_shape)
    out = jax.eval_shape(lambda x, k: convolution.plain(x, k, stride, groups), x, kernel)
    cotangent = jax.random.normal(keys[2], out.shape)

    def run(function):
        value, pullback = jax.vjp(function, x, kernel)
        return value, *pullback(cotangent)

    got = jax.jit(lambda: run(lowering))()
    want = jax.jit(lambda: run(lambda x, k: convolution.plain(x, k, stride, groups)))()
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize("size", [(8, 12), (2, 2)])
def test_pointwise(size):
    close_to_plain(convolution.pointwise, (2, *size, 5), (1, 1, 5, 7), 1)


@pytest.mark.parametrize("size", [(8, 12), (2, 2)])
@pytest.mark.parametrize("kernel", [(3, 3), (7, 7), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_by_columns(size, kernel, stride):
    close_to_plain(lambda x, k: convolution.by_columns(x, k, stride), (2, *size, 3), (*kernel, 3, 7), stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "size"), [((3, 3), (8, 12)), ((5, 3), (7, 5)), ((1, 1), (6, 6))])
def test_depthwise(kernel, size, stride):
    close_to_plain(lambda x, k: convolution.depthwise(x, k, stride), (2, *size, 4), (*kernel, 1, 4), stride, groups=4)


pytestmark = pytest.mark.any_platform

# A shape for every lowering: input, kernel, stride, groups.
LOWERINGS = {
    "pointwise": ((2, 8, 12, 5), (1, 1, 5, 7), 1, 1),
    "depthwise": ((2, 8, 12, 4), (3, 3, 1, 4), 1, 4),
    "depthwise of stride 2": ((2, 8, 12, 4), (3, 3, 1, 4), 2, 4),
    "strided by columns": ((2, 8, 12, 64), (3, 3, 64, 8), 2, 1),
    "by columns": ((2, 2, 4, 5), (3, 3, 5, 7), 1, 1),
    "plain of many channels": ((2, 8, 12, 32), (3, 3, 32, 8), 1, 1),
    "plain": ((2, 8, 12, 4), (3, 3, 4, 8), 1, 1),
}


def lowered(shapes, platform):
    """The program of values and gradients of a convolution, as it is handed to the compiler of a platform."""
    x_shape, kernel_shape, stride, groups = shapes

    def loss(x, kernel):
        return (convolution.convolve(x, kernel, stride, groups) ** 2).sum()

    arguments = jnp.ones(x_shape), jnp.ones(kernel_shape)
    return jax.jit(jax.value_and_grad(loss, (0, 1))).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("name", LOWERINGS)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_program_for_an_accelerator_holds_convolutions_only(name, platform):
    text = lowered(LOWERINGS[name], platform)
    assert text.count("stablehlo.convolution") == 3  # of the value and of both gradients
    for word in ("dot_general", "optimization_barrier", "concatenate"):
        assert word not in text


@pytest.mark.parametrize("name", LOWERINGS)
def test_a_program_for_a_processor_holds_its_lowering_only(name):
    text = lowered(LOWERINGS[name], "cpu")
    assert ("stablehlo.convolution" in text) == name.startswith("plain")
    assert ("dot_general" in text) == ("columns" in name or name == "pointwise")


def test_only_a_convolution_of_every_channel_by_itself_is_taken_apart():
    for cin, cout, groups, taken in ((4, 4, 4, True), (4, 8, 4, False), (4, 4, 2, False), (1, 1, 1, False)):
        text = lowered(((1, 6, 6, cin), (3, 3, cin // groups, cout), 1, groups), "cpu")
        assert ("stablehlo.convolution" not in text) == taken


@pytest.mark.parametrize("name", LOWERINGS)
def test_convolutions_can_be_mapped_over_images_and_over_kernels(name):
    x_shape, kernel_shape, stride, groups = LOWERINGS[name]
    x, kernels = jax.random.normal(jax.random.key(0), x_shape), jax.random.normal(jax.random.key(1), (3, *kernel_shape))

    def values(function):
        each = jax.vmap(jax.vmap(lambda x, k: function(x[None], k, stride, groups)[0], (0, None)), (None, 0))
        return jax.jit(each)(x, kernels)

    np.testing.assert_allclose(values(convolution.convolve), values(convolution.plain), rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("name", LOWERINGS)
def test_bfloat16_has_values_and_gradients_of_its_kind(name):
    x_shape, kernel_shape, stride, groups = LOWERINGS[name]
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], x_shape, jnp.bfloat16)
    kernel = jax.random.normal(keys[1], kernel_shape, jnp.bfloat16)
    out = jax.eval_shape(lambda x, k: convolution.plain(x, k, stride, groups), x, kernel)
    cotangent = jax.random.normal(keys[2], out.shape, jnp.bfloat16)

    def run(function, *arguments):
        value, pullback = jax.vjp(lambda x, k: function(x, k, stride, groups), *arguments[:2])
        return value, *pullback(arguments[2])

    arguments = (x, kernel, cotangent)
    got = jax.jit(lambda *a: run(convolution.convolve, *a))(*arguments)
    want = jax.jit(lambda *a: run(convolution.plain, *a))(*(a.astype(jnp.float32) for a in arguments))
    # A bfloat16 has a rounding error of 2**-9. Sums must be made in float32: jax from 0.11 on sums matrix products of
    # bfloat16 in bfloat16 unless told otherwise, and the gradient of a 1x1 kernel was off by 3 % of its largest value.
    for a, b in zip(got, want, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2**-7, atol=0.01 * np.abs(b).max())
