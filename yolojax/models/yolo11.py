"""The backbone and the neck of YOLO11: cross-stage blocks with an inner kind, and attention at the coarsest level."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import SPPF, Bottleneck, Features, cross_stage
from yolojax.models.layers import ConvBNAct, Style
from yolojax.models.necks import aggregate_paths

HEAD_CHANNELS = 64
"""Channels of the values of one attention head; queries and keys have half as many."""


class InnerCSP(nn.Module):
    """A cross-stage partial block (`yolojax.models.blocks.cross_stage`) around two 3x3 bottlenecks."""

    features: int
    depth: int = 2
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        def inner(features: int, name: str) -> nn.Module:
            return Bottleneck(features, style=self.style, name=name)

        return cross_stage(x, train, self.features, self.depth, inner, self.style)


class C3k2(nn.Module):
    """YOLO11's cross-stage block, ``C3k2``: as `yolojax.models.blocks.CSPBlock`, with a choice of what it repeats.

    Each of ``depth`` inner blocks is an `InnerCSP` if ``nested``, otherwise a bottleneck whose first convolution has
    half of the channels. The halves have ``expansion * features`` channels. Every bottleneck has a shortcut.
    """

    features: int
    depth: int = 1
    nested: bool = False
    expansion: float = 0.5
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        hidden = int(self.features * self.expansion)
        x = ConvBNAct(2 * hidden, 1, style=self.style, name="split")(x, train)
        parts = [x[..., :hidden], x[..., hidden:]]
        for i in range(self.depth):
            if self.nested:
                inner = InnerCSP(hidden, style=self.style, name=f"bottleneck{i}")
            else:
                inner = Bottleneck(hidden, style=self.style, hidden=hidden // 2, name=f"bottleneck{i}")
            parts.append(inner(parts[-1], train))
        return ConvBNAct(self.features, 1, style=self.style, name="join")(jnp.concatenate(parts, axis=-1), train)


class Attention(nn.Module):
    """Self-attention over all places of a map, with a convolution per channel of the values as position.

    ``softmax(q k / sqrt(key channels)) v`` in ``heads`` heads (arXiv 1706.03762, equation 1). Keys have half of the
    channels of values if ``narrow_keys`` (YOLOv10, arXiv 2405.14458, section 3.2, "partial self-attention"), otherwise
    as many. The position's convolution is ``position x position``.

    With ``areas`` above 1 the places, row by row, are cut into as many runs of equal length, and a place attends to
    those of its own run only: area attention, YOLOv12, arXiv 2502.12524, section 3.2. ``areas`` divides the number of
    places.
    """

    heads: int
    style: Style = Style()
    narrow_keys: bool = True
    position: int = 3
    areas: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        value = channels // self.heads
        key = value // 2 if self.narrow_keys else value

        def linear(x: Array, features: int, name: str, kernel: int = 1, groups: int = 1) -> Array:
            return ConvBNAct(features, kernel, 1, groups, False, self.style, name=name)(x, train)

        qkv = linear(x, channels + 2 * key * self.heads, "qkv")
        qkv = qkv.reshape(batch * self.areas, height * width // self.areas, self.heads, 2 * key + value)
        q, k, v = qkv[..., :key], qkv[..., key : 2 * key], qkv[..., 2 * key :]
        logits = jnp.einsum("bqhc,bkhc->bhqk", q, k) / math.sqrt(key)
        weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(x.dtype)
        attended = jnp.einsum("bhqk,bkhc->bqhc", weights, v).reshape(x.shape)
        position = linear(v.reshape(x.shape), channels, "position", self.position, channels)
        return linear(attended + position, channels, "project")


class AttentionBlock(nn.Module):
    """Attention and two 1x1 convolutions of twice the channels between, each with the identity around it."""

    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        channels = x.shape[-1]
        x = x + Attention(max(1, channels // HEAD_CHANNELS), self.style, name="attention")(x, train)
        y = ConvBNAct(2 * channels, 1, style=self.style, name="expand")(x, train)
        return x + ConvBNAct(channels, 1, activate=False, style=self.style, name="reduce")(y, train)


class C2PSA(nn.Module):
    """Attention on one half of the channels, ``C2PSA``: ``depth`` `AttentionBlock` between 1x1 convolutions."""

    depth: int = 1
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        channels = x.shape[-1]
        hidden = channels // 2
        x = ConvBNAct(2 * hidden, 1, style=self.style, name="split")(x, train)
        passed, x = x[..., :hidden], x[..., hidden:]
        for i in range(self.depth):
            x = AttentionBlock(self.style, name=f"block{i}")(x, train)
        return ConvBNAct(channels, 1, style=self.style, name="join")(jnp.concatenate([passed, x], axis=-1), train)


class YOLO11Backbone(nn.Module):
    """Stem and four stages of a 3x3 convolution of stride 2 and a `C3k2`, SPPF, `C2PSA`; strides 8, 16 and 32.

    ``widths`` has the channels of stem, first convolution and the four blocks; the convolution before a block keeps
    the channels of the block before it, but for the last, which has its block's. The first two blocks are nested only
    if ``nested``; the last two always are. ``residual_pooling`` is that of SPPF, as in YOLO26.
    """

    widths: Sequence[int]
    depth: int = 1
    nested: bool = False
    style: Style = Style()
    residual_pooling: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, features = self.style, []
        x = ConvBNAct(self.widths[0], 3, 2, style=style, name="down0")(images.astype(style.dtype), train)
        x = ConvBNAct(self.widths[1], 3, 2, style=style, name="down1")(x, train)
        for i, width in enumerate(self.widths[2:], start=1):
            early = i <= 2
            if i > 1:
                x = ConvBNAct(self.widths[i] if i < 4 else width, 3, 2, style=style, name=f"down{i}")(x, train)
            block = C3k2(width, self.depth, self.nested or not early, 0.25 if early else 0.5, style, name=f"stage{i}")
            x = block(x, train)
            features.append(x)
        x = SPPF(self.widths[-1], style, self.residual_pooling, name="sppf")(x, train)
        features[-1] = C2PSA(self.depth, style, name="attention")(x, train)
        return tuple(features[1:])


class YOLO11Neck(nn.Module):
    """Path aggregation (`yolojax.models.necks.aggregate_paths`) with `C3k2`; the last block is always nested."""

    widths: Sequence[int]
    depth: int = 1
    nested: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, last = self.style, len(features) - 1

        def join(x: Array, level: int, name: str) -> Array:
            nested = self.nested or name == f"up{last}"
            return C3k2(self.widths[level], self.depth, nested, style=style, name=name)(x, train)

        def reduce(x: Array, level: int) -> Array:
            return ConvBNAct(self.widths[level - 1], 3, 2, style=style, name=f"reduce{level}")(x, train)

        return aggregate_paths(features, join, reduce)
