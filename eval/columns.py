"""Fields of JSON records as checked columns of arrays.

Every check names the row that fails. The checks look at all values at once and search for the row only when one fails,
because a list of results has up to millions of rows.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import is_
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from yolojax.errors import YolojaxError, shortened, shown
from yolojax.eval.result_format import Absent
from yolojax.processor.memory import without_garbage_collection

Record = Mapping[str, Any]
RowName = Callable[[int], str]
"""From a position in a column to the words that name it in a message."""

LARGEST = 1e9
"""Coordinate; the areas of larger boxes lose their digits."""

LARGEST_AREA = 2.0**53
"""Square pixels; what is larger is a placeholder and no area."""

OTHER_KEYS = {
    "image_id": ("image", "img_id", "imageId", "image_index"),
    "category_id": ("class_id", "class", "cls", "label_id", "categoryId"),
    "bbox": ("box", "boxes", "bounding_box", "xywh", "xyxy"),
    "score": ("confidence", "conf", "probability", "prob", "scores"),
}
"""What other writers call a field of a row."""

_LIST_KEYS, _ROW_KEYS = ("images", "annotations", "categories"), ("image_id", "category_id", "bbox", "score")
"""Keys that `read_json` looks for twice in one object."""

_SCANNED = 1 << 18
"""Bytes of a file that are looked at together, so that they stay in the processor's cache."""


def read_json(path: str | PathLike[str], error: type[YolojaxError]) -> Any:
    """A parsed JSON file; raises ``error`` with the path and the reason where that fails.

    An object that has one of the keys of COCO's format twice is refused: JSON readers keep the last value in silence.
    Where ``orjson`` is installed it reads the file, in a third of the time; what it refuses, ``json`` reads or
    explains.
    """
    return parse_json(read_content(path, error), path, error)


def read_content(path: str | PathLike[str], error: type[YolojaxError]) -> bytes:
    """What a file holds; raises ``error`` with the path and the reason where it cannot be read."""
    name = str(path)
    if name.startswith(("http:/", "https:/", "s3:/", "gs:/", "ftp:/")):
        raise error(f"{name} is an address, not a file; download it and give the path of the file")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as reason:
        raise error(f"cannot read {path}: {getattr(reason, 'strerror', None) or reason}") from reason


def parse_json(content: bytes, path: str | PathLike[str], error: type[YolojaxError]) -> Any:
    """The value that ``content``, read from ``path``, stands for; as `read_json`."""
    try:
        with without_garbage_collection():
            data = _parse(content)
        _refuse_repeated_keys(content, data, str(path), error)
        return data
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not a JSON file: it is not UTF-8 text (byte {reason.start})") from reason
    except (ValueError, RecursionError) as reason:
        lines = "Extra data" in str(reason) and content.lstrip().startswith(b"{")
        mend = "; it looks like one object a line: write them as one list, [...], with commas between" if lines else ""
        what = shortened(str(reason), 80) if content.strip() else "it is empty; write it again"
        raise error(f"{path} is not a JSON file: {what}{mend}") from reason


def _parse(content: bytes) -> Any:
    try:
        import orjson  # pyright: ignore[reportMissingImports]

        return orjson.loads(content)
    except (ImportError, ValueError):  # NaN, a byte order mark, integers of more than 64 bits, or no JSON at all
        return json.loads(content.decode("utf-8-sig"))


def _refuse_repeated_keys(content: bytes, data: Any, name: str, error: type[YolojaxError]) -> None:
    """Counts the keys in the text and in what was read; only where they differ does a slower reader look for them."""
    if _every_text_was_read(content, data):
        return
    records, found = data, {}
    if isinstance(data, dict):
        records, found = data.get("annotations"), {key: int(key in data) for key in _LIST_KEYS}
    if not isinstance(records, list) or not set(map(type, records)) <= {dict}:
        records = []
    for key in _ROW_KEYS:
        found[key] = sum(map(dict.__contains__, records, itertools.repeat(key)))
    if all(content.count(f'"{key}"'.encode()) == count for key, count in found.items()):
        return

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise error(f"{name}: one object has the key {shown(twice)} more than once; keep one of them")
        return result

    json.loads(content.decode("utf-8-sig"), object_pairs_hook=pairs)


def _every_text_was_read(content: bytes, data: Any) -> bool:
    """Whether the file has two quotation marks for each key and each text that was read, and no others.

    Then no key was dropped. Only keys and texts of the object, and of the records in it and in its lists, are counted,
    so that records with objects in them are left to a closer look.
    """
    marks = count_quotation_marks(content)
    inner = data.values() if isinstance(data, dict) else [data]
    lists = [[one] if isinstance(one, dict) else one for one in inner if isinstance(one, dict | list)]
    lists = [one for one in lists if set(map(type, one)) <= {dict}]
    keys = sum(sum(map(len, one)) for one in lists)
    if isinstance(data, dict):
        keys += len(data) + sum(isinstance(one, str) for one in inner)
    if marks > 2 * keys:
        for one in lists:
            keys += list(map(type, itertools.chain.from_iterable(map(dict.values, one)))).count(str)
    return marks == 2 * keys


def count_quotation_marks(content: bytes) -> int:
    """How many ``"`` there are."""
    characters = np.frombuffer(content, np.uint8)
    return sum(
        int(np.count_nonzero(characters[start : start + _SCANNED] == ord('"')))
        for start in range(0, len(characters), _SCANNED)
    )


def lists_of(data: Any, keys: Sequence[str], where: str, error: type[YolojaxError]) -> list[Sequence[Any]]:
    """The named lists of a JSON object."""
    if not isinstance(data, Mapping):
        raise error(f"{where} must be an object with the lists {', '.join(keys)}, not a {type(data).__name__}")
    for key in keys:
        if not isinstance(data.get(key), Sequence) or isinstance(data[key], str):
            there = [str(one) for one, value in data.items() if isinstance(value, list)]
            others = f"; its lists are {few(dict.fromkeys(there))}" if there else ""
            raise error(f"{where} has no list '{key}'{others}")
    return [data[key] for key in keys]


def column(records: Sequence[Any], key: str, name: RowName, error: type[YolojaxError]) -> list[Any]:
    """One field of every record."""
    return _with_kinds(records, key, name, error)[0]


def _with_kinds(
    records: Sequence[Any], key: str, name: RowName, error: type[YolojaxError]
) -> tuple[list[Any], set[type]]:
    """One field of every record, and the types of its values."""
    values = optional_column(records, key)
    kinds = set(map(type, values))
    if NoneType in kinds:
        row = int(np.argmax(is_missing(values)))
        raise error(f"{name(row)} has no '{key}'{other_key(records[row], key)}")
    return values, kinds


def other_key(record: Any, key: str) -> str:
    """What a record without this key calls it, as the end of a message; empty if nothing of this kind is there."""
    given = OTHER_KEYS.get(key, ()) if isinstance(record, Mapping) else ()
    other = next((one for one in given if record.get(one) is not None), None)
    return "" if other is None else f", but '{other}': call it '{key}'"


def optional_column(records: Sequence[Any], key: str) -> list[Any]:
    """One field of every record, None where it is missing."""
    try:
        return list(map(dict.get, records, itertools.repeat(key)))
    except TypeError:  # not all of them are dictionaries
        return [record.get(key) if isinstance(record, Mapping) else None for record in records]


def is_missing(values: Sequence[Any]) -> Bool[np.ndarray, " N"]:
    """Which values are None."""
    return np.fromiter(map(is_, values, itertools.repeat(None)), bool, len(values))


def are_mappings(records: Sequence[Any]) -> bool:
    """Whether all records are mappings; of a million dictionaries in milliseconds."""
    return set(map(type, records)) <= {dict} or all(isinstance(record, Mapping) for record in records)


def keys_used(records: Sequence[Any]) -> set[Any]:
    """All keys of all records that are mappings."""
    if set(map(type, records)) <= {dict}:
        return set(itertools.chain.from_iterable(records))
    return {key for record in records if isinstance(record, Mapping) for key in record}


def id_column(records: Sequence[Any], key: str, name: RowName, error: type[YolojaxError]) -> list[Any]:
    """One field of every record that is an id: an integer, as which 7.0 counts too, or a string."""
    values, kinds = _with_kinds(records, key, name, error)
    if kinds <= {int, str}:
        return values
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, str, float, np.number)):
            raise error(f"{name(row)}: '{key}' must be an integer or a string, not {shown(value)}")
        if isinstance(value, float) and (not math.isfinite(value) or value % 1):
            raise error(f"{name(row)}: '{key}' is {value}; an id is an integer or a string")
        if isinstance(value, float) and abs(value) >= 2**63:  # an integer that the reader of JSON rounded
            raise error(f"{name(row)}: '{key}' is {value:.17g}; give an integer below 2^63, or a string")
    return values


def finite_column(
    values: Sequence[Any] | np.ndarray, what: str, name: RowName, error: type[YolojaxError]
) -> Float64[np.ndarray, " N"]:
    """Float64 of plain finite numbers (a string that looks like one is refused: so would other tools)."""
    array = _numeric(values)
    has_bool = not isinstance(values, np.ndarray) and bool in set(map(type, values))
    if array is None or array.ndim != 1 or has_bool:
        bad = next(
            k for k, v in enumerate(values) if isinstance(v, bool) or (one := _numeric([v])) is None or one.ndim != 1
        )
        raise error(f"{name(bad)}: {what} is not a number but {shown(values[bad])}")
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array)))
        raise error(f"{name(bad)}: {what} is {values[bad]}; only finite numbers can be evaluated")
    return array


def number_rows(
    values: Sequence[Any] | np.ndarray, name: RowName, error: type[YolojaxError]
) -> Float64[np.ndarray, "N 4"]:
    """Four finite numbers for each row, none beyond `LARGEST`; in which format they are boxes is not asked here."""
    array = _fours(values)
    if array is None:
        bad = next(k for k, v in enumerate(values) if not _is_four(v))
        raise error(f"{name(bad)}: 'bbox' must be four numbers x, y, w, h, not {shown(values[bad])}")
    wrong = ~np.isfinite(array).all(1)
    if wrong.any():
        bad = int(np.argmax(wrong))
        raise error(f"{name(bad)}: 'bbox' is {array[bad].tolist()}; only finite boxes can be evaluated")
    wrong = (np.abs(array) > LARGEST).any(1)
    if wrong.any():
        bad = int(np.argmax(wrong))
        raise error(f"{name(bad)}: 'bbox' is {array[bad].tolist()}; coordinates above 1e9 are of no image")
    return array


def check_sides(boxes: Float64[np.ndarray, "N 4"], name: RowName, error: type[YolojaxError]) -> None:
    """Raises ``error`` where an xywh box has a negative width or height."""
    wrong = (boxes[:, 2:] < 0).any(1)
    if wrong.any():
        bad = int(np.argmax(wrong))
        raise error(
            f"{name(bad)}: 'bbox' {boxes[bad].tolist()} has a negative width or height; is it x1, y1, x2, y2 "
            "instead of x, y, w, h?"
        )


def flag_column(
    records: Sequence[Record], key: str, name: RowName, error: type[YolojaxError]
) -> Bool[np.ndarray, " N"]:
    """One field of every record that is 0, 1, true or false; false where it is missing."""
    values = optional_column(records, key)
    kinds = set(map(type, values))
    if kinds <= {int, bool, NoneType} and set(values) <= {0, 1, None}:
        return np.fromiter(map(bool, values), bool, len(values))
    for row, value in enumerate(values):
        if value is not None and (not isinstance(value, int | float) or value not in (0, 1)):
            raise error(f"{name(row)}: '{key}' is {shown(value)}, not 0 or 1")
    return np.array([bool(value) for value in values], bool)


def few(values: Sequence[Any] | Iterator[Any] | dict[Any, Any]) -> str:
    """The first five of some values, as text."""
    texts = [value.name if isinstance(value, Absent) else shown(value) for value in itertools.islice(values, 6)]
    return ", ".join(texts if len(texts) < 6 else [*texts[:5], "..."]) or "none"


def _fours(values: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    """Float64 ``[N, 4]``, or None where a row is not four numbers."""
    if not len(values):
        return np.empty((0, 4))
    if isinstance(values, np.ndarray):
        array = _numeric(values)
        return array if array is not None and array.shape[1:] == (4,) else None
    plain = set(map(type, values)) == {list} and set(map(len, values)) == {4}
    if plain and set(map(type, itertools.chain.from_iterable(values))) <= {int, float}:
        try:
            return np.fromiter(itertools.chain.from_iterable(values), np.float64, 4 * len(values)).reshape(-1, 4)
        except OverflowError:  # an integer of hundreds of digits
            return None
    array = _numeric(values)
    if array is None or array.shape[1:] != (4,) or bool in set(map(type, itertools.chain.from_iterable(values))):
        return None
    return array


def _is_four(value: Any) -> bool:
    """Whether a value is four numbers; true and false are none."""
    one = _numeric([value])
    has_bool = isinstance(value, Sequence) and any(isinstance(v, bool) for v in value)
    return one is not None and one.shape[1:] == (4,) and not has_bool


def _numeric(values: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    """Float64 array of the values, or None where they are ragged or not all numbers."""
    try:
        array = np.asarray(values)
    except ValueError:
        return None
    return array.astype(np.float64) if array.dtype.kind in "fiu" or array.size == 0 else None
