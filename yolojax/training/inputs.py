"""Moved to `yolojax.data`; here with a configuration or a description as argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jax.sharding import NamedSharding

from yolojax.config import TrainConfig
from yolojax.data import Dataset, InputImages, Sampler, box_sizes_on_input, free_memory, input_images, sampling, storage
from yolojax.detector import DetectorSpec
from yolojax.progress import Reporter

__all__ = ["box_sizes_on_input", "choose_input_size", "lay_out_images", "make_sampler", "memory_for_images"]


def choose_input_size(config: TrainConfig, dataset: Dataset) -> tuple[int, int]:
    """`yolojax.data.choose_input_size` of a configuration."""
    return input_images.choose_input_size(dataset, config.model.size, rectangular=config.model.rectangular)


def lay_out_images(
    dataset: Dataset,
    spec: DetectorSpec,
    reporter: Reporter,
    *,
    cap: int | None = None,
    room: int = 1,
    cache: Any = "auto",
    cache_folder: str | Path | None = None,
    shardings: tuple[NamedSharding, NamedSharding] | None = None,
) -> InputImages:
    """`yolojax.data.open_input_images` for a detector."""
    return storage.open_input_images(
        dataset,
        spec.input_size,
        spec.preprocess,
        reporter,
        max_objects=cap,
        images_per_sample=room,
        cache=cache,
        cache_folder=cache_folder,
        shardings=shardings,
    )


def make_sampler(config: TrainConfig, dataset: Dataset, batch_size: int) -> Sampler:
    """`yolojax.data.make_sampler` of a configuration."""
    data = config.data
    return sampling.make_sampler(dataset, batch_size, data.sampling, repeat_threshold=data.repeat_threshold)


def memory_for_images() -> int:
    """Half of the free memory of this machine, in bytes."""
    return free_memory() // 2
