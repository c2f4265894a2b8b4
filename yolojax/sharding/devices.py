"""The devices of a run as one row, how state and batches lie on them, and arrays put there by several processes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Int

from yolojax.errors import ConfigError


class Devices(NamedTuple):
    """All devices as one row: each holds the whole state (``replicated``) and its part of a batch (``split``)."""

    number: int
    replicated: NamedSharding
    split: NamedSharding


def all_devices() -> Devices:
    """Returns every device that jax sees, those of other processes included."""
    count = len(jax.devices())
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))
    return Devices(count, NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data")))


def check_batch_size(batch_size: int, accumulate: int, devices: Devices) -> None:
    """Raises `ConfigError` unless every device gets equally many images of every accumulated part of a batch."""
    if batch_size % (devices.number * accumulate):
        of = f"{devices.number} devices" + (f" times accumulate = {accumulate}" if accumulate > 1 else "")
        raise ConfigError(f"batch_size = {batch_size}: give a multiple of the {of}")


def local_rows(split: NamedSharding, batch_size: int) -> Int[np.ndarray, " b"]:
    """Returns the rows of a batch that lie on this process's devices, in order; with one process, all rows."""
    places = split.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[place] for place in places]))


def onto_devices(rows: Any, split: NamedSharding, batch_size: int) -> jax.Array:
    """Returns one array over the devices of all processes, of which this process holds ``rows`` (see `local_rows`)."""
    if isinstance(rows, jax.Array) and rows.sharding == split:
        return rows
    rows = np.asarray(rows)
    return jax.make_array_from_process_local_data(split, rows, (batch_size, *rows.shape[1:]))


def device_memory() -> int | None:
    """Returns the most bytes that were ever in use on the first device; None where the backend does not tell."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
