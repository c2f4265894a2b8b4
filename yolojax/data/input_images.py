"""`InputImages`: the images of a data set, resized to the network's input size, with padded targets.

`build_cache` decodes and resizes every image once, in threads, and a batch is then one gather for each array.
`yolojax.data.cache` keeps the images on devices or on disk, `yolojax.data.stream` decodes them each time, and
`yolojax.data.storage.open_input_images` chooses among them.
"""

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Array, Float32, Int, Int32, UInt8
from PIL import Image

from yolojax.data.columns import Columns
from yolojax.data.dataset import Dataset, ImageRecord
from yolojax.data.images import resize_bilinear
from yolojax.data.summary import Finding, Summary
from yolojax.errors import ConfigError, DataError
from yolojax.geometry import Placement, Preprocess, place_on_input, scale_and_offset
from yolojax.processor.memory import available_cores
from yolojax.progress import Progress
from yolojax.structures import Batch, Targets

Pixels = UInt8[np.ndarray, "B H W 3"] | UInt8[Array, "B H W 3"]

SMALLEST_PADDING = 32


def make_input_image(
    image: UInt8[np.ndarray, "h w 3"], input_size: tuple[int, int], preprocess: Preprocess
) -> tuple[UInt8[np.ndarray, "H W 3"], Placement]:
    """Resizes an RGB photo to the network's input size ``(H, W)``, padded with grey.

    The filter is Pillow's bilinear one, which is antialiased: its support grows with the reduction, so that small
    objects do not disappear. Where ``preprocess.filter`` is ``bilinear`` it is `resize_bilinear`.

    Returns:
      the input image and where the photo lies on it.

    Raises:
      ConfigError: the photo or the input size has no pixel.
    """
    placement = place_on_input((image.shape[0], image.shape[1]), input_size, preprocess)
    if image.shape[:2] != (placement.height, placement.width):
        if preprocess.filter == "bilinear":
            image = resize_bilinear(image, (placement.height, placement.width))
        else:
            resized = Image.fromarray(image).resize((placement.width, placement.height), Image.Resampling.BILINEAR)
            image = np.asarray(resized)
    out = np.full((*input_size, 3), preprocess.pad, np.uint8)
    bottom, right = placement.top + placement.height, placement.left + placement.width
    out[placement.top : bottom, placement.left : right] = image
    return out, placement


def load_input_image(
    record: ImageRecord, input_size: tuple[int, int], preprocess: Preprocess
) -> tuple[UInt8[np.ndarray, "H W 3"], Placement]:
    """Decodes an image of a data set and applies `make_input_image`; raises `DataError` when it cannot be decoded."""
    return make_input_image(record.pixels(), input_size, preprocess)


def padded_objects(dataset: Dataset, cap: int | None = None) -> int:
    """``M``: the smallest of 32, 64, 128, ... that holds the image with the most objects, or ``cap`` if that is less.

    Objects beyond a cap are dropped from the targets and counted in ``Targets.dropped``.
    """
    if cap is not None and cap < 1:
        raise ConfigError(f"the cap on objects per image is {cap}; it must be at least 1")
    most = int(dataset.columns.counts.max(initial=0))
    padded = SMALLEST_PADDING
    while padded < most:
        padded *= 2
    return padded if cap is None else min(padded, cap)


@dataclass(frozen=True, eq=False)
class InputImages(ABC):
    """The ``n`` images of a data set, resized to the network's input size.

    Subclasses differ in where the pixels are kept: `ImageCache`, `DeviceCache`, `DiskCache`, `ImageStream`.

    Attributes:
      dataset: exactly these images, in this order.
      input_size: ``(H, W)`` in pixels.
      preprocess: how photos were resized and padded.
      max_objects: ``M``, to which the objects of each image are padded.
      sizes: ``(height, width)`` of the originals.
      content: the box ``(x1, y1, x2, y2)`` of the input image that each photo covers, in input pixels.
      image_ids: the data set's own, int32 where they fit and int64 otherwise; they stay on the host.
    """

    dataset: Dataset
    input_size: tuple[int, int]
    preprocess: Preprocess
    max_objects: int
    sizes: Int32[np.ndarray, "n 2"] = field(repr=False)
    content: Float32[np.ndarray, "n 4"] = field(repr=False)
    image_ids: Int[np.ndarray, " n"] = field(repr=False)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image_ids)

    @functools.cached_property
    def targets(self) -> Targets:
        """All objects, padded to ``M`` for each image; boxes in input pixels. Batches are made without it."""
        return self.targets_of(np.arange(len(self)))

    def targets_of(self, indices: Int[np.ndarray, " B"]) -> Targets:
        """The objects of these images, padded to ``M`` for each image; boxes in input pixels. NumPy arrays."""
        return pad_targets(self.dataset.columns, self.content, self.max_objects, indices)

    @property
    def dropped(self) -> int:
        """How many objects of all images do not fit the padding."""
        return int(np.maximum(self.dataset.columns.counts - self.max_objects, 0).sum())

    @abstractmethod
    def load(self, indices: Int[np.ndarray, " B"]) -> tuple[Pixels, Int[np.ndarray, " B"]]:
        """Returns the pixels for these indices and the indices that were actually loaded.

        They differ where a damaged image was replaced. Any number of indices is allowed.
        """

    def batch(self, indices: Int[np.ndarray, " B"]) -> Batch:
        """The batch of these images."""
        return self.assemble(*self.load(indices))

    def batches(
        self, order: Callable[[int], Int[np.ndarray, " B"]], first_step: int = 0
    ) -> Iterator[tuple[Int[np.ndarray, " B"], Batch]]:
        """For each step from ``first_step`` on, endlessly: the loaded indices and the batch for ``order(step)``."""
        for step in itertools.count(first_step):
            pixels, loaded = self.load(order(step))
            yield loaded, self.assemble(pixels, loaded)

    def assemble(self, pixels: Pixels, indices: Int[np.ndarray, " B"]) -> Batch:
        """A batch of pixels that are loaded; the targets are NumPy arrays."""
        images: Any = pixels  # on the host the pytrees hold NumPy arrays; their annotations speak of the device
        return Batch(images, self.targets_of(indices))


@dataclass(frozen=True, eq=False)
class ImageCache(InputImages):
    """Input images that were all decoded once and are kept in memory, as RGB uint8; a batch costs one gather."""

    images: UInt8[np.ndarray, "n H W 3"] = field(repr=False)

    def load(self, indices: Int[np.ndarray, " B"]) -> tuple[Pixels, Int[np.ndarray, " B"]]:
        """Copies the pixels of these images."""
        return self.images[indices], indices


def input_image_fields(
    dataset: Dataset, input_size: tuple[int, int], preprocess: Preprocess, max_objects: int | None = None
) -> dict[str, Any]:
    """All fields of `InputImages` for a data set; no image is decoded."""
    columns = dataset.columns
    ids = columns.image_ids
    return {
        "dataset": dataset,
        "input_size": input_size,
        "preprocess": preprocess,
        "max_objects": padded_objects(dataset) if max_objects is None else max_objects,
        "sizes": columns.sizes,
        "content": contents_of(columns.sizes, input_size, preprocess),
        "image_ids": ids.astype(np.int32) if ids.max() <= np.iinfo(np.int32).max else ids,
    }


def contents_of(
    sizes: Int32[np.ndarray, "n 2"], input_size: tuple[int, int], preprocess: Preprocess
) -> Float32[np.ndarray, "n 4"]:
    """`Placement.content` of photos of these sizes ``(h, w)``; each size is computed once."""
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    placed = [place_on_input((h, w), input_size, preprocess).content for h, w in different.tolist()]
    return np.array(placed, np.float32).reshape(-1, 4)[which.reshape(-1)]


def build_cache(
    dataset: Dataset,
    input_size: tuple[int, int],
    preprocess: Preprocess,
    *,
    max_objects: int | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> ImageCache:
    """Decodes and resizes every image of a data set into memory; this takes ``n * H * W * 3`` bytes.

    Args:
      dataset: what to cache.
      input_size: ``(H, W)`` in pixels.
      preprocess: how photos are resized and padded.
      max_objects: ``M`` (see `padded_objects`, the default); of an image with more objects the crowd regions are
        dropped first, then the smallest objects.
      progress: called after each image.
      threads: how many decode at once; by default one per processor, at most 8.

    Raises:
      DataError: an image cannot be decoded (with the data set's ``skip_bad`` it is left out of the cache and of its
        ``dataset``, and named in the summary), or none is left.
    """
    images = np.empty((len(dataset), *input_size, 3), np.uint8)
    kept, left = decode_all(dataset, images, preprocess, progress=progress, threads=threads)
    fields = input_image_fields(left, input_size, preprocess, max_objects)
    return ImageCache(**fields, images=images if len(kept) == len(dataset) else images[kept])


def decode_all(
    dataset: Dataset,
    images: UInt8[np.ndarray, "n H W 3"],
    preprocess: Preprocess,
    *,
    progress: Progress | None = None,
    threads: int | None = None,
) -> tuple[list[int], Dataset]:
    """Decodes all images into ``images``; returns the indices that were decoded and the data set of these images."""
    n, input_size = len(dataset), (images.shape[1], images.shape[2])
    kept: list[int] = []
    findings: list[Finding] = []

    def load(i: int) -> None:
        images[i], _ = load_input_image(dataset.records[i], input_size, preprocess)

    with ThreadPoolExecutor(threads or default_threads()) as pool:
        futures = [pool.submit(load, i) for i in range(n)]
        try:
            for i, future in enumerate(futures):
                try:
                    future.result()
                    kept.append(i)
                except DataError as error:
                    if not dataset.skip_bad:
                        raise
                    findings.append(Finding("skipped", dataset.records[i].file_name, str(error)))
                if progress is not None:
                    progress(i + 1, n)
        except BaseException:  # an interrupt too: do not decode the rest before it is seen
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if not kept:
        first = f"; the first: {findings[0].detail}" if findings else ""
        raise DataError(f"the data set holds no image that can be decoded{first}")
    return kept, replace(dataset.take(kept), summary=dataset.summary + Summary(tuple(findings)))


def default_threads() -> int:
    """One thread for each processor, at most 8: more of them would wait for memory."""
    return min(8, available_cores())


def pad_targets(
    columns: Columns, content: Float32[np.ndarray, "n 4"], max_objects: int, indices: Int[np.ndarray, " B"]
) -> Targets:
    """The objects of some of ``n`` images in input pixels, padded to ``M = max_objects`` for each image; NumPy arrays.

    Padding rows hold the box (0, 0, 1, 1), for which every loss is finite, so that no masked gradient is NaN.

    Args:
      columns: the images.
      content: the box of the input image that each photo covers.
      max_objects: ``M``; of an image with more objects the crowd regions are dropped first, then the smallest objects.
      indices: which of the images.
    """
    n, m = len(indices), max_objects
    boxes: Any = np.tile(np.array([0, 0, 1, 1], np.float32), (n, m, 1))
    classes: Any = np.zeros((n, m), np.int32)
    valid: Any = np.zeros((n, m), bool)
    crowd: Any = np.zeros((n, m), bool)
    counts = columns.counts[indices]
    rows = columns.rows(indices)
    if (counts > m).any():
        ends = np.cumsum(counts)
        kept = [_kept_objects(columns, rows[end - count : end], m) for end, count in zip(ends, counts, strict=True)]
        rows, counts = np.concatenate(kept), np.minimum(counts, m)
    image = np.repeat(np.arange(n), counts)
    row = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    scale, offset = scale_and_offset(columns.sizes[indices], content[indices])
    boxes[image, row] = (columns.boxes[rows].astype(np.float64) * scale[image] + offset[image]).astype(np.float32)
    classes[image, row] = columns.classes[rows]
    valid[image, row] = True
    crowd[image, row] = columns.crowd[rows]
    dropped: Any = (columns.counts[indices] - counts).astype(np.int32)
    return Targets(boxes, classes, valid, crowd, dropped)


def _kept_objects(columns: Columns, rows: Int[np.ndarray, " k"], m: int) -> Int[np.ndarray, " k2"]:
    """The objects to keep when only ``m`` fit, in the order of the file; content decides ties, never order."""
    if len(rows) <= m:
        return rows
    x1, y1, x2, y2 = columns.boxes[rows].T
    extent = (x2 - x1) * (y2 - y1)
    # The last key counts first.
    order = np.lexsort((columns.classes[rows], y2, x2, y1, x1, -extent, columns.crowd[rows]))
    return np.sort(rows[order[:m]])


def choose_input_size(dataset: Dataset, size: int, *, rectangular: bool = True) -> tuple[int, int]:
    """``(height, width)``: a square of ``size``, or with ``rectangular`` shortened where all images share a ratio.

    The short side is rounded up to a multiple of 32, so that nothing of a photo is lost. Raises `ConfigError` when
    ``size`` is not a multiple of 32.
    """
    if size < 32 or size % 32:
        raise ConfigError(f"model.size = {size}: give a multiple of 32, the largest stride")
    ratios = {round(h / w, 2) for h, w in np.unique(dataset.columns.sizes, axis=0).tolist()}
    if not rectangular or len(ratios) != 1:
        return size, size
    height, width = dataset.records[0].size
    short = min(size, 32 * max(1, -(-round(size * min(height, width) / max(height, width)) // 32)))
    return (short, size) if height < width else (size, short)


def box_sizes_on_input(dataset: Dataset, input_size: tuple[int, int]) -> Float32[np.ndarray, "n 2"]:
    """Widths and heights ``[n, 2]`` of all objects in input pixels, crowd regions left out."""
    columns = dataset.columns
    scale, _ = scale_and_offset(columns.sizes, contents_of(columns.sizes, input_size, Preprocess()))
    ordinary = ~columns.crowd
    sides = (columns.boxes[:, 2:] - columns.boxes[:, :2])[ordinary]
    return sides * scale[columns.image_of[ordinary], :2].astype(np.float32)
