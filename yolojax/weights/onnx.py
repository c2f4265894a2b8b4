"""The weights of an ONNX model: its graph's initialisers, nodes and metadata, without the package ``onnx``.

An ONNX file is one protobuf message. Only what is named here is read; the wire format is five rules long
(https://protobuf.dev/programming-guides/encoding/), and the numbers of the fields are those of ``onnx.proto``
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, Apache-2.0).
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from yolojax.weights._bounds import Budget, Malformed, guarded, map_file, object_budget
from yolojax.weights._literal import parse_literal
from yolojax.weights.foreign import Module, WeightFile

_TYPES = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
    16: np.dtype(ml_dtypes.bfloat16),
}
"""TensorProto.DataType: number types that are read."""

MAX_DIMENSIONS = 16
MAX_TEXT = 1 << 20

Span = tuple[int, int]


def read_onnx(path: str | Path) -> WeightFile:
    """Reads the initialisers of an ONNX model by their names.

    ``modules`` holds the nodes of the graph by name, with ``inputs`` and ``outputs`` as attributes: where an exporter
    numbered the initialisers, the node says whose they are. The root module's attributes are the model's
    ``metadata_props``, parsed where they are Python literals (class names, input size), and ``inputs`` and ``outputs``
    of the graph with their shapes.

    Raises:
      CheckpointError: the file is missing or damaged, keeps numbers in other files, or has quantised initialisers.
    """
    return guarded(path, _read, "export the model again, in one file")


def read_metadata(path: str | Path) -> dict[str, str]:
    """The texts of an ONNX model's ``metadata_props``; raises `CheckpointError` for a damaged file."""

    def read(path: Path) -> dict[str, str]:
        data = map_file(path)
        reader = _Wire(data, object_budget(len(data)), len(data))
        found: dict[str, str] = {}
        for field, value in reader.fields((0, len(data))):
            if field == 14:
                entry = {number: reader.text(text) for number, text in reader.fields(reader.span(value))}
                found[entry.get(1, "")] = entry.get(2, "")
        return found

    return guarded(path, read, "export the model again")


def _read(path: Path) -> WeightFile:
    data = map_file(path)
    reader = _Wire(data, object_budget(len(data)), len(data))
    metadata: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    graphs: list[Span] = []
    for field, value in reader.fields((0, len(data))):
        if field == 7:
            graphs.append(reader.span(value))
        elif field in (2, 3):
            metadata[{2: "producer", 3: "producer_version"}[field]] = reader.text(value)
        elif field == 14:
            entry = {number: reader.text(text) for number, text in reader.fields(reader.span(value))}
            properties[entry.get(1, "")] = parse_literal(entry.get(2, ""), reader.budget)
    if len(graphs) != 1:
        raise Malformed(f"an ONNX model with {len(graphs)} graphs; one is needed")
    arrays, modules, ends = _graph(reader, graphs[0])
    return WeightFile(
        path=path,
        form="onnx",
        root_class="onnx.GraphProto",
        tensors=arrays,
        modules={"": Module("onnx.GraphProto", {**properties, **ends}), **modules},
        metadata=metadata,
    )


class _Wire:
    """Fields of protobuf messages inside a mapped file."""

    def __init__(self, data: mmap.mmap, budget: Budget, size: int) -> None:
        self.data, self.budget, self.size = data, budget, size

    def varint(self, position: int, stop: int) -> tuple[int, int]:
        """A whole number of up to 64 bits, and the place behind it."""
        value = 0
        for shift in range(0, 70, 7):
            if position >= stop:
                raise Malformed(f"a number is cut off at byte {position}")
            byte = self.data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (1 << 64) - 1, position
        raise Malformed(f"a number of more than ten bytes at byte {position}")

    def fields(self, span: Span) -> Iterator[tuple[int, int | Span]]:
        """Number and value of each field: a whole number, or the span of what has a length."""
        position, stop = span
        while position < stop:
            self.budget.charge(8)
            place = position
            tag, position = self.varint(position, stop)
            kind = tag & 7
            if kind == 0:
                value, position = self.varint(position, stop)
                yield tag >> 3, value
                continue
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, position = self.varint(position, stop)
            if size is None:
                raise Malformed(f"field {tag >> 3} at byte {place} is of the unknown wire type {kind}")
            if size > stop - position:
                raise Malformed(f"field {tag >> 3} at byte {place} reaches out of its message")
            yield tag >> 3, (position, position + size)
            position += size

    def span(self, value: int | Span) -> Span:
        if isinstance(value, int):
            raise Malformed("a number stands where a message is needed")
        return value

    def text(self, value: int | Span) -> str:
        start, stop = self.span(value)
        if stop - start > MAX_TEXT:
            raise Malformed(f"a text of {stop - start} bytes; at most {MAX_TEXT} are read")
        self.budget.charge(64 + 4 * (stop - start))
        return self.data[start:stop].decode("utf-8", "replace")

    def integers(self, value: int | Span) -> list[int]:
        """One signed number, or a packed row of them."""
        if isinstance(value, int):
            return [value - (1 << 64) if value >> 63 else value]
        position, stop = value
        numbers: list[int] = []
        while position < stop:
            self.budget.charge(48)
            number, position = self.varint(position, stop)
            numbers.append(number - (1 << 64) if number >> 63 else number)
        return numbers


def _graph(reader: _Wire, span: Span) -> tuple[dict[str, np.ndarray], dict[str, Module], dict[str, Any]]:
    arrays: dict[str, np.ndarray] = {}
    modules: dict[str, Module] = {}
    ends: dict[str, dict[str, Any]] = {"inputs": {}, "outputs": {}}
    for field, value in reader.fields(span):
        if field == 1:
            name, module = _node(reader, reader.span(value))
            name = name or f"<node {len(modules)}>"
            modules[name if name not in modules else f"{name} <node {len(modules)}>"] = module
        elif field == 5:
            name, array = _tensor(reader, reader.span(value))
            if name in arrays:
                raise Malformed(f"two initialisers are called {name[:200]!r}")
            arrays[name] = array
        elif field == 15:
            raise Malformed("a sparse initialiser, which is not read")
        elif field in (11, 12):
            name, shape = _value_info(reader, reader.span(value))
            ends["inputs" if field == 11 else "outputs"][name] = shape
    ends["inputs"] = {name: shape for name, shape in ends["inputs"].items() if name not in arrays}
    return arrays, modules, ends


def _node(reader: _Wire, span: Span) -> tuple[str, Module]:
    name, kind = "", ""
    ports: dict[str, list[str]] = {"inputs": [], "outputs": []}
    reader.budget.charge(512)
    for field, value in reader.fields(span):
        if field in (1, 2):
            ports["inputs" if field == 1 else "outputs"].append(reader.text(value))
        elif field == 3:
            name = reader.text(value)
        elif field == 4:
            kind = reader.text(value)
    return name, Module(f"onnx.{kind}", ports)


def _value_info(reader: _Wire, span: Span) -> tuple[str, list[int | str]]:
    """Name and shape of an input or output: ValueInfoProto.type.tensor_type.shape.dim."""
    name = ""
    shape: list[int | str] = []
    reader.budget.charge(256)
    for field, value in reader.fields(span):
        if field == 1:
            name = reader.text(value)
        elif field == 2:
            for dim in _inside(reader, reader.span(value), (1, 2, 1)):
                size: int | str = "?"
                for number, content in reader.fields(dim):
                    size = content if isinstance(content, int) else reader.text(content) if number == 2 else "?"
                shape.append(size)
    return name, shape


def _inside(reader: _Wire, span: Span, path: tuple[int, ...]) -> Iterator[Span]:
    """The messages at the end of a path of field numbers."""
    for field, value in reader.fields(span):
        if field == path[0] and not isinstance(value, int):
            if len(path) == 1:
                yield value
            else:
                yield from _inside(reader, value, path[1:])


def _tensor(reader: _Wire, span: Span) -> tuple[str, np.ndarray]:
    """Name and array of a TensorProto; the array is a view of the file where its numbers are raw."""
    name, kind, shape = "", 0, []
    raw: Span | None = None
    listed: list[tuple[int, int | Span]] = []
    reader.budget.charge(512)
    for field, value in reader.fields(span):
        if field == 1:
            shape.extend(reader.integers(value))
        elif field == 2 and isinstance(value, int):
            kind = value
        elif field in (4, 5, 7, 10, 11):
            reader.budget.charge(64)
            listed.append((field, value))
        elif field == 8:
            name = reader.text(value)
        elif field == 9:
            raw = reader.span(value)
        elif field == 13 or (field == 14 and value == 1):
            raise Malformed(f"initialiser {name[:200]!r} is kept in another file, which is not opened")
    dtype = _TYPES.get(kind)
    if dtype is None:
        raise Malformed(f"initialiser {name[:200]!r} is of the type {kind}, which is not read")
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise Malformed(f"initialiser {name[:200]!r} has the shape {shape[:20]}")
    count = math.prod(shape)
    if raw is None:
        array = _listed(reader, listed, dtype, count) if count else np.zeros(0, dtype)
    else:
        if raw[1] - raw[0] != count * dtype.itemsize:
            raise Malformed(f"initialiser {name[:200]!r} of shape {shape} has {raw[1] - raw[0]} bytes")
        array = np.frombuffer(reader.data, dtype, count, raw[0]) if count else np.zeros(0, dtype)
    if array.size != count:
        raise Malformed(f"initialiser {name[:200]!r} of shape {shape} has {array.size} numbers")
    if dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
        raise Malformed(f"initialiser {name[:200]!r} has truth values other than 0 and 1")
    if max(shape, default=0) >= 1 << 40:
        raise Malformed(f"initialiser {name[:200]!r} has the shape {shape}")
    array = array.reshape(shape)
    array.flags.writeable = False
    return name, array


def _listed(reader: _Wire, listed: list[tuple[int, int | Span]], dtype: np.dtype, count: int) -> np.ndarray:
    """Numbers of the typed fields: float_data and double_data packed as they are, the others as whole numbers."""
    reader.budget.charge(count * dtype.itemsize)
    pieces: list[np.ndarray] = []
    for field, value in listed:
        if field in (4, 10):
            start, stop = reader.span(value)
            reader.budget.charge(stop - start)
            stored = np.dtype(np.float32 if field == 4 else np.float64)
            pieces.append(np.frombuffer(reader.data[start:stop], stored).astype(dtype))
            continue
        numbers = np.array([number & (1 << 64) - 1 for number in reader.integers(value)], np.uint64)
        if dtype.kind not in "iub":  # Half precision: its bits.
            pieces.append(numbers.astype(f"u{dtype.itemsize}").view(dtype))
        else:
            pieces.append(numbers.astype(dtype))
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype)
