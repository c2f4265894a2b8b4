"""From the objects of an annotation file or of arrays to a checked `ImageRecord`: clip, drop, count and name."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yolojax.data.dataset import ImageRecord, Source
from yolojax.data.doubts import Doubts, Rows
from yolojax.data.images import Header, read_header, resolve_size
from yolojax.data.summary import Notebook
from yolojax.errors import DataError, shortened, shown
from yolojax.paths import is_class_name

ROUNDING = 0.05
"""Pixels by which a box may pass the edge of its image unreported: files round their coordinates."""


_LONGEST_NUMBER = 100


class RawObject(NamedTuple):
    """An object as its file has it: where it stands there, and its box ``(x1, y1, x2, y2)`` in original pixels.

    ``area`` and ``annotation_id`` are None when the file has none.
    """

    where: str
    box: tuple[float, float, float, float]
    class_index: int
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    annotation_id: int | None = None


class RecordBuilder:
    """Builds records one after the other, numbering annotations from 1 where the file does not.

    Attributes:
      notebook: what was repaired or noticed.
      images_needed: whether a missing image is an error also where its annotation states its size.
      doubts: what looks wrong in all objects together.
    """

    def __init__(self, notebook: Notebook, rows: Rows = "xyxy", *, images_needed: bool = True) -> None:
        self.notebook = notebook
        self.images_needed = images_needed
        self.doubts = Doubts(rows)
        self._next_id = 1
        self._missing = 0

    def open_image(
        self,
        path: Path,
        stated: tuple[int, int] | None,
        where: str,
        boxes: Sequence[tuple[float, float, float, float]] = (),
    ) -> tuple[tuple[int, int], bool]:
        """Size and orientation of an image from its header, against the size that ``where`` states, if any.

        ``boxes``, rows ``(x1, y1, x2, y2)`` in pixels, decide where a size is stated that a photo has as it is stored
        but not as it is shown: tools that do not know EXIF draw on the first, and some that do still state it.

        Raises `DataError` when the file is missing or no image, or when the sizes contradict each other.
        """
        if not self.images_needed and stated is not None and not path.is_file():
            self._missing += 1
            return stated, True
        header = read_header(path)
        self.doubts.add_image(path, header)
        size, upright = resolve_size(header, stated, where, path)
        if header.orientation != 1:
            how = "turned upright" if upright else "read as stored: that is the size its annotation states"
            if not upright and boxes:
                upright, how = _orientation_of_boxes(header, boxes, how)
                size = header.upright if upright else header.stored
                if "neither" in how or "both" in how:
                    self.notebook.add("doubtful", str(path), f"EXIF orientation {header.orientation}: {how}")
            self.notebook.add("orientation", str(path), f"EXIF orientation {header.orientation}, {how}")
        return size, upright

    def close(self, where: str) -> None:
        """Notes what looks wrong in all objects together; call it after the last record."""
        for sentence in self.doubts.sentences():
            self.notebook.add("doubtful", where, sentence)
        if self._missing:
            self.notebook.add(
                "note", where, f"{self._missing} images are not there; their sizes are those that are stated"
            )

    def build(
        self,
        image_id: int,
        file_name: str,
        source: Source,
        size: tuple[int, int],
        upright: bool,
        where: str,
        objects: list[RawObject],
    ) -> ImageRecord:
        """The record of one image: boxes clipped to it; boxes that then have no extent dropped; both noted."""
        h, w = size
        for o in objects:
            self.doubts.add_object(o.box, size, o.area)
        raw = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
        clipped = np.clip(raw, 0, np.array([w, h, w, h])[None, :]).astype(np.float32)
        has_extent = np.all(clipped[:, 2:] > clipped[:, :2], axis=1)
        beyond = np.maximum(-raw[:, :2], raw[:, 2:] - np.array([w, h])[None, :]).max(axis=1) > ROUNDING
        for i in np.flatnonzero(beyond | ~has_extent).tolist():
            kind = "clipped" if has_extent[i] else "dropped"
            self.notebook.add(kind, f"{where} {objects[i].where}", _why_changed(objects[i].box, w, h, kind))
        kept = [o for o, is_kept in zip(objects, has_extent.tolist(), strict=True) if is_kept]
        boxes = clipped[has_extent]
        extent = boxes.astype(np.float64)
        box_areas = (extent[:, 2] - extent[:, 0]) * (extent[:, 3] - extent[:, 1])
        first = self._next_id
        self._next_id += len(kept)
        return ImageRecord(
            image_id=image_id,
            file_name=file_name,
            source=source,
            size=size,
            boxes=boxes,
            classes=np.array([o.class_index for o in kept], np.int32),
            crowd=np.array([o.crowd or o.difficult for o in kept], bool),
            difficult=np.array([o.difficult for o in kept], bool),
            areas=np.array([b if o.area is None else o.area for o, b in zip(kept, box_areas, strict=True)], np.float64),
            annotation_ids=np.array(
                [first + i if o.annotation_id is None else o.annotation_id for i, o in enumerate(kept)], np.int64
            ),
            upright=upright,
        )


def _why_changed(box: tuple[float, float, float, float], w: int, h: int, kind: str) -> str:
    """What is said of a box that was clipped or dropped."""
    x1, y1, x2, y2 = box
    spoken = f"box ({', '.join(f'{v:g}' for v in box)})"
    if kind == "clipped":
        return f"{spoken} in an image of {w} x {h}"
    if x2 < x1 or y2 < y1:
        return f"{spoken} is inverted: its right or lower edge comes before the other one"
    return f"{spoken} has no extent" if x2 == x1 or y2 == y1 else f"{spoken} lies outside the image of {w} x {h}"


def _orientation_of_boxes(
    header: Header, boxes: Sequence[tuple[float, float, float, float]], as_stated: str
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
    characters, or cannot be written as UTF-8.
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
