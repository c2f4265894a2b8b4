"""The network that a Darknet ``.cfg`` describes, as flax modules, and its parameters to and from a ``.weights`` file.

A network of layers that read each other freely becomes the three parts that every detector here has. The head is the
convolutions that only a prediction layer reads; the backbone ends where `backbone_length` finds the end of the last
residual (or widest) stage; all between is the neck. A convolution's parameters are named after its number in the file:
``params/backbone/conv12/conv/kernel``, ``.../norm/scale``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import max_pool, max_pool_same
from yolojax.models.convolution_order import arrays_at, put_arrays
from yolojax.models.layers import ACTIVATIONS, BatchNorm, Conv, Style
from yolojax.models.network import Network
from yolojax.weights.darknet import Cfg, layer_shapes
from yolojax.weights.darknet_layers import (
    ACTIVATIONS as OUR_NAMES,
)
from yolojax.weights.darknet_layers import (
    Avgpool,
    Convolutional,
    Dropout,
    Layer,
    Maxpool,
    Region,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Upsample,
    Yolo,
    sources_of,
)

Maps = dict[int, Float[Array, "B _h _w _c"]]
"""Outputs by layer number; -1 is the image."""

_PRIOR = 0.01
_WEIGHT_EPSILON = 1e-4


class Parts(NamedTuple):
    """The numbers of the layers of each part, in order; prediction layers belong to none."""

    backbone: tuple[int, ...]
    neck: tuple[int, ...]
    head: tuple[int, ...]


def backbone_length(cfg: Cfg) -> int:
    """How many of the first layers are taken for the backbone.

    The last stage begins with the last strided layer before anything is upsampled or predicted. It ends with its last
    shortcut, or where the branches around its shortcuts are joined by a route and the convolution after it (cross-stage
    partial). Without shortcuts it ends with its first convolution of the most channels, or the last of as many where
    3x3 and 1x1 alternate and do not lead straight into a prediction. So Darknet-19 has 23 layers, Darknet-53 75,
    CSPDarknet-53 105, the backbone of YOLOv3-tiny 13.
    """
    layers = cfg.layers
    stop = next(i for i, layer in enumerate(layers) if isinstance(layer, Upsample | Yolo | Region))
    strided = [i for i in range(stop) if isinstance(layers[i], Convolutional | Maxpool) and layers[i].stride > 1]
    first = strided[-1] if strided else 0
    shortcuts = [i for i in range(first, stop) if isinstance(layers[i], Shortcut)]
    if not shortcuts:
        return _end_of_run(layers, first, stop)
    end = shortcuts[-1]
    for i in range(end + 1, stop):
        layer = layers[i]
        if isinstance(layer, Route) and len(layer.sources) > 1 and first <= min(layer.sources) < end:
            return i + 2 if isinstance(layers[i + 1], Convolutional) else i + 1
    return end + 1


def _end_of_run(layers: tuple[Layer, ...], first: int, stop: int) -> int:
    """The end of the backbone among layers ``first`` to ``stop``, of which none is a shortcut."""
    last = stop - 1 if isinstance(layers[stop], Yolo | Region) else stop  # without the prediction itself
    channels = {i: layer.filters for i in range(first, last) if isinstance(layer := layers[i], Convolutional)}
    if not channels:
        return stop
    widest = end = max(channels, key=lambda i: (channels[i], -i))
    while end + 2 < last and _alternates(layers[end], layers[end + 1], layers[end + 2]):
        end += 2
    return (widest if end + 1 == last < stop else end) + 1


def _alternates(a: Layer, between: Layer, b: Layer) -> bool:
    pointwise = isinstance(between, Convolutional) and between.size == 1
    return pointwise and isinstance(a, Convolutional) and a == replace(b, line=a.line)


def split_parts(cfg: Cfg, length: int) -> Parts:
    """The three parts, with the first ``length`` layers as backbone."""
    readers: dict[int, list[int]] = {}
    for number in range(len(cfg.layers)):
        for source in sources_of(cfg.layers, number):
            readers.setdefault(source, []).append(number)
    head = {
        number - 1
        for number in cfg.detections
        if isinstance(cfg.layers[number - 1], Convolutional) and readers[number - 1] == [number]
    }
    others = [i for i in range(len(cfg.layers)) if i not in head and i not in cfg.detections]
    return Parts(tuple(i for i in others if i < length), tuple(i for i in others if i >= length), tuple(sorted(head)))


def reorg(x: Float[Array, "B H W C"], stride: int) -> Float[Array, "B h w c"]:
    """Darknet's ``[reorg]``: the numbers of a ``stride`` times coarser map with ``stride ** 2`` times the channels.

    The published YOLOv2 weights were trained with an order that is not the usual space to depth: memory laid out as
    channels, rows, columns is read as ``C / stride ** 2`` channels of a ``stride`` times finer map, that map is
    rearranged, and the result is read as the coarse one.
    """
    batch, height, width, channels = x.shape
    finer = channels // stride**2
    x = x.transpose(0, 3, 1, 2).reshape(batch, finer, height, stride, width, stride)
    x = x.transpose(0, 3, 5, 1, 2, 4)
    x = x.reshape(batch, channels * stride**2, height // stride, width // stride)
    return x.transpose(0, 2, 3, 1)


class Convolution(nn.Module):
    """A ``[convolutional]`` layer; without ``activate`` its activation is left to whoever reads it."""

    layer: Convolutional
    anchors: int = 0
    activate: bool = True
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        layer, style = self.layer, self.style
        normalised = layer.batch_normalize and not style.folded

        def bias_init(key, shape, dtype):
            if not self.anchors:
                return jnp.zeros(shape, dtype)
            start = jnp.zeros((self.anchors, shape[0] // self.anchors), dtype)
            return start.at[:, 4].set(math.log(_PRIOR / (1 - _PRIOR))).reshape(shape)

        x = Conv(
            layer.filters,
            layer.size,
            layer.stride,
            layer.groups,
            use_bias=not normalised,
            bias_init=bias_init,
            dtype=style.dtype,
            padding=layer.padding,
            name="conv",
        )(x)
        if normalised:
            x = BatchNorm(style.momentum, style.epsilon, name="norm")(x, train)
        return ACTIVATIONS[OUR_NAMES[layer.activation]](x) if self.activate else x


class WeightedSum(nn.Module):
    """A ``[shortcut]`` layer: the sum of its inputs by the channels of the first, by choice with trained factors."""

    layer: Shortcut

    @nn.compact
    def __call__(self, inputs: list[Float[Array, "B H W _c"]]) -> Float[Array, "B H W C"]:
        channels = inputs[0].shape[-1]
        terms = [
            jnp.pad(x[..., :channels], ((0, 0), (0, 0), (0, 0), (0, max(0, channels - x.shape[-1])))) for x in inputs
        ]
        if self.layer.weights != "none":
            shape = (len(terms), channels) if self.layer.weights == "per_channel" else (len(terms),)
            factors = self.param("factors", nn.initializers.ones, shape, jnp.float32)
            if self.layer.normalisation != "none":
                softmax = self.layer.normalisation == "softmax"
                factors = jnp.exp(factors - factors.max(0, keepdims=True)) if softmax else jax.nn.relu(factors)
                factors = factors / (factors.sum(0, keepdims=True) + _WEIGHT_EPSILON)
            factors = factors.astype(inputs[0].dtype)
            terms = [x * factors[i].reshape(1, 1, 1, -1) for i, x in enumerate(terms)]
        return ACTIVATIONS[OUR_NAMES[self.layer.activation]](sum(terms[1:], start=terms[0]))


class DarknetPart(nn.Module):
    """Some layers of a network: takes the image or outputs by number, gives those in ``passed``."""

    layers: tuple[Layer, ...]
    numbers: tuple[int, ...]
    passed: tuple[int, ...]
    style: Style = Style()

    @nn.compact
    def __call__(self, inputs: Float[Array, "B H W 3"] | Maps, train: bool) -> Maps:
        known = dict(inputs) if isinstance(inputs, dict) else {-1: inputs.astype(self.style.dtype)}
        for number in self.numbers:
            sources = [known[source] for source in sources_of(self.layers, number)]
            known[number] = self._apply(self.layers[number], number, sources, train)
        return {number: known[number] for number in self.passed}

    def _apply(self, layer: Layer, number: int, inputs: list[Array], train: bool) -> Array:
        x = inputs[0]
        match layer:
            case Convolutional():
                return Convolution(layer, style=self.style, name=f"conv{number}")(x, train)
            case Shortcut():
                return WeightedSum(layer, name=f"shortcut{number}")(inputs)
            case Route():
                parts = [y.shape[-1] // layer.groups for y in inputs]
                cut = [
                    y[..., layer.group_id * c : (layer.group_id + 1) * c] for y, c in zip(inputs, parts, strict=True)
                ]
                return jnp.concatenate(cut, axis=-1)
            case Upsample():
                x = jnp.repeat(jnp.repeat(x, layer.stride, axis=1), layer.stride, axis=2)
                return x if layer.scale == 1 else x * jnp.asarray(layer.scale, x.dtype)
            case Maxpool():
                if layer.stride == 1 and layer.size % 2 and layer.padding == layer.size - 1:
                    return max_pool_same(x, layer.size)
                reach = (layer.padding // 2, layer.padding - layer.padding // 2)
                return max_pool(x, (layer.size,) * 2, (layer.stride,) * 2, (reach, reach))
            case Avgpool():
                return jnp.mean(x, (1, 2), keepdims=True)
            case Reorg():
                return reorg(x, layer.stride)
            case Dropout():
                return nn.Dropout(layer.probability, name=f"dropout{number}")(
                    x, deterministic=not train or self.is_initializing()
                )
            case ScaleChannels() | Sam():
                return ACTIVATIONS[OUR_NAMES[layer.activation]](x * inputs[1])
            case _:
                raise TypeError(f"{layer} belongs to no part")


class DarknetHead(nn.Module):
    """The raw prediction maps ``[B, h, w, A, 5 + C]`` in float32, one for each of ``detections``, in their order.

    Before a ``new_coords`` layer the convolution's logistic activation is left to the decoder, so that maps hold logits
    whatever the version.
    """

    layers: tuple[Layer, ...]
    own: tuple[int, ...]
    detections: tuple[int, ...]
    style: Style = Style()

    @nn.compact
    def __call__(self, inputs: Maps, train: bool) -> tuple[Float[Array, "B _h _w _A P"], ...]:
        maps = []
        for number in self.detections:
            detection = self.layers[number]
            assert isinstance(detection, Yolo | Region)
            anchors, before = len(detection.anchors), self.layers[number - 1]
            if number - 1 in self.own and isinstance(before, Convolutional):
                activate = not (isinstance(detection, Yolo) and detection.new_coords)
                convolution = Convolution(before, anchors, activate, self.style, name=f"conv{number - 1}")
                x = convolution(inputs[sources_of(self.layers, number - 1)[0]], train)
            else:
                x = inputs[number - 1]
            maps.append(x.reshape(*x.shape[:3], anchors, -1).astype(jnp.float32))
        return tuple(maps)


def by_stride(cfg: Cfg) -> tuple[int, ...]:
    """The prediction layers, finest grid first."""
    shapes = layer_shapes(cfg, (cfg.height, cfg.width))
    return tuple(sorted(cfg.detections, key=lambda i: -shapes[i].height * shapes[i].width))


def darknet_network(cfg: Cfg, parts: Parts, style: Style) -> Network:
    """The network of a cfg, cut into ``parts``."""

    def read_by(numbers: tuple[int, ...]) -> set[int]:
        return {source for number in numbers for source in sources_of(cfg.layers, number)}

    needed = (read_by(parts.head) | {i - 1 for i in cfg.detections}) - set(parts.head)
    passed = (read_by(parts.neck) | needed) & {-1, *parts.backbone}
    return Network(
        DarknetPart(cfg.layers, parts.backbone, tuple(sorted(passed)), style),
        DarknetPart(cfg.layers, parts.neck, tuple(sorted(needed)), style),
        DarknetHead(cfg.layers, parts.head, by_stride(cfg), style),
    )


def variables_from_arrays(parts: Parts, arrays: Mapping[int, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """The variables of `darknet_network` from the arrays of a ``.weights`` file (`yolojax.weights.darknet`)."""
    variables: dict[str, Any] = {"params": {part: {} for part in Parts._fields}, "batch_stats": {}}
    for part, numbers in parts._asdict().items():
        for number in numbers:
            stored = arrays.get(number, {})
            if "factors" in stored:
                variables["params"][part][f"shortcut{number}"] = {"factors": stored["factors"]}
            elif stored:
                put_arrays(variables, (part, f"conv{number}", "conv"), stored)
    return variables


def arrays_from_variables(parts: Parts, variables: Mapping[str, Any]) -> dict[int, dict[str, np.ndarray]]:
    """The inverse of `variables_from_arrays`."""
    arrays: dict[int, dict[str, np.ndarray]] = {}
    for part, numbers in parts._asdict().items():
        params = variables["params"][part]
        for number in numbers:
            if f"shortcut{number}" in params:
                arrays[number] = {"factors": np.asarray(params[f"shortcut{number}"]["factors"])}
            elif f"conv{number}" in params:
                arrays[number] = arrays_at(variables, (part, f"conv{number}", "conv"))
    return arrays
