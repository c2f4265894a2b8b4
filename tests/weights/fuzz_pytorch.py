"""Mutates PyTorch files and reads them: each ends in a named error or in data, and nothing is imported or called.

Run: python -m tests.weights.fuzz_pytorch --count 1000000 --seed 1

Three kinds of cases alternate: a valid file with damaged bytes; a zip file whose pickle is damaged and whose checksums
are right, so that the damage reaches the interpreter; and a program of random opcodes. An audit hook watches what
Python does while a file is read: nothing but opening and mapping that file is allowed. The longest time of a case is
that of the processor.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from tests.weights import pytorch_files as write
from yolojax.errors import CheckpointError
from yolojax.weights._bounds import Malformed
from yolojax.weights.foreign import WeightFile
from yolojax.weights.pytorch import read_pytorch

ALLOWED_EVENTS = {"open", "mmap.__new__", "builtins.id"}

W = np.arange(6, dtype=np.float32)
N = np.arange(2, dtype=np.int64)
STORAGES = {"0": W.tobytes(), "1": N.tobytes()}
LEGACY_STORAGES = {"0": (W.size, W.tobytes()), "1": (N.size, N.tobytes())}

STATE = write.dictionary({"w": write.tensor("FloatStorage", "0", 6, (3, 2), (1, 3)), "n": write.whole(N, "1")})
MODULE = write.module(
    "m.Net",
    {"w": write.parameter(write.whole(W, "0"))},
    {"n": write.whole(N, "1")},
    {"part": write.module("m.Part", {}, {"w": write.whole(W, "0")}, {}, eps=write.real(1e-3))},
    names=b"}(" + write.integer(0) + write.text("a") + b"u",
    stride=write.listed(write.integer(8)),
)
VALUES = (
    STATE,
    write.dictionary({"model": STATE, "ema": b"N", "epoch": write.integer(3), "train_args": write.dictionary({})}),
    write.dictionary({"ema": MODULE, "date": write.text("today")}),
)

OPCODES = b"IJKMLSTUBCNVXFG]ael)t}dsu02(1ghjpqrcRbioPQ." + bytes(range(0x80, 0x99))


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to four random changes: bytes set, bits flipped, pieces removed, repeated, inserted, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not data:
            break
        at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 32))
        kind = rng.randrange(8)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at] = rng.choice(OPCODES)
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif kind == 5:
            data[at:at] = rng.randbytes(length)
        elif kind == 6:
            data[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
        else:
            other = rng.randrange(len(data))
            data[at : at + length] = data[other : other + length]
    if rng.random() < 0.05:
        del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


def random_program(rng: random.Random) -> bytes:
    """Random opcodes with arguments that mostly fit them."""
    parts = [b"\x80\x05"]
    for _ in range(rng.randrange(1, 40)):
        code = bytes([rng.choice(OPCODES)])
        number = rng.choice((0, 1, 2, 255, rng.randrange(256)))
        if code in b"KghqU\x8c\x8aC\x80\x82":
            small = number if code in b"Khq\x82" else number % 6
            parts.append(code + bytes([small]) + b"storag"[: small if code in b"U\x8c\x8aC" else 0])
        elif code in b"cip":
            parts.append(
                code + rng.choice((b"os\nsystem\n", b"torch\nFloatStorage\n", b"torch._utils\n_rebuild_tensor_v2\n"))
            )
        elif code in b"XTB":
            parts.append(code + bytes([4, 0, 0, 0]) + rng.choice((b"stor", b"data", b"mode")))
        elif code in b"IFLVSP":
            parts.append(code + rng.choice((b"1\n", b"'x'\n", b"00\n", b"\n", b"9999999999\n")))
        else:
            parts.append(
                code + (rng.randbytes(rng.choice((0, 4, 8))) if code in b"JMGjr\x83\x84\x8b\x8d\x95\x96" else b"")
            )
    return b"".join(parts) + b"."


def cases(count: int, seed: int) -> Iterator[bytes]:
    """The contents of ``count`` files."""
    rng = random.Random(seed)
    whole = [write.zip_file(value, STORAGES) for value in VALUES]
    whole += [write.zip_file(STATE, STORAGES, compression=8, byteorder="big")]
    whole += [write.legacy_file(value, LEGACY_STORAGES) for value in VALUES]
    for number in range(count):
        kind = number % 4
        if kind < 2:
            yield mutate(rng.choice(whole), rng)
        elif kind == 2:
            pickled = mutate(write.program(rng.choice(VALUES)), rng)
            yield write.zip_archive(
                {"archive/data.pkl": pickled, **{f"archive/data/{k}": v for k, v in STORAGES.items()}}
            )
        else:
            yield write.zip_archive({"archive/data.pkl": random_program(rng)})


def main() -> int:
    """Reads the cases; prints how they ended and returns 1 if any ended as it must not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    events: Counter[str] = Counter()
    watching = False

    def watch(event: str, arguments: tuple) -> None:
        if watching and event not in ALLOWED_EVENTS:
            events[event] += 1

    ends: Counter[str] = Counter()
    started, longest = time.perf_counter(), 0.0
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        path = Path(folder) / "case.pt"
        whole = write.zip_file(MODULE, STORAGES)
        for number, content in enumerate(chain([whole], cases(options.count, options.seed))):
            path.write_bytes(content)
            if number == 1:  # The first read imported what reading needs.
                sys.addaudithook(watch)
            watching, began = number > 0, time.process_time()
            try:
                file = read_pytorch(path)
                assert type(file) is WeightFile
                ends["read"] += 1
            except CheckpointError as error:
                assert str(path) in str(error)
                foreseen = isinstance(error.__cause__, Malformed)
                ends[
                    "refused" if foreseen else f"refused by {type(error.__cause__).__name__}: {error.__cause__}"[:160]
                ] += 1
            finally:
                watching = False
                longest = max(longest, time.process_time() - began)
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{options.count} files, seed {options.seed}: {seconds:.0f} s, the longest {longest:.3f} s, peak {peak} MiB")
    for end, times in ends.most_common(30):
        print(f"{times:9d}  {end}")
    print(f"forbidden events: {dict(events)}")
    return 1 if events else 0


if __name__ == "__main__":
    sys.exit(main())
