"""Backbones in the manner of Darknet: stride-2 convolutions, each followed by a stage of blocks."""

from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import SPPF, Bottleneck, CSPBlock, space_to_depth
from yolojax.models.layers import ConvBNAct, Style


class DarknetTiny(nn.Module):
    """A small Darknet: stages of blocks, each at half the resolution of the one before; features from stride 8 on.

    ``widths[i]`` and ``depths[i]`` are the channels and the number of blocks at stride ``2 ** (i + 1)``; a width of 0
    skips that stride. A stage begins with a 3x3 convolution of stride 2, or, if ``merge``, with a rearrangement of
    pixels into channels and a 1x1 convolution (patch merging, arXiv 2103.14030), which is a non-overlapping 2x2
    convolution. ``csp`` joins the bottlenecks of a stage in a `CSPBlock`; otherwise they follow one another as residual
    blocks (arXiv 1804.02767, here with two 3x3 convolutions each). ``levels`` keeps only so many of the coarsest
    features.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    depths: tuple[int, ...] = (0, 1, 2, 2, 1)
    csp: bool = True
    merge: bool = False
    stem_kernel: int = 3
    sppf: bool = True
    levels: int = 3
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style = self.style
        x, features, block = images.astype(style.dtype), [], 1
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            block *= 2
            if not width:
                continue
            if self.merge or block > 2:
                kernel = self.stem_kernel if x.shape[-1] == 3 else 1
                x = ConvBNAct(width, kernel, style=style, name=f"down{i}")(space_to_depth(x, block), train)
            else:
                x = ConvBNAct(width, 3, stride=2, style=style, name=f"down{i}")(x, train)
            block = 1
            if self.csp and depth:
                x = CSPBlock(width, depth, style=style, name=f"stage{i}")(x, train)
            else:
                for j in range(depth):
                    x = Bottleneck(width, style=style, name=f"stage{i}_{j}")(x, train)
            if self.sppf and i == len(self.widths) - 1:
                x = SPPF(width, style=style, name="sppf")(x, train)
            if i >= 2:
                features.append(x)
        return tuple(features[-self.levels :])
