"""Writes PyTorch files without PyTorch: pickle opcodes by hand, and the two containers around them."""

import io
import struct
import zipfile

import numpy as np

STORAGES = {
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
}

EMPTY_ORDERED = b"ccollections\nOrderedDict\n)R"


def program(value: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + value + b"."


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def real(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def row(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def integers(values: tuple[int, ...]) -> bytes:
    return row(*(integer(value) for value in values))


def listed(*values: bytes) -> bytes:
    return b"](" + b"".join(values) + b"e"


def dictionary(entries: dict[str, bytes], start: bytes = b"}") -> bytes:
    return start + b"(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def reference(path: str) -> bytes:
    module, _, name = path.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def call(path: str, *args: bytes) -> bytes:
    return reference(path) + row(*args) + b"R"


def instance(path: str, state: dict[str, bytes]) -> bytes:
    """An object as protocol 2 writes it: ``cls.__new__(cls)`` and its ``__dict__``."""
    return reference(path) + b")\x81" + dictionary(state) + b"b"


def module(path: str, parameters: dict, buffers: dict, children: dict, **attributes: bytes) -> bytes:
    """A pickled ``torch.nn.Module``."""
    held = {"_parameters": parameters, "_buffers": buffers, "_modules": children}
    state = {name: dictionary(entries, EMPTY_ORDERED) for name, entries in held.items()}
    return instance(path, {"training": b"\x89", **state, **attributes})


def storage(kind: str, key: str, count: int, view: bytes = b"") -> bytes:
    return row(text("storage"), reference(f"torch.{kind}"), text(key), text("cpu"), integer(count), view) + b"Q"


def tensor(kind: str, key: str, count: int, shape: tuple, strides: tuple | None = None, offset: int = 0) -> bytes:
    """A tensor over ``count`` numbers of a storage; contiguous if no strides are given."""
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))
    over = storage(kind, key, count)
    return call(
        "torch._utils._rebuild_tensor_v2",
        over,
        integer(offset),
        integers(shape),
        integers(strides),
        b"\x89",
        EMPTY_ORDERED,
    )


def parameter(inner: bytes) -> bytes:
    return call("torch._utils._rebuild_parameter", inner, b"\x88", EMPTY_ORDERED)


def whole(array: np.ndarray, key: str) -> bytes:
    return tensor(STORAGES[str(array.dtype)], key, array.size, array.shape)


def zip_archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return output.getvalue()


def zip_file(
    value: bytes,
    storages: dict[str, bytes],
    *,
    root: str = "archive",
    byteorder: str | None = "little",
    protocol: int = 2,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """A file of the zip form, the value being opcodes without PROTO and STOP."""
    members = {f"{root}/data.pkl": program(value, protocol), f"{root}/version": b"3\n"}
    if byteorder is not None:
        members[f"{root}/byteorder"] = byteorder.encode()
    members |= {f"{root}/data/{key}": content for key, content in storages.items()}
    return zip_archive(members, compression)


def legacy_file(value: bytes, storages: dict[str, tuple[int, bytes]], little_endian: bool = True) -> bytes:
    """A file of the older form: five pickles, then for each storage its number of numbers and its bytes."""
    system = {"protocol_version": integer(1001), "little_endian": b"\x88" if little_endian else b"\x89"}
    parts = [integer(0x1950A86A20F9469CFC6C), integer(1001), dictionary(system), value]
    parts.append(listed(*(text(key) for key in storages)))
    order = "<q" if little_endian else ">q"
    return b"".join(map(program, parts)) + b"".join(
        struct.pack(order, count) + content for count, content in storages.values()
    )
