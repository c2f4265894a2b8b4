"""File names that stand in annotation files: never followed out of the data set's folder."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path, PureWindowsPath

from yolojax.data.images import UNREAD_SUFFIXES, is_image, why_unread
from yolojax.data.summary import Notebook
from yolojax.errors import DataError, shown
from yolojax.paths import is_text

_LONGEST_NAME = 255  # bytes of one part of a path, on every common file system
_COMMON_FOLDERS = ("images", "image", "img", "imgs", "labels", "data", "jpegimages", "annotations")


def inside(folder: Path, name: str, where: str) -> Path:
    """``folder / name``, or a `DataError` when ``name``, found in ``where``, leads out of ``folder``.

    Backslashes count as separators. The test is on the names alone: a symbolic link that lies in the folder was put
    there by whoever arranged the data, and is followed.
    """
    plain = name.replace("\\", "/")
    relative = os.path.normpath(plain)
    printable = is_text(name)
    if not plain or not printable or min(name) < " " or max(len(p.encode()) for p in plain.split("/")) > _LONGEST_NAME:
        raise DataError(f"{where}: {shown(name)} is not a file name; correct it")
    if os.path.isabs(plain) or PureWindowsPath(name).drive or relative.split("/", 1)[0] == "..":
        raise DataError(
            f"{where}: {shown(name, 300)} lies outside the data set's folder {folder}; file names must be relative "
            "to it"
        )
    return folder / relative


def images_below(folder: Path, notebook: Notebook | None = None) -> list[Path]:
    """Every image file in a folder and its subfolders, by suffix, sorted by path.

    Pictures of formats that are not read are noted, as are the files ``._NAME`` in which macOS keeps what other file
    systems cannot hold; those are no images. With a notebook, a link that leads nowhere is in the list, so that its
    reader names it as missing.
    """
    found: list[Path] = []
    doubles = 0
    for path in sorted(Path(name, file) for name, _, files in walk(folder) for file in files):
        is_candidate = is_image(path.name)
        if not is_candidate and path.suffix.lower() not in UNREAD_SUFFIXES:
            continue
        if is_apple_double(path):
            doubles += 1
        elif path.is_file():
            reason = why_unread(path)
            if reason is None:
                found.append(path)
            elif notebook is not None:
                notebook.add("unread", str(path), reason)
        elif notebook is not None and path.is_symlink() and not path.exists():
            found.append(path)
        elif notebook is not None:
            notebook.add("unread", str(path), "no ordinary file; left out")
    if notebook is not None and doubles:
        notebook.add("note", str(folder), f"{doubles} files ._NAME of macOS are no images; left out")
    return found


def walk(
    folder: Path, left_out: Callable[[str], bool] = lambda name: False
) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`, sorted, that follows links to folders, once each and after the others; without the folders whose name
    is ``left_out``."""
    seen: set[tuple[int, int]] = set()
    tops = [str(folder)]
    for top in tops:  # grows meanwhile
        for name, folders, files in os.walk(top):
            state = os.stat(name)
            folders[:] = sorted(one for one in folders if not left_out(one))
            if (state.st_dev, state.st_ino) in seen:
                folders[:] = []
                continue
            seen.add((state.st_dev, state.st_ino))
            tops += [path for one in folders if os.path.islink(path := os.path.join(name, one))]
            yield name, folders, sorted(files)


def is_apple_double(path: Path) -> bool:
    """Whether a file is one of those that macOS writes beside the real one on foreign file systems: ``._NAME``."""
    if not path.name.startswith("._") or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\0\x05\x16\x07"
    except OSError:
        return False


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """The files in a folder with one of these suffixes, in any case, sorted; without those of macOS."""
    try:
        names = [name for name in os.listdir(folder) if name.lower().endswith(suffixes)]
    except OSError:
        return []
    found = [folder / name for name in sorted(names) if os.path.splitext(name)[1].lower() in suffixes]
    return [path for path in found if not is_apple_double(path)]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except OSError:
        return []


def relocated(root: Path, name: str) -> Path | None:
    """The longest end of a path that exists below ``root``: ``train/a.jpg`` for ``/content/set/train/a.jpg``.

    Files that were written on another machine begin with folders that are not here. The name of a common folder alone
    (``images``) says too little to be taken for the one that was meant.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if (
        not name.isprintable()
        or max((len(part.encode("utf-8", "replace")) for part in parts), default=256) > _LONGEST_NAME
    ):
        return None
    for start in range(len(parts)):
        tail = parts[start:]
        if len(tail) == 1 and start > 0 and tail[0].casefold() in _COMMON_FOLDERS:
            continue
        if os.path.exists(path := root.joinpath(*tail)):
            return path
    return None


def find_folder(parent: Path, names: Sequence[str]) -> Path | None:
    """The first of these folders that exists in ``parent``."""
    return next((parent / n for n in names if (parent / n).is_dir()), None)


def choose_split(wanted: str, splits: Sequence[str], where: Path) -> str:
    """The split named ``wanted``: exactly, or the only one that begins so (``val`` finds ``val2017`` and ``valid``)."""
    if (found := split_named(wanted, splits)) is not None:
        return found
    there = ", ".join(splits) or "none"
    raise DataError(f"{where}: there is no split {wanted!r}; the splits there: {there}")


def split_named(name: str, splits: Sequence[str]) -> str | None:
    """The split of this name, or the only one whose name begins with it (``val`` for ``val2017``), or None."""
    if name in splits:
        return name
    candidates = [split for split in splits if split.startswith(name)]
    return candidates[0] if len(candidates) == 1 else None


def real_paths(paths: Iterable[str | Path]) -> list[str]:
    """The files that these paths lead to, whatever links are on the way; each folder is looked at once."""
    folders: dict[str, tuple[str, frozenset[str] | None]] = {}
    found: list[str] = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            real = os.path.realpath(folder)
            folders[folder] = os.path.join(real, ""), _links_in(real)
        real, links = folders[folder]
        plain = real + name
        is_link = os.path.islink(plain) if links is None else name in links
        found.append(os.path.realpath(plain) if is_link else plain)
    return found


def lie_apart(first: Iterable[str | Path], second: Iterable[str | Path]) -> bool:
    """Whether the folders alone show that no file belongs to both: they are different ones, and none holds a link."""
    one, other = (
        {os.path.realpath(folder) for folder in {os.path.dirname(path) for path in paths}} for paths in (first, second)
    )
    return not one & other and all(_links_in(folder) == frozenset() for folder in one | other)


def _links_in(folder: str) -> frozenset[str] | None:
    """The names of the links directly in a folder; None where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_symlink())
    except OSError:
        return None


def shared_images(parts: Mapping[str, Sequence[str | Path]]) -> list[str]:
    """A sentence for each two parts of a data set that have image files in common.

    A part whose name begins or ends with that of the other, as ``trainval`` does, is meant to hold the other's images
    or some of them.
    """
    files = {name: dict(zip(real_paths(paths), paths, strict=True)) for name, paths in parts.items()}
    said: list[str] = []
    for first, second in combinations(parts, 2):
        if any(a.startswith(b) or a.endswith(b) for a, b in ((first, second), (second, first))):
            continue
        both = [path for real, path in files[first].items() if real in files[second]]
        if both:
            said.append(
                f"{len(both)} images stand under {first} and under {second}, e.g. {both[0]}: what is measured on "
                "images that were trained on flatters"
            )
    return said
