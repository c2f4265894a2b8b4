"""COCO instances JSON.

Category ids are sorted and made contiguous; `Dataset.to_coco` and ``category_ids`` give the file's own back. Objects
with ``iscrowd`` are crowd; so are, in training only, those with ``ignore: 1`` (how VOC's difficult objects are commonly
carried over; the COCO metric does not read that field). Boxes are ``[x, y, width, height]``. Images and categories may
have texts as ids; images are then numbered in the order of the ids, categories in that of the file.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from yolojax.data.coco_columns import LARGEST, LARGEST_COORDINATE, LARGEST_ID, LISTS, Plain, read_plain
from yolojax.data.dataset import CocoSource, Dataset
from yolojax.data.documents import load_json
from yolojax.data.image_places import ANNOTATION_FOLDERS, ImageFinder, find_image_folder, name_of_image, root_of
from yolojax.data.objects import ObjectColumns, RawObject, RecordBuilder, class_lookup, finite_number, unknown_class
from yolojax.data.paths import choose_split, files_in, subfolders
from yolojax.data.summary import Notebook
from yolojax.data.watching import Watched, files_in_each
from yolojax.errors import DataError, shortened, shown
from yolojax.other_tools import is_of_other_tool, name_other_tool

_OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")
_LISTS = (b'"images"', b'"annotations"', b'"categories"')
_SNIFFED = 65536
_MOST_OTHERS = 50


def find_coco(folder: Path) -> dict[str, Path]:
    """The COCO files at a folder by split: ``annotations/instances_SPLIT.json`` (or that file without the folder in
    between), any other JSON in ``annotations``, or ``SPLIT/_annotations.coco.json``. Empty when there is none."""
    inner = [child for child in subfolders(folder) if child.name.casefold() in ANNOTATION_FOLDERS]
    inner.sort(key=lambda child: ANNOTATION_FOLDERS.index(child.name.casefold()))
    for place in (*inner, folder):
        found = {
            p.stem.removeprefix("instances_"): p for p in files_in(place, ".json") if p.name.startswith("instances_")
        }
        if found:
            return found
    exported = {p.name: p / "_annotations.coco.json" for p in subfolders(folder)}
    exported = {split: path for split, path in exported.items() if path.is_file()}
    if exported:
        return exported
    for place in inner:
        found = {p.stem: p for p in files_in(place, ".json") if not p.stem.startswith(_OTHER_TASKS)}
        if place.name.casefold() != "annotations" or (found and is_of_other_tool(next(iter(found.values())))):
            found = {split: path for split, path in found.items() if _looks_like_coco(path)}
        if found:
            return found
    return {}


def find_other_coco(folder: Path) -> dict[str, Path]:
    """COCO files under names of their own, by split: in the folder itself (``result.json`` of Label Studio, for one),
    or one in each of its subfolders. Sought where no other format is recognised."""
    here = {p.stem: p for p in files_in(folder, ".json") if _looks_like_coco(p)}
    if here:
        return here
    below: dict[str, Path] = {}
    for child in subfolders(folder):
        files = [p for p in files_in(child, ".json") if _looks_like_coco(p)]
        if len(files) == 1:
            below[child.name] = files[0]
    return below


def _looks_like_coco(path: Path) -> bool:
    """Whether the ends of a JSON file name at least two of COCO's lists; it is not parsed."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_SNIFFED)
            file.seek(max(len(head), path.stat().st_size - _SNIFFED))
            ends = head + file.read(_SNIFFED)
    except OSError:
        return False
    is_object = head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{")
    return is_object and sum(name in ends for name in _LISTS) >= 2 and not is_of_other_tool(path)


def open_coco_folder(
    found: dict[str, Path],
    folder: Path,
    split: str | None,
    class_names: Sequence[str] | None,
    images: Path | None,
    skip_bad: bool,
    images_needed: bool = True,
) -> Dataset:
    """The COCO file of one split among those found in a folder; without a split the only one there is."""
    if split is None and len(found) > 1:
        some = ", ".join(list(found)[:12]) + (f", ... ({len(found)} in all)" if len(found) > 12 else "")
        raise DataError(f"{folder}: holds several COCO files; give --split with one of {some}")
    split = next(iter(found)) if split is None else choose_split(split, list(found), folder)
    return read_coco(found[split], split, class_names, images, skip_bad, images_needed)


def read_coco(
    path: Path,
    split: str | None,
    class_names: Sequence[str] | None,
    images: Path | None,
    skip_bad: bool,
    images_needed: bool = True,
) -> Dataset:
    """A COCO JSON file. ``split`` is only a name to look for among the image folders."""
    state = file_state(path)
    plain = read_plain(path)
    content = _load(path) if plain is None else {"images": [], "annotations": [], "categories": plain.categories}
    notebook = Notebook(skip_bad)
    if plain is not None and not _fits(plain, class_names):
        plain, content = None, _load(path)
    categories, keys = _categories(content, path, notebook)
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
    known = [
        {**c, "id": i, "name": categories[i]}
        for c, i in zip(content["categories"], keys, strict=True)
        if i in categories
    ]
    known += [{"id": i, "name": n} for i, n in zip(category_ids, names, strict=True) if i not in categories]
    if plain is None:
        image_entries, by_image, raw, bad = _entries(content, path, keys, notebook)
        names_of_images = [str(e["file_name"]) for e in image_entries.values()]
    else:
        image_entries, by_image, raw, bad = {}, {}, {}, {}
        names_of_images = plain.file_names
    if not (content["images"] if plain is None else names_of_images):
        notebook.add("doubtful", str(path), "its list of images is empty")
    root = root_of(path)
    folder = find_image_folder(path, split, images, names_of_images)
    if names_of_images and images is None and not folder.is_relative_to(root):
        notebook.add("note", str(path), f"its images are taken from {folder}, beside the folder of the file")
    finder = ImageFinder(folder, root if images is None else images, notebook)
    if images_needed:
        finder.refuse_where_all_are_missing(names_of_images, path)
    builder = RecordBuilder(notebook, "xywh", images_needed=images_needed, word="annotation")
    if plain is None:
        for image_id, entry in image_entries.items():
            with notebook.guard(f"{path} image {image_id}"):
                if image_id in bad:
                    raise bad[image_id]
                _read_one(path, image_id, entry, by_image.get(image_id, []), finder, categories, index, builder)
    else:
        to_class = np.array([index.get(categories[i], -1) for i in sorted(categories)], np.int32)
        _read_plain_images(
            path, plain, to_class[np.searchsorted(sorted(categories), plain.category_ids)], finder, builder
        )
    finder.close(str(path))
    is_own = folder.is_relative_to(root) if images is None else folder.is_relative_to(images)
    if images_needed and is_own and not _share_images(path, folder):
        _name_unlisted(path, finder.unlisted(names_of_images, builder.files), notebook)
    records = builder.close(str(path))
    header = content if plain is None else plain.header
    return Dataset(
        class_names=names,
        category_ids=tuple(category_ids),
        records=records,
        summary=notebook.summary(),
        root=root,
        split=split,
        format="coco",
        skip_bad=skip_bad,
        coco=CocoSource(
            header={k: v for k, v in header.items() if k not in LISTS},
            categories=known,
            load=FileEntries(path, state, plain is not None, skip_bad, (image_entries, raw) if plain is None else None),
            with_dropped=builder.with_dropped,
            category_keys={number: c["id"] for c, number in zip(content["categories"], keys, strict=True)}
            if _text_ids(content["categories"])
            else {},
        ),
        watched=(
            Watched("file", str(path)),
            *files_in_each((path.parent, root, folder)),
            *(finder.watched if images_needed else ()),
        ),
    )


def _share_images(path: Path, folder: Path) -> bool:
    """Whether other COCO files of the data set may list images of the same folder, by their names alone: those of
    another part than this file's that has no folder of images to itself."""
    root = root_of(path)
    inner = [child for child in subfolders(root) if child.name.casefold() in ANNOTATION_FOLDERS]
    others = [p for place in dict.fromkeys((path.parent, root, *inner)) for p in files_in(place, ".json") if p != path]
    if len(others) > _MOST_OTHERS:  # too many to look at
        return True
    for other in others:
        part = _part_of_file(other)
        own = (place / part for place in (folder.parent, root, root / "images"))
        is_elsewhere = any(place.is_dir() and place != folder for place in own)
        if part != _part_of_file(path) and not is_elsewhere and _looks_like_coco(other):
            return True
    return False


def _part_of_file(path: Path) -> str:
    """The part of the data set that a COCO file is of, by its name: ``val2017`` for ``captions_val2017.json``."""
    stem = path.stem
    for task in ("instances", *_OTHER_TASKS):
        stem = stem.removeprefix(f"{task}_")
    return stem


def _name_unlisted(path: Path, unlisted: list[str], notebook: Notebook) -> None:
    if unlisted:
        some = ", ".join(shortened(os.path.basename(name), 60) for name in unlisted[:3])
        some += ", ..." if len(unlisted) > 3 else ""
        where = os.path.dirname(unlisted[0])
        said = f"{len(unlisted)} images that {path.name} does not list are not read, such as {some}"
        notebook.add("note", where, said)


def _fits(plain: Plain, class_names: Sequence[str] | None) -> bool:
    """Whether the categories of a plain file and their use are plain too: ids and names are unique, none is unknown."""
    ids, names = [c.get("id") for c in plain.categories], [c.get("name") for c in plain.categories]
    if not (set(map(type, ids)) <= {int} and set(map(type, names)) <= {str}):
        return False
    if len(set(ids)) < len(ids) or len(set(names)) < len(names) or not all(abs(i or 0) < LARGEST_ID for i in ids):
        return False
    name_of = dict(zip(ids, names, strict=True))
    used = [name_of.get(i) for i in np.unique(plain.category_ids).tolist()]
    return None not in used and (class_names is None or set(used) <= set(class_names))


def _read_plain_images(
    path: Path, plain: Plain, classes: Int32[np.ndarray, " N"], finder: ImageFinder, builder: RecordBuilder
) -> None:
    """Adds the images of a plain file to the builder."""
    order = np.argsort(plain.image_of, kind="stable")
    counts = np.bincount(plain.image_of, minlength=len(plain.image_ids)).tolist()
    boxes = plain.boxes[order]
    boxes[:, 2:] += boxes[:, :2]
    notebook = builder.notebook
    kept: list[int] = []
    sources: list[str] = []
    sizes: list[tuple[int, int]] = []
    upright: list[bool] = []
    marks: list[int] = []
    start = 0
    for i, (image_id, name, stated) in enumerate(zip(plain.image_ids, plain.file_names, plain.sizes, strict=True)):
        end = start + counts[i]
        where = f"{path} image {image_id}"
        stated = stated if stated[0] else None
        try:
            source = finder.find_listed(name)
            if source is None:
                source = str(finder.find(name, where, needed=builder.images_needed or stated is None))
            size, is_upright = builder.open_image(source, stated, where, boxes[start:end])
        except DataError as error:
            notebook.skip(where, error)
        else:
            kept.append(i)
            sources.append(source)
            sizes.append(size)
            upright.append(is_upright)
            marks.append(notebook.count)
        start = end
    if len(kept) < len(counts):
        is_kept = np.zeros(len(counts), bool)
        is_kept[kept] = True
        of = np.repeat(is_kept, counts)
        order, boxes = order[of], boxes[of]
    crowd, ignore = plain.crowd[order], plain.ignore[order]
    ids = plain.ids[order]
    builder.add_images(
        [plain.image_ids[i] for i in kept],
        [plain.file_names[i] for i in kept],
        sources,
        sizes,
        upright,
        str(path),
        marks,
        [counts[i] for i in kept],
        ObjectColumns(ids, boxes, classes[order], crowd | ignore, ignore & ~crowd, plain.areas[order], ids),
    )


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; ``(-1, -1)`` where there is none."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True, eq=False)
class FileEntries:
    """Gives the entries of images and of annotations of a COCO file by their numbers, read again where need be.

    Attributes:
      path, state: the file, and its `file_state` when it was read.
      is_plain: whether the file is plain (`yolojax.data.coco_columns`): its ids are the numbers.
      skip_bad: as it was read.
      known: the entries, where they are at hand.
    """

    path: Path
    state: tuple[int, int]
    is_plain: bool
    skip_bad: bool
    known: tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]] | None = field(default=None, repr=False)

    def __call__(self) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
        """The entries; raises `DataError` where the file is no longer in the state in which it was read."""
        if self.known is not None:
            return self.known
        if file_state(self.path) != self.state:
            raise DataError(f"{self.path}: has changed since the data set was opened; open the data set again")
        content = _load(self.path)
        if self.is_plain:
            named = (e if "file_name" in e else {**e, "file_name": name_of_image(e, "")} for e in content["images"])
            return {e["id"]: e for e in named}, {e["id"]: e for e in content["annotations"]}
        notebook = Notebook(self.skip_bad)
        _, keys = _categories(content, self.path, notebook)
        images, _, annotations, _ = _entries(content, self.path, keys, notebook)
        return images, annotations


def _entries(
    content: dict[str, Any], path: Path, keys: list[int], notebook: Notebook
) -> tuple[
    dict[int, dict[str, Any]],
    dict[int, list[tuple[int, dict[str, Any]]]],
    dict[int, dict[str, Any]],
    dict[int, DataError],
]:
    """The entries of images by number, those of annotations by image and by number, and the images to leave out."""
    images, id_of_image = _images(content, path, notebook)
    id_of_category = {c["id"]: i for c, i in zip(content["categories"], keys, strict=True)}
    by_image, annotations, bad = _annotations(content, path, images, id_of_image, id_of_category, notebook)
    return images, by_image, annotations, bad


def _load(path: Path) -> dict[str, Any]:
    content = load_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(k), list) and all(isinstance(e, dict) for e in content[k])
        for k in ("images", "annotations", "categories")
    ):
        raise DataError(
            f"{path}: not COCO instances: it needs lists images, annotations and categories of objects"
            f"{name_other_tool(path)}"
        )
    return content


def _integer(entry: dict[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    largest = LARGEST_ID if isinstance(value, int) else LARGEST
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < largest or value % 1:
        raise DataError(f"{where}: {key} is {shown(value)}, not an integer (below 2^63); correct it")
    return int(value)


def _flag(entry: dict[str, Any], key: str, where: str) -> bool:
    value = entry.get(key)
    if value is None:
        return False
    if not isinstance(value, int | float) or value not in (0, 1):
        raise DataError(f"{where}: {key} is {shown(value)}, not 0 or 1; correct it")
    return bool(value)


def _text_ids(entries: list[dict[str, Any]]) -> bool:
    """Whether every entry has a text as its id."""
    return bool(entries) and all(isinstance(entry.get("id"), str) and entry["id"] for entry in entries)


def _reference(entry: dict[str, Any], key: str, known: dict[Any, int], are_texts: bool, where: str) -> int | None:
    """The number of the image or category that an annotation refers to, or None where there is no such one."""
    value = entry.get(key)
    if are_texts:
        if not isinstance(value, str):
            what = key.removesuffix("_id")
            raise DataError(
                f"{where}: {key} is {shown(value)}, but the ids of that list ({what}) are texts; write both alike"
            )
        return known.get(value)
    number = finite_number(value) if isinstance(value, str) else None
    if number is not None and number in known:
        raise DataError(
            f"{where}: {key} is the text {shown(value)}, but the ids of that list are numbers; write both alike"
        )
    return known.get(_integer(entry, key, where))


def _categories(content: dict[str, Any], path: Path, notebook: Notebook) -> tuple[dict[int, str], list[int]]:
    """The name of each category by its number, and the number of each entry of the list."""
    entries = content["categories"]
    are_texts = _text_ids(entries)
    named: list[tuple[int, str, dict[str, Any]]] = []
    position_of: dict[Any, str] = {}
    for position, entry in enumerate(entries, 1):
        where = f"{path} category number {position}"
        category_id = position if are_texts else _integer(entry, "id", where)
        name = entry.get("name")
        if name is None and "name" not in entry:
            name = str(entry["id"])
            notebook.add("note", where, f"it has no name and is called by its id, {shown(name)}")
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: name is {shown(name)}; every category needs a name")
        if entry["id"] in position_of:
            raise DataError(
                f"{where}: id {shown(entry['id'])} belongs to {shown(position_of[entry['id']])} already; use another"
            )
        position_of[entry["id"]] = name
        named.append((category_id, name, entry))
    if are_texts:
        notebook.add(
            "note", str(path), "the ids of its categories are texts; they are numbered in the order of the file"
        )
    dropped = _grouping_categories(content, named)
    for category_id, name, entry in named:
        if category_id in dropped:
            reason = f"category {shown(entry['id'])} only groups others of the name {shown(name)}; left out"
            notebook.add("note", str(path), reason)
    categories: dict[int, str] = {}
    taken: set[str] = set()
    for position, (category_id, name, _) in enumerate(named, 1):
        if category_id in dropped:
            continue
        if name in taken:
            raise DataError(
                f"{path} category number {position}: the name {shown(name)} belongs to another category already; "
                "rename or merge them"
            )
        categories[category_id] = name
        taken.add(name)
    return categories, [category_id for category_id, _, _ in named]


def _grouping_categories(content: dict[str, Any], named: list[tuple[int, str, dict[str, Any]]]) -> set[int]:
    """Categories without an object that bear the name of another, as Roboflow's exports begin with.

    Such a category is left out where another of its name has objects, or names it as its supercategory.
    """
    times = Counter(name for _, name, _ in named)
    if max(times.values(), default=1) < 2:
        return set()
    used = {a.get("category_id") for a in content["annotations"] if isinstance(a.get("category_id"), int | str | float)}
    dropped: set[int] = set()
    namesakes: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for category_id, name, entry in named:
        namesakes.setdefault(name, []).append((category_id, entry))
    for category_id, name, entry in named:
        others = [other for i, other in namesakes[name] if i != category_id]
        if entry["id"] in used or not others:
            continue
        if any(other["id"] in used for other in others) or (
            entry.get("supercategory") in (None, "", "none") and any(o.get("supercategory") == name for o in others)
        ):
            dropped.add(category_id)
    return dropped


def _images(
    content: dict[str, Any], path: Path, notebook: Notebook
) -> tuple[dict[int, dict[str, Any]], dict[Any, int]]:
    """The entries of images by number, and the number of each id that the file has.

    Where two entries contradict each other, neither image is used: the objects of both cannot be told apart.
    """
    images: dict[int, dict[str, Any]] = {}
    numbers: dict[Any, int] = {}
    id_of_file: dict[str, int] = {}
    unclear: set[int] = set()
    are_texts = _text_ids(content["images"])
    # The evaluation visits images in the order of their ids, on which ties depend: the numbers keep that order.
    rank = {one: k for k, one in enumerate(sorted({e["id"] for e in content["images"]}), 1)} if are_texts else {}
    for position, entry in enumerate(content["images"], 1):
        where = f"{path} image number {position}"
        with notebook.guard(where):
            image_id = rank[entry["id"]] if are_texts else _integer(entry, "id", where)
            name = name_of_image(entry, where)
            called = shortened(name, 100)
            if image_id in images and images[image_id]["file_name"] == name:
                notebook.add("duplicate", where, f"image {image_id} ({called}) is listed more than once")
            elif image_id in images:
                unclear.add(image_id)
                other = shortened(images[image_id]["file_name"], 100)
                raise DataError(f"{where}: {called} has the id {image_id} of {other}; give each image an id of its own")
            elif name in id_of_file:
                unclear.add(id_of_file[name])
                raise DataError(
                    f"{where}: {called} has the ids {id_of_file[name]} and {image_id}; merge the two entries"
                )
            else:
                images[image_id] = entry if entry.get("file_name") == name else {**entry, "file_name": name}
                id_of_file[name] = image_id
                numbers[entry["id"]] = image_id
    if are_texts:
        notebook.add("note", str(path), "the ids of its images are texts; they are numbered in their order")
    return {number: entry for number, entry in images.items() if number not in unclear}, numbers


def _annotations(
    content: dict[str, Any],
    path: Path,
    images: dict[int, dict[str, Any]],
    id_of_image: dict[Any, int],
    id_of_category: dict[Any, int],
    notebook: Notebook,
) -> tuple[dict[int, list[tuple[int, dict[str, Any]]]], dict[int, dict[str, Any]], dict[int, DataError]]:
    """The annotations as ``(id, entry)`` by image, and all by id; ids renumbered when one is below 1 or used twice.

    The third value holds what is wrong with an annotation, by its image: without this object the image would teach
    that there is background.
    """
    entries: list[tuple[int, int, dict[str, Any]]] = []
    bad: dict[int, DataError] = {}
    stated = {entry.get("id") for entry in content["images"] if isinstance(entry.get("id"), int | float | str)}
    texts = homeless = 0
    image_texts, category_texts = (any(isinstance(one, str) for one in ids) for ids in (id_of_image, id_of_category))
    for position, entry in enumerate(content["annotations"], 1):
        where = f"{path} annotation number {position}"
        image_id: int | None = None
        try:
            image_id = _reference(entry, "image_id", id_of_image, image_texts, where)
            if image_id is None or image_id not in images:
                image_id, shown_id = None, shown(entry.get("image_id"))
                raise DataError(f"{where}: image_id {shown_id} is not among the images; add the image or remove it")
            if isinstance(entry.get("id"), str):
                annotation_id, texts = 0, texts + 1
            else:
                annotation_id = 0 if entry.get("id") is None else _integer(entry, "id", where)
            category_id = _reference(entry, "category_id", id_of_category, category_texts, where)
            if image_texts or category_texts:
                entry = {**entry, "image_id": image_id, "category_id": category_id}
            entries.append((annotation_id, image_id, entry))
        except DataError as error:
            if image_id is not None and notebook.skip_bad:
                bad.setdefault(image_id, error)
                continue
            notebook.skip(where, error)
            key = entry.get("image_id")
            homeless += not isinstance(key, int | float | str) or key not in stated
    if homeless:
        said = f"{homeless} annotations belong to no image of the file: images may lack objects, and teach background"
        notebook.add("doubtful", str(path), said)
    used = Counter(annotation_id for annotation_id, _, _ in entries)
    faulty = [i for i, count in used.items() if i < 1 or count > 1]
    if texts:
        notebook.add("renumbered", str(path), f"{texts} ids of annotations are texts")
    if faulty:
        # An id of 0 counts as "unmatched" in the COCO evaluation, and of two equal ids it sees only one.
        if not texts:
            notebook.add(
                "renumbered", str(path), f"annotation ids must be unique and at least 1; e.g. {faulty[0]} is not"
            )
        entries = [(i, image_id, entry) for i, (_, image_id, entry) in enumerate(entries, 1)]
    by_image: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for annotation_id, image_id, entry in entries:
        by_image.setdefault(image_id, []).append((annotation_id, entry))
    return by_image, {annotation_id: entry for annotation_id, _, entry in entries}, bad


def _read_one(
    path: Path,
    number: int,
    entry: dict[str, Any],
    annotations: list[tuple[int, dict[str, Any]]],
    finder: ImageFinder,
    categories: dict[int, str],
    index: dict[str, int],
    builder: RecordBuilder,
) -> None:
    """Adds an image to the builder."""
    where = f"{path} image {number}"
    stated = _stated_size(entry, where)
    source = finder.find(entry["file_name"], where, needed=builder.images_needed or stated is None)
    objects: list[RawObject] = []
    for annotation_id, annotation in annotations:
        spoken = f"{path} annotation {annotation_id}"
        x, y, w, h = _numbers(annotation, "bbox", 4, spoken, LARGEST_COORDINATE)
        if w < 0 or h < 0:
            raise DataError(
                f"{spoken}: bbox {shown(annotation['bbox'])} has a negative width or height; is it x1, y1, x2, y2 "
                "instead of x, y, width, height?"
            )
        area = _area(annotation, spoken)
        crowd = _flag(annotation, "iscrowd", spoken)
        category_id = annotation["category_id"]
        name = None if category_id is None else categories.get(int(category_id))
        if name is None:
            raise unknown_class(f"category {shown(category_id)}", spoken, list(index))
        if name not in index:  # a category of the file that is not among the classes asked for
            with builder.notebook.guard(spoken):
                raise unknown_class(name, spoken, list(index))
            continue
        objects.append(
            RawObject(
                number=annotation_id,
                box=(x, y, x + w, y + h),
                class_index=index[name],
                crowd=crowd,
                difficult=_flag(annotation, "ignore", spoken) and not crowd,
                area=area,
                annotation_id=annotation_id,
            )
        )
    size, upright = builder.open_image(source, stated, where, [o.box for o in objects])
    builder.add(number, entry["file_name"], source, size, upright, str(path), objects)


def _stated_size(entry: dict[str, Any], where: str) -> tuple[int, int] | None:
    """``(height, width)`` as the entry of an image states it; missing, null or 0 is not stated."""
    sides: list[int] = []
    for key in ("height", "width"):
        value = entry.get(key)
        if value is None:
            return None
        number = finite_number(value) if isinstance(value, str) else None
        sides.append(_integer({key: value if number is None else number}, key, where))
    return None if min(sides) <= 0 else (sides[0], sides[1])


def _area(annotation: dict[str, Any], where: str) -> float | None:
    if annotation.get("area") is None:
        return None
    (area,) = _numbers({"area": [annotation["area"]]}, "area", 1, where, LARGEST)
    if area < 0:
        raise DataError(f"{where}: area is {area:g}; correct it, or leave it out for the box's own")
    return area


def _numbers(entry: dict[str, Any], key: str, count: int, where: str, largest: float) -> list[float]:
    values = entry.get(key)
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= largest for v in values)
    ):
        wanted = "a finite number" if count == 1 else f"{count} finite numbers"
        stated = values[0] if count == 1 and isinstance(values, list) else values
        raise DataError(f"{where}: {key} is {shown(stated)}, not {wanted} up to {largest:g}; correct it")
    return [float(v) for v in values]
