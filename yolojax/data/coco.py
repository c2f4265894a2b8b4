"""COCO instances JSON.

Category ids are sorted and made contiguous; `Dataset.to_coco` and ``category_ids`` give the file's own back. Objects
with ``iscrowd`` are crowd; so are, in training only, those with ``ignore: 1`` (how VOC's difficult objects are commonly
carried over; the COCO metric does not read that field). Boxes are ``[x, y, width, height]``.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolojax.data.dataset import CocoSource, Dataset, ImageRecord
from yolojax.data.objects import RawObject, RecordBuilder, class_lookup, unknown_class
from yolojax.data.paths import choose_split, inside, read_text
from yolojax.data.summary import Notebook
from yolojax.errors import DataError

_LARGEST = 2.0**53  # up to here every integer is a float too, as some writers of JSON have it
_OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")


def find_coco(folder: Path) -> dict[str, Path]:
    """The COCO files at a folder by split: ``annotations/instances_SPLIT.json`` (or that file without the folder in
    between), any other JSON in ``annotations``, or ``SPLIT/_annotations.coco.json``. Empty when there is none."""
    for pattern in ("annotations/instances_*.json", "instances_*.json"):
        found = {p.stem.removeprefix("instances_"): p for p in sorted(folder.glob(pattern))}
        if found:
            return found
    found = {p.parent.name: p for p in sorted(folder.glob("*/_annotations.coco.json"))}
    if found:
        return found
    return {p.stem: p for p in sorted(folder.glob("annotations/*.json")) if not p.stem.startswith(_OTHER_TASKS)}


def open_coco_folder(
    folder: Path, split: str | None, class_names: Sequence[str] | None, images: Path | None, skip_bad: bool
) -> Dataset:
    """The COCO file of one split; without a split the only one there is."""
    found = find_coco(folder)
    if split is None and len(found) > 1:
        raise DataError(f"{folder}: holds several COCO files; name one of the splits {', '.join(found)}")
    split = next(iter(found)) if split is None else choose_split(split, list(found), folder)
    return read_coco(found[split], split, class_names, images, skip_bad)


def read_coco(
    path: Path, split: str | None, class_names: Sequence[str] | None, images: Path | None, skip_bad: bool
) -> Dataset:
    """A COCO JSON file. ``split`` is only a name to look for among the image folders."""
    content = _load(path)
    notebook = Notebook(skip_bad)
    categories = _categories(content, path)
    names = tuple(class_names) if class_names is not None else tuple(categories[i] for i in sorted(categories))
    index = class_lookup(names, str(path))
    id_of_name = {name: i for i, name in categories.items()}
    spare = max(categories, default=0)
    category_ids: list[int] = []
    for name in names:
        if name not in id_of_name:
            spare += 1
            id_of_name[name] = spare
            notebook.add("note", str(path), f"class {name!r} is not among the categories; it is given the id {spare}")
        category_ids.append(id_of_name[name])
    known = [dict(c) for c in content["categories"]]
    known += [{"id": i, "name": n} for i, n in zip(category_ids, names, strict=True) if i not in categories]
    image_entries = _images(content, path, notebook)
    by_image, raw = _annotations(content, path, image_entries, notebook)
    folder = find_image_folder(path, split, images, [str(e["file_name"]) for e in image_entries.values()])
    builder = RecordBuilder(notebook)
    records: list[ImageRecord] = []
    for image_id, entry in image_entries.items():
        with notebook.guard(f"{path} image {image_id}"):
            records.append(_read_one(path, entry, by_image.get(image_id, []), folder, categories, index, builder))
    return Dataset(
        class_names=names,
        category_ids=tuple(category_ids),
        records=tuple(records),
        summary=notebook.summary(),
        root=_root(path),
        split=split,
        format="coco",
        skip_bad=skip_bad,
        coco=CocoSource(
            header={k: v for k, v in content.items() if k not in ("images", "annotations", "categories")},
            categories=known,
            images=image_entries,
            annotations=raw,
        ),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno}: malformed JSON ({error.msg}); correct the file") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{path}: malformed JSON ({error}); correct the file") from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deeply to be COCO; give another file") from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(k), list) and all(isinstance(e, dict) for e in content[k])
        for k in ("images", "annotations", "categories")
    ):
        raise DataError(f"{path}: not COCO instances: it needs lists images, annotations and categories of objects")
    return content


def _integer(entry: dict[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST or value % 1:
        raise DataError(f"{where}: {key} is {_shown(value)}, not an integer (below 2^53); correct it")
    return int(value)


def _flag(entry: dict[str, Any], key: str, where: str) -> bool:
    value = entry.get(key, 0)
    if value not in (0, 1):
        raise DataError(f"{where}: {key} is {_shown(value)}, not 0 or 1; correct it")
    return bool(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


def _categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    categories: dict[int, str] = {}
    for position, entry in enumerate(content["categories"], 1):
        where = f"{path} category number {position}"
        category_id, name = _integer(entry, "id", where), entry.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: name is {name!r}; every category needs a name")
        if category_id in categories:
            raise DataError(f"{where}: id {category_id} belongs to {categories[category_id]!r} already; use another")
        if name in categories.values():
            raise DataError(f"{where}: the name {name!r} belongs to another category already; rename or merge them")
        categories[category_id] = name
    return categories


def _images(content: dict[str, Any], path: Path, notebook: Notebook) -> dict[int, dict[str, Any]]:
    images: dict[int, dict[str, Any]] = {}
    id_of_file: dict[str, int] = {}
    for position, entry in enumerate(content["images"], 1):
        where = f"{path} image number {position}"
        with notebook.guard(where):
            image_id, name = _integer(entry, "id", where), entry.get("file_name")
            if not isinstance(name, str) or not name:
                raise DataError(f"{where}: file_name is {name!r}; every image needs one")
            if image_id in images and images[image_id]["file_name"] == name:
                notebook.add("duplicate", where, f"image {image_id} ({name}) is listed more than once")
            elif image_id in images:
                other = images[image_id]["file_name"]
                raise DataError(f"{where}: {name} has the id {image_id} of {other}; give each image an id of its own")
            elif name in id_of_file:
                raise DataError(f"{where}: {name} has the ids {id_of_file[name]} and {image_id}; merge the two entries")
            else:
                images[image_id] = entry
                id_of_file[name] = image_id
    return images


def _annotations(
    content: dict[str, Any], path: Path, images: dict[int, dict[str, Any]], notebook: Notebook
) -> tuple[dict[int, list[tuple[int, dict[str, Any]]]], dict[int, dict[str, Any]]]:
    """The annotations as ``(id, entry)`` by image, and all by id; ids renumbered when one is below 1 or used twice."""
    entries: list[tuple[int, int, dict[str, Any]]] = []
    for position, entry in enumerate(content["annotations"], 1):
        where = f"{path} annotation number {position}"
        with notebook.guard(where):
            annotation_id = _integer(entry, "id", where) if "id" in entry else 0
            image_id = _integer(entry, "image_id", where)
            if image_id not in images:
                raise DataError(f"{where}: image_id {image_id} is not among the images; add the image or remove it")
            entries.append((annotation_id, image_id, entry))
    used = Counter(annotation_id for annotation_id, _, _ in entries)
    faulty = [i for i, count in used.items() if i < 1 or count > 1]
    if faulty:
        # An id of 0 counts as "unmatched" in the COCO evaluation, and of two equal ids it sees only one.
        notebook.add("renumbered", str(path), f"annotation ids must be unique and at least 1; e.g. {faulty[0]} is not")
        entries = [(i, image_id, entry) for i, (_, image_id, entry) in enumerate(entries, 1)]
    by_image: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for annotation_id, image_id, entry in entries:
        by_image.setdefault(image_id, []).append((annotation_id, entry))
    return by_image, {annotation_id: entry for annotation_id, _, entry in entries}


def _root(path: Path) -> Path:
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def find_image_folder(path: Path, split: str | None, images: Path | None, names: list[str]) -> Path:
    """The folder that holds most of a sample of the images; ``images`` when it is given."""
    if images is not None:
        return images
    root = _root(path)
    part = split or path.stem.removeprefix("instances_")
    candidates = [root / "images" / part, root / part, root / "images", root, path.parent]
    candidates = [c for c in dict.fromkeys(candidates) if c.is_dir()]
    sample = [n.replace("\\", "/") for n in names[:: max(1, len(names) // 20)] if ".." not in n]
    return max(candidates, key=lambda c: sum(os.path.isfile(c / n) for n in sample))  # the first among equals


def _read_one(
    path: Path,
    entry: dict[str, Any],
    annotations: list[tuple[int, dict[str, Any]]],
    folder: Path,
    categories: dict[int, str],
    index: dict[str, int],
    builder: RecordBuilder,
) -> ImageRecord:
    image_id = int(entry["id"])
    where = f"{path} image {image_id}"
    source = inside(folder, entry["file_name"], where)
    stated = (_integer(entry, "height", where), _integer(entry, "width", where)) if "height" in entry else None
    size, upright = builder.open_image(source, stated, where)
    objects: list[RawObject] = []
    for annotation_id, annotation in annotations:
        spoken = f"{path} annotation {annotation_id}"
        x, y, w, h = _numbers(annotation, "bbox", 4, spoken)
        area = _numbers({"area": [annotation["area"]]}, "area", 1, spoken)[0] if "area" in annotation else None
        crowd = _flag(annotation, "iscrowd", spoken)
        name = categories.get(_integer(annotation, "category_id", spoken))
        if name is None or name not in index:
            with builder.notebook.guard(spoken):
                raise unknown_class(name or f"category {annotation['category_id']}", spoken, list(index))
            continue
        objects.append(
            RawObject(
                where=f"annotation {annotation_id}",
                box=(x, y, x + w, y + h),
                class_index=index[name],
                crowd=crowd,
                difficult=_flag(annotation, "ignore", spoken) and not crowd,
                area=area,
                annotation_id=annotation_id,
            )
        )
    return builder.build(image_id, entry["file_name"], source, size, upright, str(path), objects)


def _numbers(entry: dict[str, Any], key: str, count: int, where: str) -> list[float]:
    values = entry.get(key)
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _LARGEST for v in values)
    ):
        raise DataError(f"{where}: {key} is {_shown(values)}, not {count} finite numbers; correct it")
    return [float(v) for v in values]
