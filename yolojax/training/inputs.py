"""From the training images to the input image, the anchors' raw material, and the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Float

from yolojax.config import TrainConfig
from yolojax.data import (
    Dataset,
    InputImages,
    Sampler,
    Summary,
    build_cache,
    build_disk_cache,
    choose_storage,
    class_balanced_weights,
    default_cache_folder,
    measure_room,
    padded_objects,
    repeat_factor_weights,
    stream_images,
    to_devices,
    uniform_sampler,
    weighted_sampler,
)
from yolojax.data.cache import free_memory
from yolojax.detector import DetectorSpec
from yolojax.errors import ConfigError
from yolojax.geometry import Preprocess, place_on_input
from yolojax.paths import user_path
from yolojax.training.progress import Reporter


def choose_input_size(config: TrainConfig, dataset: Dataset) -> tuple[int, int]:
    """``(height, width)``: a square of the configured size, shortened where all training images share an aspect ratio.

    The short side is rounded up to a multiple of 32, so that nothing of a photo is lost.
    """
    size = config.model.size
    if size % 32:
        raise ConfigError(f"model.size = {size}: give a multiple of 32, the largest stride")
    ratios = {round(r.size[0] / r.size[1], 2) for r in dataset.records}
    if not config.model.rectangular or len(ratios) != 1:
        return size, size
    height, width = dataset.records[0].size
    short = min(size, 32 * max(1, -(-round(size * min(height, width) / max(height, width)) // 32)))
    return (short, size) if height < width else (size, short)


def box_sizes_on_input(dataset: Dataset, input_size: tuple[int, int]) -> Float[np.ndarray, "n 2"]:
    """Widths and heights ``[n, 2]`` of all objects in input pixels."""
    sizes = [np.zeros((0, 2), np.float32)]
    for record in dataset.records:
        placement = place_on_input(record.size, input_size, Preprocess())
        scale = np.array([placement.width / record.size[1], placement.height / record.size[0]], np.float32)
        sizes.append((record.boxes[:, 2:] - record.boxes[:, :2])[~record.crowd] * scale)
    return np.concatenate(sizes)


def lay_out_images(
    dataset: Dataset,
    spec: DetectorSpec,
    reporter: Reporter,
    *,
    cap: int | None = None,
    room: int = 1,
    cache: str = "auto",
    cache_folder: str | Path | None = None,
    shardings: tuple[Sharding, Sharding] | None = None,
) -> InputImages:
    """All images of a data set on the detector's input image, decoded once where there is room, else as needed.

    Args:
      dataset: the images.
      spec: of the detector; gives input image and preprocessing.
      reporter: where progress goes, where the input images are kept, and what happened to images and objects.
      cap: most objects an image is padded to; None holds the fullest image.
      room: how many times the objects of the fullest image to make room for, where several images become one.
      cache: where to keep the input images: ``device``, ``memory``, ``disk``, ``stream`` (nowhere), or the first of
        them that has room (``auto``).
      cache_folder: for ``disk``; by default the user's cache folder.
      shardings: how the whole set and how a batch lie on the devices; without it no image is kept on a device.
    """
    padding = padded_objects(dataset) * room
    padding = padding if cap is None else min(cap, padding)
    needed = len(dataset) * spec.input_size[0] * spec.input_size[1] * 3
    folder = user_path(cache_folder) if cache_folder is not None else default_cache_folder()
    space = measure_room(folder)
    if shardings is None or jax.process_count() > 1:  # every process would have to hold all images
        space = space._replace(device=None)
    storage = choose_storage(needed, space) if cache == "auto" else cache
    reporter.say(storage_line(storage, len(dataset), needed, folder))
    settings: dict[str, Any] = {"max_objects": padding}
    with reporter.task("reading images", len(dataset)) as advance:
        reading: dict[str, Any] = {**settings, "progress": lambda done, _: advance(done)}
        if storage == "stream":
            input_images: InputImages = stream_images(dataset, spec.input_size, spec.preprocess, **settings)
        elif storage == "disk":
            input_images = build_disk_cache(dataset, spec.input_size, spec.preprocess, folder, **reading)
        else:
            input_images = build_cache(dataset, spec.input_size, spec.preprocess, **reading)
            if storage == "device" and shardings is not None:
                input_images = to_devices(input_images, *shardings)
    late = input_images.dataset.summary.findings[len(dataset.summary.findings) :]
    if late:
        reporter.say(Summary(late).text(limit=3))
    if dropped := int(np.sum(input_images.targets.dropped)):
        reporter.say(f"{dropped} objects did not fit the padding of {padding}; raise data.max_objects to keep them")
    return input_images


def storage_line(storage: str, count: int, needed: int, folder: Path) -> str:
    """What is said about where the images are kept."""
    size = f"{needed / 1e9:.1f} GB" if needed >= 1e9 else f"{needed / 1e6:.0f} MB"
    where = {
        "device": "kept in device memory",
        "memory": "kept in memory",
        "disk": f"kept in {folder}, mapped into memory",
        "stream": "too much to keep: decoded each time they are needed, ahead of their use",
    }[storage]
    return f"{count} images, {size} on their input images: {where}"


def make_sampler(config: TrainConfig, dataset: Dataset, batch_size: int) -> Sampler:
    """The order of training images that a configuration asks for."""
    if config.data.sampling == "class-balanced":
        return weighted_sampler(class_balanced_weights(dataset), batch_size)
    if config.data.sampling == "repeat-factor":
        return weighted_sampler(repeat_factor_weights(dataset, config.data.repeat_threshold), batch_size)
    return uniform_sampler(len(dataset), batch_size)


def memory_for_images() -> int:
    """Half of the free memory of this machine, in bytes."""
    return free_memory() // 2
