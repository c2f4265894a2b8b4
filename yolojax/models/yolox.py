"""The modules of YOLOX (arXiv 2107.08430): CSPDarknet with a Focus stem, a PAFPN neck and a decoupled head.

Layer for layer as published, so that published weights fit. ``depthwise`` is the Nano's trait: every 3x3 convolution
but the stem becomes a depthwise one followed by a pointwise one.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Features, cross_stage, max_pool_same, space_to_depth, upsample_nearest
from yolojax.models.layers import Conv, ConvBNAct, Style


class SpatialConv(nn.Module):
    """A normalised 3x3 convolution; ``depthwise`` splits it into 3x3 per channel and 1x1 (arXiv 1704.04861)."""

    features: int
    stride: int = 1
    depthwise: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        if not self.depthwise:
            return ConvBNAct(self.features, 3, self.stride, style=self.style, name="full")(x, train)
        width = x.shape[-1]
        x = ConvBNAct(width, 3, self.stride, width, style=self.style, name="depthwise")(x, train)
        return ConvBNAct(self.features, 1, style=self.style, name="pointwise")(x, train)


class SeparableBottleneck(nn.Module):
    """A 1x1 convolution, a spatial one, and the identity if ``shortcut`` (Darknet's residual, without narrowing)."""

    features: int
    shortcut: bool
    depthwise: bool
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        y = ConvBNAct(self.features, 1, style=self.style, name="conv1")(x, train)
        y = SpatialConv(self.features, 1, self.depthwise, self.style, name="conv2")(y, train)
        return x + y if self.shortcut else y


class CSPLayer(nn.Module):
    """The cross-stage partial layer of YOLOv5 and YOLOX (`yolojax.models.blocks.cross_stage`)."""

    features: int
    depth: int
    shortcut: bool
    depthwise: bool
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        def inner(features: int, name: str) -> nn.Module:
            return SeparableBottleneck(features, self.shortcut, self.depthwise, self.style, name=name)

        return cross_stage(x, train, self.features, self.depth, inner, self.style)


class SPP(nn.Module):
    """Spatial pyramid pooling (arXiv 1406.4729): maxima over 5x5, 9x9 and 13x13 windows beside the input itself."""

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        parts = [ConvBNAct(x.shape[-1] // 2, 1, style=self.style, name="reduce")(x, train)]
        for _ in range(3):  # the maximum of maxima over 5x5 is that over 9x9, and so on
            parts.append(max_pool_same(parts[-1], 5))
        return ConvBNAct(self.features, 1, style=self.style, name="join")(jnp.concatenate(parts, -1), train)


def focus(images: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
    """Every 2x2 square of pixels as channels, columns before rows: top left, bottom left, top right, bottom right."""
    channels = images.shape[-1]
    x = space_to_depth(images)  # rows before columns
    parts = [x[..., i * channels : (i + 1) * channels] for i in (0, 2, 1, 3)]
    return jnp.concatenate(parts, axis=-1)


class CSPDarknet(nn.Module):
    """YOLOX's backbone; features at strides 8, 16 and 32 with 4, 8 and 16 times ``width`` channels.

    ``depth`` is the number of bottlenecks in the stages at strides 4 and 32; those between have three times as many.
    """

    width: int
    depth: int
    depthwise: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, depthwise, features = self.style, self.depthwise, []
        x = ConvBNAct(self.width, 3, style=style, name="stem")(focus(images.astype(style.dtype)), train)
        for stage, depth in ((2, self.depth), (3, 3 * self.depth), (4, 3 * self.depth), (5, self.depth)):
            width = self.width * 2 ** (stage - 1)
            x = SpatialConv(width, 2, depthwise, style, name=f"down{stage}")(x, train)
            if stage == 5:
                x = SPP(width, style, name="spp")(x, train)
            x = CSPLayer(width, depth, stage < 5, depthwise, style, name=f"stage{stage}")(x, train)
            features.append(x)
        return tuple(features[1:])


class PAFPN(nn.Module):
    """YOLOX's neck: path aggregation (arXiv 1803.01534) whose levels keep the widths of the features, finest first.

    ``depth`` is the number of bottlenecks in each joining layer.
    """

    depth: int
    depthwise: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, depthwise, widths = self.style, self.depthwise, [x.shape[-1] for x in features]
        x, lateral = features[-1], {}
        for i in reversed(range(1, len(features))):
            lateral[i] = ConvBNAct(widths[i - 1], 1, style=style, name=f"lateral{i}")(x, train)
            x = jnp.concatenate([upsample_nearest(lateral[i]), features[i - 1]], axis=-1)
            x = CSPLayer(widths[i - 1], self.depth, False, depthwise, style, name=f"down{i - 1}")(x, train)
        out = [x]
        for i in range(1, len(features)):
            x = SpatialConv(widths[i - 1], 2, depthwise, style, name=f"reduce{i}")(out[-1], train)
            x = jnp.concatenate([x, lateral[i]], axis=-1)
            out.append(CSPLayer(widths[i], self.depth, False, depthwise, style, name=f"up{i}")(x, train))
        return tuple(out)


class DecoupledPrediction(NamedTuple):
    """Raw predictions at one level, float32: box offsets ``x, y, log w, log h`` in strides, and logits."""

    box: Float[Array, "B h w 4"]
    objectness: Float[Array, "B h w 1"]
    cls: Float[Array, "B h w C"]


class DecoupledHead(nn.Module):
    """YOLOX's head: after a 1x1 stem two branches of two 3x3 convolutions, for classes, and for box and objectness.

    Objectness and classes start at a probability of .01 (arXiv 1708.02002, section 4.1).
    """

    num_classes: int
    width: int
    depthwise: bool = False
    prior: float = 0.01
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[DecoupledPrediction, ...]:
        rare = nn.initializers.constant(math.log(self.prior / (1 - self.prior)))
        options = {"use_bias": True, "dtype": self.style.dtype}
        out = []
        for i, x in enumerate(features):
            stem = ConvBNAct(self.width, 1, style=self.style, name=f"level{i}_stem")(x, train)
            branches = {}
            for branch in ("cls", "box"):
                y = stem
                for j in range(2):
                    conv = SpatialConv(self.width, 1, self.depthwise, self.style, name=f"level{i}_{branch}{j}")
                    y = conv(y, train)
                branches[branch] = y
            box = Conv(4, name=f"level{i}_predict_box", **options)(branches["box"])
            objectness = Conv(1, bias_init=rare, name=f"level{i}_predict_objectness", **options)(branches["box"])
            cls = Conv(self.num_classes, bias_init=rare, name=f"level{i}_predict_cls", **options)(branches["cls"])
            out.append(DecoupledPrediction(*(y.astype(jnp.float32) for y in (box, objectness, cls))))
        return tuple(out)
