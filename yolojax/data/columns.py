"""The images and objects of a data set as columns: one array for each attribute, and offsets instead of lists.

A hundred thousand images with a million objects take some fifty megabytes so, and what is computed of all of them is
computed at once. `Records` shows the columns as a sequence of records.
"""

import functools
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8, UInt64

from yolojax.data.images import as_rgb, decoded_size, read_image
from yolojax.errors import DataError, shortened

Source = Path | UInt8[np.ndarray, "h w 3"] | Callable[[], Any]
"""An image file, the pixels themselves, or a function that gives the pixels."""


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its ``n`` objects.

    Attributes:
      image_id: at least 0 and unique; the file's own for COCO JSON, else 1, 2, ... in the order of the data set.
      file_name: relative to the folder of the images.
      source: the file, the pixels themselves, or a function that gives them each time they are needed.
      size: ``(height, width)`` that the boxes refer to, in pixels.
      boxes: ``(x1, y1, x2, y2)`` in original pixels, inside the image, each with a positive width and height.
      classes: index into the data set's ``class_names``.
      crowd: in training neither object nor background: COCO's ``iscrowd``, or a difficult object.
      difficult: VOC's ``difficult`` (COCO: ``ignore``); ordinary objects of the COCO metric.
      areas: in square pixels, COCO's mask area where the file has one; decides small, medium and large.
      annotation_ids: unique in the data set and at least 1.
      upright: whether an EXIF orientation is to be applied on decoding (see `yolojax.data.images`).
    """

    image_id: int
    file_name: str
    source: Source
    size: tuple[int, int]
    boxes: Float32[np.ndarray, "n 4"]
    classes: Int32[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    difficult: Bool[np.ndarray, " n"]
    areas: Float64[np.ndarray, " n"]
    annotation_ids: Int64[np.ndarray, " n"]
    upright: bool = True

    def pixels(self) -> UInt8[np.ndarray, "h w 3"]:
        """The image as RGB uint8.

        Raises `DataError` when the file cannot be decoded, the function that gives the image raises or gives something
        else, or the size is not that of the record.
        """
        if isinstance(self.source, np.ndarray):
            return self.source
        if isinstance(self.source, Path):
            name, image = str(self.source), read_image(self.source, upright=self.upright)
        else:
            name = self.file_name
            try:
                given = self.source()
            except DataError:  # names the file itself
                raise
            except Exception as error:
                raise DataError(
                    f"{name}: the function that gives this image raised {shortened(repr(error))}"
                ) from error
            image = as_rgb(given, name)
            if image.shape[:2] != self.size:
                raise DataError(
                    f"{name}: the function that gives this image gave (height, width) = {image.shape[:2]}, but the "
                    f"record states size = {self.size}"
                )
        self._check_size((image.shape[0], image.shape[1]), name)
        return image

    def _check_size(self, size: tuple[int, int], name: str) -> None:
        if size != self.size:
            raise _other_size(size, self.size, name)


def _other_size(size: tuple[int, int], before: tuple[int, int], name: str) -> DataError:
    return DataError(
        f"{name}: decodes to {size[1]} x {size[0]} pixels, but was {before[1]} x {before[0]} when the data set was "
        "opened; open the data set again"
    )


@dataclass(frozen=True, eq=False)
class Columns:
    """``n`` images with ``N`` objects; the attributes are those of `ImageRecord`.

    Attributes:
      image_ids, file_names, sizes, upright: of each image.
      sources: of each image: a text, which is the path of a file, or a `Source`.
      starts: the objects of image ``i`` are the rows ``starts[i]`` up to ``starts[i + 1]``.
      boxes, classes, crowd, difficult, areas, annotation_ids: of each object.
    """

    image_ids: Int64[np.ndarray, " n"]
    file_names: Sequence[str]
    sources: Sequence[Any]
    sizes: Int32[np.ndarray, "n 2"]
    upright: Bool[np.ndarray, " n"]
    starts: Int64[np.ndarray, " n_and_1"]
    boxes: Float32[np.ndarray, "N 4"]
    classes: Int32[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    difficult: Bool[np.ndarray, " N"]
    areas: Float64[np.ndarray, " N"]
    annotation_ids: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image_ids)

    @property
    def counts(self) -> Int64[np.ndarray, " n"]:
        """The number of objects of each image."""
        return np.diff(self.starts)

    @property
    def image_of(self) -> Int64[np.ndarray, " N"]:
        """The position of the image of each object."""
        return np.repeat(np.arange(len(self)), self.counts)

    def check_pixels(self, i: int) -> None:
        """Raises `DataError` where `ImageRecord.pixels` of image ``i`` does; of a file it makes no array."""
        source = self.sources[i]
        if not isinstance(source, str | Path):
            self.record(i).pixels()
            return
        size, before = decoded_size(source, upright=bool(self.upright[i])), tuple(self.sizes[i].tolist())
        if size != before:
            raise _other_size(size, before, str(source))

    @functools.cached_property
    def repeated(self) -> int:
        """The number of objects that repeat another of the same class and box on their image exactly."""
        if not len(self.boxes):
            return 0
        boxes = np.ascontiguousarray(self.boxes + np.float32(0))  # so that -0 is 0
        image_and_class = self.image_of.astype(np.uint64) << np.uint64(32) | self.classes.astype(np.uint64)
        keys = np.column_stack([boxes.view(np.uint64), image_and_class])
        mixed = (keys * _MIXING).sum(1)  # equal rows have equal numbers: only rows whose number repeats are compared
        of_equals = np.isin(mixed, _repeated_values(mixed))
        keys = keys[of_equals]
        keys = keys[np.lexsort(keys.T)]
        return int((keys[1:] == keys[:-1]).all(1).sum())

    def rows(self, indices: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " K"]:
        """The rows of the objects of these images, image by image."""
        counts = self.counts[indices]
        before = np.cumsum(counts) - counts
        return np.repeat(self.starts[indices] - before, counts) + np.arange(counts.sum())

    def take(self, indices: Sequence[int]) -> "Columns":
        """The columns of these images, in this order."""
        chosen = np.asarray(indices, np.int64).reshape(-1)
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        rows = self.rows(chosen)
        places: list[int] = chosen.tolist()
        return Columns(
            image_ids=self.image_ids[chosen],
            file_names=[self.file_names[i] for i in places],
            sources=[self.sources[i] for i in places],
            sizes=self.sizes[chosen],
            upright=self.upright[chosen],
            starts=offsets_of(self.counts[chosen]),
            boxes=self.boxes[rows],
            classes=self.classes[rows],
            crowd=self.crowd[rows],
            difficult=self.difficult[rows],
            areas=self.areas[rows],
            annotation_ids=self.annotation_ids[rows],
        )

    def record(self, i: int) -> ImageRecord:
        """The record of one image; its arrays are views of the columns."""
        rows = slice(int(self.starts[i]), int(self.starts[i + 1]))
        source = self.sources[i]
        h, w = self.sizes[i].tolist()
        return ImageRecord(
            image_id=int(self.image_ids[i]),
            file_name=self.file_names[i],
            source=Path(source) if isinstance(source, str) else source,
            size=(h, w),
            boxes=self.boxes[rows],
            classes=self.classes[rows],
            crowd=self.crowd[rows],
            difficult=self.difficult[rows],
            areas=self.areas[rows],
            annotation_ids=self.annotation_ids[rows],
            upright=bool(self.upright[i]),
        )

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> "Columns":
        """The columns of records."""

        def joined(name: str, kind: type, shape: tuple[int, ...] = ()) -> Any:
            return np.concatenate([np.zeros((0, *shape), kind), *(getattr(r, name) for r in records)])

        return cls(
            image_ids=np.array([r.image_id for r in records], np.int64),
            file_names=[r.file_name for r in records],
            sources=[r.source for r in records],
            sizes=np.array([r.size for r in records], np.int32).reshape(-1, 2),
            upright=np.array([r.upright for r in records], bool),
            starts=offsets_of([len(r.boxes) for r in records]),
            boxes=joined("boxes", np.float32, (4,)),
            classes=joined("classes", np.int32),
            crowd=joined("crowd", bool),
            difficult=joined("difficult", bool),
            areas=joined("areas", np.float64),
            annotation_ids=joined("annotation_ids", np.int64),
        )


_MIXING = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


def _repeated_values(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " k"]:
    """The values that occur more than once."""
    ordered = np.sort(values)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def offsets_of(counts: Sequence[int] | Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n_and_1"]:
    """Where the rows of each of ``n`` images begin, and at last where they end."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


_KINDS = {"q": np.int64, "d": np.float64, "i": np.int32, "b": np.int8}


def as_numpy(column: array) -> np.ndarray:  # pyright: ignore[reportMissingTypeArgument]
    """A copy of an array of Python's, whose 64 bits NumPy would otherwise call ``longlong``."""
    return np.array(column, _KINDS[column.typecode])


class Records(Sequence[ImageRecord]):
    """Columns as a sequence of records, each made when somebody asks for it."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def __len__(self) -> int:
        """The number of images."""
        return len(self.columns)

    def __repr__(self) -> str:
        return f"<{len(self)} images with {len(self.columns.boxes)} objects>"

    @overload
    def __getitem__(self, index: SupportsIndex) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice) -> "Records": ...

    def __getitem__(self, index: SupportsIndex | slice) -> "ImageRecord | Records":
        """One record, by a number of Python or of NumPy, or those of a slice."""
        n = len(self.columns)
        if isinstance(index, slice):
            return Records(self.columns.take(range(n)[index]))
        return self.columns.record(range(n)[index])

    def __iter__(self) -> Iterator[ImageRecord]:
        """The records in order."""
        return map(self.columns.record, range(len(self.columns)))
