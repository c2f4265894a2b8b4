"""Resizing photos of any size onto input images as nodes of an ONNX graph.

The arithmetic is that of `yolojax.export.program.resize_photos`, node for node.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from yolojax.export._graph import GraphBuilder
from yolojax.export.settings import Description


class Numbers:
    """Arithmetic of float32 scalars and arrays as nodes."""

    def __init__(self, graph: GraphBuilder) -> None:
        self.g = graph

    def __call__(self, value: float) -> str:
        return self.g.const(np.float32(value))

    def op(self, kind: str, *values: str | float) -> str:
        found: str = self.g.op(kind, *(value if isinstance(value, str) else self(value) for value in values))
        return found


def add_letterbox(graph: GraphBuilder, photos: str, description: Description) -> tuple[str, Callable[[str, str], str]]:
    """Adds the nodes from photos ``[B, h, w, 3]`` to input images ``[B, H, W, 3]``, both uint8.

    Returns the name of the images, and a function that adds the nodes from boxes and classes on the input images to
    boxes in pixels of the photos, inside them.
    """
    g, n = graph, Numbers(graph)
    preprocess = description.preprocess
    shape = g.op("Shape", photos)
    sides = [g.op("Slice", shape, g.ints(axis), g.ints(axis + 1)) for axis in (1, 2)]
    height, width = (g.cast(g.op("Squeeze", side, g.ints(0)), np.float32) for side in sides)
    border = preprocess.border
    room_h, room_w = (float(side - 2 * border) for side in description.input_size)
    if preprocess.resize == "stretch":
        new_h, new_w = n(room_h), n(room_w)
    else:
        fills_height = n.op("LessOrEqual", n.op("Mul", width, room_h), n.op("Mul", height, room_w))

        def rounded(side: str, room: float, other: str, most: float) -> str:
            quotient = n.op("Round", n.op("Div", n.op("Mul", side, room), other))
            return n.op("Min", n.op("Max", quotient, 1.0), most)

        new_h = n.op("Where", fills_height, room_h, rounded(height, room_w, width, room_h))
        new_w = n.op("Where", fills_height, rounded(width, room_h, height, room_w), room_w)
    top = left = n(float(border))
    if preprocess.resize == "letterbox" and preprocess.align == "centre":
        top = n.op("Add", top, n.op("Floor", n.op("Div", n.op("Sub", room_h, new_h), 2.0)))
        left = n.op("Add", left, n.op("Floor", n.op("Div", n.op("Sub", room_w, new_w), 2.0)))
    bottom, right = n.op("Add", top, new_h), n.op("Add", left, new_w)

    across = _weights(n, sides[1], width, description.input_size[1], left, new_w)
    down = _weights(n, sides[0], height, description.input_size[0], top, new_h)
    # [B, 3, h, w] @ [w, W], rounded, then [H, h] @ [B, 3, h, W].
    planes = g.cast(g.op("Transpose", photos, perm=[0, 3, 1, 2]), np.float32)
    rows = _levels(n, n.op("MatMul", planes, g.op("Transpose", across, perm=[1, 0])))
    resized = g.op("Transpose", _levels(n, n.op("MatMul", down, rows)), perm=[0, 2, 3, 1])
    inside = n.op(
        "And",
        _between(n, description.input_size[0], top, bottom, (1, -1, 1, 1)),
        _between(n, description.input_size[1], left, right, (1, 1, -1, 1)),
    )
    images = g.cast(n.op("Where", inside, resized, float(preprocess.pad)), np.uint8)

    def placed(boxes: str, classes: str) -> str:
        def four(x: str, y: str) -> str:
            return g.op("Concat", *(g.op("Unsqueeze", one, g.ints(0)) for one in (x, y, x, y)), axis=0)

        scale = n.op("Div", four(new_w, new_h), four(width, height))
        scaled = n.op("Div", n.op("Sub", boxes, four(left, top)), scale)
        limited = n.op("Min", n.op("Max", scaled, 0.0), four(width, height))
        exists = g.op("Unsqueeze", g.op("GreaterOrEqual", classes, g.const(np.int32(0))), g.ints(2))
        return n.op("Where", exists, limited, 0.0)

    return images, placed


def _weights(n: Numbers, side: str, length: str, out: int, low: str, size: str) -> str:
    """`yolojax.export.program.triangle_weights` of an axis: ``[out, length]``."""
    g = n.g
    scale = n.op("Div", length, size)
    places = g.const((np.arange(out) + 0.5).astype(np.float32).reshape(-1, 1))
    centre = n.op("Mul", n.op("Sub", places, low), scale)
    count = g.op("Squeeze", side, g.ints(0))
    pixel = g.cast(g.op("Range", g.const(np.int64(0)), count, g.const(np.int64(1))), np.float32)
    pixel = g.op("Unsqueeze", n.op("Add", pixel, 0.5), g.ints(0))
    away = n.op("Div", n.op("Abs", n.op("Sub", pixel, centre)), n.op("Max", scale, 1.0))
    weights = n.op("Max", n.op("Sub", 1.0, away), 0.0)
    total = g.op("ReduceSum", weights, g.ints(1), keepdims=1)
    return n.op("Div", weights, n.op("Where", n.op("Greater", total, 0.0), total, 1.0))


def _levels(n: Numbers, values: str) -> str:
    """Rounded to whole levels from 0 to 255, halves up."""
    return n.op("Min", n.op("Max", n.op("Floor", n.op("Add", values, 0.5)), 0.0), 255.0)


def _between(n: Numbers, side: int, low: str, high: str, shape: tuple[int, ...]) -> str:
    places = n.g.const(np.arange(side, dtype=np.float32).reshape(shape))
    return n.op("And", n.op("GreaterOrEqual", places, low), n.op("Less", places, high))
