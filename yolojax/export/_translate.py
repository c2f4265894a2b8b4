"""From a traced JAX program to nodes of an ONNX graph: `translate`.

Only the primitives of detectors are known: convolutions, pooling, matrix products, element-wise arithmetic, moves of
data, the best k of an axis and what is read at computed places, all of static shape but for the first axis. Images are
NHWC in JAX and NCHW in ONNX: a value is kept in the layout in which it was made, and is transposed where something
needs the other. What depends on constants alone is computed beforehand.

This is a translator of our own because `jax2onnx` cannot be installed beside the library: see docs/export.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from yolojax.errors import ConfigError
from yolojax.export._graph import GraphBuilder
from yolojax.export._lookups import gather, suppress, top_k
from yolojax.export._values import Shape, Value, broadcast_shapes, constant, join_constants

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)

_MOST_REPEATED = 1 << 15
"""Numbers of a repeated constant that are written out. Larger ones are left to the runtime, which broadcasts them."""

NCHW_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}
"""Where an axis of NHWC lies in NCHW."""


class Translator:
    """Adds the nodes of a traced program to a graph.

    ``batch`` is the name of an int64 vector of one number, the size of the open axis; None where no axis is open.
    """

    def __init__(self, graph: GraphBuilder, batch: str | None) -> None:
        self.graph, self.batch = graph, batch

    # Reading values.

    def read(self, value: Value, nchw: bool = False) -> str:
        """The name of the tensor in a layout, with the sides that it has (`Value.actual`)."""
        if value.const is not None:
            array = value.const
            if nchw and array.ndim == 4:
                array = array.transpose(TO_NCHW)
            return self.graph.const(array)
        if len(value.shape) != 4:
            nchw = False
        if nchw:
            if value.nchw is None:
                assert value.plain is not None
                value.nchw = self.graph.op("Transpose", value.plain, perm=list(TO_NCHW))
            return value.nchw
        if value.plain is None:
            assert value.nchw is not None
            value.plain = self.graph.op("Transpose", value.nchw, perm=list(TO_NHWC))
        return value.plain

    def full(self, value: Value, nchw: bool = False) -> str:
        """As `read`, with every side as JAX has it."""
        name = self.read(value, nchw)
        if value.actual == value.shape:
            return name
        shape = value.shape
        if nchw and len(shape) == 4:
            shape = tuple(shape[axis] for axis in TO_NCHW)
        return self.graph.op("Expand", name, self.sides(shape))

    def sides(self, shape: Shape) -> str:
        """A shape as a vector of int64."""
        if all(isinstance(side, int) for side in shape):
            return self.graph.ints(*shape)
        parts = [self.graph.ints(side) if isinstance(side, int) else self._open(side) for side in shape]
        return self.graph.op("Concat", *parts, axis=0)

    def _open(self, side: Any) -> str:
        if self.batch is None or str(side) != "b":
            raise ConfigError(f"the side {side} of an array cannot be left open; export with a number of images")
        return self.batch

    def reshape(self, name: str, shape: Shape) -> str:
        """A Reshape node; one side may be open."""
        if sum(not isinstance(side, int) for side in shape) > 1:
            raise ConfigError(f"an array of shape {shape} has two open sides; export with a number of images")
        return self.graph.op("Reshape", name, self.graph.ints(*(s if isinstance(s, int) else -1 for s in shape)))

    # Programs.

    def run(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
        """Adds a traced program; returns its outputs."""
        known: dict[Any, Value] = {}
        for variable, const in zip(jaxpr.constvars, consts, strict=True):
            known[variable] = const if isinstance(const, Value) else constant(const)
        known |= dict(zip(jaxpr.invars, arguments, strict=True))

        def look_up(atom: Any) -> Value:
            if isinstance(atom, core.Literal):
                aval: Any = atom.aval
                return constant(np.asarray(atom.val, aval.dtype))
            return known[atom]

        for equation in jaxpr.eqns:
            outputs = self.equation(equation, [look_up(atom) for atom in equation.invars])
            known |= dict(zip(equation.outvars, outputs, strict=True))
        return [look_up(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, inputs: list[Value]) -> list[Value]:
        """Adds one operation of a program."""
        params, name = equation.params, equation.primitive.name
        if name == "jit" and (form := _FUNCTIONS.get(params["name"])) is not None:
            return form(self, inputs, [variable.aval for variable in equation.outvars])
        inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
        if inner is not None and name not in _CONTROL:
            closed = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
            return self.run(*closed, inputs)
        avals = [variable.aval for variable in equation.outvars]
        static = all(isinstance(side, int) for aval in avals for side in aval.shape)
        is_known = static and all(value.const is not None and value.actual == value.shape for value in inputs)
        if is_known and not (name == "broadcast_in_dim" and math.prod(avals[0].shape) > _MOST_REPEATED):
            with jax.ensure_compile_time_eval():
                found = equation.primitive.bind(*(value.const for value in inputs), **params)
            found = found if equation.primitive.multiple_results else [found]
            return [constant(np.asarray(one)) for one in found]
        method: Callable[..., Any] | None = getattr(self, f"_{name}", None)
        if method is not None:
            made = method(inputs, avals, params)
            return made if isinstance(made, list) else [made]
        if name in _ELEMENTWISE:
            return [self.elementwise(_ELEMENTWISE[name], inputs, avals[0])]
        raise ConfigError(f"the operation {name} of this detector has no translation to ONNX; export to StableHLO")

    def elementwise(self, kind: str | Callable[..., str], inputs: list[Value], aval: Any) -> Value:
        """An operation on every element; operands are broadcast as ONNX does."""
        nchw = any(value.is_nchw for value in inputs) and len(aval.shape) == 4
        names = [self.read(value, nchw) for value in inputs]
        out = self.graph.op(kind, *names) if isinstance(kind, str) else kind(self.graph, *names)
        actual = broadcast_shapes([value.actual for value in inputs])
        return Value(aval.shape, aval.dtype, actual=actual, plain=None if nchw else out, nchw=out if nchw else None)

    def axes_kept(self, value: Value) -> tuple[bool, Callable[[int], int]]:
        """Whether an operation on axes is done in NCHW, and where an axis lies then."""
        if value.is_nchw:
            return True, NCHW_AXIS.__getitem__
        return False, lambda axis: axis

    def made(self, aval: Any, name: str, nchw: bool = False) -> Value:
        return Value(aval.shape, aval.dtype, plain=None if nchw else name, nchw=name if nchw else None)

    # Convolution and pooling.

    def _conv_general_dilated(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        image, kernel = inputs
        numbers = params["dimension_numbers"]
        layouts = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
        if kernel.const is None or layouts != ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)):
            raise ConfigError("a convolution with computed kernels or other layouts than NHWC and HWIO is not exported")
        if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
            raise ConfigError("a transposed convolution is not exported")
        pads = params["padding"]
        out = self.graph.op(
            "Conv",
            self.full(image, nchw=True),
            self.graph.const(kernel.const.transpose(3, 2, 0, 1)),
            strides=list(params["window_strides"]),
            pads=[pad[0] for pad in pads] + [pad[1] for pad in pads],
            dilations=list(params["rhs_dilation"]),
            group=params["feature_group_count"],
            kernel_shape=list(kernel.const.shape[:2]),
        )
        return self.made(avals[0], out, nchw=True)

    def _reduce_window_max(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        return self.pool("MaxPool", inputs[0], avals[0], params)

    def _reduce_window_sum(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        size = int(np.prod(params["window_dimensions"]))
        mean = self.pool("AveragePool", inputs[0], avals[0], params, count_include_pad=1)
        assert mean.nchw is not None
        return self.made(avals[0], self.graph.op("Mul", mean.nchw, self.graph.const(size, avals[0].dtype)), nchw=True)

    def pool(self, kind: str, value: Value, aval: Any, params: Any, **attributes: Any) -> Value:
        window, strides, pads = params["window_dimensions"], params["window_strides"], params["padding"]
        dilations = (*params["base_dilation"], *params["window_dilation"])
        if len(window) != 4 or (window[0], window[3]) != (1, 1) or set(dilations) != {1}:
            raise ConfigError("a pooling over other axes than height and width is not exported")
        out = self.graph.op(
            kind,
            self.full(value, nchw=True),
            kernel_shape=list(window[1:3]),
            strides=list(strides[1:3]),
            pads=[pads[1][0], pads[2][0], pads[1][1], pads[2][1]],
            **attributes,
        )
        return self.made(aval, out, nchw=True)

    # Matrix products.

    def _dot_general(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
        left, right = inputs
        left_free = [axis for axis in range(len(left.shape)) if axis not in (*left_sum, *left_batch)]
        right_free = [axis for axis in range(len(right.shape)) if axis not in (*right_sum, *right_batch)]
        a = self.arranged(left, [left_batch, left_free, left_sum])
        b = self.arranged(right, [right_batch, right_sum, right_free])
        product = self.graph.op("MatMul", a, b)
        if np.dtype(avals[0].dtype) != left.dtype:
            product = self.graph.cast(product, avals[0].dtype)
        return self.made(avals[0], self.reshape(product, avals[0].shape))

    def arranged(self, value: Value, groups: list[Sequence[int]]) -> str:
        """The tensor with its axes in the order of three groups, the second and the third merged into one axis each."""
        order = [axis for group in groups for axis in group]
        name = self.full(value)
        if order != list(range(len(order))):
            name = self.graph.op("Transpose", name, perm=order)
        shape = [value.shape[axis] for axis in groups[0]]
        for group in groups[1:]:
            sides = [value.shape[axis] for axis in group]
            still = [side for side in sides if not isinstance(side, int)]
            shape.append(still[0] if still else int(np.prod(sides, dtype=np.int64)))
        return self.reshape(name, tuple(shape))

    # Moves of data.

    def _broadcast_in_dim(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        value, aval, places = inputs[0], avals[0], params["broadcast_dimensions"]
        actual: list[Any] = [1] * len(aval.shape)
        for axis, place in enumerate(places):
            actual[place] = value.actual[axis]
        common = {"actual": tuple(actual), "origin": value}
        if value.const is not None:
            return Value(aval.shape, aval.dtype, const=value.const.reshape(actual), **common)
        if tuple(places) == tuple(range(len(aval.shape))):
            return Value(aval.shape, aval.dtype, plain=value.plain, nchw=value.nchw, **common)
        return Value(aval.shape, aval.dtype, plain=self.reshape(self.read(value), tuple(actual)), **common)

    def _reshape(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        value, aval = inputs[0], avals[0]
        enlarged = self.enlarged(value, aval)
        if enlarged is not None:
            return enlarged
        if value.const is not None and value.actual == value.shape:
            return Value(aval.shape, aval.dtype, const=value.const.reshape(aval.shape))
        made = self.made(aval, self.reshape(self.full(value), aval.shape))
        made.origin = value
        return made

    def enlarged(self, value: Value, aval: Any) -> Value | None:
        """``[B, h, 1, w, 1, C]`` broadcast to ``[B, h, k, w, k, C]`` and reshaped is a resize by repetition."""
        if len(value.shape) != 6 or len(aval.shape) != 4 or value.actual[2] != 1 or value.actual[4] != 1:
            return None
        _, h, rows, w, columns, channels = value.shape
        if aval.shape[1:] != (h * rows, w * columns, channels):
            return None
        source = value
        while source.origin is not None and len(source.shape) != 4:
            source = source.origin
        if source.shape[1:] != (h, w, channels) or source.actual != source.shape:
            return None
        out = self.graph.op(
            "Resize",
            self.read(source, nchw=True),
            "",
            self.graph.const(np.array([1, 1, rows, columns], np.float32)),
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )
        return self.made(aval, out, nchw=True)

    def _squeeze(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        return self._reshape(inputs, avals, params)

    _expand_dims = _squeeze

    def _transpose(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        value, order = inputs[0], tuple(params["permutation"])
        if value.is_nchw and order == TO_NCHW:
            return self.made(avals[0], self.full(value, nchw=True))
        return self.made(avals[0], self.graph.op("Transpose", self.full(value), perm=list(order)))

    def _tile(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        out = self.graph.op("Tile", self.full(inputs[0]), self.graph.ints(*params["reps"]))
        return self.made(avals[0], out)

    def _gather(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        return gather(self, inputs, avals, params)

    def _top_k(self, inputs: list[Value], avals: list[Any], params: Any) -> list[Value]:
        return top_k(self, inputs, avals, params)

    def _stack(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        at = self.graph.ints(params["axis"])
        parts = [self.graph.op("Unsqueeze", self.full(value), at) for value in inputs]
        return self.made(avals[0], self.graph.op("Concat", *parts, axis=params["axis"]))

    def _concatenate(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        joined = join_constants(inputs, avals[0], params["dimension"])
        if joined is not None:
            return joined
        nchw = len(avals[0].shape) == 4 and any(value.is_nchw for value in inputs)
        axis = NCHW_AXIS[params["dimension"]] if nchw else params["dimension"]
        return self.made(avals[0], self.graph.op("Concat", *(self.full(v, nchw) for v in inputs), axis=axis), nchw)

    def _slice(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        value, aval = inputs[0], avals[0]
        steps = params["strides"] or (1,) * len(aval.shape)
        return self.sliced(value, aval, params["start_indices"], params["limit_indices"], steps)

    def sliced(self, value: Value, aval: Any, starts: Any, stops: Any, steps: Any) -> Value:
        cut = [
            axis
            for axis in range(len(aval.shape))
            if isinstance(value.shape[axis], int)
            and (starts[axis], stops[axis], steps[axis]) != (0, value.shape[axis], 1)
        ]
        nchw, place = self.axes_kept(value)
        if not cut:
            return self.made(aval, self.full(value, nchw), nchw)
        out = self.graph.op(
            "Slice",
            self.full(value, nchw),
            self.graph.ints(*(starts[axis] for axis in cut)),
            self.graph.ints(*(stops[axis] for axis in cut)),
            self.graph.ints(*(place(axis) for axis in cut)),
            self.graph.ints(*(steps[axis] for axis in cut)),
        )
        return self.made(aval, out, nchw)

    def _dynamic_slice(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        value, *starts = inputs
        if any(start.const is None for start in starts):
            raise ConfigError("a slice whose place is computed has no translation to ONNX; export to StableHLO")
        places = [int(start.const) for start in starts]  # pyright: ignore[reportArgumentType]
        return self.cut_out(value, avals[0], places, params["slice_sizes"])

    def cut_out(self, value: Value, aval: Any, starts: Sequence[int], sizes: Shape) -> Value:
        """A slice of known place and size; what JAX then leaves out of the shape has size 1."""
        sides = list(zip(starts, value.shape, sizes, strict=True))
        first = [min(max(start, 0), side - size) if isinstance(side, int) else 0 for start, side, size in sides]
        stops = [start + size if isinstance(size, int) else size for start, size in zip(first, sizes, strict=True)]
        shape = tuple(sizes)
        cut = self.sliced(value, jax.ShapeDtypeStruct(shape, aval.dtype), first, stops, (1,) * len(first))
        return cut if shape == tuple(aval.shape) else self._reshape([cut], [aval], {})

    def _rev(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        axes = params["dimensions"]
        nchw, place = self.axes_kept(inputs[0])
        out = self.graph.op(
            "Slice",
            self.full(inputs[0], nchw),
            self.graph.ints(*(-1 for _ in axes)),
            self.graph.ints(*(-(2**31) for _ in axes)),
            self.graph.ints(*(place(axis) for axis in axes)),
            self.graph.ints(*(-1 for _ in axes)),
        )
        return self.made(avals[0], out, nchw)

    def _split(self, inputs: list[Value], avals: list[Any], params: Any) -> list[Value]:
        nchw, place = self.axes_kept(inputs[0])
        sizes = self.graph.ints(*(int(size) for size in params["sizes"]))
        names = self.graph.op(
            "Split", self.full(inputs[0], nchw), sizes, outputs=len(avals), axis=place(params["axis"])
        )
        names = [names] if isinstance(names, str) else names
        return [self.made(aval, name, nchw) for aval, name in zip(avals, names, strict=True)]

    def _pad(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        value, fill = inputs
        config = params["padding_config"]
        if any(interior for _, _, interior in config):
            raise ConfigError("padding between elements is not exported")
        nchw, _ = self.axes_kept(value)
        order = TO_NCHW if nchw else range(len(config))
        pads = [int(config[axis][end]) for end in (0, 1) for axis in order]
        out = self.graph.op("Pad", self.full(value, nchw), self.graph.ints(*pads), self.read(fill), mode="constant")
        return self.made(avals[0], out, nchw)

    # Reductions.

    def reduce(self, kind: str, value: Value, aval: Any, axes: Sequence[int]) -> Value:
        nchw, place = self.axes_kept(value)
        if nchw and not (3 in axes or {1, 2} <= set(axes)):  # what is left would be in another order
            nchw, place = False, lambda axis: axis
        own = sorted(place(axis) for axis in axes)
        name = self.full(value, nchw)
        if kind == "ReduceSum":
            return self.made(aval, self.graph.op(kind, name, self.graph.ints(*own), keepdims=0))
        return self.made(aval, self.graph.op(kind, name, axes=own, keepdims=0))

    def _reduce_sum(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        return self.reduce("ReduceSum", inputs[0], avals[0], params["axes"])

    def _reduce_max(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        return self.reduce("ReduceMax", inputs[0], avals[0], params["axes"])

    def _reduce_min(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        return self.reduce("ReduceMin", inputs[0], avals[0], params["axes"])

    def _reduce_and(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        return self.truth("ReduceMin", inputs[0], avals[0], params["axes"])

    def _reduce_or(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        return self.truth("ReduceMax", inputs[0], avals[0], params["axes"])

    def truth(self, kind: str, value: Value, aval: Any, axes: Sequence[int]) -> Value:
        """A reduction of truth values, as numbers, since ONNX reduces those alone."""
        numbers = Value(value.shape, np.int32, plain=self.graph.cast(self.full(value), np.int32))
        reduced = self.reduce(kind, numbers, jax.ShapeDtypeStruct(aval.shape, np.int32), axes)
        return self.made(aval, self.graph.cast(self.full(reduced), np.bool_))

    def _argmax(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        found = self.graph.op("ArgMax", self.full(inputs[0]), axis=params["axes"][0], keepdims=0, select_last_index=0)
        return self.made(avals[0], self.graph.cast(found, avals[0].dtype))

    # Arithmetic that ONNX writes otherwise.

    def _mul(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        made = self.elementwise("Mul", inputs, avals[0])
        for value, factor in (inputs, inputs[::-1]):
            if factor.const is not None and factor.const.size == 1:
                made.scaled = value, float(factor.const.reshape(()))
        return made

    def _max(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        """Runtimes fuse activations that they know by name with the convolution before."""
        for value, other in (inputs, inputs[::-1]):
            zero = other.const is not None and other.const.size == 1 and not other.const.any()
            if zero and value.dtype.kind == "f":
                return self.elementwise("Relu", [value], avals[0])
            if other.scaled is not None and other.scaled[0] is value and 0 < other.scaled[1] < 1:
                slope = other.scaled[1]
                return self.elementwise(lambda graph, x, a=slope: graph.op("LeakyRelu", x, alpha=a), [value], avals[0])
        return self.elementwise("Max", inputs, avals[0])

    def _convert_element_type(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        dtype = avals[0].dtype
        if inputs[0].dtype == dtype:
            return inputs[0]
        return self.elementwise(lambda graph, x: graph.cast(x, dtype), inputs, avals[0])

    def _integer_pow(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        power = params["y"]
        if power == 2:
            return self.elementwise(lambda graph, x: graph.op("Mul", x, x), inputs, avals[0])
        exponent = self.graph.const(power, avals[0].dtype)
        return self.elementwise(lambda graph, x: graph.op("Pow", x, exponent), inputs, avals[0])

    def _clamp(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        low, value, high = inputs
        raised = self.elementwise("Max", [value, low], avals[0])
        return self.elementwise("Min", [raised, high], avals[0])

    def _select_n(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        which, *cases = inputs
        if len(cases) != 2:
            raise ConfigError("a choice among more than two arrays is not exported")
        if which.dtype != np.bool_:
            which = self.elementwise(lambda graph, x: graph.cast(x, np.bool_), [which], which)
        # JAX takes the second case where the condition holds.
        return self.elementwise("Where", [which, cases[1], cases[0]], avals[0])

    def _iota(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        axis, aval = params["dimension"], avals[0]
        if not isinstance(aval.shape[axis], int):
            raise ConfigError("a range over an open axis is not exported; export with a number of images")
        actual = tuple(side if place == axis else 1 for place, side in enumerate(aval.shape))
        numbers = np.arange(aval.shape[axis], dtype=aval.dtype).reshape(actual)
        return Value(aval.shape, aval.dtype, const=numbers, actual=actual)

    def _copy(self, inputs: list[Value], avals: list[Any], params: Any) -> Value:
        return inputs[0]

    _stop_gradient = _copy_p = _reduce_precision = _copy

    def _optimization_barrier(self, inputs: list[Value], avals: list[Any], params: Any) -> list[Value]:
        return inputs


_FUNCTIONS: dict[str, Callable[[Translator, list[Value], list[Any]], list[Value]]] = {"suppress_by_iou": suppress}
"""Compiled functions of ours, by name, that ONNX has a node for."""

_CONTROL = ("while", "cond", "scan", "reduce", "sort", "custom_vmap_call")
"""Operations with programs inside that are no plain calls."""


def _through(*kinds: str) -> Callable[..., str]:
    """Several nodes one after another."""

    def build(graph: GraphBuilder, *names: str) -> str:
        found: str = graph.op(kinds[0], *names)
        for kind in kinds[1:]:
            found = graph.op(kind, found)
        return found

    return build


def _plus_one_log(graph: GraphBuilder, x: str) -> str:
    return graph.op("Log", graph.op("Add", x, graph.const(np.float32(1))))


def _exp_minus_one(graph: GraphBuilder, x: str) -> str:
    return graph.op("Sub", graph.op("Exp", x), graph.const(np.float32(1)))


_ELEMENTWISE: dict[str, str | Callable[..., str]] = {
    "add": "Add",
    "add_any": "Add",
    "sub": "Sub",
    "div": "Div",
    "min": "Min",
    "pow": "Pow",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "exp": "Exp",
    "log": "Log",
    "log1p": _plus_one_log,
    "expm1": _exp_minus_one,
    "sqrt": "Sqrt",
    "rsqrt": _through("Sqrt", "Reciprocal"),
    "square": lambda graph, x: graph.op("Mul", x, x),
    "tanh": "Tanh",
    "sin": "Sin",
    "cos": "Cos",
    "erf": "Erf",
    "erfc": lambda graph, x: graph.op("Sub", graph.const(np.float32(1)), graph.op("Erf", x)),
    "rem": lambda graph, x, y: graph.op("Mod", x, y, fmod=1),
    "logistic": "Sigmoid",
    "eq": "Equal",
    "ne": _through("Equal", "Not"),
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "and": "And",
    "or": "Or",
    "not": "Not",
    "is_finite": lambda graph, x: graph.op("Not", graph.op("Or", graph.op("IsInf", x), graph.op("IsNaN", x))),
}
