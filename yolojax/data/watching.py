"""Fingerprints of files and folders: whether anything that a reader saw has changed since.

A file counts by its size, its time of change and the time at which the system last changed its entry; the last one
tells also where somebody set the second back. Contents are not read.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

MOST_ENTRIES = 2_000_000
"""Files that are looked at; a folder with more of them is not watched."""

SETTLED = 2.0
"""Seconds. What changed later than this before the reading began could change again unnoticed: some file systems count
time in steps of two seconds."""

_NOT_WATCHED = ("runs", "node_modules", "site-packages", ".git", ".venv", "venv")
"""Folders directly in a watched one that hold no data; commands write there."""


class Watched(NamedTuple):
    """A file, the files of a folder without those in its subfolders (``files``), or all below a folder (``tree``)."""

    kind: Literal["file", "files", "tree"]
    path: str


class Fingerprint(NamedTuple):
    """The state of files and folders: a digest, and the latest time in seconds at which one of them changed."""

    digest: str
    latest: float

    def is_settled(self, began: float) -> bool:
        """Whether all was still when a reading ``began`` (`time.time`), and for a while before."""
        return self.latest < began - SETTLED and began <= time.time()


def fingerprint(watched: Iterable[Watched]) -> Fingerprint | None:
    """The state of files and folders, whether they exist or not; None where they hold too many."""
    digest, latest, budget = hashlib.sha256(), 0, MOST_ENTRIES
    seen: set[tuple[int, int]] = set()
    # A folder within a tree needs no second look, so that trees come first.
    for kind, path in sorted(set(watched), reverse=True):
        digest.update(f"{kind}\0{path}\0".encode("utf-8", "surrogateescape"))
        folders = [] if kind == "file" else [path]
        if kind == "file":
            state = _state(path)
            digest.update(repr(state).encode())
            latest = max(latest, *state[1:])
        while folders:
            folder = folders.pop()
            try:
                own = os.stat(folder)
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                digest.update(f"{folder}\0missing\0".encode("utf-8", "surrogateescape"))
                continue
            if (own.st_dev, own.st_ino) in seen:
                continue
            if kind == "tree":  # a link to a folder above would lead here again
                seen.add((own.st_dev, own.st_ino))
            budget -= len(entries)
            if budget < 0:
                return None
            is_top = folder == path
            names: list[str] = []
            states: list[tuple[int, int, int]] = []
            for entry in entries:
                is_folder = _is_folder(entry)
                if is_folder and is_top and entry.name in _NOT_WATCHED:
                    continue
                names.append(entry.name)
                # A folder is described by what lies in it.
                states.append((-2, 0, 0) if is_folder else _state_of(entry))
                if is_folder and kind == "tree":
                    folders.append(entry.path)
            digest.update("\0".join((folder, *names)).encode("utf-8", "surrogateescape"))
            numbers = np.array(states, np.int64).reshape(-1, 3)
            digest.update(numbers.tobytes())
            latest = max(latest, own.st_mtime_ns if names else 0, int(numbers[:, 1:].max(initial=0)))
    return Fingerprint(digest.hexdigest(), latest / 1e9)


def may_be_watched(root: str, files: Iterable[str]) -> bool:
    """Whether none of these files lies in a folder of ``root`` that `fingerprint` leaves out."""
    left_out = tuple(os.path.join(root, name, "") for name in _NOT_WATCHED)
    return not any(file.startswith(left_out) for file in files)


def parents(files: Iterable[str]) -> list[str]:
    """The folders in which files lie, each once."""
    return sorted({os.path.dirname(file) for file in files})


def files_in_each(folders: Iterable[str | Path]) -> list[Watched]:
    """The files directly in each of these folders."""
    return [Watched("files", os.fspath(folder)) for folder in folders]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _state(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _state_of(entry: os.DirEntry[str]) -> tuple[int, int, int]:
    try:
        status = entry.stat()
    except OSError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
