"""Backbones in the manner of Darknet: stride-2 convolutions, each followed by a stage of blocks."""

from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import SPPF, Bottleneck, CSPBlock
from yolojax.models.layers import ConvBNAct, Style


class DarknetTiny(nn.Module):
    """A small Darknet: a stem, then stages that halve the resolution; gives the features from stride 8 on.

    ``widths[i]`` and ``depths[i]`` belong to stride ``2 ** (i + 1)``: ``widths[0]`` to the stem at stride 2, and so on.
    Five widths end at stride 32, four at 16. ``csp`` joins the bottlenecks of a stage in a `CSPBlock`; otherwise they
    follow one another as residual blocks (arXiv 1804.02767, with two 3x3 convolutions each). ``depth`` 0 leaves a stage
    without blocks. ``levels`` keeps only so many of the coarsest features.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    depths: tuple[int, ...] = (0, 1, 2, 2, 1)
    csp: bool = True
    sppf: bool = True
    levels: int = 3
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        x, features = images.astype(self.style.dtype), []
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            x = ConvBNAct(width, 3, stride=2, style=self.style, name=f"down{i}")(x, train)
            if self.csp and depth:
                x = CSPBlock(width, depth, style=self.style, name=f"stage{i}")(x, train)
            else:
                for j in range(depth):
                    x = Bottleneck(width, style=self.style, name=f"stage{i}_{j}")(x, train)
            if self.sppf and i == len(self.widths) - 1:
                x = SPPF(width, style=self.style, name="sppf")(x, train)
            if i >= 2:
                features.append(x)
        return tuple(features[-self.levels :])
