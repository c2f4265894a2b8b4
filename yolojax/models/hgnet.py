"""PP-HGNetV2, the backbone of D-FINE, DEIMv2 and some RT-DETR: stages that keep and join all of their layers.

PaddleClas' PP-HGNetV2; used in RT-DETR, arXiv 2304.08069, section 5. Blocks are one-shot aggregations, as in VoVNet
(arXiv 1904.09730).
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import max_pool
from yolojax.models.layers import ConvBNAct, Style


class HGStage(NamedTuple):
    """The sizes of a stage: channels inside its layers and after it, its blocks, their kind and their layers.

    ``light`` blocks have separable layers. Every stage but the first halves the size before its blocks.
    """

    middle: int
    out: int
    blocks: int
    light: bool
    kernel: int
    layers: int


class HGSize(NamedTuple):
    """The sizes of an HGNetv2: channels inside and after the stem, and its stages."""

    stem_middle: int
    stem: int
    stages: tuple[HGStage, ...]


def _size(stem: tuple[int, int], kernel: int, layers: int, *stages: tuple[int, int, int]) -> HGSize:
    """``stages`` are channels inside, channels after, blocks; the third and fourth are light with this kernel."""
    return HGSize(
        *stem,
        tuple(
            HGStage(middle, out, blocks, i > 1, kernel if i > 1 else 3, layers)
            for i, (middle, out, blocks) in enumerate(stages)
        ),
    )


HGNET_SIZES: dict[str, HGSize] = {
    "atto": _size((16, 16), 3, 3, (16, 64, 1), (32, 256, 1), (64, 256, 1)),
    "femto": _size((16, 16), 5, 3, (16, 64, 1), (32, 256, 1), (64, 512, 1)),
    "pico": _size((16, 16), 5, 3, (16, 64, 1), (32, 256, 1), (64, 512, 2)),
    "b0": _size((16, 16), 5, 3, (16, 64, 1), (32, 256, 1), (64, 512, 2), (128, 1024, 1)),
    "b2": _size((24, 32), 5, 4, (32, 96, 1), (64, 384, 1), (128, 768, 3), (256, 1536, 1)),
    "b4": _size((32, 48), 5, 6, (48, 128, 1), (96, 512, 1), (192, 1024, 3), (384, 2048, 1)),
    "b5": _size((32, 64), 5, 6, (64, 128, 1), (128, 512, 2), (256, 1024, 5), (512, 2048, 2)),
}
"""The sizes by their published names, those of DEIMv2 included."""


class AffineConv(nn.Module):
    """Convolution, BatchNorm, ReLU, and then, if ``affine``, a gain and a shift that all channels share."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    groups: int = 1
    activate: bool = True
    affine: bool = True
    style: Style = Style("relu")
    padding: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        shape = (self.features, self.kernel_size, self.stride, self.groups)
        x = ConvBNAct(*shape, self.activate, self.style, self.padding, name="layer")(x, train)
        if self.activate and self.affine:
            gain = self.param("gain", nn.initializers.ones, (1,), jnp.float32)
            shift = self.param("shift", nn.initializers.zeros, (1,), jnp.float32)
            x = x * gain.astype(x.dtype).reshape(1, 1, 1, 1) + shift.astype(x.dtype).reshape(1, 1, 1, 1)
        return x


class HGBlock(nn.Module):
    """Layers one after another; input and all of their results are joined by two 1x1 convolutions.

    ``residual`` adds the input.
    """

    size: HGStage
    residual: bool
    affine: bool = True
    style: Style = Style("relu")

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        size, common = self.size, {"affine": self.affine, "style": self.style}
        parts = [x]
        for i in range(size.layers):
            y = parts[-1]
            if size.light:
                y = AffineConv(size.middle, 1, activate=False, **common, name=f"layer{i}_pointwise")(y, train)
                y = AffineConv(size.middle, size.kernel, 1, size.middle, **common, name=f"layer{i}_depthwise")(y, train)
            else:
                y = AffineConv(size.middle, size.kernel, **common, name=f"layer{i}")(y, train)
            parts.append(y)
        y = AffineConv(size.out // 2, 1, **common, name="squeeze")(jnp.concatenate(parts, axis=-1), train)
        y = AffineConv(size.out, 1, **common, name="excite")(y, train)
        return x + y if self.residual else y


class HGNetv2(nn.Module):
    """The features of the last ``levels`` stages. The stages have the strides 4, 8, 16 and 32.

    ``affine`` networks (those up to B2, by their authors) have the gains and shifts of `AffineConv`.
    """

    size: HGSize
    levels: int = 3
    affine: bool = True
    style: Style = Style("relu", momentum=0.9, epsilon=1e-5)

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        common, middle = {"affine": self.affine, "style": self.style}, self.size.stem_middle
        x = AffineConv(middle, 3, 2, **common, name="stem1")(images.astype(self.style.dtype), train)
        # Kernels of two pixels look to the right and down: the map is padded there.
        x = _pad_end(x)
        y = AffineConv(middle // 2, 2, padding=0, **common, name="stem2a")(x, train)
        y = AffineConv(middle, 2, padding=0, **common, name="stem2b")(_pad_end(y), train)
        pooled = max_pool(x, (2, 2), (1, 1), ((0, 0), (0, 0)))
        x = AffineConv(middle, 3, 2, **common, name="stem3")(jnp.concatenate([pooled, y], axis=-1), train)
        x = AffineConv(self.size.stem, 1, **common, name="stem4")(x, train)
        features = []
        for i, stage in enumerate(self.size.stages):
            if i:
                down = AffineConv(x.shape[-1], 3, 2, x.shape[-1], False, **common, name=f"stage{i}_down")
                x = down(x, train)
            for j in range(stage.blocks):
                x = HGBlock(stage, j > 0, **common, name=f"stage{i}_block{j}")(x, train)
            features.append(x)
        return tuple(features[-self.levels :])


def _pad_end(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """The map with a row and a column of zeros after the last."""
    return jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
