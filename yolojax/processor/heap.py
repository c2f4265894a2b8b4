"""glibc's heap, kept in the shape that XLA's runtime on a processor needs.

The runtime allocates its scratch memory (hundreds of megabytes) anew for every step, and many a matrix product in it
some hundred kilobytes. Two things make that slow:

* memory that is given back to the system faults page by page when it is taken again;
* a large compilation leaves the heap in tatters, a quarter of a million free pieces between what lives on. Every
  allocation then searches long lists of them while it holds the lock of the heap.

Where there is no glibc the functions here do nothing, which their results say; the second needs glibc 2.33.
"""

import ctypes
import mmap
import sys
from itertools import pairwise
from typing import NamedTuple

# Parameters of mallopt(3), from glibc's malloc.h; advice of madvise(2), from Linux's mman-common.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
NEVER = -1
MADV_DONTNEED = 4
HEADER = 32  # at most so many bytes lie between two neighbouring blocks

SMALLEST_HOLE, LARGEST_HOLE = 2**15, 2**24
"""Bytes of the free pieces that are set aside: shorter ones cost little, and longer ones hold a step's scratch."""


class Mallinfo2(ctypes.Structure):
    """``struct mallinfo2`` of malloc.h (glibc 2.33); see mallinfo(3)."""

    _fields_ = (
        *((f"unused_{number}", ctypes.c_size_t) for number in range(8)),
        ("fordblks", ctypes.c_size_t),  # free bytes
        ("keepcost", ctypes.c_size_t),  # the free bytes at the top of the heap
    )


class SetAside(NamedTuple):
    """How many free pieces of the heap were set aside, and their bytes."""

    holes: int
    bytes: int


def keep_freed_memory() -> bool:
    """Ask glibc for one heap that never shrinks before the process ends; False where that is not to be had.

    For programs that train or detect on a processor, at their start: the process stays as large as its largest step.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        mallopt(parameter, value) == 1
        for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER))
    )


def set_holes_aside() -> SetAside:
    """Take the heap's free pieces of 32 KiB to 16 MiB out of use for good, and give their pages back to the system.

    For the moment after a large compilation, in a process that keeps its freed memory: what is allocated later comes
    from whole memory again, without a search. It costs addresses, and of each hole the two pages that it shares with
    its neighbours. Nothing is set aside, which the result says, without glibc 2.33.
    """
    libc = _libc()
    if libc is None or not hasattr(libc, "mallinfo2"):
        return SetAside(0, 0)
    libc.mallinfo2.restype = Mallinfo2
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, (ctypes.c_ssize_t,)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    free = libc.mallinfo2()
    top = libc.sbrk(0) - free.keepcost
    blocks = _free_blocks(libc, top, largest=free.fordblks - free.keepcost)
    found = SetAside(0, 0)
    for hole in _neighbours(blocks):
        size = sum(size for _, size in hole)
        if size >= LARGEST_HOLE:
            for address, _ in hole:
                libc.free(address)
            continue
        found = SetAside(found.holes + 1, found.bytes + size)
        for address, size in hole:
            # Whole pages alone: the rest of a page may belong to what lives beside the hole.
            first, last = (
                -(-address // mmap.PAGESIZE) * mmap.PAGESIZE,
                (address + size) // mmap.PAGESIZE * mmap.PAGESIZE,
            )
            if last > first:
                libc.madvise(first, last - first, MADV_DONTNEED)
    return found


def _libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - an attribute error where it is another C library
    except (OSError, AttributeError):
        return None
    return libc


def _free_blocks(libc: ctypes.CDLL, top: int, largest: int) -> list[tuple[int, int]]:
    """Allocates all that is free below the address ``top``, the ``largest`` first: addresses and bytes, in order."""
    blocks, size = [], largest
    while size >= SMALLEST_HOLE:
        while (address := libc.malloc(size)) is not None and address < top:
            blocks.append((address, size))
        libc.free(address)
        size = size * 3 // 4
    return sorted(blocks)


def _neighbours(blocks: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Blocks that lie side by side, and so were one free piece, together."""
    holes = [blocks[:1]] if blocks else []
    for (before, size), block in pairwise(blocks):
        if block[0] - (before + size) <= HEADER:
            holes[-1].append(block)
        else:
            holes.append([block])
    return holes
