"""The shapes of a Darknet network's layers on a given input image."""

from __future__ import annotations

import math
from typing import NamedTuple

from yolojax.errors import ConfigError
from yolojax.weights.darknet_layers import (
    Avgpool,
    Cfg,
    Connected,
    Convolutional,
    Crop,
    Detection,
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
    section_name,
    sources_of,
    title,
)

LARGEST_VALUES = 2**31
"""Most values of one feature map or one kernel that are believed; more is a mistake in the file."""


class Shape(NamedTuple):
    """A feature map of one image."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height} x {self.channels}"


def layer_shapes(cfg: Cfg, input_size: tuple[int, int], source: str = "cfg") -> tuple[Shape, ...]:
    """What every layer gives for a ``input_size = (height, width)``.

    Raises `ConfigError` with the layer and its line when an input does not fit the layer.
    """
    image = Shape(*input_size, 3)
    shapes: list[Shape] = []
    for number, layer in enumerate(cfg.layers):
        inputs = [image if s < 0 else shapes[s] for s in sources_of(cfg.layers, number)]
        wrong = _misfit(layer, inputs)
        shape = inputs[0] if wrong else _output(layer, inputs)
        if not wrong and min(shape) < 1:
            wrong = f"nothing is left of its input of {inputs[0]}; raise width and height"
        if not wrong and max(_values(layer, inputs[0]), shape.height * shape.width * shape.channels) > LARGEST_VALUES:
            wrong = f"an output of {shape} from {inputs[0]} is too large to be meant"
        if wrong:
            raise ConfigError(f"{source}: {title(layer, number)}: {wrong}")
        shapes.append(shape)
    return tuple(shapes)


def _values(layer: Layer, before: Shape) -> int:
    if isinstance(layer, Connected):
        return layer.outputs * math.prod(before)
    if isinstance(layer, Local):
        return math.prod(_output(layer, [before])) * before.channels * layer.size**2
    return layer.filters * before.channels * layer.size**2 if isinstance(layer, Convolutional) else 0


def _misfit(layer: Layer, inputs: list[Shape]) -> str | None:
    first, *others = inputs
    if isinstance(layer, Convolutional) and (first.channels % layer.groups or layer.filters % layer.groups):
        return f"{first.channels} channels and {layer.filters} filters cannot be split into {layer.groups} groups"
    if isinstance(layer, Shortcut):
        for other in others:
            ratios = {(first[i] // other[i], other[i] // first[i]) for i in (0, 1)}
            if len(ratios) > 1:
                return f"its inputs differ in size, and not by one factor: {first} and {other}"
    if isinstance(layer, Route | Sam):
        for other in others:
            if other[:2] != first[:2]:
                return f"its inputs differ in size: {first} and {other}"
    if isinstance(layer, Route) and any(shape.channels % layer.groups for shape in inputs):
        return f"its inputs cannot be split into {layer.groups} groups"
    if isinstance(layer, Sam) and others[0].channels != first.channels:
        return f"its inputs differ: {first} and {others[0]}"
    if isinstance(layer, ScaleChannels):
        fits = first.channels == 1 and first[:2] == others[0][:2]
        if not layer.scale_wh:
            fits = first == Shape(1, 1, others[0].channels)
        if not fits:
            return f"factors of shape {first} do not fit {others[0]}"
    if isinstance(layer, Reorg) and (first.height % layer.stride or first.width % layer.stride):
        return f"an input of {first} is not divisible by its stride {layer.stride}"
    if isinstance(layer, Reorg) and first.channels % layer.stride**2:
        return f"{first.channels} channels are not divisible by the square of its stride {layer.stride}"
    if isinstance(layer, Crop) and (layer.height, layer.width) != first[:2]:
        return (
            f"cuts {layer.width} x {layer.height} out of {first.width} x {first.height}, and boxes would be relative "
            "to another image; only crops of the whole input are supported"
        )
    if isinstance(layer, Detection) and math.prod(first) != layer.values:
        return (
            f"{layer.side} x {layer.side} cells with {layer.boxes} boxes and {layer.classes} classes need "
            f"{layer.values} values, the layer before it gives {math.prod(first)}"
        )
    if isinstance(layer, Yolo | Region):
        needed = len(layer.anchors) * (5 + layer.classes)
        if first.channels != needed:
            return (
                f"{len(layer.anchors)} anchors and {layer.classes} classes need {needed} filters in the layer before "
                f"[{section_name(layer)}], which has {first.channels}"
            )
    return None


def _output(layer: Layer, inputs: list[Shape]) -> Shape:
    height, width, channels = inputs[0]
    if isinstance(layer, Connected):
        return Shape(1, 1, layer.outputs)
    if isinstance(layer, Detection):
        return Shape(layer.side, layer.side, layer.classes + 5 * layer.boxes)
    if isinstance(layer, Convolutional | Local):
        rows, columns = ((n + 2 * layer.padding - layer.size) // layer.stride + 1 for n in (height, width))
        return Shape(rows, columns, layer.filters)
    if isinstance(layer, Maxpool):
        rows, columns = ((n + layer.padding - layer.size) // layer.stride + 1 for n in (height, width))
        return Shape(rows, columns, channels)
    if isinstance(layer, Route):
        return Shape(height, width, sum(shape.channels for shape in inputs) // layer.groups)
    if isinstance(layer, Upsample):
        return Shape(height * layer.stride, width * layer.stride, channels)
    if isinstance(layer, Avgpool):
        return Shape(1, 1, channels)
    if isinstance(layer, Reorg):
        return Shape(height // layer.stride, width // layer.stride, channels * layer.stride**2)
    if isinstance(layer, ScaleChannels):
        return inputs[1]
    return inputs[0]
