"""The one layer that detectors are made of: convolution, batch normalisation, activation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from yolojax.processor.convolution import convolve, plain
from yolojax.processor.platform import by_platform, known_platform

Activation = Literal["silu", "relu", "relu6", "leaky_relu", "hard_swish", "mish", "logistic", "none"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    # Slope .1 is Darknet's.
    "leaky_relu": lambda x: jnp.maximum(x, x * jnp.asarray(0.1, x.dtype)),
    "relu6": jax.nn.relu6,
    "hard_swish": jax.nn.hard_swish,
    "mish": jax.nn.mish,
    "logistic": jax.nn.sigmoid,
    "none": lambda x: x,
}


def kernel_bound(shape: tuple[int, ...]) -> float:
    """The bound ``1 / sqrt(fan_in)`` of initial kernels; the last axis of ``shape`` is the output.

    Uniform values within plus or minus this bound are PyTorch's default for convolutions, which published YOLO recipes
    assume.
    """
    return 1 / math.sqrt(math.prod(shape[:-1]))


def kernel_init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Draws one kernel, uniform within plus or minus `kernel_bound`.

    `yolojax.models.network.init_variables` draws the kernels of all `Conv` with this initialiser at once.
    """
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0) * kernel_bound(shape)


@dataclass(frozen=True)
class Style:
    """The settings that all layers of a network share.

    Attributes:
      activation: after every normalised convolution that has one.
      momentum: share of the old running statistics kept at each step. A run of some thousand steps wants .97 (PyTorch's
        YOLOs, which write it as .03); one of some hundred .9.
      epsilon: added to the variance. 1e-3 as in published anchor-free YOLOs; 1e-5 in ResNet and Darknet.
      dtype: of the computation. Parameters and running statistics are float32 whatever it is.
    """

    activation: Activation = "silu"
    momentum: float = 0.97
    epsilon: float = 1e-3
    dtype: DTypeLike = jnp.float32


AnyArray = Array | np.ndarray
"""Variables: those of a network that is exported are NumPy arrays."""


class Conv(nn.Module):
    """A convolution with symmetric padding: ``kernel [kh, kw, cin / groups, cout]`` and, if asked, ``bias``.

    ``padding`` in pixels is half of the kernel's size (rounded down) unless given.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    use_bias: bool = False
    bias_init: Callable[..., Array] = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32
    padding: int | None = None
    kernel_init: Callable[..., Array] = kernel_init

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32) if self.use_bias else None
        return self.apply_kernel(x, kernel, bias)

    def apply_kernel(self, x: Array, kernel: AnyArray, bias: AnyArray | None) -> Array:
        """Convolves. `yolojax.models.network.init_variables` passes over it."""
        x, wide = x.astype(self.dtype), jnp.asarray(kernel, self.dtype)
        if self.padding is None or self.padding == self.kernel_size // 2:
            y = convolve(x, wide, self.stride, self.groups)
        else:
            y = plain(x, wide, self.stride, self.groups, self.padding)
        return y if bias is None else y + bias.astype(self.dtype).reshape(1, 1, 1, -1)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Returns the shape of the output for an input of ``shape = (B, H, W, I)``."""
        batch, *sides, _ = shape
        padding = self.kernel_size // 2 if self.padding is None else self.padding
        h, w = ((side + 2 * padding - self.kernel_size) // self.stride + 1 for side in sides)
        return batch, h, w, self.features


class BatchNorm(nn.Module):
    """Batch normalisation over all but the channels (arXiv 1502.03167), with statistics in float32.

    In training the statistics are those of the whole batch, over all devices of a sharded `jit`. Parameters ``scale``
    and ``bias``; ``batch_stats`` ``mean`` and ``var`` (biased).
    """

    momentum: float
    epsilon: float
    scale_init: Callable[..., Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        shape = x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        return self.normalise(x, train, scale, bias, mean, var)

    def normalise(
        self,
        x: Array,
        train: bool,
        scale: AnyArray,
        bias: AnyArray,
        mean: nn.Variable[Array],
        var: nn.Variable[Array],
    ) -> Array:
        """Normalises and updates the statistics. `yolojax.models.network.init_variables` passes over it."""
        if train:
            batch_mean, mean_square = by_platform(x, cpu=_moments, tpu=_moments, default=_moments_at_once)
            # One pass over the data; rounding can leave a constant channel slightly negative.
            batch_var = jnp.maximum(mean_square - lax.square(batch_mean), 0.0)
            if not self.is_initializing():
                mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
                var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        else:
            batch_mean, batch_var = mean.value, var.value
        gain = scale * lax.rsqrt(batch_var + self.epsilon)
        shift = bias - batch_mean * gain
        # A program whose platform is not known may be anybody's, and be differentiated in any way.
        affine = _affine_at_once if train and known_platform() == "other" else _affine
        return affine(x, gain, shift)


def _moments(x: Array) -> tuple[Array, Array]:
    """The mean of each channel and of its square, in float32."""
    wide = x.astype(jnp.float32)
    return jnp.mean(wide, (0, 1, 2)), jnp.mean(lax.square(wide), (0, 1, 2))


def _affine(x: Array, gain: AnyArray, shift: AnyArray) -> Array:
    return (x * gain.reshape(1, 1, 1, -1) + shift.reshape(1, 1, 1, -1)).astype(x.dtype)


@jax.custom_jvp
def _sum_both(a: Array, b: Array) -> tuple[Array, Array]:
    """Sums both over all but the channels, as one reduction of pairs, which JAX cannot differentiate."""

    def add(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        return first[0] + second[0], first[1] + second[1]

    zero = jnp.float32(0)
    first, second = lax.reduce((a, b), (zero, zero), add, (0, 1, 2))
    return first, second


@_sum_both.defjvp
def _sum_both_derivative(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    first, second = tangents
    return _sum_both(*primals), (jnp.sum(first, (0, 1, 2)), jnp.sum(second, (0, 1, 2)))


def _moments_at_once(x: Array) -> tuple[Array, Array]:
    """`_moments` for a GPU, where the last parts of two sums take two kernels, and that of a sum of pairs one."""
    wide, count = x.astype(jnp.float32), x.size // x.shape[-1]
    total, squares = _sum_both(wide, lax.square(wide))
    return total / count, squares / count


@jax.custom_vjp
def _affine_at_once(x: Array, gain: Array, shift: Array) -> Array:
    """`_affine` in a training step for a GPU: the gradients of gain and shift are one sum of pairs as well.

    It has no forward-mode derivative.
    """
    return _affine(x, gain, shift)


def _affine_forward(x: Array, gain: Array, shift: Array) -> tuple[Array, tuple[Array, Array]]:
    return _affine(x, gain, shift), (x, gain)


def _affine_backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array, Array]:
    x, gain = kept
    wide = slope.astype(jnp.float32)
    of_gain, of_shift = _sum_both(wide * x.astype(jnp.float32), wide)
    return (wide * gain.reshape(1, 1, 1, -1)).astype(x.dtype), of_gain, of_shift


_affine_at_once.defvjp(_affine_forward, _affine_backward)


def is_folded(module: nn.Module) -> bool:
    """Whether BatchNorm is folded into the variables of this module; they have no ``norm`` then.

    The module must have the children ``conv`` and ``norm`` and the class attribute ``folds_norm``, by which
    `yolojax.models.batch_norm.noting_folds` recognises it.
    """
    return not module.is_initializing() and not module.has_variable("params", "norm")


class ConvBNAct(nn.Module):
    """Convolution, normalisation, activation.

    Parameters are ``conv/kernel``, ``norm/scale`` and ``norm/bias``. Variables that went through `fold_batch_norm` have
    ``conv/kernel`` and ``conv/bias`` instead, and then the convolution adds the bias and nothing is normalised.
    ``padding`` in pixels is half of the kernel's size (rounded down) unless given.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    activate: bool = True
    style: Style = Style()
    padding: int | None = None
    folds_norm: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        style, folded = self.style, is_folded(self)
        shape = (self.features, self.kernel_size, self.stride, self.groups)
        x = Conv(*shape, folded, dtype=style.dtype, padding=self.padding, name="conv")(x)
        if not folded:
            x = BatchNorm(style.momentum, style.epsilon, name="norm")(x, train)
        return ACTIVATIONS[style.activation](x) if self.activate else x
