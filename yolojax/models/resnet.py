"""ResNet as a backbone (arXiv 1512.03385, table 1) without its classifier, in the form of torchvision (v1.5).

In that form the 3x3 convolution of a bottleneck has the stride, not the 1x1 convolution before it.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import max_pool
from yolojax.models.layers import ACTIVATIONS, ConvBNAct, Style

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours of ImageNet's photographs, in the range 0 to 1; published ResNets were trained on their difference."""

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks of each stage by the number of layers."""

BOTTLENECK_FROM = 50
"""Networks of so many layers or more consist of bottlenecks, the others of basic blocks."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution where the shape changes."""

    features: int
    stride: int = 1
    style: Style = Style("relu", epsilon=1e-5)

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        style = self.style
        y = ConvBNAct(self.features, 3, self.stride, style=style, name="conv1")(x, train)
        y = ConvBNAct(self.features, 3, activate=False, style=style, name="conv2")(y, train)
        if x.shape != y.shape:
            x = ConvBNAct(self.features, 1, self.stride, activate=False, style=style, name="project")(x, train)
        return ACTIVATIONS[style.activation](x + y)


class BottleneckBlock(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution, the last to four times ``features``, and a shortcut as in `BasicBlock`."""

    features: int
    stride: int = 1
    style: Style = Style("relu", epsilon=1e-5)

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        style = self.style
        y = ConvBNAct(self.features, 1, style=style, name="conv1")(x, train)
        y = ConvBNAct(self.features, 3, self.stride, style=style, name="conv2")(y, train)
        y = ConvBNAct(4 * self.features, 1, activate=False, style=style, name="conv3")(y, train)
        if x.shape != y.shape:
            x = ConvBNAct(4 * self.features, 1, self.stride, activate=False, style=style, name="project")(x, train)
        return ACTIVATIONS[style.activation](x + y)


class ResNet(nn.Module):
    """Features at strides 4, 8, 16 and 32; ``levels`` keeps only so many of the coarsest.

    ``depth`` is 18, 34, 50 or 101 and ``width`` the channels of the stem, 64 in published networks. The channels of the
    four features are 1, 2, 4 and 8 times the width, with bottlenecks (depth 50 and 101) four times as many.
    ``normalise`` subtracts `IMAGENET_MEAN` and divides by `IMAGENET_DEVIATION` first, for images in the range 0 to 1.
    ``frozen_norm`` normalises with the running statistics in training too, as torchvision's FrozenBatchNorm2d does.
    """

    depth: int = 50
    levels: int = 3
    style: Style = Style("relu", epsilon=1e-5)
    width: int = 64
    normalise: bool = False
    frozen_norm: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        train = train and not self.frozen_norm
        block = BottleneckBlock if self.depth >= BOTTLENECK_FROM else BasicBlock
        if self.normalise:
            mean, deviation = (jnp.asarray(x, jnp.float32) for x in (IMAGENET_MEAN, IMAGENET_DEVIATION))
            images = (images - mean.reshape(1, 1, 1, 3)) / deviation.reshape(1, 1, 1, 3)
        x = ConvBNAct(self.width, 7, 2, style=self.style, name="stem")(images.astype(self.style.dtype), train)
        x = max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        features = []
        for i, count in enumerate(STAGES[self.depth]):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                x = block(self.width * 2**i, stride, self.style, name=f"stage{i}_{j}")(x, train)
            features.append(x)
        return tuple(features[-self.levels :])


ResNet18 = partial(ResNet, 18)
"""Features at strides 8, 16 and 32 with 128, 256 and 512 channels; 11,176,512 parameters."""
