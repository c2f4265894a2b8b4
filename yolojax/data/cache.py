"""Input images that were decoded once and are kept in device memory or in a memory-mapped file."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Int, UInt8

from yolojax.data.dataset import Dataset
from yolojax.data.input_images import (
    ImageCache,
    InputImages,
    Pixels,
    decode_all,
    input_image_fields,
    load_input_image,
)
from yolojax.data.summary import Finding, Summary
from yolojax.errors import DataError, WriteError
from yolojax.files import write_whole
from yolojax.geometry import Preprocess
from yolojax.progress import Progress

Gather = Callable[[Array, Int[np.ndarray, " B"]], UInt8[Array, "B H W 3"]]


@dataclass(frozen=True, eq=False)
class DeviceCache(InputImages):
    """Input images in the memory of every device: loading a batch is one gather there, and the host sends indices only.

    Attributes:
      images: all images, whole on each device.
      split: how a batch is divided over the devices.
      gather_split, gather_whole: ``(images, indices) -> pixels``, compiled; divided over the devices or whole on each.
    """

    images: UInt8[Array, "n H W 3"] = field(repr=False)
    split: NamedSharding
    gather_split: Gather = field(repr=False)
    gather_whole: Gather = field(repr=False)

    def load(self, indices: Int[np.ndarray, " B"]) -> tuple[Pixels, Int[np.ndarray, " B"]]:
        """These images on the devices: divided as ``split`` says, or whole on each where ``B`` does not divide."""
        parts = self.split.num_devices if self.split.spec else 1
        gather = self.gather_split if len(indices) % parts == 0 else self.gather_whole
        return gather(self.images, indices.astype(np.int32)), indices


def to_devices(cache: ImageCache, replicated: NamedSharding, split: NamedSharding) -> DeviceCache:
    """Copies a cache in memory to the devices: all of it to each (``replicated``), its batches divided (``split``)."""
    fields = {name: getattr(cache, name) for name in InputImages.__dataclass_fields__}

    def gather(images: Array, indices: Array) -> Array:
        return images[indices]

    return DeviceCache(
        **fields,
        images=jax.device_put(cache.images, replicated),
        split=split,
        gather_split=jax.jit(gather, out_shardings=split),
        gather_whole=jax.jit(gather, out_shardings=replicated),
    )


@dataclass(frozen=True, eq=False)
class DiskCache(InputImages):
    """Input images in a memory-mapped file; the system keeps in memory what fits.

    Attributes:
      images: of all files that the cache was made from.
      rows: the row of each image of ``dataset``.
    """

    images: UInt8[np.ndarray, "files H W 3"] = field(repr=False)
    rows: Int[np.ndarray, " n"] = field(repr=False)

    def load(self, indices: Int[np.ndarray, " B"]) -> tuple[Pixels, Int[np.ndarray, " B"]]:
        """Copies the pixels of these images, from the disk where the system does not hold them in memory."""
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
    """The input images of a data set, decoded once into a file in ``folder`` that later runs map into memory.

    The name of the file is a hash of the data set (`Dataset.fingerprint`), of the sizes and times of its image files,
    of the input size and of the preprocessing. A description beside it, written last, says that the file is whole and
    which images could not be decoded. Arguments and errors are those of `build_cache`; also raises `DataError` when the
    disk refuses.
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
            os.replace(temporary, pixels)  # no `write_whole`: the content may not fit into memory
            write_whole(description, json.dumps({"kept": kept}))
        except (OSError, WriteError) as error:
            raise DataError(f"cannot write a cache of images to {folder}: {error}; give another folder") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    else:
        # The summary names why images were left out, for which these files alone are decoded again.
        left = dataset.take(kept)
        bad = sorted(set(range(len(dataset))) - set(kept))
        if bad:
            left = _name_bad(dataset, bad, left, input_size, preprocess)
    rows = np.array(kept, np.int64)
    images = np.load(pixels, mmap_mode="r")
    return DiskCache(**input_image_fields(left, input_size, preprocess, max_objects), images=images, rows=rows)


def _file_state(source: object) -> tuple[str, int, int] | None:
    """Path, size and time of change of an image file, so that a cache is not used after the file has changed."""
    if not isinstance(source, Path):
        return None
    try:
        status = source.stat()
    except OSError:  # missing: decoding will say so
        return str(source), -1, -1
    return str(source.absolute()), status.st_size, status.st_mtime_ns


def _whole(pixels: Path, description: Path, shape: tuple[int, ...]) -> list[int] | None:
    """The indices of the images in a finished cache; None when it is missing, unfinished or of another shape."""
    try:
        kept = [int(i) for i in json.loads(description.read_text())["kept"]]
        images = np.load(pixels, mmap_mode="r")
    except (OSError, EOFError, ValueError, KeyError, TypeError):
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
