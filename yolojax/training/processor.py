"""What makes training and detecting on a processor faster, set once at the start of a program.

Freed memory stays in the process: XLA's CPU runtime returns its scratch memory (hundreds of megabytes) to the operating
system after every step and takes it back for the next one; each page then faults again. On two cores that was a third
of a step of 0.95 s.

Every core is a device of its own: the ordinary program for several devices then gives each core a part of the batch,
which keeps cores busier than the threads inside single operations do.
"""

import ctypes
import os
import sys
from typing import Literal

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Ask glibc never to return memory to the system before the process ends; False where there is no glibc.

    For programs that train or detect on a processor, at their start: the process stays as large as its largest step.
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


MOST_DEVICES = 8


def devices_for(batch_size: int) -> int:
    """The most devices that this machine has cores for and that share a batch equally; at most `MOST_DEVICES`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(n for n in range(1, min(cores, MOST_DEVICES) + 1) if batch_size % n == 0)


def prepare_processor(batch_size: int | Literal["auto"], accumulate: int = 1) -> None:
    """Both of the above; call it before anything asks jax for its devices. An accelerator is not affected.

    ``auto`` fits any number of devices; of ``accumulate`` parts of a batch, each is shared by all of them. Where
    jax is running already, it keeps the devices it has.
    """
    import jax

    keep_freed_memory()
    try:
        part = 2**20 if batch_size == "auto" else max(1, batch_size // accumulate)
        jax.config.update("jax_num_cpu_devices", devices_for(part))
    except RuntimeError:  # raised once devices exist
        return
