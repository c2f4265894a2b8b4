"""Data sets made from arrays in memory or from plain records, by the rules of the file readers.

`Dataset.from_arrays` and `Dataset.from_records` are the public names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.data.dataset import Dataset, Source
from yolojax.data.images import as_rgb
from yolojax.data.objects import RawObject, RecordBuilder, class_lookup, unknown_class
from yolojax.data.summary import Notebook
from yolojax.errors import DataError, shown
from yolojax.paths import user_path

KEYS = ("image", "boxes", "classes", "crowd", "image_id", "file_name", "size")


def dataset_from_arrays(
    images: Any,
    boxes: Sequence[Any],
    classes: Sequence[Any],
    class_names: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    crowd: Sequence[Any] | None = None,
    image_ids: Sequence[int] | None = None,
    split: str | None = None,
) -> Dataset:
    """`Dataset.from_arrays`."""
    columns: dict[str, Any] = {"boxes": boxes, "classes": classes}
    columns |= {
        key: column
        for key, column in (("crowd", crowd), ("file_name", names), ("image_id", image_ids))
        if column is not None
    }
    spoken = {"file_name": "names", "image_id": "image_ids"}
    for key, column in columns.items():
        if len(column) != len(images):
            raise DataError(
                f"{len(images)} images, but {spoken.get(key, key)} has {len(column)} entries; give one for each"
            )
    rows = ({"image": image, **{k: c[i] for k, c in columns.items()}} for i, image in enumerate(images))
    return dataset_from_records(rows, class_names, split=split)


def dataset_from_records(
    records: Iterable[Mapping[str, Any]], class_names: Sequence[str], *, split: str | None = None
) -> Dataset:
    """`Dataset.from_records`."""
    texts = isinstance(class_names, str) or list(class_names)
    if texts is True or not all(isinstance(name, str) for name in texts):
        raise DataError(f"class_names = {shown(class_names)}: give a list of texts")
    class_names = tuple(texts)
    index = class_lookup(class_names, "class_names")
    notebook = Notebook(skip_bad=False)
    builder = RecordBuilder(notebook)
    position_of: dict[Any, int] = {}
    for position, record in enumerate(records):
        name, image_id = _read_record(record, position, tuple(class_names), index, builder)
        for what, key in (("file_name", name), ("image_id", image_id)):
            if (other := position_of.setdefault((what, key), position)) != position:
                raise DataError(f"images {other} and {position} have the same {what} {shown(key)}; give each its own")
    if not len(builder):
        raise DataError("no image was given; a data set needs at least one")
    made = builder.close("the arrays")
    return Dataset(
        class_names=tuple(class_names),
        category_ids=tuple(range(1, len(index) + 1)),
        records=made,
        summary=notebook.summary(),
        split=split,
        format="arrays",
    )


def _read_record(
    record: Mapping[str, Any],
    position: int,
    class_names: tuple[str, ...],
    index: Mapping[str, int],
    builder: RecordBuilder,
) -> tuple[str, int]:
    """Adds one record to the builder; returns its file name and id."""
    where = f"image {position}"
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: a record is a dict with the keys {', '.join(KEYS)}, not {type(record).__name__}")
    for key in record:
        if key not in KEYS:
            raise DataError(f"{where}: unknown key {shown(key)}; a record may have {', '.join(KEYS)}")
    for key in ("image", "boxes", "classes"):
        if key not in record:
            raise DataError(f"{where}: has no {shown(key)}; every record needs image, boxes and classes")
    given = record.get("file_name")
    if given is not None and (not isinstance(given, str) or not given):
        raise DataError(f"{where}: file_name is {shown(given)}, not a text")
    if given is not None:
        where = f"image {position} ({given})"
    source, size, upright = _read_source(record, where, given is not None, builder)
    name = given or (str(source) if isinstance(source, Path) else f"{position + 1:06d}")
    image_id = record.get("image_id", position + 1)
    if isinstance(image_id, bool) or not isinstance(image_id, int | np.integer) or not 0 <= image_id < 2**53:
        raise DataError(f"{where}: image_id is {shown(image_id)}, not an integer of at least 0")
    objects = _read_objects(record, where, class_names, index)
    builder.add(int(image_id), name, source, size, upright, where, objects)
    return name, int(image_id)


def _read_source(
    record: Mapping[str, Any], where: str, named: bool, builder: RecordBuilder
) -> tuple[Source, tuple[int, int], bool]:
    """Where the pixels come from, their ``(height, width)``, and whether an EXIF orientation is applied."""
    image: Any = record["image"]
    stated: Any = record.get("size")
    if stated is not None:
        sides = [int(side) for side in np.ravel(np.asarray(stated))] if np.asarray(stated).dtype.kind in "iu" else []
        if len(sides) != 2 or min(sides) < 1:
            raise DataError(f"{where}: size is {shown(stated)}, not (height, width) in pixels")
        stated = (sides[0], sides[1])
    if isinstance(image, str | Path):
        path = user_path(image)
        size, upright = builder.open_image(path, stated, where)
        return path, size, upright
    if callable(image):
        if not named:
            raise DataError(
                f"{where}: an image that is loaded by a function needs a name, by which caches and resumed runs know "
                "it; give it a file_name (from_arrays: names)"
            )
        if stated is None:
            raise DataError(f"{where}: an image that is loaded by a function needs its size = (height, width)")
        return image, stated, True
    pixels = as_rgb(image, where)
    if stated not in (None, pixels.shape[:2]):
        raise DataError(f"{where}: size is {stated}, but the image has (height, width) = {pixels.shape[:2]}")
    return pixels, (pixels.shape[0], pixels.shape[1]), True


def _read_objects(
    record: Mapping[str, Any], where: str, class_names: tuple[str, ...], index: Mapping[str, int]
) -> list[RawObject]:
    boxes = _numbers(record["boxes"], f"{where}: boxes")
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(
            f"{where}: boxes have shape {boxes.shape}, not [k, 4]: one row (x1, y1, x2, y2) for each object"
        )
    kinds: Any = record["classes"]
    kinds = np.asarray(kinds) if hasattr(kinds, "__array__") else kinds
    if isinstance(kinds, str) or not hasattr(kinds, "__iter__") or getattr(kinds, "ndim", 1) != 1:
        raise DataError(f"{where}: classes is {shown(kinds)}; give one row, a class for each box")
    classes = list(kinds)
    crowd = np.zeros(len(boxes), bool) if record.get("crowd") is None else np.asarray(record["crowd"])
    if crowd.size == 0:
        crowd = crowd.astype(bool)
    if len(classes) != len(boxes):
        raise DataError(f"{where}: {len(boxes)} boxes, but {len(classes)} classes; give one for each box")
    if crowd.shape != (len(boxes),) or not np.isin(crowd, (0, 1)).all():
        raise DataError(f"{where}: crowd must hold True or False for each of the {len(boxes)} boxes")
    objects: list[RawObject] = []
    for i, (box, kind) in enumerate(zip(boxes.tolist(), classes, strict=True)):
        spoken = f"{where}, object {i}"
        if not np.isfinite(box).all():
            raise DataError(f"{spoken}: box {box} is not finite")
        x1, y1, x2, y2 = box
        if x2 < x1 or y2 < y1:
            raise DataError(
                f"{spoken}: box {box} is inverted; boxes are (x1, y1, x2, y2) in pixels with x2 >= x1 and y2 >= y1, "
                "not (x, y, width, height)"
            )
        number = _class_index(kind, spoken, class_names, index)
        objects.append(RawObject(i, (x1, y1, x2, y2), number, crowd=bool(crowd[i])))
    return objects


def _numbers(values: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.asarray(values, object)
    if array.size and array.dtype.kind not in "iuf":
        raise DataError(f"{where}: must be an array of numbers [k, 4], not of {array.dtype}")
    return array.astype(np.float64) if array.size else np.zeros(array.shape)


def _class_index(kind: Any, where: str, class_names: tuple[str, ...], index: Mapping[str, int]) -> int:
    if isinstance(kind, str):
        if kind not in index:
            raise unknown_class(kind, where, class_names)
        return index[kind]
    if isinstance(kind, bool | np.bool_) or not isinstance(kind, int | np.integer):
        raise DataError(f"{where}: class {shown(kind)} is neither an integer nor the name of a class")
    if not 0 <= kind < len(class_names):
        known = ", ".join(f"{i} {name}" for i, name in enumerate(class_names[:12]))
        more = ", ..." if len(class_names) > 12 else ""
        raise DataError(f"{where}: class {shown(int(kind))} is out of range; the classes are {known}{more}")
    return int(kind)
