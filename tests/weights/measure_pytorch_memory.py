"""Measures the memory that hostile PyTorch files take while they are read: at most twice their size.

Run: python -m tests.weights.measure_pytorch_memory --bytes 12000000
"""

import argparse
import contextlib
import random
import struct
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.weights import pytorch_files as write
from yolojax.errors import CheckpointError
from yolojax.weights import _bounds
from yolojax.weights.pytorch import read_pytorch


def many_members(size: int) -> bytes:
    """A zip archive of empty members, whose directory is as large as everything else."""
    headers, directory = bytearray(), bytearray()
    names = [b"a/data.pkl", *(b"a/%d" % number for number in range(size // 92))]
    for name in names:
        content = b"N." if name == b"a/data.pkl" else b""
        fields = (zlib.crc32(content), len(content), len(content), len(name))
        directory += b"PK\1\2" + struct.pack("<6H3L5H2L", 20, 20, 0, 0, 0, 0, *fields, 0, 0, 0, 0, 0, len(headers))
        directory += name
        headers += b"PK\3\4" + struct.pack("<5H3L2H", 20, 0, 0, 0, 0, *fields, 0) + name + content
    here = len(headers)
    wide_end = b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, len(names), len(names), len(directory), here)
    locator = b"PK\6\7" + struct.pack("<LQL", 0, here + len(directory), 1)
    full = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return bytes(headers + directory) + wide_end + locator + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, *full)


def large_files(size: int) -> Iterator[tuple[str, bytes]]:
    """Files of about this size whose few bytes per opcode ask for as much memory as they can."""
    wide = ("\N{GRINNING FACE}" + "a" * 8000).encode()
    noise = random.Random(0).randbytes(size)
    expanded = {
        f"w{n}": write.tensor("FloatStorage", "0", size // 4, (size // 4, 100), (1, 0)) for n in range(size // 1000)
    }
    big = write.dictionary({"w": write.tensor("DoubleStorage", "0", size // 8, (size // 8,))})
    legacy = {"w": write.tensor("ByteStorage", "0", size, (size,))}
    long = b"X" + struct.pack("<I", size // 8) + b"x" * (size // 8) + b"q\1"
    beside = b"}(" + write.text("w") + write.tensor("FloatStorage", "0", 1, (1,)) + b"q\2" + write.text("evil")
    inner = b"".join(write.text(f"{n}") + b"}h\1h\2s" for n in range(size // 1000))
    programs = {
        "long texts again": beside + b"](" + long + b"h\1" * (size // 100) + b"eu",
        "long names again": beside + b"}(" + long + b"N" + inner + b"uu",
        "classes again": beside + b"](c" + b"m" * 500 + b"\nn\nq\1" + b"h\1" * (size // 100) + b"eu",
        "lists": b"]" * size,
        "dictionaries": b"}" * size,
        "sets": b"\x8f" * size,
        "tuples": b"N" + b"\x85" * size,
        "copies": b"N" + b"2" * size,
        "marks": b"(1" * (size // 2),
        "objects": b"cos\nsystem\n" + b")R" * (size // 2),
        "states": b"cos\nsystem\n)R" + b"Nb" * (size // 2),
        "references": b"N" + b"Q" * size,
        "memo": b"N" + b"\x94" * size,
        "sparse memo": b"N" + b"".join(b"r" + struct.pack("<I", n * 99 + 70) for n in range(size // 5)),
        "texts": b"](" + b"".join(b"U\2%02x" % (n % 256) for n in range(size // 4)) + b"e",
        "wide characters": b"](" + (b"X" + struct.pack("<I", len(wide)) + wide) * (size // 8000) + b"e",
        "one byte array": b"\x96" + struct.pack("<Q", size) + bytes(size),
        "integers": b"](" + b"M\7\7" * (size // 3) + b"e",
        "keys": b"}(" + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(size // 6)) + b"u",
        "classes": b"ca\nb\n" * (size // 5),
    }
    for name, content in programs.items():
        padding = bytes(size if name.endswith("again") else 0)  # What is built of these comes after the program.
        yield name, write.zip_file(content, {"0": bytes(4), "padding": padding})
    yield "members", many_members(size)
    yield "storage", write.zip_file(big, {"0": bytes(size // 8 * 8)})
    yield "byte order", write.zip_file(big, {"0": bytes(size // 8 * 8)}, byteorder="big")
    yield "expanded", write.zip_file(write.dictionary(expanded), {"0": bytes(size // 4 * 4)})
    yield "deflated", write.zip_file(write.dictionary(legacy), {"0": noise}, compression=8)
    yield "legacy", write.legacy_file(write.dictionary(legacy), {"0": (size, bytes(size))})
    yield "legacy lists", write.legacy_file(b"]" * size, {})


def main() -> int:
    """Prints one row for each file; returns 1 if one took more than twice its size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bytes", type=int, default=12_000_000)
    options = parser.parse_args()
    _bounds.SMALLEST_ALLOWANCE = 0  # So that small files show the law, too.
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.pt"
        path.write_bytes(write.zip_file(write.listed(), {}))
        with contextlib.suppress(CheckpointError):  # What the first call imports is not counted.
            read_pytorch(path)
        for name, content in large_files(options.bytes):
            path.write_bytes(content)
            size = len(content)
            del content
            began = time.process_time()
            tracemalloc.start()
            end = "read"
            try:
                read_pytorch(path)
            except CheckpointError as error:
                end = str(error).partition(": ")[2][:80]
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            worst = max(worst, peak / size)
            print(f"{name:16} {size:10} bytes, {peak / size:5.2f} times, {time.process_time() - began:5.1f} s  {end}")
    print(f"at most {worst:.2f} times the size of a file")
    return 1 if worst > 2 else 0


if __name__ == "__main__":
    sys.exit(main())
