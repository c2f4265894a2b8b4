"""What looks wrong in the boxes of a whole data set: another format, another unit, placeholders.

No single box tells that corners were written as centre and size, but all of them together do. Each doubt is a sentence
with its evidence. Nothing is changed: what a file says counts until its owner corrects it.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from yolojax.data.images import Header, deepest_value

_FEWEST = 5  # objects, below which shares mean nothing
_MANY = 20  # different boxes, from which it is no chance that all lie in one quarter of their images
_LEFT_UPPER = 0.55  # of the image's width and height
_INVERTED = 0.98  # share of the objects, from which the order of corners is at fault
_BEYOND = 0.02  # of the image's side by which a box passes it that was not merely drawn a little too far
_MANY_BEYOND = 0.1  # share of the objects
_EXPLAINED = 0.98  # share of the objects that another reading must put inside their images
_PLACEHOLDER = 0.9
_SUB_PIXEL = 0.05  # share of the objects; some data sets hold a few
_LEAST_FILLED, _MOST_FILLED = 0.02, 1.3  # share of a box that a mask fills
_FAR_AREAS = 0.1  # share of the objects
_SAID = {
    "xyxy": "corners (x1 y1 x2 y2)",
    "xywh": "the left upper corner and the size (x y w h)",
    "cxcywh": "the centre and the size (cx cy w h)",
}
_DEEP_SAMPLE = 6
_DEEP_DARK = 8192  # of 65535: what uses less than an eighth of the range looks black
_FEWEST_DARK, _DARK_SHARE = 2, 1 / 3  # of those looked at, beside bright ones


Rows = Literal["xyxy", "xywh", "cxcywh"]
"""What the four numbers of a row mean in a format: corners, left upper corner and size, centre and size."""


class Doubts:
    """Collects the boxes of a data set as its files state them, before they are clipped.

    Attributes:
      rows: how the format writes a box, for the words of a doubt.
    """

    def __init__(self, rows: Rows = "xyxy") -> None:
        self.rows: Rows = rows
        self._objects = np.zeros((0, 4)), np.zeros((0, 2)), np.zeros(0)
        self._pages: list[tuple[Path, int]] = []
        self._deep: list[Path] = []

    def add_image(self, path: Path, header: Header) -> None:
        """One image, for what its header says of pages and depth."""
        if header.pages > 1:
            self._pages.append((path, header.pages))
        if header.is_deep:
            self._deep.append(path)

    def add_objects(
        self,
        boxes: Float64[np.ndarray, "n 4"],
        sizes: Float64[np.ndarray, "n 2"],
        areas: Float64[np.ndarray, " n"],
    ) -> None:
        """All objects: their boxes ``(x1, y1, x2, y2)`` in pixels, the ``(height, width)`` of the image of each, and
        the areas that their file states, NaN where it states none."""
        self._objects = boxes, sizes, areas

    def sentences(self) -> list[str]:
        """Everything that looks wrong."""
        found = [*self._of_pages(), *self._of_depth()]
        boxes, sizes, areas = self._objects
        if len(boxes):
            found += doubts_of_boxes(boxes, sizes, self.rows)
            found += doubts_of_areas(boxes, areas)
        return found

    def _of_pages(self) -> list[str]:
        if not self._pages:
            return []
        path, pages = self._pages[0]
        return [
            f"{len(self._pages)} images have several pages or frames, of which only the first is read, e.g. {path} "
            f"with {pages}: save each page as an image of its own if the objects lie on others"
        ]

    def _of_depth(self) -> list[str]:
        """Whether images of 16 bits use few of them, as those of 12-bit cameras do, by a few that are decoded.

        All of these must be dark (no value from 8192 on), or at least two of them, and a third, with the same number of
        bits beside bright ones: that is a second camera or converter. One dark image among bright ones may show a dark
        scene.
        """
        at = np.linspace(0, len(self._deep) - 1, min(len(self._deep), _DEEP_SAMPLE)).round().astype(int)
        values = [(deepest_value(self._deep[i]), self._deep[i]) for i in at.tolist()]
        known = [(value, path) for value, path in values if value is not None]
        dark = [(value, path) for value, path in known if value < _DEEP_DARK]
        if not dark:
            return []
        if len(dark) == len(known):
            most, path = max(dark)
            said = (
                f"{len(self._deep)} images of 16 bits use few of them (up to {most} of 65535 in {len(known)} that were "
                f"looked at, e.g. {path}): they"
            )
        else:
            bits, count = Counter(value.bit_length() for value, _ in dark).most_common(1)[0]
            if count < _FEWEST_DARK or count < len(known) * _DARK_SHARE:
                return []
            most, path = max(one for one in dark if one[0].bit_length() == bits)
            said = (
                f"{count} of {len(known)} images of 16 bits that were looked at use few of them (up to {most} of "
                f"65535, e.g. {path}), while others use all ({len(self._deep)} images have 16 bits): those {count}"
            )
        return [
            f"{said} seem to hold {most.bit_length()} bits and are nearly black as they are read; multiply their "
            f"values by {65535 // max(most, 1)}, or save them with 8 bits"
        ]


def doubts_of_boxes(
    boxes: Float64[np.ndarray, "n 4"], sizes: Float64[np.ndarray, "n 2"], rows: Rows = "xyxy"
) -> list[str]:
    """What looks wrong in all boxes of a data set together.

    Args:
      boxes: rows ``(x1, y1, x2, y2)`` in original pixels, as the files state them, before clipping.
      sizes: ``(height, width)`` of the image of each.
      rows: how the format writes a box.
    """
    n = len(boxes)
    h, w = sizes.T
    x1, y1, x2, y2 = boxes.T
    found: list[str] = []
    tiny = (np.abs(boxes) <= 1).all(1) & (x2 > x1) & (y2 > y1) & (np.minimum(h, w) >= 8)
    if tiny.any():
        found.append(
            f"{tiny.sum()} of {n} boxes lie within one pixel of the corner (all coordinates at most 1): they seem to "
            "be fractions of the image; "
            + ("divide them by its width and height only once" if rows == "cxcywh" else "multiply them by its size")
        )
    if tiny.mean() > 0.5:
        return found
    outside = ~_inside(boxes, sizes, _BEYOND)
    reading = _other_reading(boxes, sizes, rows) if outside.sum() >= 2 and outside.mean() >= 0.05 else None
    if reading is not None:
        found.append(f"{outside.sum()} of {n} boxes are inverted or reach beyond their image, and {reading}")
    if n < _FEWEST:
        return found
    beyond = outside & (x2 > x1) & (y2 > y1)
    if reading is None and beyond.sum() >= 2 and beyond.mean() > _MANY_BEYOND:
        found.append(
            f"{beyond.sum()} of {n} boxes reach beyond their image by more than {_BEYOND:.0%} of its side: do they "
            "belong to images of another size?"
        )
    thin = (np.minimum(x2 - x1, y2 - y1) < 1) & (np.minimum(x2 - x1, y2 - y1) > 0) & ~tiny
    if thin.mean() > _SUB_PIXEL:
        found.append(f"{thin.sum()} of {n} boxes are less than a pixel wide or high; are they in another unit?")
    corners = {
        "left upper corner": (x1 <= 0) & (y1 <= 0),
        "right upper corner": (x2 >= w) & (y1 <= 0),
        "left lower corner": (x1 <= 0) & (y2 >= h),
        "right lower corner": (x2 >= w) & (y2 >= h),
    }
    whole = (x1 <= 0) & (y1 <= 0) & (x2 >= w) & (y2 >= h)
    if whole.mean() > _PLACEHOLDER:
        found.append(f"{whole.sum()} of {n} boxes cover their whole image: are they placeholders?")
    else:
        name, touching = max(corners.items(), key=lambda item: item[1].sum())
        if touching.mean() > _PLACEHOLDER:
            found.append(f"{touching.sum()} of {n} boxes touch the {name} of their image: is their position lost?")
    at_left_upper = not found and bool((x2 <= _LEFT_UPPER * w).all() and (y2 <= _LEFT_UPPER * h).all())
    if at_left_upper and len(np.unique(boxes, axis=0)) >= _MANY:
        percent = bool((boxes <= 100).all()) and float(np.minimum(w, h).min()) >= 150
        found.append(
            f"all {n} boxes lie in the left upper quarter of their images: "
            + ("are they in percent of its sides?" if percent else "do they belong to smaller copies of them?")
        )
    return found


def _inside(
    boxes: Float64[np.ndarray, "n 4"], sizes: Float64[np.ndarray, "n 2"], tolerance: float
) -> Bool[np.ndarray, " n"]:
    """Which boxes lie in their image, but for a share ``tolerance`` of its side and a pixel, and have an extent."""
    h, w = sizes.T
    x1, y1, x2, y2 = boxes.T
    over_x, over_y = w * tolerance + 1, h * tolerance + 1
    within = (x1 >= -over_x) & (y1 >= -over_y) & (x2 <= w + over_x) & (y2 <= h + over_y)
    return within & (x2 > x1) & (y2 > y1)


def _other_reading(boxes: Float64[np.ndarray, "n 4"], sizes: Float64[np.ndarray, "n 2"], rows: Rows) -> str | None:
    """What the numbers seem to be where another reading of the four puts the boxes inside their images."""
    x1, y1, x2, y2 = boxes.T
    width, height = x2 - x1, y2 - y1
    a, b = ((x1 + x2) / 2, (y1 + y2) / 2) if rows == "cxcywh" else (x1, y1)
    c, d = (x2, y2) if rows == "xyxy" else (width, height)  # the row of the file is a, b, c, d
    readings: dict[Rows, np.ndarray] = {
        "xyxy": np.stack([a, b, c, d], 1),
        "xywh": np.stack([a, b, a + c, b + d], 1),
        "cxcywh": np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], 1),
    }
    inverted = (x2 < x1) | (y2 < y1)
    if rows == "xyxy" and inverted.mean() >= _INVERTED:
        ordered = np.stack([np.minimum(x1, x2), np.minimum(y1, y2), np.maximum(x1, x2), np.maximum(y1, y2)], 1)
        if _inside(ordered, sizes, 0.005).mean() >= _EXPLAINED:
            return (
                "all would lie inside if the lesser of two coordinates came first: corners were written in another "
                "order, or y is counted from the lower edge: correct the files"
            )
    for other, read in readings.items():
        if other != rows and _inside(read, sizes, 0.005).mean() >= _EXPLAINED:
            return (
                f"all would lie inside if their rows were {_SAID[other]} in place of {_SAID[rows]}: correct the files"
            )
    if _inside(np.stack([y1, x1, y2, x2], 1), sizes, 0.005).mean() >= _EXPLAINED:
        return "all would lie inside with x and y swapped: correct the files"
    if rows == "xyxy" and _inside(np.stack([x1, y1, x2, y2], 1)[:, [0, 2, 1, 3]], sizes, 0.005).mean() >= _EXPLAINED:
        return "all would lie inside if their rows were x1 x2 y1 y2: correct the files"
    return None


def doubts_of_areas(boxes: Float64[np.ndarray, "n 4"], areas: Float64[np.ndarray, " n"]) -> list[str]:
    """Whether stated areas (NaN where none is stated) can be those of masks inside the boxes."""
    extent = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    known = np.isfinite(areas) & (extent > 0)
    ratio = areas[known] / extent[known]
    far = (ratio < _LEAST_FILLED) | (ratio > _MOST_FILLED)
    if not len(ratio) or far.mean() <= _FAR_AREAS:
        return []
    first = int(np.flatnonzero(known)[np.argmax(far)])
    return [
        f"{far.sum()} of {len(ratio)} stated areas lie far from the boxes' own, e.g. {areas[first]:g} for a box of "
        f"{extent[first]:g} square pixels: they decide what counts as small, medium and large (AP and AR of each); "
        "leave them out for the boxes' own"
    ]
