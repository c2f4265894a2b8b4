"""The images and categories that a COCO data set lists: their ids, names and sizes, checked."""

import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from yolojax.errors import DataError, shown
from yolojax.eval.columns import Record, id_column, optional_column
from yolojax.paths import is_class_name


def records_by_id(records: Sequence[Any], kind: str, where: str) -> dict[Any, Record]:
    """Records by id, in the order of the ids, which is the order in which COCO's code visits them.

    An image that is listed twice under one id and one file name counts once.
    """
    ids = id_column(records, "id", lambda row: f"{where}{kind} row {row}", DataError)
    numbers = [key for key in ids if isinstance(key, int)]
    if numbers and max(max(numbers), -min(numbers)) >= 2**63:
        row, key = next((row, key) for row, key in enumerate(ids) if isinstance(key, int) and abs(key) >= 2**63)
        raise DataError(f"{where}{kind} row {row}: 'id' is {shown(key)}; give an integer below 2^63, or a string")
    by_id: dict[Any, Record] = {}
    id_of_file: dict[str, Any] = {}
    field = "file_name" if kind == "image" else "name"
    for row, (key, record) in enumerate(zip(ids, records, strict=True)):
        text = record.get(field)
        is_text = isinstance(text, str) and (text != "" or kind == "category")  # names of classes are looked at below
        if not is_text and (text is not None or (field == "name" and field in record)):
            raise DataError(f"{where}{kind} row {row}: '{field}' is {shown(text)}, not a text; correct it")
        if kind == "category" and text is not None and not is_class_name(text):
            raise DataError(f"{where}{kind} row {row}: 'name' is {shown(text)}; give it a name of letters")
        file = text if kind == "image" else None
        if key in by_id and (file is None or by_id[key].get("file_name") != file):
            raise DataError(f"{where}{kind} id {key!r} is listed more than once")
        if isinstance(file, str) and file and id_of_file.setdefault(file, key) != key:
            raise DataError(f"{where}{shown(file)} has the ids {id_of_file[file]!r} and {key!r}; merge the two entries")
        by_id.setdefault(key, record)
    try:
        return {key: by_id[key] for key in sorted(by_id)}
    except TypeError:
        text = next(key for key in by_id if isinstance(key, str))
        raise DataError(
            f"{where}{kind} ids are numbers in some entries and texts in others, e.g. {shown(text)}; write all alike"
        ) from None


def count_ids(ids: Sequence[Any]) -> int:
    """How many different ids there are that are neither missing nor 0."""
    if set(map(type, ids)) <= {int}:
        return len(set(ids) - {0})
    return len({str(one) for one in ids if one})


def grouping_categories(category_of: Mapping[Any, Record], used: set[Any]) -> set[Any]:
    """Ids of categories that only group others: no object has them, and a class in use bears their name.

    Roboflow's exports begin with such a category. Without objects it changes no number.
    """
    names = Counter(str(record.get("name", key)) for key, record in category_of.items())
    taken = {str(record.get("name", key)) for key, record in category_of.items() if key in used}
    return {
        key
        for key, record in category_of.items()
        if key not in used and names[str(record.get("name", key))] > 1 and str(record.get("name", key)) in taken
    }


def file_name_of(record: Record) -> str:
    """The name of an image's file; the end of its address, as in LVIS, or its id where the data set gives none."""
    name, address = record.get("file_name"), record.get("coco_url")
    if name is None and isinstance(address, str):
        name = "/".join(address.split("?")[0].split("/")[-2:])
    return str(record["id"]) if name is None else name


def image_sides(records: Sequence[Record], key: str) -> Int64[np.ndarray, " I"]:
    """Height or width of each image, 0 where it is missing or no number; only pictures need it, no metric does."""
    values = optional_column(records, key)
    if set(map(type, values)) == {int}:
        with contextlib.suppress(OverflowError):  # a number of dozens of digits
            sides = np.fromiter(values, np.int64, len(values))
            return np.where((sides > 0) & (sides < 2**31), sides, 0)
    return np.array([_side(value) for value in values], np.int64)


def _side(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.0*)?", value.strip(), re.ASCII):  # as some writers have it
        value = float(value)
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 and value == int(value) else 0
