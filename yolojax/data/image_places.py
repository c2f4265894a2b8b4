"""Finds the images that an annotation file names: in which folder they lie, and under which name there."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from yolojax.data.images import is_image
from yolojax.data.paths import images_below, inside, relocated, subfolders
from yolojax.data.summary import Notebook
from yolojax.data.watching import Watched, files_in_each
from yolojax.errors import DataError, shown
from yolojax.paths import composed

ANNOTATION_FOLDERS = ("annotations", "annotation", "annots", "annot", "labels", "json", "jsons")
"""Folders of COCO files within that of their data set."""

_SAMPLE = 20
_DEPTH = 3  # of the folders that are searched
_MOST_FOLDERS = 500


def name_of_image(entry: dict[str, Any], where: str) -> str:
    """The file name of an image of a COCO file: ``file_name``, or, as in LVIS, the end of ``coco_url``."""
    name = entry.get("file_name")
    if name is None and isinstance(entry.get("coco_url"), str):
        name = "/".join(entry["coco_url"].split("?")[0].split("/")[-2:])
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: file_name is {shown(name)}; every image needs one")
    return name


def root_of(path: Path) -> Path:
    """The folder of the data set of a COCO file."""
    return path.parent.parent if path.parent.name.casefold() in ANNOTATION_FOLDERS else path.parent


def find_image_folder(path: Path, split: str | None, images: Path | None, names: list[str]) -> Path:
    """The folder that holds most of a sample of the images of an annotation file.

    Outside the data set's folder, beside that of a file that lies alone in its own, it must hold all of the sample:
    other data sets there may have images of the same names.

    Args:
      path: the annotation file.
      split: the name of its part, by which image folders are often called.
      images: the folder of the images, or one above it, where it is given.
      names: the images as the file names them.
    """
    root = root_of(path)
    top = root if images is None else images
    part = split or path.stem.removeprefix("instances_")
    if images is None and path.parent.parent != path.parent and not _holds_images(path.parent):
        top = path.parent.parent
    is_strange = images is None and not top.is_relative_to(root)
    candidates = [images] if images is not None else []
    candidates += [top / "images" / part, top / part, top / "images", top, path.parent]
    candidates = [c for c in dict.fromkeys(candidates) if c.is_dir()]
    sample = [n.replace("\\", "/") for n in names[:: max(1, len(names) // _SAMPLE)] if ".." not in n and "\0" not in n]

    def best_of(folders: list[Path], wanted: list[str]) -> tuple[Path, int]:
        counts = [sum(_is_file(folder, name) for name in wanted) for folder in folders]
        return folders[counts.index(max(counts))], max(counts)  # the first among equals

    folder, found = best_of(candidates, sample)
    if found == len(sample):
        return folder
    below = [c for c in _folders_below(top) if c not in candidates]
    everywhere = [*candidates, *below]
    folder, found = best_of(everywhere, sample)
    if is_strange:
        return folder if found == len(sample) else path.parent
    if found:
        return folder
    return best_of(everywhere, [name.rsplit("/", 1)[-1] for name in sample])[0]


def _holds_images(folder: Path) -> bool:
    """Whether a folder is more than one of annotation files."""
    return any(True for _ in subfolders(folder)) or any(True for _ in _first_images(folder))


def _first_images(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [folder / e.name for _, e in zip(range(1000), entries, strict=False) if is_image(e.name)]


def _is_file(folder: Path, name: str) -> bool:
    try:
        return os.path.isfile(folder / name)
    except (OSError, ValueError):
        return False


def _folders_below(root: Path) -> list[Path]:
    found: list[Path] = []
    level = [root]
    for _ in range(_DEPTH):
        level = [child for folder in level for child in subfolders(folder)]
        found += level
        if len(found) > _MOST_FOLDERS:
            break
    return found[:_MOST_FOLDERS]


class ImageFinder:
    """Finds each image that an annotation file names, and counts the names that had to be understood otherwise."""

    def __init__(self, folder: Path, root: Path, notebook: Notebook) -> None:
        self.folder = folder
        self._root = root
        self._notebook = notebook
        self._by_base: dict[str, list[Path]] | None = None
        self._moved: list[tuple[str, Path]] = []
        self._listings: dict[str, frozenset[str]] = {}
        self._sought = False

    def find_listed(self, name: str) -> str | None:
        """The file of an image whose name is that of a file exactly, by a listing of its folder; None for others."""
        inner, _, base = name.rpartition("/")
        if name.startswith("/"):  # joined to the folder it would lead out of it
            return None
        return os.path.join(self.folder, name) if base in self._listing(inner) else None

    def _listing(self, inner: str) -> frozenset[str]:
        """The names in a folder of the images, which is listed once."""
        if inner not in self._listings:
            self._listings[inner] = self._list(inner)
        return self._listings[inner]

    def _list(self, inner: str) -> frozenset[str]:
        if inner and (inner.startswith("/") or ".." in inner or not inner.isprintable() or set(inner) & set("\\:")):
            return frozenset()
        if os.path.normpath(inner or ".") != (inner or "."):
            return frozenset()
        try:
            with os.scandir(self.folder / inner) as entries:
                plain = (e for e in entries if e.name.isprintable() and "\\" not in e.name and ":" not in e.name)
                return frozenset(e.name for e in plain if e.is_file())
        except OSError:
            return frozenset()

    @property
    def watched(self) -> list[Watched]:
        """What decided where the images are: the folders that were listed, or all of them where a name was sought."""
        listed = files_in_each(self.folder / inner for inner in self._listings)
        return (
            [*listed, Watched("tree", str(self._root)), Watched("tree", str(self.folder))] if self._sought else listed
        )

    def find(self, name: str, where: str, *, needed: bool = True) -> Path:
        """The file of an image; where it is missing, and ``needed`` or not, the place at which it should be.

        Raises `DataError` where the name leads out of the folder and nothing of its last part lies inside.
        """
        self._sought = True
        plain = name.replace("\\", "/")
        leads_out = ".." in plain.split("/") or plain.startswith("/") or ":" in plain
        if not leads_out:
            path = inside(self.folder, name, where)
            if os.path.isfile(path):
                return path
        moved = self._otherwise(plain)
        if moved is not None:
            self._moved.append((name, moved))
            return moved
        if leads_out and not needed:
            return self.folder / plain.rsplit("/", 1)[-1]
        return inside(self.folder, name, where)

    def _otherwise(self, plain: str) -> Path | None:
        if not plain.isprintable():
            return None
        path = plain.split("?", maxsplit=1)[0] if "://" in plain else plain
        for name in dict.fromkeys((path, unquote(path))):
            found = relocated(self.folder, name)
            if found is not None and found.is_file():
                return found
        if self._by_base is None:
            self._by_base = {}
            for image in images_below(self._root):
                self._by_base.setdefault(composed(image.name).casefold(), []).append(image)
        for name in dict.fromkeys((path, unquote(path))):
            same = self._by_base.get(composed(name.rsplit("/", 1)[-1]).casefold(), [])
            near = [image for image in same if image.parent == (self.folder / name).parent] or same
            if len(near) == 1:
                return near[0]
        return None

    def refuse_where_all_are_missing(self, names: list[str], path: Path) -> None:
        """Raises `DataError`, once, where not one of a sample of the images is found; each by itself would be told."""
        sample = names[:: max(1, len(names) // _SAMPLE)]
        if len(names) < 2 or any(self._is_there(name) for name in sample):
            return
        raise DataError(
            f"{path}: image file is missing for each of the {len(sample)} images that were looked for, e.g. "
            f"{shown(names[0])}, in {self.folder} and the folders of {self._root}; give their folder with --images"
        )

    def _is_there(self, name: str) -> bool:
        plain = name.replace("\\", "/")
        return _is_file(self.folder, plain) or self._otherwise(plain) is not None

    def unlisted(self, names: Iterable[str], read: Collection[str]) -> list[str]:
        """The image files that lie in the folders of the listed images and that are neither listed nor ``read`` under
        another name. Each folder is listed once; none where there are too many."""
        listed: dict[str, set[str]] = {}
        for name in names:
            inner, _, base = name.replace("\\", "/").rpartition("/")
            listed.setdefault(inner, set()).add(base)
        if len(listed) > _MOST_FOLDERS:
            return []
        found: list[str] = []
        for inner, bases in listed.items():
            others = (name for name in self._listing(inner) - bases if is_image(name) and not name.startswith("."))
            found += [path for name in others if (path := os.path.join(self.folder, inner, name)) not in read]
        return sorted(found)

    def close(self, where: str) -> None:
        """Notes the images that were found under another name than the file's."""
        if self._moved:
            name, path = self._moved[0]
            self._notebook.add(
                "note",
                where,
                f"{len(self._moved)} images are not where their file_name says; others of that name are taken, e.g. "
                f"{path} for {shown(name)}",
            )
