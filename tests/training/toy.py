"""A detector that compiles in a moment: three layers, and a loss of two parts with different divisors."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from yolojax.detector import Detector, DetectorSpec
from yolojax.models.layers import Conv, ConvBNAct, Style
from yolojax.models.network import Network
from yolojax.structures import Batch, Candidates, Hyper, LossTerms, Targets
from yolojax.zoo import flax_detector

INPUT_SIZE = (8, 8)


class Part(nn.Module):
    """A normalised convolution with a name of its own."""

    stride: int
    style: Style

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return ConvBNAct(4, 3, self.stride, style=self.style, name="first")(x, train)


class Head(nn.Module):
    """Two maps."""

    dtype: str

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return Conv(2, use_bias=True, dtype=self.dtype, name="maps")(x)


def toy_loss(outputs: Array, targets: Targets, hyper: Hyper) -> LossTerms:
    """Squares: of the first map per valid object, of the second per image."""
    maps = outputs.astype(jnp.float32)
    objects = jnp.sum(targets.valid, axis=-1).astype(jnp.float32)
    per_object = hyper.lambda_coord * objects * jnp.sum((maps[..., 0] - objects[:, None, None]) ** 2, axis=(1, 2))
    per_image = hyper.lambda_cls * jnp.sum((maps[..., 1] - 2) ** 2, axis=(1, 2))
    return LossTerms(
        sums={"objects": per_object, "images": per_image},
        normalisers={"objects": objects, "images": jnp.ones_like(objects)},
        counts={"positives": objects},
    )


@functools.cache  # its programs are then those of every test of a file
def toy_detector(dtype: str = "float32") -> Detector:
    """Backbone and neck of one normalised convolution each, head of one without."""

    style = Style(dtype=dtype)

    def decode(outputs: Array) -> Candidates:
        raise NotImplementedError

    network = Network(Part(2, style), Part(1, style), Head(dtype))
    return flax_detector(DetectorSpec("toy", ("thing",), INPUT_SIZE, (2,)), network, toy_loss, decode)


@functools.cache
def toy_batch(key: int = 0, size: int = 8) -> Batch:
    """Noise, the brighter the later; image ``i`` has ``i % 3`` objects."""
    noise = jax.random.randint(jax.random.key(key), (size, *INPUT_SIZE, 3), 0, 256)
    images = (noise * jnp.arange(1, size + 1).reshape(-1, 1, 1, 1) // size).astype(jnp.uint8)
    boxes = jnp.tile(jnp.array([0.0, 0, 1, 1]), (size, 2, 1))
    valid = jnp.arange(2)[None, :] < (jnp.arange(size) % 3)[:, None]
    nothing = jnp.zeros((size, 2), jnp.int32)
    targets = Targets(boxes, nothing, valid, jnp.zeros((size, 2), bool), jnp.zeros(size, jnp.int32))
    return Batch(images, targets)
