"""The network that a Darknet ``.cfg`` describes, as flax modules, and its parameters to and from a ``.weights`` file.

A network of layers that read each other freely becomes the three parts that every detector here has. The head is the
convolutions that only a prediction layer reads; the backbone ends where `darknet_parts.backbone_length` finds the end
of the last residual (or widest) stage; all between is the neck. A convolution's parameters are named after its number
in the file: ``params/backbone/conv12/conv/kernel``, ``.../norm/scale``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, UInt32

from yolojax.models.blocks import max_pool, max_pool_same
from yolojax.models.convolution_order import arrays_at, put_arrays
from yolojax.models.darknet_parts import Parts, by_stride
from yolojax.models.layers import ACTIVATIONS, BatchNorm, Conv, Style, is_folded
from yolojax.models.network import Network
from yolojax.models.yolov1 import ConnectedLayer, GridPrediction, LocalLayer, split_grid
from yolojax.weights.darknet import Cfg
from yolojax.weights.darknet_layers import (
    ACTIVATIONS as OUR_NAMES,
)
from yolojax.weights.darknet_layers import (
    Avgpool,
    Connected,
    Convolutional,
    Crop,
    Detection,
    Dropout,
    Layer,
    Local,
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


def drop(x: Float[Array, "*n"], probability: float, seed: UInt32[Array, ""]) -> Float[Array, "*n"]:
    """Dropout: values become 0 with ``probability``, the others grow by ``1 / (1 - probability)``.

    Which ones is a hash of their position (the finaliser of MurmurHash3) that ``seed`` shifts: a handful of operations,
    where a counter-based generator takes a second to compile for each layer.
    """
    bits = jax.lax.iota(jnp.uint32, x.size) * jnp.uint32(0x9E3779B9) + seed
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    bits = (bits ^ (bits >> 16)).reshape(x.shape)
    keep = bits >= jnp.uint32(min(round(probability * 2**32), 2**32 - 1))
    return jnp.where(keep, x * jnp.asarray(1 / (1 - probability), x.dtype), jnp.zeros((), x.dtype))


class Convolution(nn.Module):
    """A ``[convolutional]`` layer; without ``activate`` its activation is left to whoever reads it."""

    layer: Convolutional
    anchors: int = 0
    activate: bool = True
    style: Style = Style()
    folds_norm: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        layer, style = self.layer, self.style
        normalised = layer.batch_normalize and not is_folded(self)

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


def fit_term(x: Float[Array, "B h w c"], shape: tuple[int, ...]) -> Float[Array, "B H W C"]:
    """A term of a ``[shortcut]`` on the map ``shape = (H, W, C)`` to which it is added, zero where it has no value.

    Channels are shared as far as there are. Of a larger map every ``w // W``-th place counts; the values of a smaller
    one go to every ``W // w``-th (Darknet's ``shortcut_cpu``).
    """
    height, width, channels = shape
    stride, sample = max(1, x.shape[2] // width), max(1, width // x.shape[2])
    x = x[:, ::stride, ::stride, :channels][:, :height, :width]
    gaps = [(n, (m - 1) * sample + 1) for n, m in ((height, x.shape[1]), (width, x.shape[2]))]
    inner = [(0, n - reach, sample - 1) for n, reach in gaps]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *inner, (0, channels - x.shape[3], 0)))


class WeightedSum(nn.Module):
    """A ``[shortcut]`` layer: the sum of its inputs by the channels of the first, by choice with trained factors."""

    layer: Shortcut

    @nn.compact
    def __call__(self, inputs: list[Float[Array, "B _h _w _c"]]) -> Float[Array, "B H W C"]:
        channels = inputs[0].shape[-1]
        terms = [fit_term(x, inputs[0].shape[1:]) for x in inputs]
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
        dropping = [number for number in self.numbers if isinstance(self.layers[number], Dropout)]
        seeds: dict[int, UInt32[Array, ""]] = {}
        if train and dropping and not self.is_initializing():
            # One call of the generator for all layers: XLA compiles it anew for every call, which is slow.
            seeds = dict(zip(dropping, jax.random.bits(self.make_rng("dropout"), (len(dropping),)), strict=True))
        for number in self.numbers:
            layer = self.layers[number]
            sources = [known[source] for source in sources_of(self.layers, number)]
            if isinstance(layer, Dropout):
                known[number] = drop(sources[0], layer.probability, seeds[number]) if number in seeds else sources[0]
            else:
                known[number] = self._apply(layer, number, sources, train)
        return {number: known[number] for number in self.passed}

    def _apply(self, layer: Layer, number: int, inputs: list[Array], train: bool) -> Array:
        x = inputs[0]
        match layer:
            case Convolutional():
                return Convolution(layer, style=self.style, name=f"conv{number}")(x, train)
            case Connected():
                return connected(layer, number, self.style)(x, train)
            case Local():
                shape = (layer.filters, layer.size, layer.stride, layer.padding)
                return LocalLayer(*shape, OUR_NAMES[layer.activation], self.style, name=f"local{number}")(x, train)
            case Crop():
                return x if layer.noadjust else 2 * x - 1
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
                return max_pool(x, (layer.size, layer.size), (layer.stride, layer.stride), (reach, reach))
            case Avgpool():
                return jnp.mean(x, (1, 2), keepdims=True)
            case Reorg():
                return reorg(x, layer.stride)
            case ScaleChannels() | Sam():
                return ACTIVATIONS[OUR_NAMES[layer.activation]](x * inputs[1])
            case _:
                raise TypeError(f"{layer} belongs to no part")


def connected(layer: Connected, number: int, style: Style) -> ConnectedLayer:
    """A ``[connected]`` layer."""
    activation = OUR_NAMES[layer.activation]
    return ConnectedLayer(layer.outputs, layer.batch_normalize, activation, style, name=f"connected{number}")


class DarknetHead(nn.Module):
    """The raw prediction maps ``[B, h, w, A, 5 + C]`` in float32, one for each of ``detections``, in their order.

    A ``[detection]`` layer gives a `GridPrediction` instead.

    Before a ``new_coords`` layer the convolution's logistic activation is left to the decoder, so that maps hold logits
    whatever the version.
    """

    layers: tuple[Layer, ...]
    own: tuple[int, ...]
    detections: tuple[int, ...]
    style: Style = Style()

    @nn.compact
    def __call__(self, inputs: Maps, train: bool) -> tuple[Float[Array, "B _h _w _A P"] | GridPrediction, ...]:
        maps = []
        for number in self.detections:
            detection = self.layers[number]
            if isinstance(detection, Detection):
                maps.append(self._grid(detection, number, inputs, train))
                continue
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

    def _grid(self, detection: Detection, number: int, inputs: Maps, train: bool) -> GridPrediction:
        before = self.layers[number - 1]
        x = inputs[number - 1 if number - 1 not in self.own else sources_of(self.layers, number - 1)[0]]
        if number - 1 in self.own and isinstance(before, Connected):
            x = connected(before, number - 1, self.style)(x, train)
        elif number - 1 in self.own:
            assert isinstance(before, Convolutional)
            x = Convolution(before, style=self.style, name=f"conv{number - 1}")(x, train)
        values = x.transpose(0, 3, 1, 2).reshape(x.shape[0], 1, 1, -1)
        return split_grid(values, detection.side, detection.boxes)


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
            elif stored and stored["kernel"].ndim == 4:
                put_arrays(variables, (part, f"conv{number}", "conv"), stored)
            elif stored and stored["kernel"].ndim == 5:
                variables["params"][part][f"local{number}"] = _local_variables(stored)
            elif stored:
                params: dict[str, Any] = {"kernel": np.ascontiguousarray(stored["kernel"].T)}
                if "scale" in stored:
                    params["norm"] = {"scale": stored["scale"], "bias": stored["bias"]}
                    running = {"norm": {"mean": stored["mean"], "var": stored["var"]}}
                    variables["batch_stats"].setdefault(part, {})[f"connected{number}"] = running
                else:
                    params["bias"] = stored["bias"]
                variables["params"][part][f"connected{number}"] = params
    return variables


def _local_variables(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    filters, rows, columns = stored["bias"].shape
    kernel = stored["kernel"].reshape(rows, columns, filters, -1).transpose(0, 1, 3, 2)
    return {"kernel": np.ascontiguousarray(kernel), "bias": stored["bias"].ravel()}


def _local_arrays(params: Mapping[str, Any], size: int) -> dict[str, np.ndarray]:
    kernel = np.asarray(params["kernel"])
    rows, columns, _, filters = kernel.shape
    stored = kernel.transpose(0, 1, 3, 2).reshape(rows * columns, filters, -1, size, size)
    return {"kernel": np.ascontiguousarray(stored), "bias": np.asarray(params["bias"]).reshape(filters, rows, columns)}


def arrays_from_variables(cfg: Cfg, parts: Parts, variables: Mapping[str, Any]) -> dict[int, dict[str, np.ndarray]]:
    """The inverse of `variables_from_arrays`."""
    arrays: dict[int, dict[str, np.ndarray]] = {}
    for part, numbers in parts._asdict().items():
        params = variables["params"][part]
        for number in numbers:
            layer = cfg.layers[number]
            if f"shortcut{number}" in params:
                arrays[number] = {"factors": np.asarray(params[f"shortcut{number}"]["factors"])}
            elif f"conv{number}" in params:
                arrays[number] = arrays_at(variables, (part, f"conv{number}", "conv"))
            elif isinstance(layer, Local):
                arrays[number] = _local_arrays(params[f"local{number}"], layer.size)
            elif isinstance(layer, Connected):
                own = params[f"connected{number}"]
                stored = {"kernel": np.ascontiguousarray(np.asarray(own["kernel"]).T)}
                if "norm" in own:
                    running = variables["batch_stats"][part][f"connected{number}"]["norm"]
                    stored |= {name: np.asarray(own["norm"][name]) for name in ("bias", "scale")}
                    stored |= {name: np.asarray(running[name]) for name in ("mean", "var")}
                else:
                    stored["bias"] = np.asarray(own["bias"])
                arrays[number] = stored
    return arrays
