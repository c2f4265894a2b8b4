"""What a traced program reads at computed places, as nodes of an ONNX graph: gathers, the best k, suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from yolojax.errors import ConfigError
from yolojax.export._suppression import add_greedy
from yolojax.export._values import Value

if TYPE_CHECKING:
    from yolojax.export._translate import Translator


def gather(translator: Translator, inputs: list[Value], avals: list[Any], params: Any) -> Value:
    """`jax.lax.gather` of a slice at a known place, of whole rows along an axis, or of known places of several axes."""
    value, indices = inputs
    numbers, sizes, aval = params["dimension_numbers"], params["slice_sizes"], avals[0]
    batching = tuple(numbers.operand_batching_dims)
    if indices.const is not None and indices.const.ndim == 1 and not batching:
        starts = dict(zip(numbers.start_index_map, indices.const.tolist(), strict=True))
        return translator.cut_out(value, aval, [starts.get(axis, 0) for axis in range(len(value.shape))], sizes)
    axes = [int(axis) for axis in numbers.start_index_map]
    rest = [a for a in range(len(value.shape)) if a not in axes and a not in batching]
    if any(sizes[a] != 1 for a in axes) or any(str(sizes[a]) != str(value.shape[a]) for a in rest):
        raise ConfigError("a gather of pieces of rows has no translation to ONNX; export to StableHLO")
    taken = [a for a in range(len(aval.shape)) if a not in numbers.offset_dims]
    in_place = taken == list(range(axes[0], axes[0] + len(taken))) and list(numbers.collapsed_slice_dims) == axes
    if indices.const is not None and in_place and not batching and axes == list(range(axes[0], axes[-1] + 1)):
        # Neighbouring axes are made one.
        sides = [value.shape[axis] for axis in axes]
        at = np.ravel_multi_index(tuple(np.moveaxis(indices.const, -1, 0)), sides, mode="clip").astype(np.int64)
        source = translator.full(value)
        if len(axes) > 1:
            merged = (*value.shape[: axes[0]], int(np.prod(sides)), *value.shape[axes[-1] + 1 :])
            source = translator.reshape(source, merged)
        return translator.made(aval, translator.graph.op("Gather", source, translator.graph.const(at), axis=axes[0]))
    if len(axes) != 1:
        raise ConfigError("a gather over several axes has no translation to ONNX; export to StableHLO")
    return _looked_up(translator, value, indices, aval, params)


def _looked_up(translator: Translator, value: Value, indices: Value, aval: Any, params: Any) -> Value:
    """A gather along one axis by computed indices, which may have axes in common with the array."""
    numbers, g = params["dimension_numbers"], translator.graph
    axis, common = int(numbers.start_index_map[0]), [int(a) for a in numbers.operand_batching_dims]
    if common != list(range(len(common))) or common != [int(a) for a in numbers.start_indices_batching_dims]:
        raise ConfigError("a gather with moved axes has no translation to ONNX; export to StableHLO")
    rest = [a for a in range(len(value.shape)) if a not in (axis, *common)]
    source, order = translator.full(value), [*common, axis, *rest]
    if order != sorted(order):
        source = g.op("Transpose", source, perm=order)
    at = g.cast(translator.full(indices), np.int64)
    last, zero = g.const(np.int64(value.shape[axis] - 1)), g.const(np.int64(0))
    safe, mode = at, str(params["mode"])
    if "PROMISE" not in mode:
        safe = g.op("Min", g.op("Max", at, zero), last)
    out = g.op("GatherND", source, safe, batch_dims=len(common))  # the axes of the indices, then the others
    if "FILL" in mode:
        inside = g.op("And", g.op("GreaterOrEqual", at, zero), g.op("LessOrEqual", at, last))
        inside = g.op("Squeeze", inside, g.ints(-1))
        if rest:
            inside = g.op("Unsqueeze", inside, g.ints(*range(-len(rest), 0)))
        out = g.op("Where", inside, out, g.const(_fill(params["fill_value"], aval.dtype), aval.dtype))
    # JAX may put the axes of the indices elsewhere among the others, and may keep the axis of size 1.
    offsets = [int(a) for a in numbers.offset_dims]
    if not numbers.collapsed_slice_dims:
        offsets.pop(sorted([*rest, axis]).index(axis))
    squeezed = [a for a in range(len(aval.shape)) if a in offsets or a not in numbers.offset_dims]
    own = [a for a in squeezed if a not in offsets] + offsets
    places = [own.index(a) for a in squeezed]
    if places != sorted(places):
        out = g.op("Transpose", out, perm=places)
    return translator.made(aval, out if len(squeezed) == len(aval.shape) else translator.reshape(out, aval.shape))


def top_k(translator: Translator, inputs: list[Value], avals: list[Any], params: Any) -> list[Value]:
    """`jax.lax.top_k`. Both take the lower index of equal values first."""
    found, at = translator.graph.op(
        "TopK", translator.full(inputs[0]), translator.graph.ints(params["k"]), outputs=2, axis=params["axis"]
    )
    return [translator.made(avals[0], found), translator.made(avals[1], translator.graph.cast(at, avals[1].dtype))]


def suppress(translator: Translator, inputs: list[Value], avals: list[Any]) -> list[Value]:
    """`yolojax.nms.greedy.suppress_by_iou` by the node that ONNX has for it."""
    boxes, scores, *rest = inputs  # classes if any, the threshold, which rows are valid if not all
    classes = rest.pop(0) if rest[0].shape else None
    threshold, valid = rest if len(rest) == 2 else (*rest, None)
    if len(boxes.shape) != 3 or (classes is not None and classes.const is None) or threshold.const is None:
        raise ConfigError("a suppression with computed classes or thresholds is not exported")
    labels = None if classes is None else classes.const
    names = add_greedy(
        translator.graph,
        translator.full(boxes),
        translator.full(scores),
        None if labels is None else np.broadcast_to(labels, (1, scores.shape[1])),
        float(threshold.const),
        None if valid is None else translator.full(valid),
        avals[0].shape[1],
        scores.shape[1],
    )
    return [translator.made(aval, name) for aval, name in zip(avals, names, strict=True)]


def _fill(value: Any, dtype: Any) -> Any:
    """What `jax.lax.gather` puts where there is nothing to gather."""
    if value is not None:
        return value
    if np.issubdtype(dtype, np.inexact):
        return np.nan
    return np.iinfo(dtype).min if np.issubdtype(dtype, np.signedinteger) else np.iinfo(dtype).max
