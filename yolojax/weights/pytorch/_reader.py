"""From a container's inert value to tensors by name: plain state dicts, checkpoints of trainers, pickled modules."""

from pathlib import Path
from typing import Any

import numpy as np

from yolojax.weights._bounds import Budget, Malformed, guarded, map_file, object_budget
from yolojax.weights.foreign import Module, WeightFile
from yolojax.weights.pytorch._containers import read_container
from yolojax.weights.pytorch._inert import Inert, Pairs
from yolojax.weights.pytorch._objects import (
    MAX_DEPTH,
    class_path,
    describe_type,
    entries,
    forget,
    object_class,
    plain,
    state_of,
)
from yolojax.weights.pytorch._tensors import Tensors

ENTRIES = (
    "ema",
    "ema_net",
    "ema_model",
    "model_ema",
    "ema_state_dict",
    "model",
    "net",
    "state_dict",
    "model_state_dict",
    "params",
    "weights",
)
"""Entries of a checkpoint that hold weights, the preferred first: a moving average is what was evaluated."""

INNER = ("module", "ema", "ema_model", "model", "state_dict")
"""Entries of a wrapper around the weights, such as ``{"ema": {"module": ...}}``."""

MAX_SHOWN_TENSOR = 64

_MEND = "get the file again, or save the weights again with torch.save(model.state_dict(), PATH)"


def read_pytorch(path: str | Path, root: str | None = None) -> WeightFile:
    """Reads a file that ``torch.save`` wrote, in the zip form (since PyTorch 1.6) or the older one.

    The file holds a state dict (nested ones get dotted names), a checkpoint with one of `ENTRIES`, a whole pickled
    module of any class, or a TorchScript program (whose code is not looked at). Half, bfloat16, single and double
    precision, integers, truth values, complex and 8-bit floating numbers are read; quantised and sparse tensors are
    refused by name.

    Args:
      path: The file.
      root: The dotted name of the entry to take, such as ``model``. By default the first of `ENTRIES` with weights.

    Returns:
      The file's tensors, modules and metadata. Arrays are read-only views of the mapped file: they stay valid as long
      as no program shortens the file in place.

    Raises:
      CheckpointError: the file is missing, damaged, hostile, of another form, or holds no weights.
    """
    return guarded(path, lambda path: _read(path, root), _MEND)


def _read(path: Path, root: str | None) -> WeightFile:
    data = map_file(path)
    budget = object_budget(len(data))
    container = read_container(data, budget)
    tensors = Tensors(container, budget, len(data))
    top = entries(container.value, budget)
    found = _weights(container.value, top, tensors, budget)
    if not found:
        raise Malformed(f"no weights were found; it holds {_contents(container.value, top)}")
    if root is not None and root not in found:
        raise Malformed(f"no weights under {root!r}; there are some under {', '.join(map(repr, found))}")
    chosen = next(iter(found)) if root is None else root
    walk = _Walk(tensors, budget)
    value = found[chosen]
    if _is_module(value, budget):
        walk.module(value, "", 0)
    else:
        walk.state_dict(value)
    if not walk.arrays:
        raise Malformed(f"the weights under {chosen!r} have no tensors")
    heads = {name.partition(".")[0] for name in found}
    metadata = {}
    if chosen:
        for name, item in (top or {}).items():
            if name not in heads:
                metadata[str(name)] = plain(item, budget, walk.shown)
    return WeightFile(
        path=path,
        form=container.form,
        root=chosen,
        root_class=class_path(value) or "dict",
        other_roots=tuple(name for name in found if name != chosen),
        tensors=walk.arrays,
        buffers=frozenset(walk.buffers),
        modules=walk.modules,
        metadata=metadata,
    )


def _weights(value: Any, top: dict[Any, Any] | None, tensors: Tensors, budget: Budget) -> dict[str, Any]:
    """What may be taken as the weights, by dotted entry; the preferred first."""
    if _is_module(value, budget):
        return {"": value}
    if top is None:
        return {}
    found: dict[str, Any] = {}
    for name in ENTRIES:
        inside = top.get(name)
        if inside is None:
            continue
        if _holds_weights(inside, tensors, budget):
            found[name] = inside
            continue
        wrapped = entries(inside, budget) or state_of(inside, budget)
        found.update(
            {
                f"{name}.{inner}": wrapped[inner]
                for inner in INNER
                if _holds_weights(wrapped.get(inner), tensors, budget)
            }
        )
    if not found and _holds_weights(value, tensors, budget):
        found[""] = value
    return found


def _holds_weights(value: Any, tensors: Tensors, budget: Budget) -> bool:
    """Whether a value is a module, or a dictionary of tensors or of dictionaries of tensors."""
    if _is_module(value, budget):
        return True
    held = entries(value, budget) or {}
    found = any(tensors.is_tensor(item) for item in held.values())
    if not found and not held.keys() & set(INNER):
        for item in held.values():
            leaves = entries(item, budget) or {}
            found = found or any(tensors.is_tensor(leaf) for leaf in leaves.values())
            forget(leaves, budget)
    forget(held, budget)
    return found


def _is_scripted(value: Any) -> bool:
    """Whether a value is a module of a TorchScript program, whose class was generated."""
    return (object_class(value) or ("",))[0].startswith("__torch__")


def _is_module(value: Any, budget: Budget) -> bool:
    if _is_scripted(value):
        return True
    state = state_of(value, budget)
    found = not state.keys().isdisjoint(("_modules", "_parameters"))
    forget(state, budget)
    return found


def _contents(value: Any, top: dict[Any, Any] | None) -> str:
    if top is None:
        return f"a value of type {describe_type(value)[:200]}"
    names = [f"{str(name)[:60]!r} ({describe_type(item)[:60]})" for name, item in list(top.items())[:20]]
    return ("the entries " + ", ".join(names)) if names else "an empty dictionary"


class _Walk:
    """Collects arrays, buffers and modules by dotted name."""

    def __init__(self, tensors: Tensors, budget: Budget) -> None:
        self.tensors, self.budget = tensors, budget
        self.arrays: dict[str, np.ndarray] = {}
        self.buffers: set[str] = set()
        self.modules: dict[str, Module] = {}

    def shown(self, value: Any) -> Any:
        """A small tensor as nested lists, a larger one as a text; None for what is no tensor."""
        if not self.tensors.is_tensor(value):
            return None
        try:
            array = self.tensors.array(value, "")
        except Malformed as error:
            return f"<{error}>"
        if array.size > MAX_SHOWN_TENSOR or array.dtype.kind == "c":
            return f"<tensor {array.dtype} {list(array.shape)}>"
        self.budget.charge(64 * array.size)
        return (array if array.dtype.kind in "iub" else array.astype(np.float64)).tolist()

    def state_dict(self, value: Any) -> None:
        others: dict[str, Any] = {}
        self._branch(value, "", others, 0)
        self.modules[""] = Module(class_path(value) or "dict", others)

    def _branch(self, value: Any, prefix: str, others: dict[str, Any], depth: int) -> None:
        """Keeps the tensors of nested dictionaries; puts what stands beside them into ``others`` as plain values."""
        if depth > MAX_DEPTH:
            raise Malformed(f"dictionaries are nested deeper than {MAX_DEPTH}")
        held = entries(value, self.budget) or {}
        for key, item in held.items():
            name = self._name(prefix, key)
            if self.tensors.is_tensor(item):
                self._keep(name, item)
                continue
            count, inner = len(self.arrays), {}
            if isinstance(item, Pairs | Inert):
                self._branch(item, f"{name}.", inner, depth + 1)
            if len(self.arrays) > count:
                others.update(inner)
            else:
                others[name] = plain(item, self.budget, self.shown)
        forget(held, self.budget)

    def module(self, value: Any, name: str, depth: int) -> None:
        """Keeps the tensors and modules of a pickled module or of a TorchScript program."""
        if depth > MAX_DEPTH:
            raise Malformed(f"modules are nested deeper than {MAX_DEPTH}")
        state = state_of(value, self.budget)
        prefix = f"{name}." if name else ""
        attributes: dict[str, Any] = {}
        self.budget.charge(512)
        self.modules[name] = Module(class_path(value) or "", attributes)
        for key, item in state.items():
            if _is_scripted(value) and _is_scripted(item):
                self.module(item, self._name(prefix, key), depth + 1)
            elif _is_scripted(value) and self.tensors.is_tensor(item):
                self._keep(self._name(prefix, key), item)
            elif not key.startswith("_"):
                attributes[key] = plain(item, self.budget, self.shown)
        if not _is_scripted(value):
            passing = plain(state.get("_non_persistent_buffers_set"), self.budget)
            self._held(state.get("_parameters"), prefix, ())
            self.buffers.update(self._held(state.get("_buffers"), prefix, passing if isinstance(passing, list) else ()))
            children = entries(state.get("_modules"), self.budget) or {}
            for key, item in children.items():
                if item is not None:
                    self.module(item, self._name(prefix, key), depth + 1)
            forget(children, self.budget)
        forget(state, self.budget)

    def _held(self, value: Any, prefix: str, left_out: Any) -> list[str]:
        """Keeps the tensors of a module's parameters or buffers; returns their names."""
        names: list[str] = []
        held = entries(value, self.budget) or {}
        for key, item in held.items():
            if item is None or key in left_out:
                continue
            name = self._name(prefix, key)
            if not self.tensors.is_tensor(item):
                raise Malformed(f"{name[:200]!r} is no tensor but a {describe_type(item)[:80]}")
            self._keep(name, item)
            names.append(name)
        forget(held, self.budget)
        return names

    def _name(self, prefix: str, key: Any) -> str:
        name = f"{prefix}{key}"
        self.budget.charge(200 + len(name) * (1 if name.isascii() else 4))
        return name

    def _keep(self, name: str, value: Any) -> None:
        if name in self.arrays:
            raise Malformed(f"two tensors are called {name[:200]!r}")
        self.arrays[name] = self.tensors.array(value, name)
