"""Ground truth and detections, read and checked once, as columns of arrays.

This module refuses or counts input that COCO tools accept silently and then score wrongly. Arguments are never changed;
ids are renumbered in the columns.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.errors import DataError, ResultError, YolojaxError

Record = Mapping[str, Any]
RowName = Callable[[int], str]
"""From a position in a column to the words that name it in a message."""

_LARGEST = 1e9
"""Coordinate; the areas of larger boxes lose their digits."""

GroundTruthSource = Record | str | PathLike[str]
DetectionSource = Sequence[Record] | Record | np.ndarray | str | PathLike[str]
Unknown = Literal["refuse", "count"]
IgnoreMeans = Literal["ordinary", "crowd"]
Ties = Literal["listed", "canonical"]


@dataclass(frozen=True)
class GroundTruth:
    """Objects of a data set, in columns; images and categories are indices into the sorted ids.

    ``sizes`` are ``(height, width)`` of the images, 0 where the data set does not state them. ``boxes`` are xywh in
    pixels. ``areas`` are the data set's own (of the mask, in COCO), which decide what is small,
    medium and large, and the box's only where the data set gives none. ``crowd`` regions are neither object nor
    background. ``repairs`` counts what was renumbered, filled in or left out.
    """

    image_ids: tuple[Any, ...]
    file_names: tuple[str, ...]
    sizes: Int64[np.ndarray, "I 2"]
    category_ids: tuple[Any, ...]
    category_names: tuple[str, ...]
    images: Int64[np.ndarray, " G"]
    categories: Int64[np.ndarray, " G"]
    boxes: Float64[np.ndarray, "G 4"]
    areas: Float64[np.ndarray, " G"]
    crowd: Bool[np.ndarray, " G"]
    repairs: dict[str, int]


@dataclass(frozen=True)
class ScoredBoxes:
    """Detections in columns, ordered by image and falling score.

    ``rows`` are their positions in the list that was read. ``boxes`` are xywh in pixels of the original image;
    ``images`` and ``categories`` index those of the ground truth. Rows about unknown ids are left out and counted by
    id.
    """

    images: Int64[np.ndarray, " D"]
    categories: Int64[np.ndarray, " D"]
    boxes: Float64[np.ndarray, "D 4"]
    scores: Float64[np.ndarray, " D"]
    rows: Int64[np.ndarray, " D"]
    unknown_images: dict[str, int]
    unknown_categories: dict[str, int]


def read_ground_truth(
    source: GroundTruthSource, *, ignore_means: IgnoreMeans = "ordinary", unknown: Unknown = "refuse"
) -> GroundTruth:
    """A COCO data set (parsed, or the path of its JSON file) as columns.

    Args:
      source: needs ``images`` (``id``), ``categories`` (``id``, ``name``) and ``annotations`` (``image_id``,
        ``category_id``, ``bbox`` as xywh; ``id``, ``area``, ``iscrowd`` and ``ignore`` are optional).
      ignore_means: COCO's code overwrites the flag ``ignore`` by ``iscrowd``, so with ``ordinary``, as there, flagged
        objects count like any other; ``crowd`` makes them regions that are neither object nor background.
      unknown: annotations on images or categories that are not listed: ``refuse`` them, or leave out and ``count``.

    Raises:
      DataError: on a missing list or field, a duplicate id or category name, a box that is not finite or has a
        negative side.
    """
    where = f"{source}: " if isinstance(source, (str, PathLike)) else "ground truth: "
    data = read_json(source, DataError) if isinstance(source, (str, PathLike)) else source
    images, categories, annotations = lists_of(data, ("images", "categories", "annotations"), where[:-2], DataError)
    image_of = _ids_to_records(images, "image", where)
    category_of = _ids_to_records(categories, "category", where)
    category_names = tuple(str(r.get("name", r["id"])) for r in category_of.values())
    if len(set(category_names)) < len(category_names):  # what is reported by class would keep the last of them alone
        twice = Counter(category_names).most_common(1)[0][0]
        raise DataError(f"{where}the name {twice!r} belongs to more than one category; rename or merge them")

    def name(row: int) -> str:
        return f"{where}annotation row {row} (id {annotations[row].get('id')!r})"

    def bare_name(row: int) -> str:
        return f"{where}annotation row {row}"

    image_index = _index(id_column(annotations, "image_id", bare_name, DataError), image_of)
    category_index = _index(id_column(annotations, "category_id", bare_name, DataError), category_of)
    known = np.flatnonzero((image_index >= 0) & (category_index >= 0))
    left_out = len(annotations) - len(known)
    if left_out and unknown == "refuse":
        row = int(np.argmax((image_index < 0) | (category_index < 0)))
        raise DataError(
            f"{name(row)} is about image {annotations[row]['image_id']!r} and category "
            f"{annotations[row]['category_id']!r}, which are not both listed ({left_out} such rows in all); list them, "
            "remove the rows, or have them counted and left out"
        )

    boxes = box_column([a.get("bbox") for a in annotations], name, DataError)
    no_area = np.array([a.get("area") is None for a in annotations], bool)
    given = finite_column([0 if a.get("area") is None else a["area"] for a in annotations], "'area'", name, DataError)
    if (given < 0).any():
        row = int(np.argmax(given < 0))
        raise DataError(
            f"{name(row)}: 'area' is {annotations[row]['area']}; correct it, or leave it out for the box's own"
        )
    crowd = flag_column(annotations, "iscrowd", name, DataError)
    flagged = flag_column(annotations, "ignore", name, DataError) & ~crowd
    ids = [a.get("id") for a in annotations]  # may be missing, 0 or repeated
    return GroundTruth(
        image_ids=tuple(image_of),
        file_names=tuple(str(r.get("file_name", r["id"])) for r in image_of.values()),
        sizes=np.array([[_side(r, "height"), _side(r, "width")] for r in image_of.values()], np.int64).reshape(-1, 2),
        category_ids=tuple(category_of),
        category_names=category_names,
        images=image_index[known],
        categories=category_index[known],
        boxes=boxes[known],
        areas=np.where(no_area, boxes[:, 2] * boxes[:, 3], given)[known],
        crowd=(crowd | flagged if ignore_means == "crowd" else crowd)[known],
        repairs={
            # pycocotools takes id 0 for "unmatched", and of a repeated id it keeps one annotation.
            "renumbered_ids": len(ids) - len({str(i) for i in ids if i}),
            "filled_areas": int(no_area.sum()),
            "filled_iscrowd": sum(a.get("iscrowd") is None for a in annotations),
            "ignore_flags": int(flagged.sum()),
            "unknown_annotations": left_out,
        },
    )


def read_detections(
    source: DetectionSource, truth: GroundTruth, *, unknown: Unknown = "refuse", ties: Ties = "listed"
) -> ScoredBoxes:
    """Detections as columns, by image and falling score.

    Args:
      source: one of

        - a COCO result list of ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``, or its JSON file. Where
          the ground truth's own ids are numbers, strings in their place are names: of the image's file, with or without
          folder and suffix, and of the category, exactly;
        - a scored COCO *data set*, whose ``annotations`` have a ``score``, or its JSON file. Its ids are its own: it
          is joined by file name and category name;
        - an array ``[D, 7]`` of ``image_id, x, y, w, h, score, category_id``.
      truth: what the detections are about.
      unknown: rows on images or categories that the ground truth does not list: ``refuse`` them, or leave them out and
        ``count``.
      ties: the order of equal scores within an image: as ``listed``, or ``canonical``, by content (area, x, y, w, h).

    Raises:
      ResultError: on what is missing, not a number, not finite, negative in width or height, or unknown.
    """
    where = str(source) if isinstance(source, (str, PathLike)) else "detections"
    data = read_json(source, ResultError) if isinstance(source, (str, PathLike)) else source

    def bare_name(row: int) -> str:
        return f"{where} row {row}"

    if isinstance(data, np.ndarray):
        if data.ndim != 2 or data.shape[1] != 7 or data.dtype.kind not in "fiu":
            raise ResultError(
                f"{where}: an array of detections has 7 numeric columns (image_id, x, y, w, h, score, category_id), "
                f"not shape {data.shape} of {data.dtype}"
            )
        image_keys, category_keys = data[:, 0].tolist(), data[:, 6].tolist()
        raw_boxes, raw_scores = data[:, 1:5], data[:, 5]
    else:
        if isinstance(data, Mapping):
            records = lists_of(data, ("annotations",), where, ResultError)[0]
        elif isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
            records = data
        else:
            raise ResultError(f"{where} must be a list of results, not a {type(data).__name__}")
        image_keys = id_column(records, "image_id", bare_name, ResultError)
        category_keys = id_column(records, "category_id", bare_name, ResultError)
        raw_boxes = [record.get("bbox") for record in records]
        raw_scores = column(records, "score", bare_name, ResultError)
        if isinstance(data, Mapping):
            image_keys = _joined(
                data, "images", "file_name", image_keys, truth.file_names, truth.image_ids, where, unknown
            )
            category_keys = _joined(
                data, "categories", "name", category_keys, truth.category_names, truth.category_ids, where, unknown
            )
        else:
            image_keys = _named(image_keys, truth.file_names, truth.image_ids, (_stem, _base, str))
            category_keys = _named(category_keys, truth.category_names, truth.category_ids, (str,))

    def name(row: int) -> str:
        return f"{where} row {row} (image {image_keys[row]})"

    boxes = box_column(raw_boxes, name, ResultError)
    scores = finite_column(raw_scores, "'score'", name, ResultError)
    images, categories = _index(image_keys, truth.image_ids), _index(category_keys, truth.category_ids)
    unknown_images = Counter(str(image_keys[row]) for row in np.flatnonzero(images < 0))
    unknown_categories = Counter(str(category_keys[row]) for row in np.flatnonzero(categories < 0))
    for kind, missing, found, keys, names, ids in (
        ("image", unknown_images, images, image_keys, truth.file_names, truth.image_ids),
        ("category", unknown_categories, categories, category_keys, truth.category_names, truth.category_ids),
    ):
        if missing and unknown == "refuse":
            strange = dict.fromkeys(keys[row] for row in np.flatnonzero(found < 0))
            by_name = isinstance(next(iter(strange)), str) and not any(isinstance(one, str) for one in ids)
            raise ResultError(
                f"{where}: {missing.total()} rows are about {len(missing)} {kind} id(s) that the ground truth does not "
                f"list: {_few(strange)}; it has {_few(names if by_name else ids)}; from another data set?"
            )
    kept = np.flatnonzero((images >= 0) & (categories >= 0))
    x, y, w, h = boxes[kept].T
    content = (categories[kept], h, w, y, x, w * h) if ties == "canonical" else ()
    order = kept[np.lexsort((*content, -scores[kept], images[kept]))]  # stable: what is equal stays as listed
    return ScoredBoxes(
        images[order],
        categories[order],
        boxes[order],
        scores[order],
        order,
        dict(unknown_images),
        dict(unknown_categories),
    )


def _ids_to_records(records: Sequence[Any], kind: str, where: str) -> dict[Any, Record]:
    """Records by id, in the order of the ids, which is the order in which COCO's code visits them."""
    ids = id_column(records, "id", lambda row: f"{where}{kind} row {row}", DataError)
    by_id = dict(zip(ids, records, strict=True))
    if len(by_id) < len(ids):
        raise DataError(f"{where}{kind} id {Counter(ids).most_common(1)[0][0]!r} is listed more than once")
    try:
        return {key: by_id[key] for key in sorted(by_id)}
    except TypeError as reason:
        raise DataError(f"{where}{kind} ids of different types cannot be put in order: {reason}") from reason


def _side(record: Record, key: str) -> int:
    """Height or width of an image, 0 where it is missing or no number; only pictures need it, no metric does."""
    value = record.get(key)
    return value if isinstance(value, int) and 0 < value < 2**31 else 0


def _index(keys: Sequence[Any], ids: Mapping[Any, Any] | Sequence[Any]) -> np.ndarray:
    """Position of each key among the ids, -1 for the unknown ones."""
    position = {key: k for k, key in enumerate(ids)}
    return np.array([position.get(key, -1) for key in keys], np.int64)


def _named(
    keys: list[Any], names: Sequence[str], ids: Sequence[Any], forms: Sequence[Callable[[str], str]]
) -> list[Any]:
    """Ids in place of names, where ids are numbers and names are what the results give; unknown names stay.

    Names may be given in any of the forms, of which the last is the most exact. A name that belongs to two files once
    its folder or suffix is left out belongs to neither.
    """
    if not any(isinstance(key, str) for key in keys) or any(isinstance(one, str) for one in ids):
        return keys
    id_of: dict[str, Any] = {}
    for shorten in forms:  # what is more exact comes last and wins
        short = [shorten(name) for name in names]
        times = Counter(short)
        for name, one in zip(short, ids, strict=True):
            if times[name] == 1:
                id_of[name] = one
            elif shorten is not str:
                id_of.pop(name, None)
    return [id_of.get(key, key) if isinstance(key, str) else key for key in keys]


def _few(values: Iterable[Any]) -> str:
    shown = [repr(value) for value in itertools.islice(values, 6)]
    return ", ".join(shown if len(shown) < 6 else [*shown[:5], "..."]) or "none"


def _base(name: str) -> str:
    """A file's name without its folders."""
    return PurePosixPath(name).name


def _stem(name: str) -> str:
    """A file's name without folders and suffix."""
    return PurePosixPath(name).stem


def _joined(
    data: Record,
    kind: str,
    field: str,
    keys: list[Any],
    names: Sequence[str],
    ids: Sequence[Any],
    where: str,
    unknown: Unknown,
) -> list[Any]:
    """The ground truth's ids for the ids of a scored data set, through names that both must have once.

    With ``unknown="count"`` a name that the ground truth has not becomes an `_Absent`, which equals no id.
    """
    listed = lists_of(data, (kind,), where, ResultError)[0]

    def name(row: int) -> str:
        return f"{where}, '{kind}' row {row}"

    own_ids, own_names = (id_column(listed, key, name, ResultError) for key in ("id", field))
    name_of = dict(zip(own_ids, map(str, own_names), strict=True))  # the ground truth's names are strings too
    for key in keys:
        if key not in name_of:
            raise ResultError(f"{where}: an annotation names id {key!r}, which its own list '{kind}' does not have")
    for side, values in (("the ground truth", list(names)), (where, list(name_of.values()))):
        if len(set(values)) < len(values):
            twice = Counter(values).most_common(1)[0][0]
            raise ResultError(f"cannot join {kind} by '{field}': {side} has {twice!r} more than once")
    id_of = dict(zip(names, ids, strict=True))
    missing = sorted({name_of[key] for key in keys} - set(names))
    if missing and unknown == "refuse":
        raise ResultError(
            f"{where}: {len(missing)} '{field}' in '{kind}' are not in the ground truth: {', '.join(missing[:5])}; a "
            "scored data set is joined by file name and category name, because its ids are its own"
        )
    return [id_of.get(name_of[key], _Absent(name_of[key])) for key in keys]


class _Absent(NamedTuple):
    """A name in place of an id that there is not."""

    name: str

    def __str__(self) -> str:
        return self.name


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
