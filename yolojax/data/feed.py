"""Batches on the devices: each process reads the images of its own devices only, and the batch is one global array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int

from yolojax.data.input_images import InputImages
from yolojax.data.sampling import Sampler
from yolojax.structures import Batch


def local_rows(split: NamedSharding, batch_size: int) -> Int[np.ndarray, " b"]:
    """The rows of a batch that lie on the devices of this process, ascending; all rows where there is one process."""
    slices = split.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in slices]))


def onto_devices(rows: Any, split: NamedSharding, batch_size: int) -> jax.Array:
    """The global array ``[batch_size, ...]`` of which this process holds ``rows`` (those of `local_rows`).

    Rows that already are such an array are returned unchanged.
    """
    if isinstance(rows, jax.Array) and rows.sharding == split:
        return rows
    rows = np.asarray(rows)
    return jax.make_array_from_process_local_data(split, rows, (batch_size, *rows.shape[1:]))


def device_batches(
    input_images: InputImages,
    sampler: Sampler,
    seed: int,
    batch_size: int,
    split: NamedSharding,
    *,
    first_step: int = 0,
    resize: Callable[[int, Batch], Batch] | None = None,
) -> Iterator[tuple[Int[np.ndarray, " B"], Batch]]:
    """Training batches on the devices, endlessly from a step on, each with the ids of its images on the host.

    Args:
      input_images: where the images come from.
      sampler: ``(seed, step) -> [B]`` indices of the images of a step.
      seed: of the sampler.
      batch_size: ``B``, over all processes.
      split: how a batch is divided over the devices.
      first_step: the step of the first batch; a resumed run starts here.
      resize: ``(step, batch) -> batch``, applied on the devices (training at several sizes).

    Yields:
      the data set's ids ``[B]`` of the images in the batch (they may need 64 bits, which devices do not have), and the
      batch. Where a damaged image was replaced, its row carries the id of the image that was loaded; a process knows
      this of its own rows only.
    """
    mine = local_rows(split, batch_size)
    batches = input_images.batches(lambda step: sampler(seed, step)[mine], first_step)
    for step, (loaded, batch) in enumerate(batches, first_step):
        indices = sampler(seed, step).copy()
        indices[mine] = loaded
        batch = jax.tree.map(lambda rows: onto_devices(rows, split, batch_size), batch)
        yield input_images.image_ids[indices], resize(step, batch) if resize is not None else batch
