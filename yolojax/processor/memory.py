"""What makes training and detecting on a processor faster, set once at the start of a program.

The heap is kept in the shape that XLA's runtime needs (`yolojax.processor.heap`): freed memory stays in the process,
and after a long compilation the holes that it left are set aside.

Every core is a device of its own: the ordinary program for several devices then gives each core a part of the batch,
which keeps cores busier than the threads inside single operations do.
"""

import contextlib
import functools
import gc
import os
from collections.abc import Iterator
from typing import Any, Literal

from yolojax.processor.heap import keep_freed_memory, set_holes_aside

LONG_COMPILATION = 2.0
"""Seconds of a compilation that leaves holes worth the fifth of a second that setting them aside takes."""

MOST_DEVICES = 8


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_for(batch_size: int) -> int:
    """The most devices that this machine has cores for and that share a batch equally; at most `MOST_DEVICES`."""
    return max(n for n in range(1, min(available_cores(), MOST_DEVICES) + 1) if batch_size % n == 0)


def prepare_processor(batch_size: int | Literal["auto"], accumulate: int = 1) -> None:
    """All of the above; call it before anything asks jax for its devices. An accelerator is not affected.

    ``auto`` fits any number of devices; of ``accumulate`` parts of a batch, each is shared by all of them. Where
    jax is running already, it keeps the devices it has.
    """
    import jax

    if keep_freed_memory():
        _set_holes_aside_after_compilations()
    try:
        part = 2**20 if batch_size == "auto" else max(1, batch_size // accumulate)
        jax.config.update("jax_num_cpu_devices", devices_for(part))
    except RuntimeError:  # raised once devices exist
        return


@functools.cache  # once in a process
def _set_holes_aside_after_compilations() -> None:
    import jax.monitoring

    def after(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and duration_secs >= LONG_COMPILATION:
            set_holes_aside()

    jax.monitoring.register_event_duration_secs_listener(after)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For what makes millions of objects and no cycles: Python's collector would visit them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
