"""The modules of YOLO-NAS: blocks that can be merged into single convolutions, an aggregation that reaches stride 4.

The blocks are those of QARepVGG (arXiv 2212.01593, variant S4). Structure and sizes follow Deci's super-gradients
(Apache-2.0, `super_gradients.training.models.detection_models.yolo_nas`) and were compared with LibreYOLO's port (MIT).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float

from yolojax.models.batch_norm import norm_gain
from yolojax.models.blocks import Features, max_pool_same
from yolojax.models.heads import LevelPrediction
from yolojax.models.layers import ACTIVATIONS, BatchNorm, Conv, ConvBNAct, Style, kernel_init

BRANCHES = frozenset(("spatial", "pointwise", "post"))
"""The names of what is inside of a `QARepVGG`; after `fold_branches` there is ``merged`` instead."""


@dataclass(frozen=True)
class StageSize:
    """Bottlenecks of a stage, their channels, and whether the output of each is joined or the last alone."""

    depth: int
    hidden: int
    join_all: bool = False


class QARepVGG(nn.Module):
    """A normalised 3x3 and a 1x1 convolution added, and the input where it fits; normalised once more, ReLU.

    The input fits where stride is 1 and channels stay as they are. Folded variables (`fold_branches`) have one 3x3
    convolution called ``merged`` instead, which gives the same.
    """

    features: int
    stride: int = 1
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        style, shape = self.style, (self.features, self.stride)
        if not self.is_initializing() and not self.has_variable("params", "post"):
            y = Conv(shape[0], 3, shape[1], use_bias=True, dtype=style.dtype, name="merged")(x)
            return ACTIVATIONS[style.activation](y)
        y = ConvBNAct(shape[0], 3, shape[1], activate=False, style=style, name="spatial")(x, train)
        y += Conv(shape[0], 1, shape[1], use_bias=True, dtype=style.dtype, name="pointwise")(x)
        if self.stride == 1 and x.shape[-1] == self.features:
            y += x.astype(y.dtype)
        return ACTIVATIONS[style.activation](BatchNorm(style.momentum, style.epsilon, name="post")(y, train))


def merged_kernel(params: Mapping[str, Any], stats: Mapping[str, Any], epsilon: float) -> tuple[Any, Any]:
    """Kernel and bias of the 3x3 convolution that the three branches of a `QARepVGG` add up to, before ``post``.

    ``params`` and ``stats`` are the block's own variables; its 3x3 convolution may be folded already.
    """
    spatial = params["spatial"]
    if "norm" in spatial:
        norm, running = spatial["norm"], stats["spatial"]["norm"]
        gain = norm_gain(norm, running, epsilon)
        kernel, bias = spatial["conv"]["kernel"] * gain.reshape(1, 1, 1, -1), norm["bias"] - running["mean"] * gain
    else:
        kernel, bias = spatial["conv"]["kernel"], spatial["conv"]["bias"]
    centre = params["pointwise"]["kernel"][0, 0]
    if centre.shape[0] == centre.shape[1]:  # Only blocks that keep their channels add the input; no other keeps them.
        centre = centre + np.eye(centre.shape[0], dtype=centre.dtype)
    at_centre = np.pad(np.ones((1, 1, 1, 1), centre.dtype), ((1, 1), (1, 1), (0, 0), (0, 0)))
    return kernel + centre[None, None] * at_centre, bias + params["pointwise"]["bias"]


def fold_branches(variables: dict[str, Any], epsilon: float) -> dict[str, Any]:
    """Merges every `QARepVGG` into one convolution; everything else stays, including blocks that are merged already."""
    params, stats = _fold(variables["params"], variables.get("batch_stats", {}), epsilon)
    return {**variables, "params": params, "batch_stats": stats}


def _fold(params: Mapping[str, Any], stats: Mapping[str, Any], epsilon: float) -> tuple[dict[str, Any], dict[str, Any]]:
    if params.keys() == BRANCHES:
        kernel, bias = merged_kernel(params, stats, epsilon)
        gain = norm_gain(params["post"], stats["post"], epsilon)
        bias = (bias - stats["post"]["mean"]) * gain + params["post"]["bias"]
        return {"merged": {"kernel": kernel * gain.reshape(1, 1, 1, -1), "bias": bias}}, {}
    new_params, new_stats = dict(params), dict(stats)
    for name, value in params.items():
        if isinstance(value, Mapping):
            new_params[name], own = _fold(value, stats.get(name, {}), epsilon)
            new_stats.pop(name, None)
            if own:
                new_stats[name] = own
    return new_params, new_stats


class NASBottleneck(nn.Module):
    """Two blocks, and the input times a trained factor ``alpha``. Blocks are `QARepVGG`, or ``plain`` convolutions."""

    features: int
    plain: bool
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        y = x
        for name in ("conv1", "conv2"):
            if self.plain:
                y = ConvBNAct(self.features, 3, style=self.style, name=name)(y, train)
            else:
                y = QARepVGG(self.features, style=self.style, name=name)(y, train)
        alpha = self.param("alpha", nn.initializers.ones, (1,), jnp.float32)
        return x * alpha.astype(x.dtype).reshape(1, 1, 1, 1) + y


class NASStage(nn.Module):
    """A cross-stage partial block (arXiv 1911.11929) of `NASBottleneck`, with ``hidden`` channels in each branch."""

    features: int
    size: StageSize
    plain: bool = False
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        hidden, style = self.size.hidden, self.style
        parts = [ConvBNAct(hidden, 1, style=style, name="main")(x, train)]
        for i in range(self.size.depth):
            parts.append(NASBottleneck(hidden, self.plain, style, name=f"bottleneck{i}")(parts[-1], train))
        side = ConvBNAct(hidden, 1, style=style, name="side")(x, train)
        joined = jnp.concatenate([*(parts if self.size.join_all else parts[-1:]), side], axis=-1)
        return ConvBNAct(self.features, 1, style=style, name="join")(joined, train)


class NASPooling(nn.Module):
    """Spatial pyramid pooling (arXiv 1406.4729): maxima over 5x5, 9x9 and 13x13 windows beside the input itself."""

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        parts = [ConvBNAct(x.shape[-1] // 2, 1, style=self.style, name="reduce")(x, train)]
        for _ in range(3):  # the maximum of maxima over 5x5 is that over 9x9, and so on
            parts.append(max_pool_same(parts[-1], 5))
        return ConvBNAct(self.features, 1, style=self.style, name="join")(jnp.concatenate(parts, axis=-1), train)


class NASBackbone(nn.Module):
    """Stem and four stages, each a strided `QARepVGG` and a `NASStage`; features at strides 4, 8, 16 and 32.

    ``widths`` has the channels at strides 2 to 32.
    """

    widths: Sequence[int]
    stages: Sequence[StageSize]
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, features = self.style, []
        x = QARepVGG(self.widths[0], 2, style, name="stem")(images.astype(style.dtype), train)
        for i, (width, size) in enumerate(zip(self.widths[1:], self.stages, strict=True), 1):
            x = QARepVGG(width, 2, style, name=f"down{i}")(x, train)
            x = NASStage(width, size, style=style, name=f"stage{i}")(x, train)
            features.append(x)
        features[-1] = NASPooling(self.widths[-1], style, name="pooling")(x, train)
        return tuple(features)


class TransposedConv(nn.Module):
    """A transposed 2x2 convolution of stride 2: ``kernel [2, 2, out, in]`` and ``bias``; doubles height and width."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", kernel_init, (2, 2, self.features, channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        y = jnp.einsum("bhwi,rcoi->bhrwco", x.astype(self.dtype), kernel.astype(self.dtype))
        y = y.reshape(batch, 2 * height, 2 * width, self.features)
        return y + bias.astype(y.dtype).reshape(1, 1, 1, -1)


class NASNeck(nn.Module):
    """Path aggregation (arXiv 1803.01534) whose way down also reads the next finer features, from stride 4 on.

    ``widths`` are the channels at strides 8, 16 and 32 of the outputs; the way down has those of the first two.
    ``down`` has the stages at strides 16 and 8, ``up`` those at 16 and 32.
    """

    widths: Sequence[int]
    down: Sequence[StageSize]
    up: Sequence[StageSize]
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style = self.style

        def conv(x: Array, width: int, name: str, kernel: int = 1, stride: int = 1) -> Array:
            return ConvBNAct(width, kernel, stride, style=style, name=name)(x, train)

        x, lateral = features[3], {}
        for level, size in ((1, self.down[0]), (0, self.down[1])):
            width = self.widths[level]
            lateral[level] = conv(x, width, f"lateral{level}")
            up = TransposedConv(width, style.dtype, name=f"upsample{level}")(lateral[level])
            same = conv(features[level + 1], width, f"same{level}")
            finer = conv(conv(features[level], width, f"finer{level}"), width, f"halve{level}", 3, 2)
            x = conv(jnp.concatenate([up, same, finer], axis=-1), width, f"reduce{level}")
            x = NASStage(width, size, style=style, name=f"down{level}")(x, train)
        out = [x]
        for level, size in ((1, self.up[0]), (2, self.up[1])):
            x = conv(out[-1], self.widths[level] // 2, f"stride{level}", 3, 2)
            x = jnp.concatenate([x, lateral[level - 1]], axis=-1)
            out.append(NASStage(self.widths[level], size, True, style, name=f"up{level}")(x, train))
        return tuple(out)


class NASHead(nn.Module):
    """At each level a 1x1 stem and two branches of one 3x3 convolution: distances over ``reg_max`` bins, and classes.

    ``widths`` are the channels of the levels. Classes start at a probability of .01 (arXiv 1708.02002, section 4.1).
    """

    num_classes: int
    widths: Sequence[int]
    reg_max: int = 17
    prior: float = 0.01
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[LevelPrediction, ...]:
        rare, style, out = math.log(self.prior / (1 - self.prior)), self.style, []
        for i, (x, width) in enumerate(zip(features, self.widths, strict=True)):
            x = ConvBNAct(width, 1, style=style, name=f"level{i}_stem")(x, train)
            cls = ConvBNAct(width, 3, style=style, name=f"level{i}_cls0")(x, train)
            box = ConvBNAct(width, 3, style=style, name=f"level{i}_box0")(x, train)
            options = {"use_bias": True, "dtype": style.dtype}
            box = Conv(4 * self.reg_max, name=f"level{i}_predict_box", **options)(box)
            cls = Conv(
                self.num_classes,
                bias_init=nn.initializers.constant(rare),
                name=f"level{i}_predict_cls",
                **options,
            )(cls)
            out.append(LevelPrediction(box.astype(jnp.float32), cls.astype(jnp.float32)))
        return tuple(out)
