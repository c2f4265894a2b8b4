"""Tensors: from the inert call of a function that rebuilds one to a checked view of the file's bytes."""

import math
from typing import Any

import ml_dtypes
import numpy as np

from yolojax.weights._bounds import Budget, Malformed
from yolojax.weights.pytorch._containers import Container, storage_dtype
from yolojax.weights.pytorch._inert import Global, Inert, PersistentId
from yolojax.weights.pytorch._objects import named, numpy_dtype, object_class, raw_bytes

MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 40

_UNSUPPORTED = {
    "_rebuild_qtensor": "quantised",
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_meta_tensor_no_storage": "without numbers (on the meta device)",
    "_rebuild_wrapper_subclass": "of a class of its own",
    "_rebuild_xla_tensor": "stored as an XLA device's array",
    "_rebuild_device_tensor_from_numpy": "stored as another device's array",
    "_rebuild_device_tensor_from_cpu_tensor": "stored as another device's array",
}

_V3_TYPES = {
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
"""Types without a storage class of their own, which name themselves in the call."""


class Tensors:
    """Makes arrays from the inert tensors of a container. An inert tensor gives the same array every time."""

    def __init__(self, container: Container, budget: Budget, file_size: int) -> None:
        self.container = container
        self.budget = budget
        # Tied and expanded tensors share bytes of the file. Whoever copies them all shall not be surprised.
        self.logical = Budget(max(4 * file_size, 1 << 22), "tensors that share the file's bytes, copied,")
        self.made: dict[int, np.ndarray] = {}

    def is_tensor(self, value: Any) -> bool:
        """Whether a value is a tensor, parameter or NumPy array, supported or not."""
        for _ in range(8):
            name = object_class(value)
            if name is None:
                return False
            if name == ("torch._tensor", "_rebuild_from_type_v2") and value.args:
                function = named(value.args[0])
                return function is not None and function[0] == "torch._utils"
            if name[0] == "torch._utils":
                return name[1].startswith("_rebuild_")
            if name == ("torch.nn.parameter", "Parameter") and value.args:
                value = value.args[0]
                continue
            return _is_numpy_array(name)
        return False

    def array(self, value: Inert, name: str) -> np.ndarray:
        """The array of a tensor, read-only; a view of the file unless its order of bytes is not this machine's.

        Raises `Malformed`, naming ``name``, when the tensor is of an unsupported kind or does not fit its storage.
        """
        made = self.made.get(id(value))
        if made is None:
            try:
                made = self._make(value)
            except Malformed as error:
                raise Malformed(f"tensor {name[:200]!r}: {error}") from error
            made.flags.writeable = False
            self.budget.charge(256)
            self.made[id(value)] = made
        return made

    def _make(self, value: Any) -> np.ndarray:
        for _ in range(8):
            name = object_class(value)
            if name is None:
                break
            module, function = name
            args = value.args
            if name == ("torch._tensor", "_rebuild_from_type_v2") and len(args) >= 3 and isinstance(args[2], tuple):
                value = Inert(args[0], args[2])
            elif function in ("_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter") and args:
                value = args[0]
            elif module == "torch._utils" and function in ("_rebuild_tensor", "_rebuild_tensor_v2") and len(args) >= 4:
                if len(args) > 6 and args[6] is not None and getattr(args[6], "items", None) != []:
                    raise Malformed("it is conjugated or negated only when it is read; save a copy made by .clone()")
                return self._strided(args[0], args[1], args[2], args[3], None)
            elif module == "torch._utils" and function == "_rebuild_tensor_v3" and len(args) >= 7:
                return self._strided(args[0], args[1], args[2], args[3], args[6])
            elif _is_numpy_array(name):
                return self._numpy(value)
            else:
                kind = _UNSUPPORTED.get(function, f"made by {module}.{function}")
                raise Malformed(f"it is {kind}, which is not read; save it as a plain dense tensor")
        raise Malformed("it is no tensor that PyTorch writes")

    def _strided(self, storage: Any, offset: Any, shape: Any, strides: Any, kind: Any) -> np.ndarray:
        shape, strides = _sizes(shape, "shape"), _sizes(strides, "strides")
        if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise Malformed(f"{len(shape)} sizes and {len(strides)} strides; at most {MAX_DIMENSIONS} are read")
        if not _is_size(offset):
            raise Malformed("its offset is no whole number from 0 on")
        buffer, start, size, dtype = self._storage(storage, kind)
        if math.prod(size for size in shape if size) > MAX_ELEMENTS:
            raise Malformed(f"shape {shape} is too large")
        if 0 in shape:
            return np.empty(shape, dtype)
        needed = (offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1) * (
            dtype.itemsize
        )
        if needed > size:
            raise Malformed(f"shape {shape}, strides {strides}, offset {offset} reach out of a storage of {size} bytes")
        self.logical.charge(math.prod(shape) * dtype.itemsize)
        little_endian = self.container.little_endian
        stored, byte_strides = dtype, tuple(stride * dtype.itemsize for stride in strides)
        if not little_endian and dtype.itemsize > 1:
            stored = np.dtype(f">c{dtype.itemsize}" if dtype.kind == "c" else f">u{dtype.itemsize}")
        array = np.ndarray(shape, stored, buffer, start + offset * dtype.itemsize, byte_strides)
        if stored is not dtype:
            self.budget.charge(array.size * dtype.itemsize)
            array = array.astype(stored.newbyteorder("="), order="C").view(dtype)
        if dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
            raise Malformed("truth values other than 0 and 1")
        return array

    def _storage(self, reference: Any, kind: Any) -> tuple[Any, int, int, np.dtype]:
        """Buffer, first byte, number of bytes and type of the storage behind a persistent id."""
        value = reference.value if isinstance(reference, PersistentId) else None
        if not isinstance(value, tuple) or len(value) not in (5, 6) or value[0] != "storage":
            raise Malformed("it refers to something that is no storage of the file")
        _, storage_kind, key, _, count = value[:5]
        dtype = storage_dtype(storage_kind)
        if dtype is None:
            kind_name = ".".join(named(storage_kind) or ("something",))
            raise Malformed(f"its storage is a {kind_name}, which is not read; save it as a plain dense tensor")
        place = self.container.storages.get(key) if isinstance(key, str) else None
        if place is None:
            raise Malformed(f"its storage {str(key)[:80]!r} is not in the file")
        if not _is_size(count):
            raise Malformed("its storage's size is no whole number from 0 on")
        start, size = place.start, place.stop - place.start
        if count * dtype.itemsize > size or size - count * dtype.itemsize >= max(dtype.itemsize, 2):
            raise Malformed(f"its storage {key[:80]!r} claims {count} numbers ({dtype}) and has {size} bytes")
        view = value[5] if len(value) == 6 else None
        if view is not None:  # The legacy form: key, offset and size of a part.
            if not isinstance(view, tuple) or len(view) != 3 or not _is_size(view[1]) or not _is_size(view[2]):
                raise Malformed("a damaged view of a storage")
            if (view[1] + view[2]) * dtype.itemsize > size:
                raise Malformed(f"a view reaches out of the storage {key[:80]!r}")
            start, size = start + view[1] * dtype.itemsize, view[2] * dtype.itemsize
        if kind is not None:
            name = kind.name if isinstance(kind, Global) and kind.module == "torch" else "something unknown"
            if name not in _V3_TYPES:
                raise Malformed(f"its numbers are {name[:80]}, which is not read")
            dtype = _V3_TYPES[name]
        return place.buffer, start, size, dtype

    def _numpy(self, value: Inert) -> np.ndarray:
        """The array of ``numpy.core.multiarray._reconstruct`` and its state (version, shape, type, Fortran, bytes)."""
        state = value.states[-1] if value.states else None
        if not isinstance(state, tuple) or len(state) != 5:
            raise Malformed("a NumPy array without its content")
        _, shape, kind, fortran, content = state
        shape, dtype = _sizes(shape, "shape"), numpy_dtype(kind)
        if dtype is None or len(shape) > MAX_DIMENSIONS:
            raise Malformed("a NumPy array of something else than plain numbers")
        raw = raw_bytes(content)
        if raw is None or len(raw) != math.prod(shape) * dtype.itemsize:
            raise Malformed("a NumPy array whose content does not have its size")
        self.budget.charge(2 * len(raw))
        self.logical.charge(len(raw))
        array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran is True else "C")
        return array.astype(dtype.newbyteorder("="))


def _is_numpy_array(name: tuple[str, str]) -> bool:
    return name[1] == "_reconstruct" and name[0] in ("numpy.core.multiarray", "numpy._core.multiarray")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _sizes(value: Any, what: str) -> tuple[int, ...]:
    if object_class(value) == ("torch", "Size") and value.args:
        value = value.args[0]
    if not isinstance(value, list | tuple) or not all(_is_size(size) for size in value):
        raise Malformed(f"its {what} is no row of whole numbers from 0 on")
    return tuple(value)
