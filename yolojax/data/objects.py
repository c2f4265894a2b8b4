"""From the objects of an annotation file or of arrays to a checked `ImageRecord`: clip, drop, count and name."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yolojax.data.dataset import ImageRecord, Source
from yolojax.data.images import read_header, resolve_size
from yolojax.data.summary import Notebook
from yolojax.errors import DataError

ROUNDING = 0.05
"""Pixels by which a box may pass the edge of its image unreported: files round their coordinates."""


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
    """Builds records one after the other, numbering annotations from 1 where the file does not."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self._next_id = 1

    def open_image(self, path: Path, stated: tuple[int, int] | None, where: str) -> tuple[tuple[int, int], bool]:
        """Size and orientation of an image from its header, against the size that ``where`` states, if any.

        Raises `DataError` when the file is missing or no image, or when the sizes contradict each other.
        """
        header = read_header(path)
        size, upright = resolve_size(header, stated, where, path)
        if header.orientation != 1:
            how = "turned upright" if upright else "read as stored: that is the size its annotation states"
            self.notebook.add("orientation", str(path), f"EXIF orientation {header.orientation}, {how}")
        return size, upright

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
        kept: list[RawObject] = []
        boxes = np.zeros((len(objects), 4), np.float32)
        for o in objects:
            x1, y1, x2, y2 = o.box
            clipped = np.array([max(x1, 0), max(y1, 0), min(x2, w), min(y2, h)], np.float32)
            spoken = ", ".join(f"{v:g}" for v in o.box)
            if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
                flat = x2 <= x1 or y2 <= y1
                reason = "has no extent" if flat else f"lies outside the image of {w} x {h}"
                self.notebook.add("dropped", f"{where} {o.where}", f"box ({spoken}) {reason}")
                continue
            if max(-x1, -y1, x2 - w, y2 - h) > ROUNDING:
                self.notebook.add("clipped", f"{where} {o.where}", f"box ({spoken}) in an image of {w} x {h}")
            boxes[len(kept)] = clipped
            kept.append(o)
        boxes = boxes[: len(kept)]
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


def finite_number(text: str) -> float | None:
    """The finite number that a text holds, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def class_lookup(class_names: Sequence[str], where: str) -> dict[str, int]:
    """The index of each class by name; `DataError` when the list is empty or names a class twice."""
    names = list(class_names)
    if not names:
        raise DataError(f"{where}: no classes; name at least one")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{where}: classes listed more than once: {', '.join(twice)}; make the names unique")
    return {n: i for i, n in enumerate(names)}


def unknown_class(name: str, where: str, known: Sequence[str]) -> DataError:
    """The error for an object of a class that is not among the known ones."""
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return DataError(f"{where}: unknown class {name!r}; the classes are {shown}. Correct the name or list the class")
