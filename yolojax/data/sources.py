"""Which photos and videos are meant by what a user names: files, folders, patterns, standard input."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from yolojax.data.images import IMAGE_SUFFIXES
from yolojax.data.video import is_video
from yolojax.errors import DataError

STANDARD_INPUT = "-"


class Source(NamedTuple):
    """A photo or a video: a file, or (``data``) the bytes of a photo that came on standard input."""

    path: Path
    data: bytes | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return self.data is None and is_video(self.path)


def find_sources(names: Iterable[str | Path], read_input: Callable[[], bytes] | None = None) -> list[Source]:
    """Everything that is meant, each once, in order.

    Args:
      names: files as they are, existing or not (reading them says what is wrong); folders, for the photos and videos
        directly in them; patterns with ``*``, ``?`` or ``[ ]``, where no file has that very name (``**`` goes into
        subfolders); ``-`` for standard input: a photo, or names of files, one a line.
      read_input: gives all of standard input.

    Raises:
      DataError: a folder or pattern without a photo, or an empty standard input.
    """
    sources: list[Source] = []
    for name in names:
        if str(name) == STANDARD_INPUT and read_input is not None:
            sources += _from_input(read_input())
        else:
            sources += [Source(path) for path in _files(str(name))]
    return list(dict.fromkeys(sources))


def _files(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if _is_known(p) and p.is_file())
        if not inside:
            raise DataError(f"{path}: no image in this folder; give another, or the photos themselves")
        return inside
    if glob.has_magic(name) and not path.exists():
        found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if _is_known(p) and p.is_file())
        if not found:
            raise DataError(f"{name}: no image matches this pattern; give another, or the photos themselves")
        return found
    return [path]


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or is_video(path)


def _from_input(data: bytes) -> list[Source]:
    if not data.strip():
        raise DataError("standard input is empty; give a photo or names of files, one a line")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return [Source(Path("standard input"), data)]
    if "\0" in text:  # no file name has one, and nearly every image does
        return [Source(Path("standard input"), data)]
    return [Source(path) for line in text.splitlines() if line.strip() for path in _files(line.strip())]
