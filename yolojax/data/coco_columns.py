"""The lists of a large COCO file as columns, read piece by piece.

`read_plain` keeps neither the text of the file nor a dictionary for each annotation: a file of a million annotations
takes as much memory as its numbers. It reads *plain* files only, in which every entry is of the types and within the
bounds that the format asks for and every id and name is unique. For every other file it returns None, and
`yolojax.data.coco` reads the file entry by entry, names what is wrong with it and repairs what can be repaired.
"""

import codecs
import json
import re
from array import array
from collections.abc import Iterator
from itertools import chain
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.data.columns import as_numpy
from yolojax.data.documents import TwiceError, once
from yolojax.data.image_places import name_of_image
from yolojax.errors import DataError
from yolojax.processor.memory import without_garbage_collection

try:
    import orjson as _orjson  # pyright: ignore[reportMissingImports]
except ImportError:
    _orjson = None

LISTS = ("images", "annotations", "categories")
LARGEST = 2.0**53
"""Up to here every integer is a float too, as some writers of JSON have it."""
LARGEST_ID = 2**63
"""Some tools number by hashes of 64 bits."""
LARGEST_COORDINATE = 1e9
"""The areas of larger boxes lose their digits; the evaluation has the same bound."""

_PIECE = 2**20
_LARGEST_HEAD = 2**24  # characters of a value beside the three lists
_BLANK = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder(object_pairs_hook=once).raw_decode
_decode_twice = json.JSONDecoder().raw_decode
_MOST_CUTS = 8


class Plain(NamedTuple):
    """A plain COCO file: ``n`` images and ``N`` annotations in the order of the file.

    Attributes:
      header: what it says beside the three lists.
      categories: its entries.
      image_ids, file_names: of each image.
      sizes: ``(height, width)``, 0 where they are not stated.
      ids, image_of, category_ids: of each annotation: its own id, the position of its image, the id of its category.
      boxes: ``[x, y, width, height]`` in pixels.
      areas: NaN where none is stated.
      crowd, ignore: the flags.
    """

    header: dict[str, Any]
    categories: list[dict[str, Any]]
    image_ids: list[int]
    file_names: list[str]
    sizes: list[tuple[int, int]]
    ids: Int64[np.ndarray, " N"]
    image_of: Int64[np.ndarray, " N"]
    category_ids: Int64[np.ndarray, " N"]
    boxes: Float64[np.ndarray, "N 4"]
    areas: Float64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    ignore: Bool[np.ndarray, " N"]


class _OddError(Exception):
    """The file is not plain."""


def read_plain(path: Path) -> Plain | None:
    """The columns of a plain COCO file; None for every other file, also for one that cannot be read."""
    try:
        with without_garbage_collection():
            return _read(path)
    except (_OddError, TwiceError, DataError, OSError, ValueError, RecursionError, OverflowError, KeyError, TypeError):
        return None


def _read(path: Path) -> Plain:
    if not path.is_file():
        raise _OddError
    header: dict[str, Any] = {}
    seen: set[str] = set()
    images, annotations = _Images(), _Annotations()
    categories: list[dict[str, Any]] = []
    with path.open("rb") as file:
        text = _Text(file)
        text.expect("{")
        while True:
            key = text.value()
            if not isinstance(key, str) or key in seen:
                raise _OddError
            seen.add(key)
            text.expect(":")
            if key == "images":
                for batch in text.entries():
                    images.add(batch)
            elif key == "annotations":
                for batch in text.entries():
                    annotations.add(batch)
            elif key == "categories":
                for batch in text.entries():
                    categories += batch
            else:
                header[key] = text.value()
            if text.next() == "}":
                break
            text.expect(",")
        text.expect("}")
        text.end()
    if not seen.issuperset(LISTS):
        raise _OddError
    return annotations.joined(images, header, categories)


class _Text:
    """The text of a file, of which only the piece at hand is kept."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._piece, self._place, self._ended = "", 0, False

    def _more(self, size: int = _PIECE) -> bool:
        """Drops what was read and appends the next piece; False at the end of the file."""
        if self._ended:
            return False
        content = self._file.read(size)
        self._ended = not content
        self._piece = self._piece[self._place :] + self._decoder.decode(content, final=self._ended)
        self._place = 0
        return not self._ended

    def next(self) -> str:
        """The next character that is no blank, or nothing at the end; it is not consumed."""
        while True:
            self._place = _BLANK.match(self._piece, self._place).end()  # pyright: ignore[reportOptionalMemberAccess]
            if self._place < len(self._piece):
                return self._piece[self._place]
            if not self._more():
                return self._piece[self._place : self._place + 1]

    def expect(self, character: str) -> None:
        """Consumes this character."""
        if self.next() != character:
            raise _OddError
        self._place += 1

    def end(self) -> None:
        """Raises unless only blanks are left."""
        if self.next():
            raise _OddError

    def value(self) -> Any:
        """The next value, which must not be large."""
        self.next()
        while True:
            try:
                value, end = _decode(self._piece, self._place)
            except json.JSONDecodeError:
                end = len(self._piece)  # perhaps it goes on in the next piece
                if self._ended:
                    raise
                value = None
            if end < len(self._piece) or self._ended:
                self._place = end
                return value
            if len(self._piece) - self._place > _LARGEST_HEAD:
                raise _OddError
            self._more()

    def entries(self) -> Iterator[list[dict[str, Any]]]:
        """The objects of a list, some thousands at a time.

        A piece of the text is cut behind a ``}``. Where the piece is a list of whole values, the cut lay between two
        entries: within a text or an inner value the piece would not be one.
        """
        self.expect("[")
        if self.next() == "]":
            self.expect("]")
            return
        closed = False
        while not closed:
            if len(self._piece) - self._place < _PIECE // 2:
                self._more()
            batch: list[dict[str, Any]] | None = None
            length = 0
            cut = len(self._piece) if self._ended else self._cut(len(self._piece))
            for _ in range(_MOST_CUTS):
                if cut <= self._place:
                    break
                batch, length, closed = _list_of(self._piece[self._place : cut])
                if batch is not None or self._ended:
                    break
                cut = self._cut(cut - 1)
            if batch is not None:
                self._place += length
                if not closed:
                    self.expect(",")
                yield batch
            elif self._ended or len(self._piece) - self._place > _LARGEST_HEAD:
                raise _OddError
            else:
                self._more(max(_PIECE, len(self._piece) - self._place))

    def _cut(self, end: int) -> int:
        """Where a piece that ends before ``end`` may be cut, or 0."""
        between = max(self._piece.rfind(mark, self._place, end) for mark in ("}, {", "},{"))
        return max(between, -1 if between >= 0 else self._piece.rfind("},", self._place, end)) + 1


def _quickly(text: str) -> tuple[list[Any], int] | None:
    """What the decoder would say, by ``orjson`` in a fifth of the time where that is installed and accepts the text."""
    if _orjson is None:
        return None
    try:
        return _orjson.loads(text), len(text)
    except ValueError:  # a list that ends within the text, for one, or NaN
        return None


def _list_of(text: str) -> tuple[list[dict[str, Any]] | None, int, bool]:
    """The values of a part of a JSON list, how many characters they take, and whether the list ends with them.

    They take all of the text, or, where the list ends before, that up to its bracket. None where they are no values.

    Python's reader is twice as fast where it may make dictionaries by itself. The number of colons that follow a
    quotation mark then tells whether a key was lost because it stands twice.
    """
    try:
        values, end = _quickly(f"[{text}]") or _decode_twice(f"[{text}]")
    except json.JSONDecodeError:
        return None, 0, False
    if not all(type(value) is dict for value in values):
        raise _OddError
    closed = end < len(text) + 2
    if closed:
        text = text[: end - 2]
    masks = [value["segmentation"] for value in values if type(value.get("segmentation")) is dict]
    keys = sum(map(len, values)) + sum(map(len, masks))
    if keys != text.count('":') or any(f"{blank}:" in text for blank in " \t\n\r"):
        values, _ = _decode(f"[{text}]", 0)
    return values, len(text) + closed, closed


class _Images:
    """The list ``images``."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.names: list[str] = []
        self.sizes: list[tuple[int, int]] = []

    def add(self, batch: list[dict[str, Any]]) -> None:
        """Some entries of the list."""
        ids = [entry["id"] for entry in batch]
        names = [entry["file_name"] if "file_name" in entry else name_of_image(entry, "") for entry in batch]
        sizes = [(entry.get("height") or 0, entry.get("width") or 0) for entry in batch]
        if set(map(type, ids)) != {int} or set(map(type, names)) != {str} or not all(names):
            raise _OddError
        if set(map(type, chain.from_iterable(sizes))) != {int} or min(map(min, ids and sizes)) < 0:
            raise _OddError
        if max(map(max, sizes)) >= 2**31 or max(map(abs, ids)) >= LARGEST_ID:
            raise _OddError
        self.ids += ids
        self.names += names
        self.sizes += [(h, w) if h and w else (0, 0) for h, w in sizes]


class _Annotations:
    """The list ``annotations``."""

    def __init__(self) -> None:
        self._ids, self._images, self._categories = array("q"), array("q"), array("q")
        self._boxes, self._areas = array("d"), array("d")
        self._crowd, self._ignore = array("b"), array("b")
        self._without_area = 0

    def add(self, batch: list[dict[str, Any]]) -> None:
        """Some entries of the list."""
        for column, key in ((self._ids, "id"), (self._images, "image_id"), (self._categories, "category_id")):
            values = [entry[key] for entry in batch]
            if set(map(type, values)) != {int}:
                raise _OddError
            column.extend(values)  # raises where a number takes more than 64 bits
        boxes = [entry["bbox"] for entry in batch]
        if set(map(type, boxes)) != {list} or set(map(len, boxes)) != {4}:
            raise _OddError
        numbers = list(chain.from_iterable(boxes))
        if not set(map(type, numbers)) <= {int, float}:
            raise _OddError
        self._boxes.extend(numbers)
        areas = [entry.get("area") for entry in batch]
        if not set(map(type, areas)) <= {int, float, type(None)}:
            raise _OddError
        self._without_area += areas.count(None)
        self._areas.extend([nan if area is None else area for area in areas])
        for column, key in ((self._crowd, "iscrowd"), (self._ignore, "ignore")):
            flags = [entry.get(key) for entry in batch]
            if not set(flags) <= {0, 1, None}:
                raise _OddError
            column.extend([1 if flag else 0 for flag in flags])

    def joined(self, images: _Images, header: dict[str, Any], categories: list[dict[str, Any]]) -> Plain:
        """All of the file; raises where an id is unknown or used twice, or a number is out of bounds."""
        ids, of, kinds = (as_numpy(column) for column in (self._ids, self._images, self._categories))
        boxes, areas = as_numpy(self._boxes).reshape(-1, 4), as_numpy(self._areas)
        if len(set(images.ids)) < len(images.ids) or len(set(images.names)) < len(images.names):
            raise _OddError
        if len(ids) and (ids.min() < 1 or len(np.unique(ids)) < len(ids)):
            raise _OddError
        if not (np.abs(boxes) <= LARGEST_COORDINATE).all() or (boxes[:, 2:] < 0).any():
            raise _OddError
        stated = areas[~np.isnan(areas)]
        if len(areas) - len(stated) != self._without_area:  # a file may say NaN
            raise _OddError
        if not ((stated >= 0) & (stated <= LARGEST)).all():
            raise _OddError
        known = np.array(images.ids, np.int64)
        order = np.argsort(known)
        place = np.searchsorted(known[order], of)
        if len(of) and (not len(known) or (known[order[np.minimum(place, len(known) - 1)]] != of).any()):
            raise _OddError
        return Plain(
            header=header,
            categories=categories,
            image_ids=images.ids,
            file_names=images.names,
            sizes=images.sizes,
            ids=ids,
            image_of=order[place] if len(of) else of,
            category_ids=kinds,
            boxes=boxes,
            areas=areas,
            crowd=as_numpy(self._crowd).astype(bool),
            ignore=as_numpy(self._ignore).astype(bool),
        )
