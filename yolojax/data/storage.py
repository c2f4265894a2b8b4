"""Where input images are kept: in device memory, in memory, on disk, or nowhere (decoded when they are needed)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from jax.sharding import NamedSharding

from yolojax.data.cache import build_disk_cache, to_devices
from yolojax.data.dataset import Dataset
from yolojax.data.input_images import InputImages, build_cache, padded_objects
from yolojax.data.stream import stream_images
from yolojax.data.summary import Summary
from yolojax.errors import ConfigError
from yolojax.geometry import Preprocess
from yolojax.paths import user_cache_folder, user_path
from yolojax.progress import Quiet, Reporter

Storage = Literal["device", "memory", "disk", "stream"]


class Capacity(NamedTuple):
    """Bytes that images may take on each device, in memory and on disk.

    ``device`` is None where images must not be kept on devices, for instance because the device is the processor.
    """

    device: int | None
    memory: int
    disk: int


def choose_storage(needed: int, capacity: Capacity) -> Storage:
    """The fastest storage with capacity for ``needed`` bytes: device, memory, disk; else the images are streamed."""
    if capacity.device is not None and needed <= capacity.device:
        return "device"
    if needed <= capacity.memory:
        return "memory"
    return "disk" if needed <= capacity.disk else "stream"


def measure_capacity(folder: Path) -> Capacity:
    """A quarter of the free memory of a device, half of the free memory of this machine, half of the free disk space.

    ``folder`` is where images would be stored on disk; it need not exist.
    """
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    on_device = (stats["bytes_limit"] - stats["bytes_in_use"]) // 4 if stats and "bytes_limit" in stats else None
    existing = next((p for p in (folder, *folder.parents) if p.exists()), Path("."))
    return Capacity(on_device, free_memory() // 2, shutil.disk_usage(existing).free // 2)


def free_memory() -> int:
    """Bytes of memory that programs can still get, within the limit of a container; 16 GiB where nothing tells."""
    found: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    try:
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no such group, or no limit
        pass
    if not found:
        try:
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        except (AttributeError, ValueError, OSError):
            found.append(16 * 2**30)
    return max(0, min(found))


def default_cache_folder() -> Path:
    """Where images are kept on disk: `yolojax.paths.user_cache_folder`, or a temporary folder without a home."""
    return user_cache_folder() or Path(tempfile.gettempdir()) / "yolojax"


def open_input_images(
    dataset: Dataset,
    input_size: tuple[int, int],
    preprocess: Preprocess,
    reporter: Reporter | None = None,
    *,
    max_objects: int | None = None,
    images_per_sample: int = 1,
    cache: Literal["auto"] | Storage = "auto",
    cache_folder: str | Path | None = None,
    shardings: tuple[NamedSharding, NamedSharding] | None = None,
) -> InputImages:
    """All images of a data set, resized to the network's input size and stored where there is capacity for them.

    Args:
      dataset: the images.
      input_size: ``(H, W)`` in pixels.
      preprocess: how a photo is resized and padded.
      reporter: told where the images are stored, how far reading is, and which images and objects were left out.
      max_objects: objects to which an image is padded at most; None pads to the image with the most objects.
      images_per_sample: images that an augmentation combines into one (4 for a mosaic): the padding grows with it.
      cache: the storage, or ``auto`` for the fastest that has capacity (`choose_storage`).
      cache_folder: for ``disk``; `default_cache_folder` by default.
      shardings: how all images and how a batch lie on the devices; needed for ``device``, which ``auto`` does not
        choose without it.

    Raises:
      ConfigError: ``device`` without shardings or on several processes.
      DataError: as `yolojax.data.input_images.build_cache`, or the disk refuses.
    """
    reporter = reporter or Quiet()
    padding = padded_objects(dataset) * images_per_sample
    padding = padding if max_objects is None else min(max_objects, padding)
    needed = len(dataset) * input_size[0] * input_size[1] * 3
    folder = user_path(cache_folder) if cache_folder is not None else default_cache_folder()
    on_devices = shardings is not None and jax.process_count() == 1  # else every process would hold all images
    if cache == "device" and not on_devices:
        why = (
            "with several processes each would have to hold all images"
            if shardings is not None
            else ("no sharding over devices was given")
        )
        raise ConfigError(f"cache = 'device': {why}; give auto, memory, disk or stream")
    storage: Storage
    if cache == "auto":
        capacity = measure_capacity(folder)
        storage = choose_storage(needed, capacity if on_devices else capacity._replace(device=None))
    else:
        storage = cache
    reporter.say(_storage_line(storage, len(dataset), needed, folder))
    settings: dict[str, Any] = {"max_objects": padding}
    with reporter.task("reading images", len(dataset)) as advance:
        reading: dict[str, Any] = {**settings, "progress": lambda done, _: advance(done)}
        if storage == "stream":
            input_images: InputImages = stream_images(dataset, input_size, preprocess, **settings)
        elif storage == "disk":
            input_images = build_disk_cache(dataset, input_size, preprocess, folder, **reading)
        else:
            input_images = build_cache(dataset, input_size, preprocess, **reading)
            if storage == "device" and shardings is not None:
                input_images = to_devices(input_images, *shardings)
    late = input_images.dataset.summary.findings[len(dataset.summary.findings) :]
    if late:
        reporter.say(Summary(late).text(limit=3))
    if dropped := input_images.dropped:
        reporter.say(f"{dropped} objects did not fit the padding of {padding}; raise data.max_objects to keep them")
    return input_images


def _storage_line(storage: Storage, count: int, needed: int, folder: Path) -> str:
    """The sentence that tells where the images are stored."""
    size = f"{needed / 1e9:.1f} GB" if needed >= 1e9 else f"{needed / 1e6:.0f} MB"
    where = {
        "device": "kept in device memory",
        "memory": "kept in memory",
        "disk": f"kept in {folder}, mapped into memory",
        "stream": "too large to keep: decoded each time they are needed, ahead of their use",
    }[storage]
    return f"{count} images, {size} at the input size: {where}"
