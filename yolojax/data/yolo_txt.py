"""YOLO txt: one text file an image with rows ``class cx cy w h``, fractions of the image; classes in a YAML file.

The YAML file (``data.yaml`` or another) has ``names`` (a list, or a mapping from 0, 1, ... to names) and, per split, a
folder of images, a text file that lists images, or a list of those, relative to ``path``. The label file of
``images/train/a.jpg`` is ``labels/train/a.txt`` (the last folder called ``images`` becomes ``labels``); without such a
folder it lies beside the image. An image without a label file is a background image.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from yolojax.data.dataset import Dataset, ImageRecord
from yolojax.data.objects import RawObject, RecordBuilder, class_lookup, finite_number, unknown_class
from yolojax.data.paths import choose_split, images_below, inside, read_text
from yolojax.data.summary import Notebook
from yolojax.errors import DataError

# Besides its own, PyYAML lets errors of what it builds escape: an impossible date, a number of thousands of digits.
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)
_SPLITS = ("train", "val", "test")
_LARGEST_FRACTION = 2.0  # beyond it a value is no rounding or overlap but another unit


def find_yolo(folder: Path) -> Path | None:
    """The YAML file of a YOLO data set at a folder, or None: ``data.yaml`` first, else one that has ``names``."""
    candidates = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda p: (p.stem != "data", p.name))
    for path in candidates:
        try:
            content = yaml.safe_load(read_text(path))
        except (*_YAML_ERRORS, DataError):
            if path.stem == "data":
                return path  # let the reader say what is wrong with it
            continue
        if path.stem == "data" or (isinstance(content, dict) and "names" in content):
            return path
    return None


def yolo_splits(path: Path) -> list[str]:
    """The splits that a YAML file names."""
    content = _load(path)
    return [s for s in _SPLITS if content.get(s)]


def read_yolo(
    path: Path, split: str | None, class_names: Sequence[str] | None, images: Path | None, skip_bad: bool
) -> Dataset:
    """The data set of a YAML file: one split, or every split whose images exist."""
    content = _load(path)
    notebook = Notebook(skip_bad)
    file_names = _names(content, path)
    names = tuple(class_names) if class_names is not None else file_names
    index = class_lookup(names, str(path))
    class_lookup(file_names, str(path))
    root = _root(content, path, notebook)
    if split is not None:
        split = choose_split(split, yolo_splits(path), path)
    found = _list_images(content, path, root, split, images, notebook)
    builder = RecordBuilder(notebook)
    records: list[ImageRecord] = []
    labels: set[Path] = set()
    for image in found:
        label = _label_of(image, root)
        if label in labels:
            notebook.add("note", str(image), f"shares its label file {label} with an image of another suffix")
        labels.add(label)
        with notebook.guard(str(image)):
            size, upright = builder.open_image(image, None, str(image))
            objects = _read_label(label, size, file_names, index, notebook) if label.is_file() else []
            name = image.relative_to(images or root).as_posix()
            records.append(builder.build(len(records) + 1, name, image, size, upright, str(label), objects))
    if not any(label.is_file() for label in labels):
        tried = min(labels, default=root)
        raise DataError(f"{path}: not one image has a label file; the first would be {tried}: put the labels there")
    for folder in sorted({label.parent for label in labels}):
        for orphan in sorted(set(folder.glob("*.txt")) - labels):
            if _is_label(orphan, content, root):
                notebook.add("orphan", str(orphan), "no image belongs to this label file")
    return Dataset(
        class_names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        records=tuple(records),
        summary=notebook.summary(),
        root=root,
        split=split,
        format="yolo",
        skip_bad=skip_bad,
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path))
    except _YAML_ERRORS as error:
        raise DataError(f"{path}: malformed YAML ({' '.join(str(error).split())}); correct the file") from None
    if not isinstance(content, dict) or "names" not in content:
        raise DataError(f"{path}: not a YOLO data file: it needs names, and a folder of images per split (train, val)")
    return {str(key): value for key, value in content.items()}


def _names(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = content["names"]
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(f"{path}: names must have the keys 0, 1, ..., {len(names) - 1}, one for each class")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(n, str | int) and not isinstance(n, bool) for n in names):
        raise DataError(f"{path}: names must list the classes as text (quote words such as yes and no)")
    stated = content.get("nc", len(names))
    if stated != len(names):
        raise DataError(f"{path}: nc is {stated}, but names lists {len(names)} classes; correct one of them")
    return tuple(str(n) for n in names)


def _root(content: dict[str, Any], path: Path, notebook: Notebook) -> Path:
    """The folder that ``path`` names, relative to the YAML file; a note when it lies elsewhere."""
    stated = content.get("path")
    if stated in (None, ""):
        return path.parent
    root = Path(os.path.normpath(path.parent / str(stated)))
    if not os.path.isdir(root):
        raise DataError(f"{path}: path {str(stated)!r} means the folder {root}, which does not exist; correct it")
    if not root.resolve().is_relative_to(path.parent.resolve()):
        notebook.add("note", str(path), f"its path leads to another folder: {root}")
    return root


def _entries(content: dict[str, Any], split: str) -> list[str]:
    value = content.get(split)
    return [str(v) for v in (value if isinstance(value, list) else [value] if value else [])]


def _list_images(
    content: dict[str, Any], path: Path, root: Path, split: str | None, images: Path | None, notebook: Notebook
) -> list[Path]:
    if images is not None:
        return images_below(images)
    entries: list[tuple[str, str]] = []
    for key in _SPLITS if split is None else (split,):
        entries += [(key, entry) for entry in _entries(content, key)]
    if not entries:
        raise DataError(f"{path}: names no images; add train and val, each a folder of images")
    found: dict[Path, str] = {}
    for key, entry in entries:
        place = _place(entry, key, path, root)
        where = f"{path} {key}"
        if split is None and not place.exists():
            notebook.add("note", where, f"{place} does not exist; left out")
            continue
        for image in _images_at(place, where, root):
            if image in found and (split is not None or found[image] == key):
                notebook.add("duplicate", str(image), f"listed more than once under {key}")
            found.setdefault(image, key)
    if not found:
        raise DataError(f"{path}: no images in {', '.join(v for _, v in entries)} of {root}; correct the folders")
    return list(found)


def _place(entry: str, key: str, path: Path, root: Path) -> Path:
    where = f"{path} {key}"
    absolute = Path(os.path.normpath(entry))
    if absolute.is_absolute() and absolute.is_relative_to(root.absolute()):
        return absolute
    trimmed = entry.replace("\\", "/")
    while trimmed.startswith("../"):
        trimmed = trimmed.removeprefix("../")
    # A widespread exporter writes `train: ../train/images` for a folder that lies beside the YAML file.
    if trimmed != entry and trimmed and os.path.isdir(root / trimmed):
        return inside(root, trimmed, where)
    return inside(root, entry, where)


def _images_at(place: Path, where: str, root: Path) -> list[Path]:
    if place.is_dir():
        return images_below(place)
    if not place.is_file() or place.suffix != ".txt":
        raise DataError(f"{where}: {place} is neither a folder of images nor a .txt file that lists them; correct it")
    listed: list[Path] = []
    for number, line in enumerate(read_text(place).splitlines(), 1):
        name, spoken = line.strip(), f"{place} line {number}"
        if not name:
            continue
        absolute = Path(os.path.normpath(name))
        if absolute.is_absolute() and absolute.is_relative_to(root.absolute()):
            listed.append(root / absolute.relative_to(root.absolute()))
        else:
            listed.append(inside(root, name, spoken))
    return listed


def _label_of(image: Path, root: Path) -> Path:
    parts = list(image.with_suffix(".txt").parts)
    first = len(root.parts) if image.is_relative_to(root) else 0
    for i in range(len(parts) - 2, first - 1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts)


def _is_label(path: Path, content: dict[str, Any], root: Path) -> bool:
    """Whether a text file among labels is one, and not a list of images or classes that lies beside the images."""
    lists = {os.path.normpath(root / entry) for split in _SPLITS for entry in _entries(content, split)}
    return path.stem not in ("classes", "README", "readme") and os.path.normpath(path) not in lists


def _read_label(
    path: Path, size: tuple[int, int], file_names: Sequence[str], index: dict[str, int], notebook: Notebook
) -> list[RawObject]:
    h, w = size
    objects: list[RawObject] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where, columns = f"{path} line {number}", line.split()
        if len(columns) != 5:
            polygon = len(columns) > 6 and len(columns) % 2 == 1
            mend = "this is a polygon: convert it to a box" if polygon else "correct it"
            raise DataError(f"{where}: {len(columns)} columns, but a row has 5 (class cx cy w h); {mend}")
        values = [finite_number(c) for c in columns]
        if any(v is None for v in values):
            raise DataError(f"{where}: {line.strip()!r} holds something that is no finite number; correct the row")
        number_of_class, cx, cy, bw, bh = (v for v in values if v is not None)
        if max(abs(cx), abs(cy), abs(bw), abs(bh)) > _LARGEST_FRACTION:
            raise DataError(f"{where}: {line.strip()!r} seems to be in pixels; divide by the image's width and height")
        if number_of_class % 1 or not 0 <= number_of_class < len(file_names):
            raise DataError(
                f"{where}: class {columns[0]} is not an index from 0 to {len(file_names) - 1}; correct it or add a name"
            )
        name = file_names[int(number_of_class)]
        if name not in index:
            with notebook.guard(where):
                raise unknown_class(name, where, list(index))
            continue
        box = ((cx - bw / 2) * w, (cy - bh / 2) * h, (cx + bw / 2) * w, (cy + bh / 2) * h)
        objects.append(RawObject(f"line {number}", box, index[name]))
    return objects
