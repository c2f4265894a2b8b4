"""Names the formats of other annotation tools, which are not read, by the shape of their files.

A data set that no reader takes is often right, and was written by a tool that exports one of the three formats as well.
A small piece of a few files tells which tool that is, so that an error can say what to export from it.
"""

import os
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from yolojax.errors import shortened

_PIECE = 16_384
"""Bytes of either end of a file that are looked at."""

_MOST_FILES, _MOST_FOLDERS, _MOST_LISTED, _DEPTH = 3, 30, 500, 3
"""Files of each suffix in a folder, folders, names in each of them, and levels of folders that are looked at."""

_NO_ANNOTATIONS = ("classes.txt", "readme.txt", "license.txt", "requirements.txt", "meta.json", "package.json")
_EXPORT = "export the data set from that tool as COCO, YOLO or Pascal VOC"
_CONVERT = "convert it to COCO, YOLO or Pascal VOC"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


class _Kind(NamedTuple):
    """A format that is not read.

    Attributes:
      name: what it is called.
      mend: what to do about it.
      fits: whether a piece of a file is of it.
    """

    name: str
    mend: str
    fits: Callable[[str], bool]


def _has(*alternatives: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a piece of JSON has all keys of one of these tuples."""
    return lambda piece: any(all(f'"{key}"' in piece for key in keys) for keys in alternatives)


_JSON = (
    _Kind(
        "LabelMe",
        "export the data set as COCO or Pascal VOC (labelme2coco.py, labelme2voc.py)",
        _has(("shapes", "imagePath"), ("shapes", "imageData"), ("shapes", "imageHeight", "imageWidth")),
    ),
    _Kind(
        "VIA (VGG Image Annotator)",
        "export the annotations from VIA in COCO format",
        _has(("_via_img_metadata",), ("regions", "shape_attributes")),
    ),
    _Kind(
        "Supervisely",
        _EXPORT,
        _has(("objects", "classTitle"), ("objects", "points", "exterior"), ("objects", "tags", "size", "description")),
    ),
    _Kind(
        "Datumaro",
        "convert the data set with Datumaro to coco, yolo or voc",
        _has(("dm_format_version",), ("items", "annotations", "label_id"), ("items", "annotations", "categories")),
    ),
)
_CVAT = _Kind(
    "CVAT's own XML",
    "export the task from CVAT as COCO 1.0, YOLO 1.1 or PASCAL VOC 1.1",
    lambda piece: re.search(r"<annotations[\s>].*?<(image|track|meta)[\s>]", piece, re.DOTALL) is not None,
)
_KITTI = _Kind("KITTI (rows of a class and 14 numbers)", _CONVERT, lambda piece: _rows_fit(piece, _is_kitti))
_DOTA = _Kind(
    "DOTA (rows of 8 coordinates, a class and a difficulty)", _CONVERT, lambda piece: _rows_fit(piece, _is_dota)
)
_CSV = _Kind(
    "a table of boxes (CSV) as of OpenImages or TensorFlow", _CONVERT, lambda piece: _has_columns_of_boxes(piece)
)
_KINDS = {".json": _JSON, ".xml": (_CVAT,), ".txt": (_KITTI, _DOTA), ".csv": (_CSV,)}


def name_other_tool(path: Path) -> str:
    """The end of an error about a file or folder that is no data set: which format it seems to have, and the mend.

    Empty where it has the shape of none. Of a folder a few files are looked at, and of each its two ends.

    Example:
      ``; a.json looks like LabelMe, which is not read: export the data set as COCO or Pascal VOC (...)``
    """
    for file in [path] if path.is_file() else _some_files(path):
        if (kind := _kind_of(file)) is not None:
            return _sentence(shortened(str(file) if file == path else str(file.relative_to(path)), 120), kind)
    return ""


def name_other_rows(text: str) -> str:
    """`name_other_tool` for the text of a label file whose rows are none of YOLO's."""
    return next((_sentence("the file", kind) for kind in _KINDS[".txt"] if kind.fits(text[:_PIECE])), "")


def is_of_other_tool(path: Path) -> bool:
    """Whether a file has the shape of an annotation file that is not read."""
    return _kind_of(path) is not None


def _sentence(what: str, kind: _Kind) -> str:
    return f"; {what} looks like {kind.name}, which is not read: {kind.mend}"


def _kind_of(file: Path) -> _Kind | None:
    kinds = _KINDS.get(file.suffix.lower(), ())
    piece = _ends(file) if kinds else ""
    if kinds is _JSON and '"images"' in piece:  # a list of COCO's
        return None
    return next((kind for kind in kinds if kind.fits(piece)), None)


def _ends(file: Path) -> str:
    """The first and the last bytes of a file as text; empty where it cannot be read."""
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as opened:
            head = opened.read(_PIECE)
            opened.seek(max(len(head), file.stat().st_size - _PIECE))
            return (head + opened.read(_PIECE)).decode("utf-8", "replace").removeprefix("\ufeff")
    except OSError:
        return ""


def _some_files(top: Path) -> list[Path]:
    """A few files of each suffix in each folder of a data set, those of the upper folders first."""
    level, found, looked = [top], list[Path](), 0
    for _ in range(_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            looked += 1
            if looked > _MOST_FOLDERS:
                return found
            taken = dict.fromkeys(_KINDS, 0)
            try:
                with os.scandir(folder) as entries:
                    some = sorted(islice(entries, _MOST_LISTED), key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in some:
                suffix = os.path.splitext(entry.name)[1].lower()
                if entry.name.startswith(".") or entry.name.lower() in _NO_ANNOTATIONS:
                    continue
                if entry.is_dir():
                    below.append(Path(entry.path))
                elif taken.get(suffix, _MOST_FILES) < _MOST_FILES:
                    taken[suffix] += 1
                    found.append(Path(entry.path))
        level = below
    return found


def _rows_fit(piece: str, fits: Callable[[list[str]], bool]) -> bool:
    """Whether the first rows of a text are of a kind; DOTA's files begin with two lines about their source."""
    rows = [line.split() for line in piece.splitlines()[:6] if line.strip()]
    rows = [row for row in rows if not row[0].lower().startswith(("imagesource:", "gsd:"))][:3]
    return bool(rows) and all(map(fits, rows))


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _is_kitti(row: list[str]) -> bool:
    return len(row) in (15, 16) and not _is_number(row[0]) and all(map(_is_number, row[1:]))


def _is_dota(row: list[str]) -> bool:
    return len(row) == 10 and all(map(_is_number, row[:8])) and not _is_number(row[8]) and row[9] in ("0", "1", "2")


def _has_columns_of_boxes(piece: str) -> bool:
    lines = piece.lstrip().splitlines()
    columns = {one.strip().strip("\"'").lower() for one in re.split(r"[,;\t]", lines[0][:2000])} if lines else set()
    return {"xmin", "ymin", "xmax", "ymax"} <= columns


def name_other_results(records: Sequence[Any]) -> str:
    """What is wrong with a list that is Darknet's ``-out result.json``, which has the objects of a frame in each entry;
    empty for any other."""
    first = next((one["objects"] for one in records[:100] if isinstance(one, dict) and one.get("objects")), None)
    if not isinstance(first, list) or not isinstance(first[0], dict) or "relative_coordinates" not in first[0]:
        return ""
    return (
        "looks like Darknet's result.json (-out), which lists the objects of each frame; write one row for each "
        "object: its filename as file_name, its name as category_name, its confidence as score, and [center_x, "
        "center_y, width, height] as bbox, which --box-format cxcywhn reads"
    )
