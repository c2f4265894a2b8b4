"""Keeping freed memory in the process, which a compiled training step on a processor is glad of.

XLA's CPU runtime returns its scratch memory (hundreds of megabytes) to the operating system after every step and takes
it back for the next one; each page then faults again. On two cores that was a third of a step of 0.95 s.
"""

import ctypes
import sys

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Ask glibc never to return memory to the system before the process ends; False where there is no glibc.

    For programs that train on a processor, at their start: the process stays as large as its largest step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(
        mallopt(parameter, value) == 1
        for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1))
    )
