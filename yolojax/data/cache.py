"""Where decoded input images are kept, chosen by their size: in device memory, in memory, on disk, or not at all."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, UInt8

from yolojax.data.dataset import Dataset
from yolojax.data.feed import ImageCache, InputImages, Pixels, Progress, decode_all, lay_out, load_input_image
from yolojax.data.summary import Finding, Summary
from yolojax.errors import ConfigError, DataError
from yolojax.geometry import Preprocess

Storage = Literal["device", "memory", "disk", "stream"]


class Room(NamedTuple):
    """Bytes that may be taken: of each device (None: computing is done in the host's own memory), memory and disk."""

    device: int | None
    memory: int
    disk: int


def choose_storage(needed: int, room: Room) -> Storage:
    """The fastest place that has room: device, memory, disk; else images are decoded each time they are needed."""
    if room.device is not None and needed <= room.device:
        return "device"
    if needed <= room.memory:
        return "memory"
    return "disk" if needed <= room.disk else "stream"


def measure_room(folder: Path) -> Room:
    """What there is now: a quarter of the free memory of a device, half of the free memory and disk of this machine."""
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    on_device = (stats["bytes_limit"] - stats["bytes_in_use"]) // 4 if stats and "bytes_limit" in stats else None
    existing = next((p for p in (folder, *folder.parents) if p.exists()), Path("."))
    return Room(on_device, free_memory() // 2, shutil.disk_usage(existing).free // 2)


def free_memory() -> int:
    """Bytes of memory that programs can still get, within the limit of a container; a guess where nothing tells."""
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
    """``yolojax`` in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolojax"


@dataclass(frozen=True, eq=False)
class DeviceCache(InputImages):
    """InputImages in the memory of every device; a batch of pixels is one gather there, and nothing goes over the
    wire."""

    images: UInt8[Array, "n H W 3"] = field(repr=False)
    gather: Callable[[Array, Int[np.ndarray, " B"]], UInt8[Array, "B H W 3"]] = field(repr=False)

    def load(self, indices: Int[np.ndarray, " B"]) -> tuple[Pixels, Int[np.ndarray, " B"]]:
        """These input images, on the devices."""
        return self.gather(self.images, indices.astype(np.int32)), indices


def to_devices(cache: ImageCache, replicated: jax.sharding.Sharding, split: jax.sharding.Sharding) -> DeviceCache:
    """A cache in memory, moved to the devices: all of it on each (``replicated``), its batches ``split``."""
    fields = {name: getattr(cache, name) for name in InputImages.__dataclass_fields__}
    gather = jax.jit(lambda images, indices: images[indices], out_shardings=split)
    return DeviceCache(**fields, images=jax.device_put(cache.images, replicated), gather=gather)


@dataclass(frozen=True, eq=False)
class DiskCache(InputImages):
    """InputImages in a memory-mapped file; the system keeps in memory what fits."""

    images: UInt8[np.ndarray, "files H W 3"] = field(repr=False)
    rows: Int[np.ndarray, " n"] = field(repr=False)

    def load(self, indices: Int[np.ndarray, " B"]) -> tuple[Pixels, Int[np.ndarray, " B"]]:
        """A copy of these input images, read from the disk where the system does not hold them in memory."""
        return np.asarray(self.images[self.rows[indices]]), indices


def build_disk_cache(
    dataset: Dataset,
    input_size: tuple[int, int],
    preprocess: Preprocess,
    folder: Path,
    *,
    max_objects: int | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> DiskCache:
    """The input images of a data set in a file below ``folder``, decoded once: a later run with the same images maps
    it.

    The file's name is a hash of the images (and of their files' sizes and times), the input image and the
    preprocessing; a description, written last, says that it is whole, and which images could not be decoded. Arguments
    and errors are those of `yolojax.data.feed.build_cache`; also raises `DataError` when the disk refuses.
    """
    files = [_file_state(r.source) for r in dataset.records]
    what = json.dumps([dataset.fingerprint(), files, input_size, asdict(preprocess), dataset.skip_bad], sort_keys=True)
    name = hashlib.sha256(what.encode()).hexdigest()[:32]
    pixels, description = folder / f"{name}.npy", folder / f"{name}.json"
    if (kept := _whole(pixels, description, (len(dataset), *input_size, 3))) is None:
        mark = uuid.uuid4().hex  # several machines may write at once
        temporary = folder / f"{name}.{mark}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            description.unlink(missing_ok=True)
            images = np.lib.format.open_memmap(
                temporary, mode="w+", dtype=np.uint8, shape=(len(dataset), *input_size, 3)
            )
            kept, left = decode_all(dataset, images, preprocess, progress=progress, threads=threads)
            images.flush()
            del images
            os.replace(temporary, pixels)
            unfinished = description.with_suffix(f".{mark}.json.tmp")
            unfinished.write_text(json.dumps({"kept": kept}))
            os.replace(unfinished, description)
        except OSError as error:
            raise DataError(f"cannot write a cache of images to {folder}: {error}; give another folder") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    else:
        # A summary that names what was left out needs the reasons, and those need another look at these files alone.
        left = dataset.take(kept)
        bad = sorted(set(range(len(dataset))) - set(kept))
        if bad:
            left = _name_bad(dataset, bad, left, input_size, preprocess)
    rows = np.array(kept, np.int64)
    images = np.load(pixels, mmap_mode="r")
    return DiskCache(**lay_out(left, input_size, preprocess, max_objects), images=images, rows=rows)


def _file_state(source: object) -> tuple[str, int, int] | None:
    """Path, size and time of change of an image file: a cache must not outlive the file that it was made from."""
    if not isinstance(source, Path):
        return None
    try:
        status = source.stat()
    except OSError:  # missing: decoding will say so
        return str(source), -1, -1
    return str(source.absolute()), status.st_size, status.st_mtime_ns


def _whole(pixels: Path, description: Path, shape: tuple[int, ...]) -> list[int] | None:
    """Which images a finished cache holds; None when it is missing, unfinished or not what its name says."""
    try:
        kept = [int(i) for i in json.loads(description.read_text())["kept"]]
        images = np.load(pixels, mmap_mode="r")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if images.shape == shape and images.dtype == np.uint8 and kept else None


def _name_bad(
    dataset: Dataset, bad: list[int], left: Dataset, input_size: tuple[int, int], preprocess: Preprocess
) -> Dataset:
    findings = []
    for i in bad:
        try:
            load_input_image(dataset.records[i], input_size, preprocess)
            detail = "was damaged when the cache was made; remove the cache to use it"
        except DataError as error:
            detail = str(error)
        findings.append(Finding("skipped", dataset.records[i].file_name, detail))
    return replace(left, summary=dataset.summary + Summary(tuple(findings)))


def check_storage(asked: str, room: Room, needed: int) -> None:
    """Raises `ConfigError` when there is no device memory, memory or disk for what was asked for by name."""
    have = {"device": room.device or 0, "memory": room.memory, "disk": room.disk}.get(asked)
    if have is not None and needed > have:
        raise ConfigError(
            f"data.cache = {asked!r}: the images need {needed / 1e9:.1f} GB, and {have / 1e9:.1f} GB may be taken; "
            "give auto, or a place with more room"
        )
