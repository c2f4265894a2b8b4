"""The batch size that fits, from XLA's analysis of the compiled programs: nothing is run to find out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from yolojax.config import TrainConfig
from yolojax.data import InputImages
from yolojax.errors import ConfigError
from yolojax.structures import Batch, Hyper
from yolojax.training.inputs import memory_for_images
from yolojax.training.programs import Devices, Programs
from yolojax.training.progress import Reporter

SHARE = 0.85
"""Of a device's memory that a program may take: allocators need some air."""

LARGEST = 128
"""Beyond this the default learning rates do not hold, whatever the memory."""

STEPS_PER_EPOCH = 8
"""At least so many, as far as the batch size can help it."""


def choose_batch_size(need: Callable[[int], int], limit: int, unit: int, most: int) -> int:
    """The largest ``unit * 2**n`` up to ``most`` whose program needs at most ``limit`` bytes.

    Args:
      need: bytes of the program for a batch size; expensive, so it is asked a few times only: memory grows linearly
        with the batch, up to the choices that XLA makes.
      limit: bytes of one device.
      unit: images that every device and part must have at least.
      most: at least ``unit``.

    Raises:
      ConfigError: when not even ``unit`` images fit.
    """
    size, first = unit, need(unit)
    if first > limit:
        raise ConfigError(
            f"batch_size = 'auto': even {unit} images need {first / 1e9:.2f} GB of {limit / 1e9:.2f} GB; "
            "give a smaller model.size or compute = bfloat16"
        )
    if most >= 2 * unit:
        second = min(4 * unit, unit * 2 ** int(math.log2(most / unit)))
        slope = max((need(second) - first) / (second - unit), 1.0)
        fits = min(most, unit + (limit - first) / slope)
        size = unit * 2 ** int(math.log2(fits / unit))
    while need(size) > limit:  # the line was only a guess
        size //= 2
    return size


def with_chosen_batch_size(
    config: TrainConfig,
    programs: Programs,
    state: Any,
    images: InputImages,
    hyper: Hyper,
    devices: Devices,
    reporter: Reporter,
) -> TrainConfig:
    """The configuration with a number for ``auto``; the program for it is compiled then, others are forgotten."""
    example = images.batch(np.zeros(1, np.int64))
    unit, limit = devices.number * config.accumulate, int(SHARE * memory_limit(devices.number))
    most = max(unit, min(LARGEST, len(images) // STEPS_PER_EPOCH))
    asked: dict[int, int] = {}

    def batch_of(size: int) -> Batch:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), example)

    def need(size: int) -> int:
        if size not in asked:
            found = programs.compile(state, batch_of(size), hyper)
            if found is None:
                raise ConfigError("batch_size = 'auto': this backend does not analyse memory; give a number")
            asked[size] = found
        return asked[size]

    size = choose_batch_size(need, limit, unit, most)
    for other in set(asked) - {size}:
        programs.forget(batch_of(other))
    reporter.say(
        f"batch size {size}: its program needs {asked[size] / 1e9:.2f} GB of the {limit / 1e9:.2f} GB that a device "
        f"may use ({len(asked)} sizes analysed, at most {most} for {len(images)} images)"
    )
    return replace(config, batch_size=size)


def memory_limit(devices: int) -> int:
    """Bytes of one device; on processors, whose devices share the memory, a share of half of it."""
    told = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return told or memory_for_images() // devices
