"""Reading JSON columns strictly: what is missing, not a number or not finite is refused by the name of its row."""

import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from yolojax.errors import YolojaxError

Record = Mapping[str, Any]
RowName = Callable[[int], str]
"""From a position in a column to the words that name it in a message."""

_LARGEST = 1e9
"""Coordinate; the areas of larger boxes lose their digits."""


def read_json(path: str | PathLike[str], error: type[YolojaxError]) -> Any:
    """A parsed JSON file; raises ``error`` with the path and the reason where that fails."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as reason:
        raise error(f"cannot read {path}: {reason.strerror or reason}") from reason
    except (ValueError, RecursionError) as reason:
        raise error(f"{path} is not a JSON file: {reason}") from reason


def lists_of(data: Any, keys: Sequence[str], where: str, error: type[YolojaxError]) -> list[Sequence[Any]]:
    """The named lists of a JSON object."""
    if not isinstance(data, Mapping):
        raise error(f"{where} must be an object with the lists {', '.join(keys)}, not a {type(data).__name__}")
    for key in keys:
        if not isinstance(data.get(key), Sequence) or isinstance(data[key], str):
            raise error(f"{where} has no list '{key}'")
    return [data[key] for key in keys]


def column(records: Sequence[Any], key: str, name: RowName, error: type[YolojaxError]) -> list[Any]:
    """One field of every record."""
    values = [record.get(key) if isinstance(record, Mapping) else None for record in records]
    if any(value is None for value in values):
        raise error(f"{name(next(k for k, value in enumerate(values) if value is None))} has no '{key}'")
    return values


def id_column(records: Sequence[Any], key: str, name: RowName, error: type[YolojaxError]) -> list[Any]:
    """One field of every record that is an id: an integer or a string (or any other plain number)."""
    values = column(records, key, name, error)
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, str, float, np.number)):
            raise error(f"{name(row)}: '{key}' must be an integer or a string, not {value!r}")
    return values


def finite_column(
    values: Sequence[Any] | np.ndarray, what: str, name: RowName, error: type[YolojaxError]
) -> Float64[np.ndarray, " N"]:
    """Float64 of plain finite numbers (a string that looks like one is refused: so would other tools)."""
    array = _numeric(values)
    has_bool = not isinstance(values, np.ndarray) and any(isinstance(value, bool) for value in values)
    if array is None or array.ndim != 1 or has_bool:
        bad = next(k for k, v in enumerate(values) if (one := _numeric([v])) is None or one.ndim != 1)
        raise error(f"{name(bad)}: {what} is not a number but {values[bad]!r}")
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array)))
        raise error(f"{name(bad)}: {what} is {values[bad]}; only finite numbers can be evaluated")
    return array


def box_column(
    values: Sequence[Any] | np.ndarray, name: RowName, error: type[YolojaxError]
) -> Float64[np.ndarray, "N 4"]:
    """Float64 xywh boxes: four finite numbers each, no negative width or height."""
    array = _numeric(values) if len(values) else np.empty((0, 4))
    if array is None or array.shape[1:] != (4,):
        bad = next(k for k, v in enumerate(values) if (one := _numeric([v])) is None or one.shape[1:] != (4,))
        raise error(f"{name(bad)}: 'bbox' must be four numbers x, y, w, h, not {values[bad]!r}")
    wrong = ~np.isfinite(array).all(1)
    if wrong.any():
        bad = int(np.argmax(wrong))
        raise error(f"{name(bad)}: 'bbox' is {array[bad].tolist()}; only finite boxes can be evaluated")
    wrong = (np.abs(array) > _LARGEST).any(1)
    if wrong.any():
        bad = int(np.argmax(wrong))
        raise error(f"{name(bad)}: 'bbox' is {array[bad].tolist()}; coordinates above 1e9 are of no image")
    wrong = (array[:, 2:] < 0).any(1)
    if wrong.any():
        bad = int(np.argmax(wrong))
        raise error(
            f"{name(bad)}: 'bbox' {array[bad].tolist()} has a negative width or height; is it x1, y1, x2, y2 "
            "instead of x, y, w, h?"
        )
    return array


def flag_column(
    records: Sequence[Record], key: str, name: RowName, error: type[YolojaxError]
) -> Bool[np.ndarray, " N"]:
    """One field of every record that is 0, 1, true or false; false where it is missing."""
    values = [record.get(key) for record in records]
    for row, value in enumerate(values):
        if value is not None and (not isinstance(value, int | float) or value not in (0, 1)):
            raise error(f"{name(row)}: '{key}' is {value!r}, not 0 or 1")
    return np.array([bool(value) for value in values], bool)


def _numeric(values: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    """Float64 array of the values, or None where they are ragged or not all numbers."""
    try:
        array = np.asarray(values)
    except ValueError:
        return None
    return array.astype(np.float64) if array.dtype.kind in "fiu" or array.size == 0 else None
