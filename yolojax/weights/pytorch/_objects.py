"""What inert values mean: class paths, dictionaries, states of objects, and plain values for people and programs."""

import math
from typing import Any

import numpy as np

from yolojax.weights._bounds import Budget, Malformed
from yolojax.weights.pytorch._inert import Global, Inert, Items, Pairs, PersistentId

MAX_DEPTH = 48
"""Deepest nesting that is followed; detectors nest their modules about ten deep."""
MAX_SHOWN_TEXT = 1 << 14
MAX_SHOWN_ITEMS = 1 << 12

_WRAPPERS = {("copyreg", "_reconstructor"), ("copyreg", "__newobj__"), ("copyreg", "__newobj_ex__")}
_NUMPY_SCALARS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


def named(value: Any) -> tuple[str, str] | None:
    """Module and name of a class or function; None for anything else. Python 2's modules get Python 3's names."""
    if isinstance(value, PersistentId) and isinstance(value.value, tuple) and len(value.value) == 4:
        kind, value = value.value[:2]  # How the legacy form refers to a class whose source text it keeps.
        if kind != "module":
            return None
    if not isinstance(value, Global):
        return None
    return {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(value.module, value.module), value.name


def object_class(value: Any) -> tuple[str, str] | None:
    """Module and name of what an inert object would be made by: its class, or a function that rebuilds it."""
    if not isinstance(value, Inert):
        return None
    name = named(value.function)
    if name in _WRAPPERS and value.args:
        return named(value.args[0])
    return name


def class_path(value: Any) -> str | None:
    """The class of an inert object as dotted text, such as ``torch.nn.modules.conv.Conv2d``."""
    name = object_class(value)
    return None if name is None else ".".join(name)


def entries(value: Any, budget: Budget) -> dict[Any, Any] | None:
    """The entries of an inert dictionary (an ordered one included) by its keys; None if the value is no dictionary.

    Keys are texts, whole numbers, booleans or None; others are described by a text. A key that occurs twice is refused.
    `forget` gives the memory of the result back to the budget.
    """
    if isinstance(value, Pairs):
        flat = value.items
    elif isinstance(value, Inert) and (value.pairs is not None or object_class(value) in _DICTIONARIES):
        flat = list(value.pairs or [])
        if value.args and object_class(value) in _DICTIONARIES and isinstance(value.args[-1], list):
            for pair in value.args[-1]:  # How Python 2 wrote an ordered dictionary.
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    return None
                flat.extend(pair)
    else:
        return None
    budget.charge(128 + 60 * len(flat))
    found: dict[Any, Any] = {}
    for key, item in zip(flat[::2], flat[1::2], strict=True):
        key = _key(key)
        if key in found:
            raise Malformed(f"a dictionary has the key {str(key)[:80]!r} twice")
        found[key] = item
    return found


def forget(found: dict[Any, Any], budget: Budget) -> None:
    """Returns the memory of what `entries` or `state_of` gave; a part stays charged for the time that it took."""
    if found:
        budget.release(96 + 90 * len(found))


_DICTIONARIES = {("collections", "OrderedDict"), ("collections", "defaultdict"), ("builtins", "dict")}


def _key(key: Any) -> Any:
    if isinstance(key, str | bool) or key is None:
        return key
    if isinstance(key, int):  # Larger ones could be made to collide in a dictionary.
        return key if abs(key) < 1 << 31 else hex(key)
    if isinstance(key, float):
        return repr(key)
    if isinstance(key, bytes):
        return key[:256].decode("utf-8", "replace")
    return f"<{describe_type(key)}>"


def state_of(value: Any, budget: Budget) -> dict[str, Any]:
    """The attributes of an inert object by name, from the states that it was given; empty if it has none."""
    found: dict[str, Any] = {}
    for state in (value.states if isinstance(value, Inert) else None) or ():
        for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
            for name, item in (entries(part, budget) or {}).items():
                found[str(name)] = item
    return found


def describe_type(value: Any) -> str:
    """A short name for the kind of an inert value, for messages and for what is too large to show."""
    if isinstance(value, Inert):
        return class_path(value) or "object"
    kinds = {Pairs: "dict", Items: "set", Global: "class", PersistentId: "storage"}
    return kinds.get(type(value), type(value).__name__)


def plain(value: Any, budget: Budget, tensor: Any = None, depth: int = 0) -> Any:
    """A plain value (None, bool, int, float, str, list, tuple, dict) that says what an inert one holds.

    Sets become lists (sorted, if their members are simple), paths and long texts become (shortened) texts, and an
    object that only holds attributes becomes the dictionary of them. What cannot be told plainly becomes a text in
    angle brackets, such as ``<torch.optim.sgd.SGD>``; nothing is left out in silence.

    Args:
      tensor: A function that returns a plain value for what is a tensor, and None for what is none.
    """
    budget.charge(96)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        if len(value) <= MAX_SHOWN_TEXT:
            return value
        budget.charge(4 * MAX_SHOWN_TEXT)
        return f"{value[:MAX_SHOWN_TEXT]}... ({len(value)} characters)"
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(value, Global):
        budget.charge(64 + 4 * len(value.module + value.name))
        return f"<{'.'.join(named(value) or ())}>"
    if depth >= MAX_DEPTH:
        return f"<{describe_type(value)}, nested too deep>"
    if isinstance(value, list | tuple):
        shown = [plain(item, budget, tensor, depth + 1) for item in value[:MAX_SHOWN_ITEMS]]
        if len(value) > MAX_SHOWN_ITEMS:
            shown.append(f"<{len(value) - MAX_SHOWN_ITEMS} more>")
        return tuple(shown) if isinstance(value, tuple) else shown
    if isinstance(value, Items):
        return _plain_set(value.items, budget, tensor, depth)
    if isinstance(value, Inert):
        return _plain_object(value, budget, tensor, depth)
    found = entries(value, budget)
    return f"<{describe_type(value)}>" if found is None else _plain_dict(found, budget, tensor, depth)


def _plain_dict(found: dict[Any, Any], budget: Budget, tensor: Any, depth: int) -> dict[Any, Any]:
    shown = {key: plain(found[key], budget, tensor, depth + 1) for key in list(found)[:MAX_SHOWN_ITEMS]}
    if len(found) > MAX_SHOWN_ITEMS:
        shown["<more>"] = len(found) - MAX_SHOWN_ITEMS
    forget(found, budget)
    return shown


def _plain_set(items: Any, budget: Budget, tensor: Any, depth: int) -> list[Any]:
    shown = plain(items, budget, tensor, depth + 1)
    if not isinstance(shown, list):
        return [shown]
    simple = all(isinstance(item, str | int | float) for item in shown)
    return sorted(shown, key=str) if simple else shown


def _plain_object(value: Inert, budget: Budget, tensor: Any, depth: int) -> Any:
    name = object_class(value)
    first = value.args[0] if value.args else None
    known = tensor(value) if tensor is not None else None
    if known is not None:
        return known
    if name == ("torch", "Size"):
        return tuple(plain(first, budget, tensor, depth + 1)) if isinstance(first, list | tuple) else "<torch.Size>"
    if name in (("builtins", "set"), ("builtins", "frozenset")):
        return _plain_set(first if isinstance(first, list) else value.items or [], budget, tensor, depth)
    if name is not None and name[0].startswith("pathlib") and all(isinstance(part, str) for part in value.args):
        budget.charge(64 + 4 * sum(len(part) for part in value.args))
        return "/".join(value.args).replace("//", "/")[:MAX_SHOWN_TEXT]
    if name is not None and name[0].startswith("numpy") and name[1] == "scalar":
        return _numpy_scalar(value)
    found = entries(value, budget)
    if found is not None:
        return _plain_dict(found, budget, tensor, depth)
    attributes = state_of(value, budget)
    if attributes and not {"_modules", "_parameters"} & attributes.keys() and not value.args:
        return _plain_dict(attributes, budget, tensor, depth)
    forget(attributes, budget)
    budget.charge(64 + 4 * len(name[0] + name[1] if name else ""))
    return f"<{describe_type(value)}>"


def numpy_dtype(value: Any) -> np.dtype | None:
    """The number type that an inert ``numpy.dtype`` stands for; None if it is none of plain numbers."""
    if object_class(value) != ("numpy", "dtype") or not value.args or value.args[0] not in _NUMPY_SCALARS:
        return None
    state = value.states[-1] if value.states else ()
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
    return np.dtype(value.args[0]).newbyteorder(">" if order == ">" else "<")


def raw_bytes(value: Any) -> bytes | None:
    """The bytes of an inert value, which protocol 2 writes as an encoded text; None if it holds none."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if object_class(value) == ("_codecs", "encode") and len(value.args) == 2 and isinstance(value.args[0], str):
        return value.args[0].encode("latin1") if value.args[1] in ("latin1", "latin-1") else None
    return None


def _numpy_scalar(value: Inert) -> Any:
    dtype = numpy_dtype(value.args[0]) if len(value.args) == 2 else None
    raw = raw_bytes(value.args[1]) if dtype is not None else None
    if dtype is None or raw is None or len(raw) != dtype.itemsize:
        return f"<{describe_type(value)}>"
    number = np.frombuffer(raw, dtype)[0].item()
    return number if not isinstance(number, float) or math.isfinite(number) else float(number)
