"""The heap is glibc's and belongs to a whole process: each case runs in a process of its own."""

import json
import subprocess
import sys

import pytest

from yolojax.processor import heap
from yolojax.processor.heap import SMALLEST_HOLE, keep_freed_memory

pytestmark = pytest.mark.skipif(not hasattr(heap._libc(), "mallinfo2"), reason="needs glibc 2.33")

TATTERED = """
import ctypes, json, resource
from yolojax.processor.heap import keep_freed_memory, set_holes_aside

assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
libc.free.argtypes, libc.memset.argtypes = (ctypes.c_void_p,), (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def block(size):
    address = libc.malloc(size)
    libc.memset(address, 1, size)
    return address

libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, (ctypes.c_ssize_t,)
end = libc.sbrk(0)
for size in (2**24, 2**22, 2**20, 2**18, 2**16, 2**14):  # whatever the interpreter left free below the end is taken
    while block(size) < end:
        pass
large = block(2**26)
fence = block(20_000)
pairs = [(block({size}), block(20_000)) for _ in range(200)]
for hole, _ in pairs:
    libc.free(hole)
libc.free(large)
before = resident()
found = set_holes_aside()
after = resident()
twice = set_holes_aside()
once_more = libc.malloc(2**25)  # half: the interpreter itself may have taken a corner of it meanwhile
low, high = pairs[0][0], pairs[-1][1]
again = [libc.malloc({size}) for _ in range(200)]
print(json.dumps({{
    "holes": found.holes, "bytes": found.bytes, "released": before - after, "twice": twice.holes,
    "in_holes": sum(low <= address < high for address in again),
    "large_again": large - 2**20 < once_more < large + 2**26,
}}))
"""


def run(code: str) -> dict:
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def test_holes_are_set_aside_and_their_pages_given_back() -> None:
    size = 200_000
    found = run(TATTERED.format(size=size))
    assert found["holes"] >= 190  # of 200; some may have merged where a fence found another place
    assert found["bytes"] >= 0.8 * 200 * size  # the rest of a hole, under SMALLEST_HOLE, stays
    assert found["released"] >= 0.7 * 200 * size
    assert found["in_holes"] == 0
    assert found["twice"] == 0


def test_a_large_free_piece_stays_in_use() -> None:
    assert run(TATTERED.format(size=200_000))["large_again"]


def test_small_pieces_stay_in_use() -> None:
    assert run(TATTERED.format(size=SMALLEST_HOLE // 2))["in_holes"] >= 190


def test_the_heap_does_not_shrink() -> None:
    code = (
        TATTERED.partition("def resident")[0].format()
        + """
libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, (ctypes.c_ssize_t,)
large = libc.malloc(5 * 2**29)  # never touched: addresses only
end = libc.sbrk(0)
libc.free(large)
print(json.dumps({"shorter_by": end - libc.sbrk(0)}))
"""
    )
    assert run(code) == {"shorter_by": 0}


def test_a_long_compilation_sets_holes_aside() -> None:
    code = """
import json, jax
import yolojax.processor.memory as processor

calls = []
processor.set_holes_aside = lambda: calls.append(1)
processor.prepare_processor(2)
processor.prepare_processor(2)
jax.jit(lambda x: x + 1)(1.0)
short = len(calls)
processor.LONG_COMPILATION = 0.0
jax.jit(lambda x: x + 2)(1.0)
print(json.dumps({"short": short, "long": len(calls)}))
"""
    assert run(code) == {"short": 0, "long": 1}


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
    assert heap.set_holes_aside() == (0, 0)
