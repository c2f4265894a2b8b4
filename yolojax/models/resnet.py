"""ResNet-18 as a backbone (arXiv 1512.03385, table 1), without its classifier."""

from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import max_pool
from yolojax.models.layers import ACTIVATIONS, ConvBNAct, Style


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


class ResNet18(nn.Module):
    """Features at strides 8, 16 and 32 with 128, 256 and 512 channels; 11,176,512 parameters.

    ``levels`` keeps only so many of the coarsest.
    """

    levels: int = 3
    style: Style = Style("relu", epsilon=1e-5)

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        x = ConvBNAct(64, 7, 2, style=self.style, name="stem")(images.astype(self.style.dtype), train)
        x = max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        features = []
        for i, width in enumerate((64, 128, 256, 512)):
            x = BasicBlock(width, 1 if i == 0 else 2, self.style, name=f"stage{i}_0")(x, train)
            x = BasicBlock(width, 1, self.style, name=f"stage{i}_1")(x, train)
            features.append(x)
        return tuple(features[-self.levels :])
