"""The backbone of YOLOv5 from version 6.0 on. Its neck is YOLOX's `yolojax.models.yolox.PAFPN`, layer for layer."""

from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import SPPF
from yolojax.models.layers import ConvBNAct, Style
from yolojax.models.yolox import CSPLayer


class YOLOv5Backbone(nn.Module):
    """A 6x6 convolution of stride 2, four stages, SPPF; features at strides 8, 16 and 32.

    A stage is a 3x3 convolution of stride 2 and a `CSPLayer`. ``widths`` has the channels at strides 2 to 32,
    ``depths`` the bottlenecks of the four stages.
    """

    widths: Sequence[int] = (64, 128, 256, 512, 1024)
    depths: Sequence[int] = (3, 6, 9, 3)
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, features = self.style, []
        x = images.astype(style.dtype)
        x = ConvBNAct(self.widths[0], 6, 2, style=style, padding=2, name="stem")(x, train)
        for i, (width, depth) in enumerate(zip(self.widths[1:], self.depths, strict=True)):
            x = ConvBNAct(width, 3, 2, style=style, name=f"down{i + 1}")(x, train)
            x = CSPLayer(width, depth, True, False, style, name=f"stage{i + 1}")(x, train)
            features.append(x)
        features[-1] = SPPF(self.widths[-1], style, name="sppf")(x, train)
        return tuple(features[1:])
