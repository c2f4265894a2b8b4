"""The necks of YOLOv2, v3 and v4, and the head that v3 and v4 share, layer for layer as in their Darknet files."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Features, max_pool_same, upsample_nearest
from yolojax.models.darknet import reorg
from yolojax.models.darknet_backbones import DARKNET, Maps, scaled
from yolojax.models.heads import YOLOHead
from yolojax.models.layers import ConvBNAct, Style


class Passthrough(nn.Module):
    """YOLOv2's neck: two 3x3 convolutions, and the finer features brought in through a reorganisation of their pixels.

    arXiv 1612.08242, section 2, "fine-grained features". One level leaves, at stride 32 with 1024 channels.
    """

    width: float = 1.0
    style: Style = DARKNET

    @nn.compact
    def __call__(self, features: Features, train: bool) -> Maps:
        fine, x = features
        for i in range(2):
            x = ConvBNAct(scaled(1024, self.width), 3, style=self.style, name=f"conv{i}")(x, train)
        fine = ConvBNAct(4 * scaled(16, self.width), 1, style=self.style, name="passthrough")(fine, train)
        x = jnp.concatenate([reorg(fine, 2), x], axis=-1)
        return (ConvBNAct(scaled(1024, self.width), 3, style=self.style, name="join")(x, train),)


class ConvSet(nn.Module):
    """1x1 convolutions of ``features`` channels with 3x3 convolutions of twice as many between them, ``count`` in all.

    The last is 1x1, so ``count`` is odd.
    """

    features: int
    count: int = 5
    style: Style = DARKNET

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        for i in range(self.count):
            channels, kernel = (2 * self.features, 3) if i % 2 else (self.features, 1)
            x = ConvBNAct(channels, kernel, style=self.style, name=f"conv{i}")(x, train)
        return x


class YOLOv3Neck(nn.Module):
    """Top-down: at each level a `ConvSet`; on the way to the finer one a 1x1 convolution and upsampling.

    arXiv 1804.02767, section 2.3. Levels leave with 128, 256 and 512 channels.
    """

    width: float = 1.0
    style: Style = DARKNET

    @nn.compact
    def __call__(self, features: Features, train: bool) -> Maps:
        out: list[Array] = []
        for i in reversed(range(len(features))):
            x = features[i]
            if out:
                up = ConvBNAct(scaled(128 * 2**i, self.width), 1, style=self.style, name=f"lateral{i}")(out[0], train)
                x = jnp.concatenate([upsample_nearest(up), x], axis=-1)
            out.insert(0, ConvSet(scaled(128 * 2**i, self.width), style=self.style, name=f"set{i}")(x, train))
        return tuple(out)


class TinyNeck(nn.Module):
    """The neck of YOLOv3-tiny and YOLOv4-tiny: the coarse level reduced, and added to the fine one by concatenation."""

    width: float = 1.0
    style: Style = DARKNET

    @nn.compact
    def __call__(self, features: Features, train: bool) -> Maps:
        fine, coarse = features
        coarse = ConvBNAct(scaled(256, self.width), 1, style=self.style, name="reduce")(coarse, train)
        up = ConvBNAct(scaled(128, self.width), 1, style=self.style, name="lateral")(coarse, train)
        return jnp.concatenate([upsample_nearest(up), fine], axis=-1), coarse


class SPP(nn.Module):
    """Max pools of 13, 9 and 5 pixels beside the input itself (arXiv 1406.4729, as in YOLOv3-SPP and YOLOv4)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        return jnp.concatenate([*(max_pool_same(x, size) for size in (13, 9, 5)), x], axis=-1)


class YOLOv4Neck(nn.Module):
    """SPP, then path aggregation by concatenation, top-down and bottom-up (arXiv 2004.10934, section 3.4).

    Levels leave with 128, 256 and 512 channels.
    """

    width: float = 1.0
    style: Style = DARKNET

    @nn.compact
    def __call__(self, features: Features, train: bool) -> Maps:
        style, last = self.style, len(features) - 1

        def channels(level: int) -> int:
            return scaled(128 * 2**level, self.width)

        x = ConvSet(channels(last), 3, style, name="before_spp")(features[last], train)
        down = [ConvSet(channels(last), 3, style, name="after_spp")(SPP()(x), train)]
        for i in reversed(range(last)):
            up = ConvBNAct(channels(i), 1, style=style, name=f"up{i}")(down[0], train)
            own = ConvBNAct(channels(i), 1, style=style, name=f"lateral{i}")(features[i], train)
            x = jnp.concatenate([own, upsample_nearest(up)], axis=-1)
            down.insert(0, ConvSet(channels(i), style=style, name=f"down{i}")(x, train))
        out = [down[0]]
        for i in range(1, len(features)):
            x = ConvBNAct(channels(i), 3, 2, style=style, name=f"halve{i}")(out[-1], train)
            out.append(ConvSet(channels(i), style=style, name=f"out{i}")(jnp.concatenate([x, down[i]], axis=-1), train))
        return tuple(out)


class ConvYOLOHead(nn.Module):
    """The head of YOLOv3 and v4: a 3x3 convolution of ``widths[i]`` channels and the 1x1 prediction, at each level."""

    widths: Sequence[int]
    num_anchors: int
    num_classes: int
    style: Style = DARKNET

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w A P"], ...]:
        wide = [
            ConvBNAct(width, 3, style=self.style, name=f"conv{i}")(x, train)
            for i, (x, width) in enumerate(zip(features, self.widths, strict=True))
        ]
        return YOLOHead(self.num_anchors, self.num_classes, style=self.style, name="predict")(wide, train)
