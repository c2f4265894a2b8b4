"""The layers of YOLOv1 (arXiv 1506.02640) whose weights differ from place to place, and its raw prediction.

A connected layer reads the whole map: its inputs count channel by channel and then row by row, as in Darknet. A local
layer is a convolution with a kernel and a bias of its own at every place.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from yolojax.errors import ConfigError
from yolojax.models.layers import ACTIVATIONS, BatchNorm, Style


class GridPrediction(NamedTuple):
    """Raw predictions of YOLOv1, float32, for ``S`` by ``S`` cells with ``n`` boxes each.

    ``boxes`` are ``(x, y)`` in the cell, in cells, and width and height as shares of the input image, or their square
    roots. All numbers are linear outputs of the last layer, not confined to a range.
    """

    classes: Float[Array, "B S S C"]
    confidences: Float[Array, "B S S n"]
    boxes: Float[Array, "B S S n 4"]


def split_grid(values: Float[Array, "B 1 1 V"], side: int, boxes: int) -> GridPrediction:
    """Cuts the numbers of the last layer: all class scores, cell by cell, then all confidences, then all boxes."""
    batch, total = values.shape[0], values.shape[-1]
    cells = side * side
    classes = total // cells - 5 * boxes
    flat = values.reshape(batch, total).astype(jnp.float32)
    first, second = cells * classes, cells * (classes + boxes)
    return GridPrediction(
        flat[:, :first].reshape(batch, side, side, classes),
        flat[:, first:second].reshape(batch, side, side, boxes),
        flat[:, second:].reshape(batch, side, side, boxes, 4),
    )


def _uniform(fan_in: int) -> Callable[[PRNGKeyArray, tuple[int, ...], DTypeLike], Array]:
    """Darknet's initial values: uniform within plus or minus ``sqrt(2 / fan_in)``."""

    def draw(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) * math.sqrt(2 / fan_in)

    return draw


def _own_kernel(module: nn.Module, shape: tuple[int, ...], fan_in: int) -> Array:
    """The kernel of a layer; raises `ConfigError` where it was made for another size of input."""
    stored = module.get_variable("params", "kernel") if module.has_variable("params", "kernel") else None
    if stored is not None and stored.shape != shape:
        raise ConfigError(
            f"the layer {'/'.join(module.path)} has weights of shape {stored.shape}, and for an image of this size it "
            f"needs {shape}: a network with connected or local layers has one input size"
        )
    return module.param("kernel", _uniform(fan_in), shape, jnp.float32)


class ConnectedLayer(nn.Module):
    """Every output reads every input, then normalisation if asked, and an activation. Kernel ``[inputs, outputs]``."""

    outputs: int
    batch_normalize: bool
    activation: str
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B 1 1 O"]:
        flat = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1).astype(self.style.dtype)
        kernel = _own_kernel(self, (flat.shape[1], self.outputs), flat.shape[1])
        y = (flat @ kernel.astype(self.style.dtype))[:, None, None, :]
        if self.batch_normalize:
            y = BatchNorm(self.style.momentum, self.style.epsilon, name="norm")(y, train)
        else:
            bias = self.param("bias", nn.initializers.zeros, (self.outputs,), jnp.float32)
            y += bias.astype(y.dtype).reshape(1, 1, 1, -1)
        return ACTIVATIONS[self.activation](y)


class LocalLayer(nn.Module):
    """A convolution with weights of its own at every place.

    The kernel is ``[rows, columns, channels * size * size, filters]`` and the bias ``[filters * rows * columns]``.
    """

    filters: int
    size: int
    stride: int
    padding: int
    activation: str
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        del train
        pad = (self.padding, self.padding)
        patches = jax.lax.conv_general_dilated_patches(
            x.astype(self.style.dtype),
            (self.size, self.size),
            (self.stride, self.stride),
            (pad, pad),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        rows, columns, values = patches.shape[1:]
        kernel = _own_kernel(self, (rows, columns, values, self.filters), values)
        bias = self.param("bias", nn.initializers.zeros, (self.filters * rows * columns,), jnp.float32)
        y = jnp.einsum("bhwk,hwkn->bhwn", patches, kernel.astype(self.style.dtype))
        y += bias.astype(y.dtype).reshape(1, self.filters, rows, columns).transpose(0, 2, 3, 1)
        return ACTIVATIONS[self.activation](y)
