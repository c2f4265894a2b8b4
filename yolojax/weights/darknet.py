"""Darknet's ``.weights`` files as plain arrays: read strictly, written so that a round trip gives the same bytes.

A file is a header and then, layer by layer as the ``.cfg`` lists them, float32 values without names or sizes. Header:
three int32 (major, minor, revision) and how many images training has seen, as uint64 from version 0.2 on, before that
as int32; 20 or 16 bytes, little-endian. A convolution stores ``bias, scale, mean, var, kernel`` with batch
normalisation and ``bias, kernel`` without; a connected layer ``bias, kernel`` and then ``scale, mean, var`` where it
has them; a local layer ``bias, kernel``; a weighted shortcut its ``factors``. A version of more than 1000 says that the
kernels of connected layers are stored transposed.

| array | shape |
|---|---|
| ``bias`` (beta of a normalised convolution), ``scale`` (gamma), ``mean``, ``var`` | ``[filters]`` |
| ``kernel`` | ``[filters, channels / groups, size, size]`` |
| ``kernel`` of a connected layer | ``[outputs, inputs]``, inputs by channel, row, column |
| ``kernel`` of a local layer | ``[places, filters, channels, size, size]``, places row by row |
| ``bias`` of a local layer | ``[filters, rows, columns]`` |
| ``factors`` | ``[terms]`` or ``[terms, channels]`` |
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from yolojax.errors import CheckpointError
from yolojax.files import write_whole
from yolojax.paths import user_path
from yolojax.weights.darknet_cfg import parse_cfg, read_cfg
from yolojax.weights.darknet_layers import Cfg, Connected, Convolutional, Local, Shortcut, title
from yolojax.weights.darknet_shapes import Shape, layer_shapes
from yolojax.weights.darknet_write import format_cfg

__all__ = [
    "Cfg",
    "Header",
    "Shape",
    "Stored",
    "Weights",
    "format_cfg",
    "layer_shapes",
    "parse_cfg",
    "read_cfg",
    "read_stored",
    "read_weights",
    "stored_arrays",
    "weights_bytes",
    "write_stored",
    "write_weights",
]

LayerArrays = dict[int, dict[str, Float32[np.ndarray, "..."]]]
"""Arrays by the number of their layer and their name in the table above."""

_SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)


class Header(NamedTuple):
    """The head of a file; the default is what Darknet writes today."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def format(self) -> str:
        """The layout of the header's bytes: from version 0.2 on, ``seen`` has eight (numbers beyond 1000 are flags)."""
        wide = 10 * self.major + self.minor >= 2 and self.major < 1000 and self.minor < 1000
        return "<iiiQ" if wide else "<iiii"

    @property
    def transposed(self) -> bool:
        """Whether the kernels of connected layers are stored as ``[inputs, outputs]``."""
        return self.major > 1000 or self.minor > 1000


class Weights(NamedTuple):
    """A file's header and its arrays."""

    header: Header
    layers: LayerArrays


class Stored(NamedTuple):
    """One array of a file: its layer, its name and its shape."""

    layer: int
    name: str
    shape: tuple[int, ...]


def stored_arrays(cfg: Cfg) -> list[Stored]:
    """What a file for this network holds, in order."""
    shapes = layer_shapes(cfg, (cfg.height, cfg.width))
    stored: list[Stored] = []
    for number, layer in enumerate(cfg.layers):
        if isinstance(layer, Convolutional):
            channels = shapes[number - 1].channels if number else 3
            names = ("bias", "scale", "mean", "var") if layer.batch_normalize else ("bias",)
            stored += [Stored(number, name, (layer.filters,)) for name in names]
            kernel = (layer.filters, channels // layer.groups, layer.size, layer.size)
            stored.append(Stored(number, "kernel", kernel))
        elif isinstance(layer, Connected):
            inputs = math.prod(shapes[number - 1]) if number else 3 * cfg.height * cfg.width
            stored += [Stored(number, "bias", (layer.outputs,)), Stored(number, "kernel", (layer.outputs, inputs))]
            names = ("scale", "mean", "var") if layer.batch_normalize else ()
            stored += [Stored(number, name, (layer.outputs,)) for name in names]
        elif isinstance(layer, Local):
            rows, columns, filters = shapes[number]
            channels = shapes[number - 1].channels if number else 3
            kernel = (rows * columns, filters, channels, layer.size, layer.size)
            stored += [Stored(number, "bias", (filters, rows, columns)), Stored(number, "kernel", kernel)]
        elif isinstance(layer, Shortcut) and layer.weights != "none":
            terms = 1 + len(layer.sources)
            shape = (terms,) if layer.weights == "per_layer" else (terms, shapes[number].channels)
            stored.append(Stored(number, "factors", shape))
    return stored


def read_weights(path: str | Path, cfg: Cfg, *, upto: int | None = None) -> Weights:
    """The arrays of a ``.weights`` file that belongs to ``cfg``.

    Args:
      path: the file.
      cfg: the network.
      upto: the file holds only the layers before this one, as published backbones do (``darknet53.conv.74``: 74).

    Raises:
      CheckpointError: as `read_stored`.
    """
    stored = [one for one in stored_arrays(cfg) if upto is None or one.layer < upto]
    return read_stored(path, stored, lambda number: title(cfg.layers[number], number))


def read_stored(path: str | Path, stored: Sequence[Stored], title_of: Callable[[int], str]) -> Weights:
    """The arrays of a ``.weights`` file that holds exactly ``stored``; ``title_of`` names a layer in messages.

    Raises:
      CheckpointError: the file cannot be read; it is shorter than the network (naming the layer that ran short) or
        longer (saying by how much); a value is not finite or a variance is negative (naming the layer). A variance
        that is negative by less than the smallest normal float32 counts as 0.
    """
    if user_path(path).exists() and not user_path(path).is_file():  # a named pipe would be waited for
        raise CheckpointError(f"{path}: cannot be read (it is no ordinary file); give a Darknet .weights file")
    try:
        content = user_path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); give a Darknet .weights file") from error
    header, start = _read_header(content, path)
    layers: LayerArrays = {}
    for number, name, shape in stored:
        count = math.prod(shape)
        end = start + 4 * count
        if end > len(content):
            have = (len(content) - start) // 4
            whole = f" (its layers before {number} are whole: a backbone?)" if not have and name == "bias" else ""
            raise CheckpointError(
                f"{path}: ends in {title_of(number)}: {have} of the {count} values of {name} are there{whole}; the "
                "file is cut short or belongs to another network"
            )
        values = np.frombuffer(content, "<f4", count, start).astype(np.float32)
        transposed = len(shape) == 2 and name == "kernel" and header.transposed
        values = np.ascontiguousarray(values.reshape(shape[::-1]).T) if transposed else values.reshape(shape)
        if name == "var":  # a published file holds -7e-44, which Darknet and OpenCV take for the 0 that it is to them
            values = np.where((values < 0) & (values > -_SMALLEST_NORMAL), np.float32(0), values)
        finite = bool(np.isfinite(values).all())
        if not finite or (name == "var" and values.min() < 0):
            raise CheckpointError(
                f"{path}: {title_of(number)}: {name} holds values that are {'negative' if finite else 'not finite'}; "
                "the file is damaged or belongs to another network"
            )
        layers.setdefault(number, {})[name] = values
        start = end
    if left := len(content) - start:
        raise CheckpointError(
            f"{path}: {left} bytes ({left / 4:g} values) are left over after the last layer; the file belongs to "
            "another network"
        )
    return Weights(header, layers)


def write_weights(
    path: str | Path, cfg: Cfg, layers: Mapping[int, Mapping[str, Float32[np.ndarray, ...]]], header: Header
) -> None:
    """Write a ``.weights`` file; what `read_weights` gave is written back byte by byte. Raises as `write_stored`."""
    write_whole(path, weights_bytes(cfg, layers, header))


def weights_bytes(cfg: Cfg, layers: Mapping[int, Mapping[str, Float32[np.ndarray, ...]]], header: Header) -> bytes:
    """The content of the ``.weights`` file of a network; raises as `stored_bytes`."""
    return stored_bytes(stored_arrays(cfg), lambda number: title(cfg.layers[number], number), layers, header)


def write_stored(
    path: str | Path,
    stored: Sequence[Stored],
    title_of: Callable[[int], str],
    layers: Mapping[int, Mapping[str, Float32[np.ndarray, ...]]],
    header: Header,
) -> None:
    """The inverse of `read_stored`; raises as `stored_bytes` and `write_whole`."""
    write_whole(path, stored_bytes(stored, title_of, layers, header))


def stored_bytes(
    stored: Sequence[Stored],
    title_of: Callable[[int], str],
    layers: Mapping[int, Mapping[str, Float32[np.ndarray, ...]]],
    header: Header,
) -> bytes:
    """The content of a ``.weights`` file.

    Raises `CheckpointError` when an array is missing, too many, of another shape or not float32.
    """
    expected = {(number, name) for number, name, _ in stored}
    for number, arrays in layers.items():
        for name in arrays:
            if (number, name) not in expected:
                raise CheckpointError(f"layer {number} has no array {name!r}; the arrays belong to another network")
    parts = [struct.pack(header.format, *header)]
    for number, name, shape in stored:
        values = layers.get(number, {}).get(name)
        where = f"{title_of(number)}: {name}"
        if values is None:
            raise CheckpointError(f"{where} is missing; the arrays belong to another network")
        if values.shape != shape or values.dtype != np.float32:
            raise CheckpointError(f"{where} is {values.dtype} of shape {values.shape}, not float32 of shape {shape}")
        values = values.T if len(shape) == 2 and name == "kernel" and header.transposed else values
        parts.append(np.ascontiguousarray(values, "<f4").tobytes())
    return b"".join(parts)


def _read_header(content: bytes, path: str | Path) -> tuple[Header, int]:
    version = struct.unpack_from("<iii", content.ljust(12, b"\0"))
    layout = Header(*version).format
    size = struct.calcsize(layout)
    if len(content) < size:
        raise CheckpointError(f"{path}: {len(content)} bytes are less than a header; give a Darknet .weights file")
    header = Header(*struct.unpack_from(layout, content))
    if min(header[:3]) < 0:
        raise CheckpointError(f"{path}: version {header[:3]} makes no sense; give a Darknet .weights file")
    return header, size
