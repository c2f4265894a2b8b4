"""The backbones of YOLOv2, v3 and v4, layer for layer as their authors' Darknet files have them.

``width`` scales every channel count of the published network, ``depths`` are its residual blocks; the published ones
are the defaults. Features come out at strides 8, 16 and 32, or 16 and 32, finest first.
"""

from dataclasses import replace

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import max_pool
from yolojax.models.layers import ConvBNAct, Style

DARKNET = Style("leaky_relu", epsilon=1e-5)
"""Darknet's activation and its batch normalisation's epsilon."""

Images = Float[Array, "B H W 3"]
Maps = tuple[Float[Array, "B _h _w _c"], ...]


def scaled(channels: int, width: float) -> int:
    """A channel count of a network ``width`` times as wide."""
    return max(2, round(channels * width))


def halve(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Darknet's 2x2 max pooling of stride 2: an odd last row or column counts once more."""
    odd = ((0, x.shape[1] % 2), (0, x.shape[2] % 2))
    return max_pool(x, (2, 2), (2, 2), odd)


class Darknet19(nn.Module):
    """Darknet-19 without its classifier (YOLOv2, arXiv 1612.08242, table 6): 18 convolutions, five max pools.

    Features at strides 16 (512 channels) and 32 (1024).
    """

    width: float = 1.0
    style: Style = DARKNET

    @nn.compact
    def __call__(self, images: Images, train: bool) -> Maps:
        x, features = images.astype(self.style.dtype), []
        stages = ((32,), (64,), (128, 64, 128), (256, 128, 256), (512, 256) * 2 + (512,), (1024, 512) * 2 + (1024,))
        for i, channels in enumerate(stages):
            if i:
                features.append(x)
                x = halve(x)
            for j, c in enumerate(channels):
                kernel = 1 if j % 2 else 3
                x = ConvBNAct(scaled(c, self.width), kernel, style=self.style, name=f"stage{i}_{j}")(x, train)
        return features[-1], x


class PooledDarknet(nn.Module):
    """The backbone of YOLOv3-tiny: seven 3x3 convolutions with max pools between them, the last pool of stride 1.

    Features at strides 16 (256 channels) and 32 (1024).
    """

    width: float = 1.0
    style: Style = DARKNET

    @nn.compact
    def __call__(self, images: Images, train: bool) -> Maps:
        x, maps = images.astype(self.style.dtype), []
        for i, c in enumerate((16, 32, 64, 128, 256, 512, 1024)):
            if i == 6:
                x = max_pool(x, (2, 2), (1, 1), ((0, 1), (0, 1)))
            elif i:
                x = halve(x)
            x = ConvBNAct(scaled(c, self.width), 3, style=self.style, name=f"conv{i}")(x, train)
            maps.append(x)
        return maps[4], maps[6]


class Residual(nn.Module):
    """A 1x1 convolution to ``hidden`` channels, a 3x3 convolution back, and the identity."""

    hidden: int
    style: Style = DARKNET

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        y = ConvBNAct(self.hidden, 1, style=self.style, name="reduce")(x, train)
        return x + ConvBNAct(x.shape[-1], 3, style=self.style, name="expand")(y, train)


class Darknet53(nn.Module):
    """Darknet-53 without its classifier (YOLOv3, arXiv 1804.02767, table 1): residual blocks of 1x1 and 3x3.

    Features at strides 8, 16 and 32 with 256, 512 and 1024 channels.
    """

    width: float = 1.0
    depths: tuple[int, ...] = (1, 2, 8, 8, 4)
    style: Style = DARKNET

    @nn.compact
    def __call__(self, images: Images, train: bool) -> Maps:
        style, features = self.style, []
        x = ConvBNAct(scaled(32, self.width), 3, style=style, name="stem")(images.astype(style.dtype), train)
        for i, depth in enumerate(self.depths):
            c = 64 * 2**i
            x = ConvBNAct(scaled(c, self.width), 3, 2, style=style, name=f"down{i}")(x, train)
            for j in range(depth):
                x = Residual(scaled(c // 2, self.width), style, name=f"stage{i}_{j}")(x, train)
            features.append(x)
        return tuple(features[-3:])


class CSPStage(nn.Module):
    """Halving, then a cross-stage partial block (arXiv 1911.11929): one branch passes by the residual blocks.

    Darknet splits by two 1x1 convolutions of ``channels`` each over the same input.
    """

    features: int
    channels: int
    hidden: int
    depth: int
    style: Style = DARKNET

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        style = self.style
        x = ConvBNAct(self.features, 3, 2, style=style, name="down")(x, train)
        passed = ConvBNAct(self.channels, 1, style=style, name="pass")(x, train)
        x = ConvBNAct(self.channels, 1, style=style, name="enter")(x, train)
        for j in range(self.depth):
            x = Residual(self.hidden, style, name=f"block{j}")(x, train)
        x = ConvBNAct(self.channels, 1, style=style, name="leave")(x, train)
        return ConvBNAct(self.features, 1, style=style, name="join")(jnp.concatenate([x, passed], axis=-1), train)


class CSPDarknet53(nn.Module):
    """CSPDarknet-53 with Mish (YOLOv4, arXiv 2004.10934, section 3.4).

    Features at strides 8, 16 and 32 with 256, 512 and 1024 channels.
    """

    width: float = 1.0
    depths: tuple[int, ...] = (1, 2, 8, 8, 4)
    style: Style = DARKNET

    @nn.compact
    def __call__(self, images: Images, train: bool) -> Maps:
        style, features = replace(self.style, activation="mish"), []
        x = ConvBNAct(scaled(32, self.width), 3, style=style, name="stem")(images.astype(style.dtype), train)
        for i, depth in enumerate(self.depths):
            c = 64 * 2**i
            # The first stage does not halve its branches.
            channels, hidden = (c, c // 2) if i == 0 else (c // 2, c // 2)
            out, channels, hidden = (scaled(n, self.width) for n in (c, channels, hidden))
            x = CSPStage(out, channels, hidden, depth, style, name=f"stage{i}")(x, train)
            features.append(x)
        return tuple(features[-3:])


class CSPDarknetTiny(nn.Module):
    """The backbone of YOLOv4-tiny (scaled YOLOv4, arXiv 2011.08036, section 4.2): partial blocks of half the channels.

    Features at strides 16 (256 channels, before the block is joined) and 32 (512).
    """

    width: float = 1.0
    style: Style = DARKNET

    @nn.compact
    def __call__(self, images: Images, train: bool) -> Maps:
        style = self.style

        def conv(x: Array, channels: int, kernel: int, name: str, stride: int = 1) -> Array:
            return ConvBNAct(scaled(channels, self.width), kernel, stride, style=style, name=name)(x, train)

        x = conv(images.astype(style.dtype), 32, 3, "stem", 2)
        x = conv(x, 64, 3, "down", 2)
        joined = x
        for i, c in enumerate((64, 128, 256)):
            x = conv(x, c, 3, f"stage{i}_enter")
            half = conv(x[..., x.shape[-1] // 2 :], c // 2, 3, f"stage{i}_conv0")
            inner = conv(half, c // 2, 3, f"stage{i}_conv1")
            joined = conv(jnp.concatenate([inner, half], axis=-1), c, 1, f"stage{i}_join")
            x = halve(jnp.concatenate([x, joined], axis=-1))
        return joined, conv(x, 512, 3, "top")
