"""Fingerprints of files and folders: whether anything that a reader saw has changed since.

A file counts by its size, its time of change and the time at which the system last changed its entry; the last one
tells also where somebody set the second back. Contents are not read.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from operator import attrgetter
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


def fingerprint(
    watched: Iterable[Watched], known: dict[Watched, Fingerprint | None] | None = None
) -> Fingerprint | None:
    """The state of files and folders, whether they exist or not; None where they hold too many.

    Args:
      watched: what to look at. What lies in a tree that is among them is looked at with that tree.
      known: takes what was found of each, and says it where it was looked at before.
    """
    every = set(watched)
    trees = [path for kind, path in every if kind == "tree"]
    digest, latest = hashlib.sha256(), 0.0
    for one in sorted(every):
        if any(one != ("tree", tree) and _is_within(one.path, tree) for tree in trees):
            continue
        if known is None or one not in known:
            found = _look_at(one)
            if known is not None:
                known[one] = found
        else:
            found = known[one]
        if found is None:
            return None
        digest.update(found.digest.encode())
        latest = max(latest, found.latest)
    return Fingerprint(digest.hexdigest(), latest)


def _look_at(watched: Watched) -> Fingerprint | None:
    kind, path = watched
    digest, latest, budget = hashlib.sha256(f"{kind}\0{path}\0".encode("utf-8", "surrogateescape")), 0, MOST_ENTRIES
    if kind == "file":
        state = _state(path)
        digest.update(repr(state).encode())
        latest = max(0, *state[1:])
    folders = [] if kind == "file" else [path]
    seen: dict[tuple[int, int], str] = {}
    while folders:
        folder = folders.pop()
        try:
            own = os.stat(folder)
            entries = sorted(os.scandir(folder), key=attrgetter("name"))
        except OSError:
            digest.update(f"{folder}\0missing\0".encode("utf-8", "surrogateescape"))
            continue
        first = seen.setdefault((own.st_dev, own.st_ino), folder)
        if first != folder:  # a link leads here, from a folder above or beside
            digest.update(f"{folder}\0again\0{first}\0".encode("utf-8", "surrogateescape"))
            continue
        budget -= len(entries)
        if budget < 0:
            return None
        inner = {entry.name: entry.path for entry in entries if _is_folder(entry)}
        files = [entry for entry in entries if entry.name not in inner]
        if folder == path:
            inner = {name: place for name, place in inner.items() if name not in _NOT_WATCHED}
        if kind == "tree":
            folders += inner.values()
        # A folder is described by what lies in it. The empty name parts folders from files.
        names = "\0".join((folder, *inner, "", *(entry.name for entry in files)))
        digest.update(names.encode("utf-8", "surrogateescape"))
        numbers = np.array(_states_of(files), np.int64).reshape(-1, 3)
        digest.update(numbers.tobytes())
        latest = max(latest, own.st_mtime_ns if inner or files else 0, int(numbers[:, 1:].max(initial=0)))
    return Fingerprint(digest.hexdigest(), latest / 1e9)


def _is_within(path: str, tree: str) -> bool:
    """Whether a look at a tree is one at this path too."""
    if path == tree:
        return True
    top = os.path.join(tree, "")
    return path.startswith(top) and path[len(top) :].split(os.sep, 1)[0] not in _NOT_WATCHED


def may_be_watched(root: str, files: Iterable[str]) -> bool:
    """Whether none of these files lies in a folder of ``root`` that `fingerprint` leaves out."""
    left_out = tuple(os.path.join(root, name, "") for name in _NOT_WATCHED)
    return not any(file.startswith(left_out) for file in files)


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


def _states_of(files: list[os.DirEntry[str]]) -> list[tuple[int, int, int]]:
    try:
        return [(s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in map(os.DirEntry.stat, files)]
    except OSError:  # one has gone, or is a link to nothing
        return [_state(file.path) for file in files]
