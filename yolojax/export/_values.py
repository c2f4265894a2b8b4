"""Values of a traced program on their way into an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np

Shape = tuple[Any, ...]
"""Sides are numbers, or the symbol of the open batch."""


class Value:
    """A value of the program: a constant array, or names of the same tensor in one or both layouts.

    ``shape`` is the one that JAX gives it. ``actual`` is the one that the tensor has: sides that JAX broadcast may
    still be 1, because ONNX broadcasts as it computes.
    """

    def __init__(
        self,
        shape: Shape,
        dtype: Any,
        *,
        plain: str | None = None,
        nchw: str | None = None,
        const: np.ndarray | None = None,
        actual: Shape | None = None,
        origin: Value | None = None,
    ) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.plain, self.nchw, self.const, self.origin = plain, nchw, const, origin
        self.actual = self.shape if actual is None else tuple(actual)
        self.scaled: tuple[Value, float] | None = None  # the value that this one is a multiple of, and the factor

    @property
    def is_nchw(self) -> bool:
        return self.const is None and self.plain is None and self.nchw is not None


def constant(value: Any) -> Value:
    array = np.asarray(value)
    return Value(array.shape, array.dtype, const=array)


def join_constants(values: list[Value], aval: Any, axis: int) -> Value | None:
    """Constants joined along an axis, as a constant; None where one is none, or is still broadcast in an open axis."""
    arrays = [value.const for value in values if value.const is not None and isinstance(value.shape[axis], int)]
    if len(arrays) < len(values):
        return None
    sides = np.broadcast_shapes(*((*a.shape[:axis], 1, *a.shape[axis + 1 :]) for a in arrays))
    lengths = [value.shape[axis] for value in values]
    whole = [
        np.broadcast_to(a, (*sides[:axis], length, *sides[axis + 1 :]))
        for a, length in zip(arrays, lengths, strict=True)
    ]
    joined = np.concatenate(whole, axis)
    return Value(aval.shape, aval.dtype, const=joined, actual=joined.shape)


def broadcast_shapes(shapes: list[Shape]) -> Shape:
    """The shape that ONNX gives operands of these shapes; scalars count as any."""
    rank = max(len(shape) for shape in shapes)
    out: list[Any] = [1] * rank
    for shape in shapes:
        for place, side in enumerate(shape, rank - len(shape)):
            if not (isinstance(side, int) and side == 1):
                out[place] = side
    return tuple(out)
