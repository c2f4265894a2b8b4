"""From input images to batches that lie on the devices, each process reading only what its own devices work on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int

from yolojax.data import InputImages, Sampler
from yolojax.structures import Batch
from yolojax.training.multi_scale import Resize


def local_rows(split: NamedSharding, batch_size: int) -> Int[np.ndarray, " b"]:
    """The rows of a batch that lie on this process's devices, in order; all of them where there is one process."""
    places = split.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[place] for place in places]))


def onto_devices(rows: Any, split: NamedSharding, batch_size: int) -> jax.Array:
    """The batch of which this process holds ``rows`` (see `local_rows`), as one array over all processes' devices."""
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
    resize: Resize | None = None,
) -> Iterator[tuple[Int[np.ndarray, " B"], Batch]]:
    """Training batches on the devices, endlessly from a step on, each with the ids of all its images on the host.

    The ids of the data set may need 64 bits, which devices do not have: in the batch itself ``image_id`` is the image's
    place in ``input_images``.
    """
    mine = local_rows(split, batch_size)
    batches = input_images.batches(lambda step: sampler(seed, step)[mine], first_step)
    for step, batch in enumerate(batches, first_step):
        everyone = sampler(seed, step)
        batch = batch._replace(image_id=everyone[mine].astype(np.int32))
        batch = jax.tree.map(lambda rows: onto_devices(rows, split, batch_size), batch)
        yield input_images.image_ids[everyone], resize(step, batch) if resize is not None else batch
