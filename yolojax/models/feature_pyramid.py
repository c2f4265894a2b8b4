"""The feature pyramid of two-stage detectors and RetinaNet (arXiv 1612.03144), in the form of torchvision."""

from typing import Literal

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Features, upsample_nearest
from yolojax.models.layers import Conv, ConvBNAct, Style


class FeaturePyramid(nn.Module):
    """Every level leaves with ``features`` channels: a 1x1 convolution, the coarser level added, a 3x3 convolution.

    No convolution has an activation after it. ``normalise`` puts a BatchNorm after each; without it they have biases.
    ``extra`` says which coarser levels come behind those of the backbone:

    - ``pool``: every second pixel of the coarsest output (Faster R-CNN);
    - ``output``: two convolutions of stride 2, the first on the coarsest output, ReLU between them (RetinaNet, arXiv
      1708.02002);
    - ``input``: the same, the first on the coarsest feature of the backbone.
    """

    features: int = 256
    extra: Literal["pool", "output", "input"] = "pool"
    normalise: bool = True
    style: Style = Style("relu", epsilon=1e-5)

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, above, out = self.style, None, []

        def convolve(x: Array, size: int, name: str) -> Array:
            if self.normalise:
                return ConvBNAct(self.features, size, activate=False, style=style, name=name)(x, train)
            return Conv(self.features, size, use_bias=True, dtype=style.dtype, name=name)(x)

        for i in reversed(range(len(features))):
            x = convolve(features[i], 1, f"lateral{i}")
            above = x if above is None else x + upsample_nearest(above)
            out.insert(0, convolve(above, 3, f"output{i}"))
        if self.extra == "pool":
            return (*out, out[-1][:, ::2, ::2])
        x = features[-1] if self.extra == "input" else out[-1]
        for i in range(2):
            x = Conv(self.features, 3, 2, use_bias=True, dtype=style.dtype, name=f"extra{i}")(
                jax.nn.relu(x) if i else x
            )
            out.append(x)
        return tuple(out)
