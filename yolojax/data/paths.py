"""File names that stand in annotation files: never followed out of the data set's folder."""

import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from yolojax.data.images import IMAGE_SUFFIXES
from yolojax.errors import DataError

_LONGEST_NAME = 255  # bytes of one part of a path, on every common file system


def inside(folder: Path, name: str, where: str) -> Path:
    """``folder / name``, or a `DataError` when ``name``, found in ``where``, leads out of ``folder``.

    Backslashes count as separators. The test is on the names alone: a symbolic link that lies in the folder was put
    there by whoever arranged the data, and is followed.
    """
    plain = name.replace("\\", "/")
    relative = os.path.normpath(plain)
    printable = name.isascii() or name.encode("utf-8", "replace").decode() == name  # no half of a surrogate pair
    if not plain or not printable or min(name) < " " or max(len(p.encode()) for p in plain.split("/")) > _LONGEST_NAME:
        raise DataError(f"{where}: {name[:80]!r} is not a file name; correct it")
    if os.path.isabs(plain) or PureWindowsPath(name).drive or relative.split("/", 1)[0] == "..":
        raise DataError(
            f"{where}: {name!r} lies outside the data set's folder {folder}; file names must be relative to it"
        )
    return folder / relative


def images_below(folder: Path) -> list[Path]:
    """Every image file in a folder and its subfolders, by suffix, sorted by path."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def find_folder(parent: Path, names: Sequence[str]) -> Path | None:
    """The first of these folders that exists in ``parent``."""
    return next((parent / n for n in names if (parent / n).is_dir()), None)


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark; `DataError` when it is missing or anything else."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


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
