"""From the objects of annotation files or of arrays to checked records: clip, drop, count and name."""

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from os.path import isfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from yolojax.data.columns import Columns, Records, Source, as_numpy, offsets_of
from yolojax.data.doubts import Doubts, Rows
from yolojax.data.images import Header, quick_header, read_header, resolve_size
from yolojax.data.summary import Finding, Notebook
from yolojax.errors import DataError, shortened, shown
from yolojax.paths import is_class_name

ROUNDING = 0.05
"""Pixels by which a box may pass the edge of its image unreported: files round their coordinates."""


_LONGEST_NUMBER = 100


class RawObject(NamedTuple):
    """An object as its file has it: its number there, and its box ``(x1, y1, x2, y2)`` in original pixels.

    ``area`` and ``annotation_id`` are None when the file has none.
    """

    number: int
    box: tuple[float, float, float, float]
    class_index: int
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    annotation_id: int | None = None


class ObjectColumns(NamedTuple):
    """What `RawObject` says of each of ``N`` objects; an area that is not given is NaN, an annotation id 0."""

    numbers: Int64[np.ndarray, " N"]
    boxes: Float64[np.ndarray, "N 4"]
    classes: Int32[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    difficult: Bool[np.ndarray, " N"]
    areas: Float64[np.ndarray, " N"]
    annotation_ids: Int64[np.ndarray, " N"]


class RecordBuilder:
    """Collects images with their objects, and makes records of all of them together.

    Annotations are numbered from 1 where the file does not.

    Attributes:
      notebook: what was repaired or noticed.
      images_needed: whether a missing image is an error also where its annotation states its size.
      doubts: what looks wrong in all objects together.
      with_dropped: after `close`, for the images of which boxes were dropped: the ids of all their annotations.
    """

    def __init__(
        self, notebook: Notebook, rows: Rows = "xyxy", *, images_needed: bool = True, word: str = "object"
    ) -> None:
        """Begins without an image.

        Args:
          notebook: takes what is repaired.
          rows: how the format writes a box, for the words of a doubt.
          images_needed: as the attribute.
          word: what the number of an object counts in its file: ``line``, ``annotation``.
        """
        self.notebook = notebook
        self.images_needed = images_needed
        self.doubts = Doubts(rows)
        self.with_dropped: dict[int, list[int]] = {}
        self._word = word
        self._missing = 0
        self._images = array("q")  # id, height, width, upright, number of objects, findings before it
        self._file_names: list[str] = []
        self._sources: list[str | Source] = []
        self._places: list[str] = []
        self._rows = (array("q"), array("d"), array("i"), array("b"), array("b"), array("d"), array("q"))

    def __len__(self) -> int:
        """The number of images so far."""
        return len(self._file_names)

    @property
    def files(self) -> set[str]:
        """The image files so far."""
        return {source for source in self._sources if isinstance(source, str)}

    def open_image(
        self,
        path: Path | str,
        stated: tuple[int, int] | None,
        where: str,
        boxes: Sequence[tuple[float, float, float, float]] | Float64[np.ndarray, "n 4"] = (),
    ) -> tuple[tuple[int, int], bool]:
        """Size and orientation of an image from its header, against the size that ``where`` states, if any.

        ``boxes``, rows ``(x1, y1, x2, y2)`` in pixels, decide where a size is stated that a photo has as it is stored
        but not as it is shown: tools that do not know EXIF draw on the first, and some that do still state it.

        Raises `DataError` when the file is missing or no image, or when the sizes contradict each other.
        """
        if not self.images_needed and stated is not None and not isfile(path):
            self._missing += 1
            return stated, True
        header = quick_header(path)
        if header is not None and stated in (None, header.stored):
            return header.stored, True
        path = Path(path)
        header = header or read_header(path)
        self.doubts.add_image(path, header)
        size, upright = resolve_size(header, stated, where, path)
        if header.orientation != 1:
            how = "turned upright" if upright else "read as stored: that is the size its annotation states"
            if not upright and len(boxes):
                upright, how = _orientation_of_boxes(header, boxes, how)
                size = header.upright if upright else header.stored
                if "neither" in how or "both" in how:
                    self.notebook.add("doubtful", str(path), f"EXIF orientation {header.orientation}: {how}")
            self.notebook.add("orientation", str(path), f"EXIF orientation {header.orientation}, {how}")
        return size, upright

    def add(
        self,
        image_id: int,
        file_name: str,
        source: str | Source,
        size: tuple[int, int],
        upright: bool,
        where: str,
        objects: Sequence[RawObject],
    ) -> None:
        """Adds an image with its objects."""
        self._add_image(image_id, file_name, source, size, upright, where, len(objects))
        numbers, boxes, classes, crowd, difficult, areas, ids = self._rows
        for o in objects:
            numbers.append(o.number)
            boxes.extend(o.box)
            classes.append(o.class_index)
            crowd.append(o.crowd or o.difficult)
            difficult.append(o.difficult)
            areas.append(math.nan if o.area is None else o.area)
            ids.append(o.annotation_id or 0)

    def add_images(
        self,
        image_ids: Sequence[int],
        file_names: Sequence[str],
        sources: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        upright: Sequence[bool],
        where: str,
        marks: Sequence[int],
        counts: Sequence[int],
        objects: ObjectColumns,
    ) -> None:
        """Adds many images, whose objects are columns already.

        ``counts`` are the numbers of objects of the images, and ``marks`` the numbers of findings when each was opened.
        """
        if len(objects.numbers) != sum(counts):
            raise ValueError(f"{len(objects.numbers)} objects, but the images have {sum(counts)}")
        self._file_names += file_names
        self._sources += sources
        self._places += [where] * len(file_names)
        for image_id, (h, w), is_upright, count, mark in zip(image_ids, sizes, upright, counts, marks, strict=True):
            self._images.extend((image_id, h, w, is_upright, count, mark))
        for column, values in zip(self._rows, objects, strict=True):
            kind = np.dtype(column.typecode)
            column.frombytes(np.ascontiguousarray(values, kind).tobytes())

    def _add_image(
        self,
        image_id: int,
        file_name: str,
        source: str | Source,
        size: tuple[int, int],
        upright: bool,
        where: str,
        count: int,
    ) -> None:
        self._images.extend((image_id, *size, upright, count, self.notebook.count))
        self._file_names.append(file_name)
        self._sources.append(str(source) if isinstance(source, Path) else source)
        self._places.append(where)

    def close(self, where: str) -> Records:
        """The records: boxes clipped to their image, boxes that then have no extent dropped, both noted.

        Notes under ``where`` what looks wrong in all objects together.
        """
        image_ids, heights, widths, upright, counts, marks = as_numpy(self._images).reshape(-1, 6).T
        numbers, raw, classes, crowd, difficult, stated, ids = (as_numpy(column) for column in self._rows)
        raw = raw.reshape(-1, 4)
        image_of = np.repeat(np.arange(len(counts)), counts)
        corner = np.stack([widths, heights], 1).astype(np.float64)[image_of]
        clipped = np.empty(raw.shape, np.float32)
        for half in (slice(0, 2), slice(2, 4)):
            clipped[:, half] = np.clip(raw[:, half], 0, corner)
        has_extent = np.all(clipped[:, 2:] > clipped[:, :2], axis=1)
        beyond = np.maximum(-raw[:, :2], raw[:, 2:] - corner).max(axis=1) > ROUNDING
        found: list[tuple[int, Finding]] = []
        for i in np.flatnonzero(beyond | ~has_extent).tolist():
            kind, image = "clipped" if has_extent[i] else "dropped", int(image_of[i])
            spoken = f"{self._places[image]} {self._word} {numbers[i]}"
            said = _why_changed(raw[i].tolist(), int(widths[image]), int(heights[image]), kind)
            found.append((int(marks[image]), Finding(kind, spoken, said)))
        self.notebook.insert(found)
        self.doubts.add_objects(raw, corner[:, ::-1], stated)
        boxes = clipped[has_extent]
        extent = boxes.astype(np.float64)
        own_areas = (extent[:, 2] - extent[:, 0]) * (extent[:, 3] - extent[:, 1])
        del raw, clipped, corner, extent
        first = offsets_of(counts)
        for image in np.unique(image_of[~has_extent]).tolist():
            self.with_dropped[int(image_ids[image])] = ids[first[image] : first[image + 1]].tolist()
        stated, ids = stated[has_extent], ids[has_extent]
        records = Records(
            Columns(
                image_ids=image_ids.copy(),
                file_names=self._file_names,
                sources=self._sources,
                sizes=np.stack([heights, widths], 1).astype(np.int32),
                upright=upright.astype(bool),
                starts=offsets_of(np.bincount(image_of[has_extent], minlength=len(counts))),
                boxes=boxes,
                classes=classes[has_extent],
                crowd=crowd[has_extent].astype(bool),
                difficult=difficult[has_extent].astype(bool),
                areas=np.where(np.isnan(stated), own_areas, stated),
                annotation_ids=np.where(ids == 0, np.arange(1, len(ids) + 1), ids),
            )
        )
        for sentence in self.doubts.sentences():
            self.notebook.add("doubtful", where, sentence)
        if self._missing:
            self.notebook.add(
                "note", where, f"{self._missing} images are not there; their sizes are those that are stated"
            )
        return records


def _why_changed(box: Sequence[float], w: int, h: int, kind: str) -> str:
    """What is said of a box that was clipped or dropped."""
    x1, y1, x2, y2 = box
    spoken = f"box ({', '.join(f'{v:g}' for v in box)})"
    if kind == "clipped":
        return f"{spoken} in an image of {w} x {h}"
    if x2 < x1 or y2 < y1:
        return f"{spoken} is inverted: its right or lower edge comes before the other one"
    return f"{spoken} has no extent" if x2 == x1 or y2 == y1 else f"{spoken} lies outside the image of {w} x {h}"


def _orientation_of_boxes(
    header: Header,
    boxes: Sequence[tuple[float, float, float, float]] | Float64[np.ndarray, "n 4"],
    as_stated: str,
) -> tuple[bool, str]:
    """Whether boxes were drawn on the upright photo, as the only one into which they fit, and how that is said."""

    def fit(size: tuple[int, int]) -> bool:
        h, w = size
        return all(x2 <= w + 1 and y2 <= h + 1 for _, _, x2, y2 in boxes)

    stored, upright = fit(header.stored), fit(header.upright)
    if header.stored == header.upright or (stored and not upright):
        return False, as_stated
    if upright and not stored:
        return True, "turned upright: its boxes fit only so, although its annotation states the size as stored"
    fits = "fit both ways" if stored else "fit neither way"
    return False, f"{as_stated}; its boxes {fits}, so look at them in a picture"


def finite_number(text: str) -> float | None:
    """The finite number that a text holds, or None: plain digits only, not those of other scripts, and no ``1_000``."""
    if not text.isascii() or "_" in text or len(text) > _LONGEST_NUMBER:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def class_lookup(class_names: Sequence[str], where: str) -> dict[str, int]:
    """The index of each class by name.

    Raises `DataError` when the list is empty or names a class twice, or when a name is empty, of more than 500
    characters, has control characters, or cannot be written as UTF-8.
    """
    names = list(class_names)
    if not names:
        raise DataError(f"{where}: no classes; name at least one")
    for number, name in enumerate(names):
        if not is_class_name(name):
            raise DataError(f"{where}: class {number} is called {shown(name)}; give it a name of letters")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{where}: classes listed more than once: {', '.join(twice[:12])}; make the names unique")
    return {n: i for i, n in enumerate(names)}


def unknown_class(name: str, where: str, known: Sequence[str]) -> DataError:
    """The error for an object of a class that is not among the known ones."""
    some = ", ".join(shortened(k, 40) for k in known[:12]) + (", ..." if len(known) > 12 else "")
    return DataError(
        f"{where}: unknown class {shown(name)}; the classes are {some}. Correct the name or list the class"
    )
