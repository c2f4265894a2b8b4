"""YOLO txt: one text file an image with rows ``class cx cy w h``, fractions of the image; classes in a data file.

The data file is YAML (``data.yaml`` or another), with ``names`` (a list, or a mapping from 0, 1, ... to names) and, per
split, a folder of images, a text file that lists images, or a list of those, relative to ``path``; or Darknet's
``obj.data``, whose ``names`` is a file; or, where there is neither, ``classes.txt`` with a class on each line, for all
images of the folder. `yolojax.data.labels` says where the label file of an image lies. An image without one is a
background image. Of rows with polygons (``class x1 y1 x2 y2 x3 y3 ...``) the enclosing boxes are taken.
"""

import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from yolojax.data.dataset import Dataset
from yolojax.data.documents import load_yaml, read_text
from yolojax.data.images import is_image
from yolojax.data.labels import LabelFinder, name_orphans, name_other_formats
from yolojax.data.objects import (
    RawObject,
    RecordBuilder,
    class_lookup,
    finite_number,
    unknown_class,
)
from yolojax.data.paths import choose_split, files_in, images_below, inside, relocated, shared_images
from yolojax.data.summary import Notebook
from yolojax.data.watching import Watched, files_in_each
from yolojax.errors import DataError, shortened, shown
from yolojax.other_tools import name_other_rows, name_other_tool
from yolojax.paths import composed, is_text

_SPLITS = ("train", "val", "test")
_OTHER_KEYS = ("path", "names", "nc", "kpt_shape", "download", "backup", "classes", "eval", "results", "colors")
_ALIASES = {"valid": "val", "validation": "val"}
_LONGEST_KEY = 100
_LARGEST_FRACTION = 2.0  # beyond it a value is no rounding or overlap but another unit
_LEAST_KEY_POINT_ROWS, _ROUNDING = 5, 0.002  # of rows that are taken for boxes with key points, and of their numbers
_CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "Labels/classes.txt")


def find_yolo(folder: Path) -> Path | None:
    """The data file of a YOLO data set at a folder, or None: ``data.yaml`` first, else a YAML file that has ``names``,
    else Darknet's ``obj.data`` or another ``.data``, else ``classes.txt`` where images lie in the folder."""
    candidates = sorted(files_in(folder, ".yaml", ".yml"), key=lambda p: (p.stem != "data", p.name))
    for path in candidates:
        try:
            content = load_yaml(path)
        except DataError:
            if path.stem == "data":
                return path  # let the reader say what is wrong with it
            continue
        if path.stem == "data" or (isinstance(content, dict) and "names" in content):
            return path
    for path in sorted(files_in(folder, ".data"), key=lambda p: (p.stem != "obj", p.name)):
        if path.is_file():
            return path
    there = (folder / name for name in _CLASS_FILES)
    return next((path for path in there if path.is_file() and images_below(folder)), None)


def yolo_splits(path: Path) -> list[str]:
    """The splits that a data file names, in the order train, val, test, others."""
    content = _load(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        root = _root(content, path, None)
        others = [key for key in content if _is_other_split(key, content[key], root)]
    else:
        others = [key for key in content if key not in (*_SPLITS, *_OTHER_KEYS, _ALL)]
    return [s for s in _SPLITS if content.get(s)] + others


_ALL = "all images"  # the key of what belongs to no split; no key of a file can be spelt so with a meaning


def _is_other_split(key: str, value: object, root: Path) -> bool:
    """Whether another key than train, val and test names images too, as ``default: default.txt`` does."""
    if key in (*_SPLITS, *_OTHER_KEYS, _ALL):
        return False
    if len(key) > _LONGEST_KEY:
        return False
    entries = value if isinstance(value, list) else [value]
    return bool(entries) and all(
        isinstance(e, str) and e and "\0" not in e and len(e) < 1000 and _exists(root, e) for e in entries[:5]
    )


def _exists(root: Path, entry: str) -> bool:
    place = root / entry.replace("\\", "/")
    try:
        return place.is_dir() or (place.suffix == ".txt" and place.is_file())
    except (OSError, ValueError):
        return False


def read_yolo(
    path: Path, split: str | None, class_names: Sequence[str] | None, images: Path | None, skip_bad: bool
) -> Dataset:
    """The data set of a data file: one split, or every split whose images exist."""
    content = _load(path)
    notebook = Notebook(skip_bad)
    file_names = _names(content, path)
    names = tuple(class_names) if class_names is not None else file_names
    index = class_lookup(names, str(path))
    class_lookup(file_names, str(path))
    root = _root(content, path, notebook)
    if split is not None:
        split = choose_split(split, yolo_splits(path), path)
    not_there: dict[Path, str] = {}
    found, lists = _list_images(content, path, root, split, images, notebook, not_there)
    if len(not_there) == len(found):
        raise DataError(
            f"{next(iter(not_there.values()))}: {found[0]} is not there, nor is any other image that is listed; "
            "correct the list, or give the folder of the images with --images"
        )
    base = images or (root if all(image.is_relative_to(root) for image in found) else _common(found))
    keypoints = _keypoint_columns(content, path)
    builder = RecordBuilder(notebook, "cxcywh", word="line")
    evidence = _KeyPoints() if not keypoints else None
    finder = LabelFinder(root)
    anywhere = finder.labels_by_stem() if images is not None else {}
    labels: set[Path] = set()
    unlabelled: list[Path] = []
    for image in found:
        with notebook.guard(str(image)):
            if image in not_there:
                raise DataError(
                    f"{not_there[image]}: the image {image} is not there; restore it, or correct or remove the line"
                )
            label = finder.find(image) or (anywhere.get(composed(image.stem)) if images is not None else None)
            if label is not None:
                if label in labels:
                    notebook.add("note", str(image), f"shares its label file {label} with an image of another suffix")
                labels.add(label)
            else:
                unlabelled.append(image)
            size, upright = builder.open_image(image, None, str(image))
            objects = (
                [] if label is None else _read_label(label, size, file_names, index, keypoints, evidence, notebook)
            )
            name = image.relative_to(base).as_posix()
            where = str(label or finder.expected(image))
            builder.add(len(builder) + 1, name, image, size, upright, where, objects)
    if evidence is not None and (said := evidence.said()):
        notebook.add("doubtful", str(path), said)
    orphans = name_orphans(finder, found, labels, lists, split is None, notebook)
    name_other_formats(finder, unlabelled, notebook)
    if not labels:
        tried = min((finder.expected(image) for image in found), default=root)
        elsewhere = f" (label files lie in {orphans[0].parent}, such as {orphans[0].name})" if orphans else ""
        raise DataError(
            f"{path}: not one image has a label file; the first would be {tried}: put the labels there{elsewhere}"
            f"{name_other_tool(root)}"
        )
    records = builder.close(str(path))
    outside = {folder for folder in {image.parent for image in found} if not folder.is_relative_to(root)}
    outside |= {place for folder in outside for place, _ in finder.places(folder)}
    return Dataset(
        class_names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        records=records,
        summary=notebook.summary(),
        root=root,
        split=split,
        format="yolo",
        skip_bad=skip_bad,
        watched=(
            Watched("file", str(path)),
            Watched("tree", str(root)),
            *files_in_each(outside),
        ),
    )


def _common(found: list[Path]) -> Path:
    """The folder that holds all of these images."""
    return Path(os.path.commonpath([image.parent for image in found]))


def _load(path: Path) -> dict[str, Any]:
    """What a data file says, as a mapping; ``valid`` is ``val``."""
    if path.suffix.lower() == ".data":
        content = _load_darknet(path)
    elif path.suffix.lower() in (".yaml", ".yml"):
        content = load_yaml(path)
        if not isinstance(content, dict) or "names" not in content:
            raise DataError(
                f"{path}: not a YOLO data file: it needs names, and a folder of images per split (train, val)"
            )
    else:
        content = {"names": _lines(path), _ALL: "."}
    plain: dict[str, Any] = {}
    for key, value in content.items():
        name = key if isinstance(key, str) else shown(key)
        name = _ALIASES.get(name, name) if _ALIASES.get(name) not in content else name
        plain[name] = value
    return plain


def _load_darknet(path: Path) -> dict[str, Any]:
    """Darknet's ``obj.data``: lines ``key = value``, with paths relative to Darknet's folder or to the file's."""
    content: dict[str, Any] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        plain = line.split("#")[0].strip()
        if not plain:
            continue
        key, equals, value = (part.strip() for part in plain.partition("="))
        if not equals or not key:
            raise DataError(f"{path} line {number}: {shown(line)} is no line key = value; correct it")
        if key in content:
            raise DataError(f"{path} line {number}: {shown(key)} is given twice; leave one")
        content[key] = value
    if not content.get("names"):
        raise DataError(f"{path}: not a Darknet data file: it needs names = FILE and train = FILE")
    listed = relocated(path.parent, content["names"])
    if listed is None:
        raise DataError(f"{path}: names is {shown(content['names'])}, which is not there; correct it")
    names = _lines(listed)
    stated = finite_number(content.get("classes", ""))
    if stated is not None and stated != len(names):
        raise DataError(f"{path}: classes is {stated:g}, but {listed} lists {len(names)}; correct one of them")
    return {**{key: value for key, value in content.items() if value and key not in ("classes",)}, "names": names}


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _names(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = content["names"]
    if isinstance(names, dict):
        if set(names) == {str(i) for i in range(len(names))}:
            names = {int(key): name for key, name in names.items()}
        if set(names) != set(range(len(names))):
            raise DataError(f"{path}: names must have the keys 0, 1, ..., {len(names) - 1}, one for each class")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(n, str | int) and not isinstance(n, bool) for n in names):
        raise DataError(f"{path}: names must list the classes as text (quote words such as yes and no)")
    for number, name in enumerate(names):
        if isinstance(name, int) and abs(name) >= 2**63:
            raise DataError(f"{path}: class {number} is {shown(name)}; give it a name")
    stated = content.get("nc", len(names))
    if isinstance(stated, str) and (number := finite_number(stated)) is not None:
        stated = number  # `nc: '3'` is meant as 3
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        raise DataError(f"{path}: nc is {shown(stated)}, not the number of classes; correct it or leave it out")
    if stated != len(names):
        raise DataError(f"{path}: nc is {shown(stated)}, but names lists {len(names)} classes; correct one of them")
    return tuple(str(n) for n in names)


def _keypoint_columns(content: dict[str, Any], path: Path) -> int:
    """Columns of key points that follow the box in each row, by ``kpt_shape: [points, values]``; usually none."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and 0 < n < 1000 for n in shape):
        raise DataError(f"{path}: kpt_shape is {shown(shape)}, not [points, 2 or 3]; correct it or leave it out")
    return shape[0] * shape[1]


def _root(content: dict[str, Any], path: Path, notebook: Notebook | None) -> Path:
    """The folder that ``path`` names, relative to the data file; a note when it lies elsewhere."""
    stated = content.get("path")
    if path.suffix.lower() not in (".yaml", ".yml"):
        return path.parent.parent if path.parent.name.lower() == "labels" else path.parent
    if stated in (None, ""):
        return path.parent
    root = Path(os.path.normpath(path.parent / _text(stated, "path", path).replace("\\", "/")))
    if not os.path.isdir(root) and _has_parts(path.parent, content, path):
        if notebook is not None:
            said = f"path {shown(stated)} does not exist; its parts are taken from the folder of this file"
            notebook.add("note", str(path), said)
        return path.parent
    if not os.path.isdir(root):
        raise DataError(
            f"{path}: path {shown(stated)} means the folder {shortened(str(root))}, which does not exist; correct it"
        )
    if notebook is not None and not root.resolve().is_relative_to(path.parent.resolve()):
        notebook.add("note", str(path), f"its path leads to another folder: {root}")
    return root


def _has_parts(folder: Path, content: dict[str, Any], path: Path) -> bool:
    """Whether the first place that each part names exists in a folder, as far as those places are relative."""
    firsts = [entries[0].replace("\\", "/") for split in _SPLITS if (entries := _entries(content, split, path))]
    relative = [first for first in firsts if not first.startswith("/") and not PureWindowsPath(first).drive]
    return bool(relative) and all(_exists(folder, first) for first in relative)


def _text(value: object, key: str, path: Path) -> str:
    """A path that stands in a data file."""
    if not isinstance(value, str) or not value.strip() or len(value) > 4000 or "\0" in value or not is_text(value):
        raise DataError(f"{path}: {key} is {shown(value)}, not a path; correct it")
    return value.strip()


def _entries(content: dict[str, Any], split: str, path: Path) -> list[str]:
    value = content.get(split)
    return [_text(v, split, path) for v in (value if isinstance(value, list) else [value] if value else [])]


def _list_images(
    content: dict[str, Any],
    path: Path,
    root: Path,
    split: str | None,
    images: Path | None,
    notebook: Notebook,
    not_there: dict[Path, str],
) -> tuple[list[Path], set[str]]:
    """The images of a split or of all, and the text files that list images.

    Listed images that are not there are put into ``not_there``, with their place in their list.
    """
    keys = [key for key in (*yolo_splits(path), _ALL) if key in content]
    entries = [(key, entry) for key in keys for entry in _entries(content, key, path)]
    places = {pair: _place(pair[1], f"{path} {pair[0]}", root) for pair in entries}
    lists = {os.path.normpath(place) for place, _ in places.values() if place.suffix == ".txt"}
    parts = len({key for key, _ in entries})
    entries = [(key, entry) for key, entry in entries if split in (None, key)]
    if images is not None and split is None:
        return images_below(images, notebook), lists
    if not entries:
        raise DataError(f"{path}: names no images; add train and val, each a folder of images")
    found: dict[Path, str] = {}
    of_parts: dict[str, list[Path]] = {}
    for key, entry in entries:
        (place, note), where = places[key, entry], f"{path} {key}"
        if images is not None:
            if place.suffix != ".txt":
                place, note = _part_of(images, entry, key, parts, where), ""
            elif place.is_file():
                listed = _listed_in(place, images)
                found |= dict.fromkeys(listed, key)
                of_parts.setdefault(key, []).extend(listed)
                continue
        if not place.exists():
            if split is None:
                # Exporters name a test part whether there is one or not; nobody trains without the other two.
                kind = "note" if key == "test" else "missing"
                notebook.add(kind, where, f"{place} does not exist; left out{_no_pattern(entry)}")
                continue
            there = [f"{k} ({p})" for (k, _), (p, _) in places.items() if p.exists()]
            outside = "" if place.is_relative_to(root) else f" lies outside the data set's folder {root} and"
            raise DataError(
                f"{where}: {place}{outside} does not exist, "
                + (f"while these parts do: {', '.join(there)}; " if there else "as do the other parts; ")
                + f"correct the path, or remove {key} from the file{_no_pattern(entry)}"
            )
        if note:
            notebook.add("note", where, note)
        for image in _images_at(place, where, root, notebook, not_there):
            if image in found and (split is not None or found[image] == key):
                notebook.add("duplicate", str(image), f"listed more than once under {key}")
            found.setdefault(image, key)
            of_parts.setdefault(key, []).append(image)
    for said in shared_images(of_parts):
        notebook.add("note", str(path), said)
    if not found:
        named = ", ".join(v for _, v in entries)
        unread = notebook.summary().of("unread")
        others = f"; what lies there is not read, such as {unread[0].where}: {unread[0].detail}" if unread else ""
        raise DataError(f"{path}: no images in {named} of {root}; correct the folders{_no_pattern(named)}{others}")
    return list(found), lists


def _no_pattern(entry: str) -> str:
    """What is said of a place that does not exist and is written as a pattern."""
    return "; patterns of file names are not read: name the folder" if any(c in entry for c in "*?[") else ""


def _part_of(images: Path, entry: str, key: str, parts: int, where: str) -> Path:
    """The folder of a part within the folder of all images; that folder itself where there is one part only."""
    moved = relocated(images, entry.replace("\\", "/"))
    if moved is not None and moved.is_dir():
        return moved
    if (images / key).is_dir():
        return images / key
    if parts == 1:
        return images
    raise DataError(
        f"{where}: the folder of images {images} has no folder for this part; give it one called {key}, or name its "
        "images in a text file"
    )


def _listed_in(place: Path, images: Path) -> list[Path]:
    """The images of a list within the folder of all images."""
    found: list[Path] = []
    for number, line in enumerate(read_text(place).splitlines(), 1):
        if line.strip():
            image = relocated(images, line.strip())
            if image is None:
                raise DataError(f"{place} line {number}: {shown(line.strip())} is not in {images}; correct it")
            found.append(image)
    return found


def _place(entry: str, where: str, root: Path) -> tuple[Path, str]:
    """The folder or list that an entry of a data file means, which may not exist, and what is to be said of it."""
    plain = entry.replace("\\", "/")
    trimmed = plain
    while trimmed.startswith("../"):
        trimmed = trimmed.removeprefix("../")
    # A widespread exporter writes `train: ../train/images` for a folder that lies beside the YAML file.
    if trimmed != plain and trimmed and os.path.isdir(root / trimmed):
        return inside(root, trimmed, where), ""
    place = Path(plain) if PureWindowsPath(plain).drive else Path(os.path.normpath(root / plain))
    if place == Path(place.anchor):  # a lone slash would have every file of the machine looked at
        raise DataError(f"{where}: {shown(entry)} is the root of the file system; name the folder of the images")
    if place.is_relative_to(os.path.abspath(root)) or place.is_relative_to(root):
        if not place.exists() and (moved := relocated(root, plain)) is not None:
            return moved, f"{place} does not exist; {moved} is taken"
        return place, ""
    if place.is_dir() or (place.suffix == ".txt" and place.is_file()):
        return place, f"its images lie in another folder: {place}"
    moved = relocated(root, plain)
    if moved is not None and (moved.is_dir() or moved.suffix == ".txt"):
        return moved, f"{place} does not exist; {moved} is taken"
    return place, ""


def _images_at(place: Path, where: str, root: Path, notebook: Notebook, not_there: dict[Path, str]) -> list[Path]:
    if place.is_dir():
        return images_below(place, notebook)
    if not place.is_file() or place.suffix != ".txt":
        outside = "" if place.is_relative_to(root) else f" lies outside the data set's folder {root} and"
        raise DataError(
            f"{where}: {place}{outside} is neither a folder of images nor a .txt file that lists them; correct it"
        )
    listed: list[Path] = []
    outside = moved_lines = 0
    for number, line in enumerate(read_text(place).splitlines(), 1):
        name, spoken = line.strip(), f"{place} line {number}"
        if not name:
            continue
        plain = name.replace("\\", "/")
        path = Path(os.path.normpath(root / plain)) if is_text(plain) and "\0" not in plain else root
        beside = Path(os.path.normpath(place.parent / plain)) if path is not root else root
        if path.is_relative_to(root) and path != root and path.is_file():
            listed.append(path)
        elif beside != root and beside.is_relative_to(root) and beside.is_file():
            listed.append(beside)
        elif path.is_dir() and path.is_relative_to(root):
            raise DataError(f"{spoken}: {shown(name)} is a folder; name it in the data file, in place of this list")
        elif (moved := relocated(root, plain)) is not None:
            moved_lines += 1
            listed.append(moved)
        elif is_image(path.name) and path.is_file():
            outside += 1
            listed.append(path)
        else:
            listed.append(inside(root, name, spoken))
            if not listed[-1].is_file():
                not_there.setdefault(listed[-1], spoken)
    if outside:
        notebook.add("note", str(place), f"{outside} of its images lie outside the folder {root}")
    if moved_lines:
        notebook.add(
            "note",
            str(place),
            f"{moved_lines} of its lines begin with a folder that is not here and is left out of them",
        )
    return listed


def _read_label(
    path: Path,
    size: tuple[int, int],
    file_names: Sequence[str],
    index: dict[str, int],
    keypoints: int,
    evidence: "_KeyPoints | None",
    notebook: Notebook,
) -> list[RawObject]:
    h, w = size
    objects: list[RawObject] = []
    polygons = 0
    text = read_text(path)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where, columns = f"{path} line {number}", line.split()
        is_polygon = len(columns) != 5 + keypoints and len(columns) > 6 and len(columns) % 2 == 1
        if len(columns) not in (5, 5 + keypoints) and not is_polygon:
            if finite_number(columns[0]) is None and not _of_commas(columns[0]):
                mend = name_other_rows(text) or "; correct the row"
                raise DataError(f"{where}: {shown(line.strip())} does not begin with the index of a class{mend}")
            mend = "a sixth is the score of a prediction; " if len(columns) == 6 else _of_commas(line)
            if len(columns) > 6 and (shape := _of_key_points(len(columns) - 5)):
                mend = f"for boxes with key points, state {shape} in the data file; "
            mend = name_other_rows(text) or f"; {mend}correct it"
            raise DataError(f"{where}: {len(columns)} columns, but a row has 5 (class cx cy w h){mend}")
        values = [finite_number(c) for c in columns]
        if any(v is None for v in values):
            mend = name_other_rows(text) or f"; {_of_commas(line)}correct the row"
            raise DataError(f"{where}: {shown(line.strip())} holds something that is no finite number{mend}")
        number_of_class, *numbers = (v for v in values if v is not None)
        numbers = numbers if is_polygon else numbers[:4]
        if max(map(abs, numbers)) > _LARGEST_FRACTION:
            raise DataError(
                f"{where}: {shown(line.strip())} seems to be in pixels; divide by the image's width and height"
                + (", or by 100 if it is in percent" if max(map(abs, numbers)) <= 100 else "")
            )
        if number_of_class % 1 or not 0 <= number_of_class < len(file_names):
            raise DataError(
                f"{where}: class {shortened(columns[0], 40)} is not an index from 0 to {len(file_names) - 1}; correct "
                "it or add a name"
            )
        name = file_names[int(number_of_class)]
        if name not in index:  # a class of the data set that is not among those asked for
            with notebook.guard(where):
                raise unknown_class(name, where, list(index))
            continue
        if is_polygon:
            polygons += 1
            if evidence is not None:
                evidence.add(numbers)
            xs, ys = numbers[0::2], numbers[1::2]
            box = (min(xs) * w, min(ys) * h, max(xs) * w, max(ys) * h)
        else:
            cx, cy, bw, bh = numbers
            box = ((cx - bw / 2) * w, (cy - bh / 2) * h, (cx + bw / 2) * w, (cy + bh / 2) * h)
        objects.append(RawObject(number, box, index[name]))
    if polygons:
        notebook.add("polygon", str(path), f"{polygons} of {len(objects)} rows are polygons")
    return objects


class _KeyPoints:
    """Whether the rows that are read as polygons look like boxes with key points, whose ``kpt_shape`` is not stated.

    All of them must have the same length and be boxes within their image that hold all of their key points (0, 0 is one
    that is not there); where these have three values, the third is a visibility of 0, 1 or 2. The second point of the
    polygons, which then is width and height, must lie outside the box of half of them: that of a polygon lies near the
    first, which is the centre of the box.
    """

    def __init__(self) -> None:
        self._columns = self._rows = self._outside = 0
        self._values: list[int] = []
        self._different: set[tuple[float, ...]] = set()

    def add(self, numbers: Sequence[float]) -> None:
        """Takes the numbers of a row behind its class."""
        self._rows += 1
        if self._rows == 1:
            self._columns = len(numbers)
            self._values = [n for n in (2, 3) if (len(numbers) - 4) % n == 0]
        if not self._values:
            return
        if len(self._different) < _LEAST_KEY_POINT_ROWS:
            self._different.add(tuple(numbers))
        cx, cy, w, h = numbers[:4]
        half = w / 2 + _ROUNDING, h / 2 + _ROUNDING
        is_box = len(numbers) == self._columns and min(w, h) > 0
        is_box = is_box and abs(cx - 0.5) + w / 2 <= 0.5 + _ROUNDING and abs(cy - 0.5) + h / 2 <= 0.5 + _ROUNDING
        self._outside += abs(w - cx) > half[0] or abs(h - cy) > half[1]
        self._values = [n for n in self._values if is_box and _are_key_points(numbers[4:], n, (cx, cy), half)]

    def said(self) -> str:
        """What is to be said of the rows; empty where they are polygons, or too few."""
        is_enough = len(self._different) == _LEAST_KEY_POINT_ROWS and self._outside >= self._rows / 2
        if not self._values or not is_enough:
            return ""
        n = self._values[-1]
        shape = f"kpt_shape: [{(self._columns - 4) // n}, {n}]"
        return (
            f"its {self._rows} rows of {self._columns + 1} columns are read as polygons, and look like boxes with key "
            f"points: all points lie in the box that the first four numbers make; if they are, state {shape} in the "
            "data file (data.yaml)"
        )


def _are_key_points(
    numbers: Sequence[float], values: int, centre: tuple[float, float], half: tuple[float, float]
) -> bool:
    """Whether numbers are points in a box of which at least one is there, each with a visibility if of 3 values."""
    points = list(zip(numbers[0::values], numbers[1::values], strict=True))
    there = [(x, y) for x, y in points if (x, y) != (0, 0)]
    return (
        bool(there)
        and all(abs(x - centre[0]) <= half[0] and abs(y - centre[1]) <= half[1] for x, y in there)
        and (values == 2 or all(flag in (0, 1, 2) for flag in numbers[2::3]))
    )


def _of_key_points(columns: int) -> str:
    """The ``kpt_shape`` that so many columns after a box would have; key points with visibility have three each."""
    return f"kpt_shape: [{columns // 3}, 3]" if columns % 3 == 0 else ""


def _of_commas(row: str) -> str:
    """What is said of a row that is no row because of its commas or semicolons."""
    if ";" in row:
        return "blanks separate the columns, not semicolons; "
    if "," not in row:
        return ""
    plain = row.strip()
    is_decimal = len(plain.split()) >= 5 and not any(column.endswith(",") for column in plain.split())
    return "decimals have a point, not a comma; " if is_decimal else "blanks separate the columns, not commas; "
