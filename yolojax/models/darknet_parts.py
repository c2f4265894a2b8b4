"""Which layers of a Darknet network are its backbone, its neck and its head."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from yolojax.weights.darknet import Cfg, layer_shapes
from yolojax.weights.darknet_layers import (
    Connected,
    Convolutional,
    Layer,
    Maxpool,
    Prediction,
    Route,
    Shortcut,
    Upsample,
    sources_of,
)


class Parts(NamedTuple):
    """The numbers of the layers of each part, in order; prediction layers belong to none."""

    backbone: tuple[int, ...]
    neck: tuple[int, ...]
    head: tuple[int, ...]


def backbone_length(cfg: Cfg) -> int:
    """Counts the first layers that are taken for the backbone.

    The last stage begins with the last strided layer before anything is upsampled or predicted. It ends with its last
    shortcut, or where the branches around its shortcuts are joined by a route and the convolution after it (cross-stage
    partial). Without shortcuts it ends with its first convolution of the most channels, or the last of as many where
    3x3 and 1x1 alternate and do not lead straight into a prediction. So Darknet-19 has 23 layers, Darknet-53 75,
    CSPDarknet-53 105, the backbone of YOLOv3-tiny 13.
    """
    layers = cfg.layers
    stop = next(i for i, layer in enumerate(layers) if isinstance(layer, Upsample | Prediction))
    strided = [
        i for i, layer in enumerate(layers[:stop]) if isinstance(layer, Convolutional | Maxpool) and layer.stride > 1
    ]
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
    last = stop - 1 if isinstance(layers[stop], Prediction) else stop  # without the prediction itself
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
        if isinstance(cfg.layers[number - 1], Convolutional | Connected) and readers[number - 1] == [number]
    }
    others = [i for i in range(len(cfg.layers)) if i not in head and i not in cfg.detections]
    return Parts(tuple(i for i in others if i < length), tuple(i for i in others if i >= length), tuple(sorted(head)))


def by_stride(cfg: Cfg) -> tuple[int, ...]:
    """The prediction layers, finest grid first."""
    shapes = layer_shapes(cfg, (cfg.height, cfg.width))
    return tuple(sorted(cfg.detections, key=lambda i: -shapes[i].height * shapes[i].width))
