"""Names of tensors in published files of the Ultralytics families, for arrays under the names of this library.

A family states the names of its modules, such as ``{"backbone/stage1": ("model.2", "c2f")}``: the module here, the
module there, and a kind. This file knows the names inside each kind, and how arrays are laid out. One table serves both
directions: for each array of the detector the peer's name is computed, then read or written.

The names were taken from published files, whose tensors were listed; no code of their authors was read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from yolojax.errors import CheckpointError
from yolojax.weights.foreign import printable
from yolojax.weights.released import flatten, unflatten

Patterns = tuple[tuple[str, str], ...]
"""Pairs of a regular expression of a path inside a module here, and of the path in the file."""

Names = Mapping[str, tuple[str, str | Patterns]]
"""Module here, to the module in the file and the kind of both: a key of this file's table, or patterns of its own."""

_C3 = (
    (r"main", r"cv1"),
    (r"side", r"cv2"),
    (r"join", r"cv3"),
    (r"bottleneck(\d+)/conv1", r"m.\1.cv1"),
    (r"bottleneck(\d+)/conv2(?:/full)?", r"m.\1.cv2"),
)


def _attention(ours: str, theirs: str, feed_forward: str = "ffn") -> Patterns:
    """An attention block with its two layers after it; ``theirs`` ends in a dot, unless it is empty."""
    return (
        (rf"{ours}/attention/qkv", rf"{theirs}attn.qkv"),
        (rf"{ours}/attention/position", rf"{theirs}attn.pe"),
        (rf"{ours}/attention/project", rf"{theirs}attn.proj"),
        (rf"{ours}/expand", rf"{theirs}{feed_forward}.0"),
        (rf"{ours}/reduce", rf"{theirs}{feed_forward}.1"),
    )


_C2F = ((r"split", r"cv1"), (r"join", r"cv2"), (r"bottleneck(\d+)/conv(\d)", r"m.\1.cv\2"))

_INSIDE: dict[str, Patterns] = {
    "conv": ((r"(?:full)?", r""),),
    "sppf": ((r"reduce", r"cv1"), (r"join", r"cv2")),
    "c3": _C3,
    "c2f": _C2F,
    "c3k2": _C2F,
    "c2psa": (
        (r"split", r"cv1"),
        (r"join", r"cv2"),
        *_attention(r"block(\d+)", r"m.\1."),
    ),
    "c3k2 with attention": (
        (r"split", r"cv1"),
        (r"join", r"cv2"),
        (r"bottleneck/conv(\d)", r"m.0.0.cv\1"),
        *_attention(r"block", r"m.0.1."),
    ),
    "psa": (
        (r"split", r"cv1"),
        (r"join", r"cv2"),
        *_attention(r"block0", ""),
    ),
    "scdown": ((r"pointwise", r"cv1"), (r"depthwise", r"cv2")),
    "c2f or c2fcib": (
        *_C2F,
        (r"bottleneck(\d+)/depthwise1", r"m.\1.cv1.0"),
        (r"bottleneck(\d+)/expand", r"m.\1.cv1.1"),
        (r"bottleneck(\d+)/depthwise2", r"m.\1.cv1.2"),
        (r"bottleneck(\d+)/depthwise2/large", r"m.\1.cv1.2.conv"),
        (r"bottleneck(\d+)/depthwise2/small", r"m.\1.cv1.2.conv1"),
        (r"bottleneck(\d+)/reduce", r"m.\1.cv1.3"),
        (r"bottleneck(\d+)/depthwise3", r"m.\1.cv1.4"),
    ),
    "relan": (
        (r"", r""),
        (r"reduce", r"cv1"),
        (r"join", r"cv2"),
        *_attention(r"block(\d+)_(\d)", r"m.\1.\2.", "mlp"),
    ),
    "elan": ((r"split", r"cv1"), (r"part(\d)", r"cv\1"), (r"join", r"cv4")),
    "gelan": (
        (r"split", r"cv1"),
        (r"join", r"cv4"),
        (r"part(\d)", r"cv\1.1"),
        (r"part(\d)_csp/main", r"cv\1.0.cv1"),
        (r"part(\d)_csp/side", r"cv\1.0.cv2"),
        (r"part(\d)_csp/join", r"cv\1.0.cv3"),
        (r"part(\d)_csp/bottleneck(\d+)/spatial", r"cv\1.0.m.\2.cv1.conv1"),
        (r"part(\d)_csp/bottleneck(\d+)/pointwise", r"cv\1.0.m.\2.cv1.conv2"),
        (r"part(\d)_csp/bottleneck(\d+)/conv2", r"cv\1.0.m.\2.cv2"),
    ),
    "halving": ((r"", r"cv1"), (r"strided", r"cv1"), (r"pooled", r"cv2")),
    "link": ((r"", r"conv"),),
    "sppelan": ((r"reduce", r"cv1"), (r"join", r"cv5")),
    "distances": (
        (r"level(\d)_box(\d)", r"cv2.\1.\2"),
        (r"level(\d)_predict_box", r"cv2.\1.2"),
        (r"level(\d)_cls(\d)", r"cv3.\1.\2"),
        (r"level(\d)_cls(\d)/depthwise", r"cv3.\1.\2.0"),
        (r"level(\d)_cls(\d)/pointwise", r"cv3.\1.\2.1"),
        (r"level(\d)_predict_cls", r"cv3.\1.2"),
    ),
    "anchors": ((r"predict(\d)", r"m.\1"),),
}

_LEAVES = {
    "conv/kernel": "conv.weight",
    "conv/bias": "conv.bias",
    "norm/scale": "bn.weight",
    "norm/bias": "bn.bias",
    "norm/mean": "bn.running_mean",
    "norm/var": "bn.running_var",
}
_PLAIN = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
    "alpha": "alpha",
    "gain": "gamma",
}
"""Of an array that stands in a module by itself: a convolution or a normalisation without the other, or a factor."""


def published_name(name: str, names: Names) -> str:
    """The name in published files of an array here, such as ``params/backbone/stage1/split/conv/kernel``.

    Raises `KeyError` where the table of the family has no such module.
    """
    _, _, path = name.partition("/")
    for ours, (theirs, kind) in names.items():
        if not path.startswith(f"{ours}/"):
            continue
        inner = path.removeprefix(f"{ours}/")
        ends = [(leaf, end) for leaf, end in _LEAVES.items() if inner == leaf or inner.endswith(f"/{leaf}")]
        leaf, end = ends[0] if ends else (inner.rpartition("/")[2], _PLAIN[inner.rpartition("/")[2]])
        place = _inside(inner.removesuffix(leaf).removesuffix("/"), kind)
        return ".".join(part for part in (theirs, place, end) if part)
    raise KeyError(name)


def _inside(path: str, kind: str | Patterns) -> str:
    """The peer's path of a convolution inside a module of this kind."""
    if kind in ("c3k2", "relan") and (nested := re.fullmatch(r"bottleneck(\d+)/(main|side|join|bottleneck.*)", path)):
        return f"m.{nested[1]}.{_inside(nested[2], 'c3')}"
    if kind == "pair":
        head, _, rest = path.partition("/")
        return {"one_to_many": "", "one_to_one": "one2one_"}[head] + _inside(rest, "distances")
    for ours, theirs in _INSIDE[kind] if isinstance(kind, str) else kind:
        if match := re.fullmatch(ours, path):
            return match.expand(theirs)
    raise KeyError(path)


def take_tensors(
    tensors: Mapping[str, np.ndarray],
    expected: Any,
    names: Names | Callable[[str], str],
    ignored: str,
    source: str,
) -> dict[str, Any]:
    """Reads the arrays of a detector out of the tensors of a file.

    Args:
      tensors: by the peer's names, kernels as OIHW, those of linear layers with the output first.
      expected: the variables of the detector, or their shapes.
      names: of the family's modules, or a function that gives the peer's name of each array here.
      ignored: a regular expression of names that carry nothing to learn, such as counters.
      source: the file, for messages.

    Returns:
      The variables, float32 NumPy arrays.

    Raises:
      CheckpointError: a tensor is missing, of another shape or not finite, or has no place in the detector.
    """
    taken, used = {}, set()
    for name, want in flatten(expected).items():
        theirs = names(name) if callable(names) else published_name(name, names)
        if theirs not in tensors:
            raise CheckpointError(f"{source}: the tensor {theirs} is missing; the file is not the whole of a network")
        array, shape = tensors[theirs], tuple(want.shape)
        order = _peer_order(name, len(shape))
        wanted = tuple(shape[axis] for axis in order)
        if array.shape != wanted or not (array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16):
            raise CheckpointError(
                f"{source}: the tensor {theirs} is {array.dtype} of shape {list(array.shape)}, this network needs "
                f"numbers of shape {list(wanted)}; its layers were changed, give one of the published sizes"
            )
        value = np.asarray(array, np.float32)
        if not np.isfinite(value).all():
            raise CheckpointError(f"{source}: the tensor {theirs} holds values that are not finite; give other weights")
        taken[name] = np.array(value.transpose(np.argsort(order)), order="C")
        used.add(theirs)
    unknown = [name for name in tensors if name not in used and not re.fullmatch(ignored, name)]
    if unknown:
        raise CheckpointError(
            f"{source}: {len(unknown)} tensors have no place in this network, such as {printable(unknown[0])[:200]}; "
            "its layers were changed, give one of the published sizes"
        )
    return unflatten(taken)


def _peer_order(name: str, axes: int) -> tuple[int, ...]:
    """The axes of an array here in the order of the peer's: OIHW kernels, and the output of linear layers first."""
    if axes == 4:
        return (3, 2, 0, 1)
    return (1, 0) if axes == 2 and name.endswith("/kernel") else tuple(range(axes))


def give_tensors(variables: Any, names: Names | Callable[[str], str]) -> dict[str, np.ndarray]:
    """The inverse of `take_tensors`: float32 tensors by the peer's names, in its layout, with zeroed counters."""
    tensors = {}
    for name, value in flatten(variables).items():
        array = np.asarray(value, np.float32)
        theirs = names(name) if callable(names) else published_name(name, names)
        tensors[theirs] = np.ascontiguousarray(array.transpose(_peer_order(name, array.ndim)))
        if theirs.endswith("bn.running_var"):
            tensors[theirs.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return tensors
