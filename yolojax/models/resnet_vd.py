"""ResNet-vd, the backbone of RT-DETR: a stem of three convolutions, and shortcuts that pool before they project.

Bag of tricks, arXiv 1812.01187, section 4.2 (ResNet-C and ResNet-D). Bottlenecks stride in their 3x3 convolution.
"""

from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from yolojax.models.blocks import max_pool
from yolojax.models.layers import ACTIVATIONS, ConvBNAct, Style

DEPTHS: dict[int, tuple[int, ...]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks of each stage by the number of layers; from 50 layers on they are bottlenecks."""


class ResidualVD(nn.Module):
    """A basic block, or a ``bottleneck`` of four times ``features`` channels; the ``first`` of a stage projects."""

    features: int
    stride: int
    first: bool
    bottleneck: bool
    style: Style = Style("relu")

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        style, width = self.style, self.features * (4 if self.bottleneck else 1)
        if self.bottleneck:
            y = ConvBNAct(self.features, 1, style=style, name="conv1")(x, train)
            y = ConvBNAct(self.features, 3, self.stride, style=style, name="conv2")(y, train)
            y = ConvBNAct(width, 1, activate=False, style=style, name="conv3")(y, train)
        else:
            y = ConvBNAct(width, 3, self.stride, style=style, name="conv1")(x, train)
            y = ConvBNAct(width, 3, activate=False, style=style, name="conv2")(y, train)
        if self.first:
            short = x
            if self.stride == 2:
                short = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
            x = ConvBNAct(width, 1, activate=False, style=style, name="project")(short, train)
        return ACTIVATIONS[style.activation](x + y)


class ResNetVD(nn.Module):
    """Features at strides 8, 16 and 32 of a ResNet-vd with ``layers`` layers, a key of `DEPTHS`."""

    layers: int
    style: Style = Style("relu", momentum=0.9, epsilon=1e-5)

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, bottleneck = self.style, self.layers >= 50
        x = ConvBNAct(32, 3, 2, style=style, name="stem1")(images.astype(style.dtype), train)
        x = ConvBNAct(32, 3, style=style, name="stem2")(x, train)
        x = ConvBNAct(64, 3, style=style, name="stem3")(x, train)
        x = max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        features = []
        for i, (width, count) in enumerate(zip((64, 128, 256, 512), DEPTHS[self.layers], strict=True)):
            for j in range(count):
                stride = 2 if i and not j else 1
                x = ResidualVD(width, stride, j == 0, bottleneck, style, name=f"stage{i}_{j}")(x, train)
            features.append(x)
        return tuple(features[1:])
