"""The devices of a run as one row, and how state and batches lie on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from yolojax.errors import ConfigError


class Devices(NamedTuple):
    """All devices as one row: each holds the whole state (``replicated``) and its part of a batch (``split``)."""

    number: int
    replicated: NamedSharding
    split: NamedSharding

    @property
    def platform(self) -> str:
        """What they are, by JAX's name: ``cpu``, ``gpu`` or ``tpu``."""
        return next(iter(self.split.device_set)).platform


def all_devices() -> Devices:
    """Returns every device that jax sees, those of other processes included."""
    return row_of(jax.devices())


def row_of(devices: Sequence[Any]) -> Devices:
    """Returns these devices of JAX as one row. They need not be here: programs are compiled for described ones too."""
    count = len(devices)
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=list(devices))
    return Devices(count, NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data")))


def check_batch_size(batch_size: int, accumulate: int, devices: Devices) -> None:
    """Raises `ConfigError` unless every device gets equally many images of every accumulated part of a batch."""
    if batch_size % (devices.number * accumulate):
        of = f"{devices.number} devices" + (f" times accumulate = {accumulate}" if accumulate > 1 else "")
        raise ConfigError(f"batch_size = {batch_size}: give a multiple of the {of}")


def device_memory() -> int | None:
    """Returns the most bytes that were ever in use on the first device; None where the backend does not tell."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
