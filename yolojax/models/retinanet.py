"""The heads of RetinaNet (arXiv 1708.02002, section 4) in the form of torchvision."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Features
from yolojax.models.layers import Conv, Style

GROUPS = 32
"""Groups of channels that version 2 normalises together, as far as they divide the channels."""


class AnchorPrediction(NamedTuple):
    """Of every anchor of each level, float32: class logits, and predictions relative to the anchor."""

    cls: tuple[Float[Array, "B h w A C"], ...]
    deltas: tuple[Float[Array, "B h w A 4"], ...]


class Tower(nn.Module):
    """Four 3x3 convolutions with ReLU and one that predicts, with the same weights at every level.

    ``normalise`` puts a GroupNorm (arXiv 1803.08494) behind each of the four; its statistics are those of one image and
    one level.
    """

    outputs: int
    prior: float | None = None
    normalise: bool = True
    style: Style = Style("relu", epsilon=1e-5)

    @nn.compact
    def __call__(self, features: Features) -> tuple[Float[Array, "B _h _w _o"], ...]:
        width, dtype, initial = features[0].shape[-1], self.style.dtype, nn.initializers.normal(0.01)
        convs = [
            Conv(width, 3, use_bias=not self.normalise, dtype=dtype, kernel_init=initial, name=f"conv{i}")
            for i in range(4)
        ]
        norms = [
            nn.GroupNorm(math.gcd(GROUPS, width), epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=f"norm{i}")
            for i in range(4 if self.normalise else 0)
        ]
        rare = 0.0 if self.prior is None else math.log(self.prior / (1 - self.prior))
        options = {"use_bias": True, "dtype": dtype, "kernel_init": initial}
        predict = Conv(self.outputs, 3, bias_init=nn.initializers.constant(rare), name="predict", **options)
        out = []
        for x in features:
            for i, conv in enumerate(convs):
                x = conv(x)
                x = jax.nn.relu(norms[i](x) if norms else x)
            out.append(predict(x).astype(jnp.float32))
        return tuple(out)


class RetinaHead(nn.Module):
    """A `Tower` for the classes and one for the boxes of the ``anchors`` of each cell.

    There is one class more than ``num_classes``, the first, which torchvision keeps for background and nobody learns.
    Classes start at a probability of .01.
    """

    num_classes: int
    anchors: int = 9
    normalise: bool = True
    style: Style = Style("relu", epsilon=1e-5)

    @nn.compact
    def __call__(self, features: Features, train: bool) -> AnchorPrediction:
        del train
        count, classes = self.anchors, self.num_classes + 1
        cls = Tower(count * classes, 0.01, self.normalise, self.style, name="cls")(features)
        box = Tower(count * 4, None, self.normalise, self.style, name="box")(features)
        return AnchorPrediction(
            tuple(x.reshape(*x.shape[:3], count, classes) for x in cls),
            tuple(x.reshape(*x.shape[:3], count, 4) for x in box),
        )
