"""The two containers of PyTorch files: the zip archive of `torch.save` since 1.6, and the older row of pickles.

Both give the same: the pickle program's inert value and the place of every storage in the mapped file. Nothing is
copied, except members that a zip archive holds compressed, and nothing is ever written to disk.
"""

import mmap
import struct
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from yolojax.weights._bounds import Budget, Buffer, Malformed
from yolojax.weights.pytorch._inert import Global, PersistentId
from yolojax.weights.pytorch._interpreter import Program

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

STORAGE_TYPES = {
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "UntypedStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "ComplexDoubleStorage": np.dtype(np.complex128),
}
"""What a number of each storage class of PyTorch is. Quantised classes are missing: their numbers need a scale."""

_CHUNK = 1 << 16


class Storage(NamedTuple):
    """Where a storage's bytes are: ``buffer[start:stop]``."""

    buffer: Buffer
    start: int
    stop: int


@dataclass(frozen=True)
class Container:
    """What a file holds before its tensors are made: the inert value, storages by key, and the order of bytes."""

    form: str
    value: Any
    storages: dict[str, Storage]
    little_endian: bool


class Member(NamedTuple):
    """An entry of a zip archive's central directory."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int


def read_container(data: mmap.mmap, budget: Budget) -> Container:
    """Reads either container. Raises `Malformed` for whatever it is not, and for every sign of damage."""
    if data[:4] == b"PK\x03\x04":
        return _read_zip(data, budget)
    if data[257:262] == b"ustar":
        raise Malformed("the tar form that PyTorch wrote before version 0.1.12 is not read")
    if data[:1] == b"\x80":
        return _read_legacy(data, budget)
    raise Malformed("neither a zip archive nor a row of pickles, the two forms that torch.save writes")


# The zip form.


def _read_zip(data: mmap.mmap, budget: Budget) -> Container:
    members = _central_directory(data, budget)
    programs = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(programs) != 1:
        raise Malformed(f"a zip archive with {len(programs)} members data.pkl; one is what torch.save writes")
    root = programs[0].removesuffix("data.pkl")
    storages = _locate(data, members, budget)
    program = storages[programs[0]]
    order = storages.get(f"{root}byteorder")
    text = b"little" if order is None else order.buffer[order.start : min(order.stop, order.start + 16)].strip()
    if text not in (b"little", b"big"):
        raise Malformed(f"{root}byteorder says neither little nor big")
    run = Program(program.buffer, program.start, program.stop, budget, programs[0])
    value = run.run()
    if run.position != program.stop:
        raise Malformed(f"{programs[0]} goes on behind its end")
    prefix = f"{root}data/"
    named = {name.removeprefix(prefix): place for name, place in storages.items() if name.startswith(prefix)}
    return Container("pytorch zip", value, named, text == b"little")


def _central_directory(data: mmap.mmap, budget: Budget) -> dict[str, Member]:
    """The archive's members by name, from the central directory (APPNOTE.TXT 6.3.10, sections 4.3.12 to 4.3.16)."""
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - 65557))
    if end < 0 or end + 22 > len(data):
        raise Malformed("the zip archive has no end record (is the file cut off?)")
    disk, start_disk, here, count, size, offset, comment = struct.unpack_from("<4H2LH", data, end + 4)
    if end + 22 + comment != len(data):
        raise Malformed("bytes behind the end of the zip archive")
    limit = end
    locator = end - 20
    if locator >= 0 and data[locator : locator + 4] == b"PK\x06\x07":
        end64 = struct.unpack_from("<Q", data, locator + 8)[0]
        if end64 > locator - 56 or data[end64 : end64 + 4] != b"PK\x06\x06":
            raise Malformed("the zip archive's 64-bit end record is not where it should be")
        disk, start_disk, here, count, size, offset = struct.unpack_from("<2L4Q", data, end64 + 16)
        limit = end64
    if disk or start_disk or here != count or offset + size != limit or count * 46 > size:
        raise Malformed("the zip archive's end record contradicts the file")
    members: dict[str, Member] = {}
    position = offset
    for _ in range(count):
        if position + 46 > limit or data[position : position + 4] != b"PK\x01\x02":
            raise Malformed(f"the zip archive's directory is damaged at byte {position}")
        flags, method = struct.unpack_from("<2H", data, position + 8)
        crc, packed, length, name_size, extra_size, comment = struct.unpack_from("<3L3H", data, position + 16)
        header = struct.unpack_from("<L", data, position + 42)[0]
        after = position + 46 + name_size + extra_size + comment
        if after > limit:
            raise Malformed(f"the zip archive's directory is damaged at byte {position}")
        budget.charge(480 + 4 * name_size)
        raw = data[position + 46 : position + 46 + name_size]
        name = raw.decode("utf-8", "replace")
        extra = data[position + 46 + name_size : position + 46 + name_size + extra_size]
        length, packed, header = _wide_sizes(extra, length, packed, header)
        if name in members:
            raise Malformed(f"the zip archive has two members {name[:80]!r}")
        members[name] = Member(name, flags, method, crc, packed, length, header)
        position = after
    if position != limit:
        raise Malformed("the zip archive's directory is longer than its members")
    return members


def _wide_sizes(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Sizes from the 64-bit extra field (section 4.5.3), for those whose 32-bit field is full."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            field = extra[position + 4 : position + 4 + length]
            wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            full = 0xFFFFFFFF
            return tuple(next(wide, full) if value == full else value for value in (size, packed, header))  # pyright: ignore[reportReturnType]
        position += 4 + length
    return size, packed, header


def _locate(data: mmap.mmap, members: dict[str, Member], budget: Budget) -> dict[str, Storage]:
    """Places of all members' bytes; checks that none reaches out of the file or overlaps, and all checksums."""
    places: dict[str, Storage] = {}
    end_of_last, last = 0, ""
    has_checksums = any(member.crc for member in members.values())  # torch.save can be told to write none: zeros.
    for member in sorted(members.values(), key=lambda member: member.header):
        name, header = member.name, member.header
        if member.flags & 0x2041:
            raise Malformed(f"member {name[:80]!r} is encrypted")
        if member.method not in (0, 8):
            raise Malformed(
                f"member {name[:80]!r} is compressed by method {member.method}; stored and deflated are read"
            )
        if header < end_of_last:
            raise Malformed(f"members {last[:80]!r} and {name[:80]!r} overlap")
        if header + 30 > len(data) or data[header : header + 4] != b"PK\x03\x04":
            raise Malformed(f"member {name[:80]!r} is not where the zip archive's directory says")
        name_size, extra_size = struct.unpack_from("<2H", data, header + 26)
        start = header + 30 + name_size + extra_size
        stop = start + member.packed
        if stop > len(data):
            raise Malformed(f"member {name[:80]!r} reaches out of the file")
        if data[header + 30 : header + 30 + name_size].decode("utf-8", "replace") != name:
            raise Malformed(f"member {name[:80]!r} has another name where its bytes are")
        end_of_last, last = stop, name
        place = Storage(data, start, stop)
        if member.method == 8:
            place = _inflate(data, place, member, budget)
        elif member.packed != member.size:
            raise Malformed(f"member {name[:80]!r} is stored with two sizes, {member.packed} and {member.size}")
        budget.charge(160)
        if has_checksums and _crc(place) != member.crc:
            raise Malformed(f"member {name[:80]!r} is damaged (its CRC-32 is not the one that the archive states)")
        places[name] = place
    return places


def _inflate(data: mmap.mmap, place: Storage, member: Member, budget: Budget) -> Storage:
    """The bytes of a compressed member, at most as many as the whole file has."""
    if member.size > len(data):
        raise Malformed(f"member {member.name[:80]!r} claims {member.size} bytes, more than the whole file")
    budget.charge(member.size)
    inflater, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(member.size)
    filled, position, pending = 0, place.start, b""
    while not inflater.eof:
        if not pending:
            pending = data[position : min(position + _CHUNK, place.stop)]
            position += len(pending)
        exhausted = not pending
        try:
            piece = inflater.decompress(pending, _CHUNK)
        except zlib.error as error:
            raise Malformed(f"member {member.name[:80]!r} is damaged ({error})") from error
        pending = inflater.unconsumed_tail
        if filled + len(piece) > member.size:
            raise Malformed(f"member {member.name[:80]!r} is larger than the {member.size} bytes that it claims")
        unpacked[filled : filled + len(piece)] = piece
        filled += len(piece)
        if exhausted and not piece:
            break
    if filled != member.size or not inflater.eof:
        raise Malformed(f"member {member.name[:80]!r} is shorter than the {member.size} bytes that it claims")
    return Storage(unpacked, 0, member.size)


def _crc(place: Storage) -> int:
    crc = 0
    for start in range(place.start, place.stop, _CHUNK):
        crc = zlib.crc32(place.buffer[start : min(start + (_CHUNK), place.stop)], crc)
    return crc


# The legacy form.


def _read_legacy(data: mmap.mmap, budget: Budget) -> Container:
    position = 0
    values: list[Any] = []
    references: list[PersistentId] = []
    for name in ("magic number", "protocol", "system", "value", "storage keys"):
        program = Program(data, position, len(data), budget, f"pickle of the {name} at byte {position}")
        values.append(program.run())
        position = program.position
        references.extend(program.persistent_ids)
        if name == "magic number" and values[0] != LEGACY_MAGIC:
            raise Malformed("a pickle, but without the magic number of torch.save")
        if name == "protocol" and values[1] != LEGACY_PROTOCOL:
            raise Malformed(f"protocol {LEGACY_PROTOCOL} of the older form is read; this file has another")
    _, _, system, value, keys = values
    little_endian = _is_little_endian(system)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Malformed("the list of storage keys is no list of texts")
    sizes = _item_sizes(references, budget)
    storages: dict[str, Storage] = {}
    for key in keys:
        if key in storages or key not in sizes:
            raise Malformed(f"storage {key[:80]!r} is {'listed twice' if key in storages else 'of no tensor'}")
        if position + 8 > len(data):
            raise Malformed(f"storage {key[:80]!r} is cut off")
        count = int.from_bytes(data[position : position + 8], "little" if little_endian else "big")
        start, stop = position + 8, position + 8 + count * sizes[key]
        if stop > len(data):
            raise Malformed(f"storage {key[:80]!r} reaches out of the file")
        budget.charge(200)
        storages[key] = Storage(data, start, stop)
        position = stop
    if position != len(data):
        raise Malformed(f"{len(data) - position} bytes behind the last storage")
    return Container("pytorch legacy", value, storages, little_endian)


def storage_dtype(kind: Any) -> np.dtype | None:
    """Returns what a number of a storage class is; None if that is not known."""
    if isinstance(kind, Global) and (kind.module == "torch" or kind.module.startswith("torch.")):
        return STORAGE_TYPES.get(kind.name)
    return None


def _is_little_endian(system: Any) -> bool:
    items = getattr(system, "items", None)
    if isinstance(items, list):
        for key, value in zip(items[::2], items[1::2], strict=False):
            if isinstance(key, str) and key == "little_endian" and isinstance(value, bool):
                return value
    raise Malformed("the file does not say its order of bytes")


def _item_sizes(references: list[PersistentId], budget: Budget) -> dict[str, int]:
    """Bytes of one number for each storage key, from what the tensors say of their storages."""
    sizes: dict[str, int] = {}
    for reference in references:
        value = reference.value
        if not isinstance(value, tuple) or len(value) < 3 or value[0] != "storage" or not isinstance(value[2], str):
            continue  # A class with its source text, or nothing that could be found: whoever asks for it is told.
        dtype = storage_dtype(value[1])
        if dtype is None:
            raise Malformed(f"storage {value[2][:80]!r} is of an unknown type")
        budget.charge(120)
        if sizes.setdefault(value[2], dtype.itemsize) != dtype.itemsize:
            raise Malformed(f"storage {value[2][:80]!r} is of two types")
    return sizes
