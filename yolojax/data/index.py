"""What was read of a data set, kept in the user's cache folder: a second start reads it from one file.

An entry belongs to one call of the reader and to one state of all files that the reader saw (`yolojax.data.watching`).
Where anything has changed since, where the entry is damaged, or where another version wrote it, the files are read
again: the index is never trusted over them. It holds the findings of the reader too, so that they are said again, and
beside it lie facts that cost time to find (`Kept.read`), such as which images cannot be decoded.

Entries are arrays without Python objects (NumPy's ``.npz``); nothing in one is executed. What goes wrong with the index
never stops a command.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.compilation_cache import cache_base
from yolojax.data.coco import FileEntries
from yolojax.data.columns import Columns, Records
from yolojax.data.dataset import CocoSource, Dataset
from yolojax.data.summary import Finding, Summary
from yolojax.data.watching import Fingerprint, Watched, fingerprint, may_be_watched
from yolojax.errors import WriteError
from yolojax.files import write_whole

FORMAT = 1
LARGEST = 500 * 10**6
"""Bytes of all entries together; those that were not used for longest are removed."""

_ARRAYS = ("image_ids", "sizes", "upright", "starts", "boxes", "classes", "crowd", "difficult", "areas")
_ALL_ARRAYS = (*_ARRAYS, "annotation_ids")
_ENTRY, _FACT = ".npz", ".json"

_in_use: list[Path] = []
_looks: list[dict[Watched, Fingerprint | None]] = []


@contextlib.contextmanager
def looking_once() -> Iterator[None]:
    """Within this block files that several data sets have in common are looked at once for all of them."""
    _looks.append({})
    try:
        yield
    finally:
        _looks.pop()


def index_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where the index is kept: ``data-index`` in the folder of `yolojax.compilation_cache`; None where that is off.

    Raises `ConfigError` where ``$YOLOJAX_COMPILATION_CACHE`` is no absolute path.
    """
    base = cache_base(environment)
    return None if base is None else base / "data-index"


def keep_index() -> Path | None:
    """Turns the index on for this process; returns its folder, or None where the cache is turned off.

    The commands call it; a program that uses the library may call it before it opens a data set.
    """
    folder = index_folder()
    _in_use[:] = [] if folder is None else [folder]
    return folder


@dataclass(frozen=True, eq=False)
class Kept:
    """The place of an entry, and the state of the files to which it belongs.

    Attributes:
      folder, key: the place.
      digest: of the files (`Fingerprint`).
      columns: what was read; the images that cannot be decoded are known by their positions in it.
    """

    folder: Path
    key: str
    digest: str
    columns: Columns

    def read(self, name: str) -> Any:
        """A fact that `write` kept of the files as they are now; None where there is none."""
        try:
            said = json.loads(self._place(name).read_text())
            return said["value"] if said["digest"] == self.digest else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, name: str, value: Any) -> None:
        """Keeps a fact, a JSON value, about the files as they are now."""
        with contextlib.suppress(WriteError, OSError):
            write_whole(self._place(name), json.dumps({"digest": self.digest, "value": value}), advice="")

    def _place(self, name: str) -> Path:
        return self.folder / f"{self.key}-{name}{_FACT}"

    def read_bad_images(self) -> list[tuple[int, Finding]] | None:
        """The images that could not be decoded, by position; None where nobody has tried."""
        try:
            bad = [(int(i), Finding("skipped", str(where), str(detail))) for i, where, detail in self.read("decoded")]
        except (OverflowError, TypeError, ValueError):
            return None
        return bad if all(0 <= i < len(self.columns) for i, _ in bad) else None

    def write_bad_images(self, bad: Sequence[tuple[int, Finding]]) -> None:
        """Keeps which images could not be decoded."""
        self.write("decoded", [(i, finding.where, finding.detail) for i, finding in bad])


def find_key(paths: Sequence[Path | None], *settings: Any) -> str | None:
    """The name of the entry of a call of the reader, by its paths and settings; None where no index is kept.

    Paths count as they were given, since findings name files so, and by the place that they mean.
    """
    if not _in_use:
        return None
    try:
        places = [None if path is None else (str(path), os.path.abspath(path)) for path in paths]
        what = json.dumps([FORMAT, places, settings, _versions()], sort_keys=True)
    except (OSError, TypeError, ValueError):  # the working folder is gone, or a setting is none that can be written
        return None
    return hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _versions() -> list[str]:
    """The versions of all that decides what the reader makes of a file. An edited line of it counts, and so does
    another version of this package, whose files have other sizes and times."""
    found = [np.__version__, platform.python_version()]
    for name in ("pillow", "pillow-heif"):
        try:
            found.append(version(name))
        except PackageNotFoundError:
            found.append("none")
    own = Path(__file__).parent
    return [*found, *states_of_sources(own), *states_of_sources(own.parent)]


def states_of_sources(folder: Path) -> list[str]:
    """The names, sizes and times of the Python files of a folder, which change with the version of a package."""
    states = ((path, path.stat()) for path in sorted(folder.glob("*.py")))
    return [f"{path} {status.st_size} {status.st_mtime_ns}" for path, status in states]


def read_index(key: str) -> Dataset | None:
    """The data set of an entry, if all files are as they were; None where there is none, or it is of no use."""
    folder = _in_use[0]
    path = folder / f"{key}{_ENTRY}"
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            meta = json.loads(archive.read("meta"))
            watched = [Watched(kind, str(place)) for kind, place in meta["watched"]]
            found = fingerprint(watched, _looks[-1] if _looks else None)
            if meta["format"] != FORMAT or meta["key"] != key or found is None or found.digest != meta["digest"]:
                return None
            arrays: dict[str, Any] = {}
            for name in _ALL_ARRAYS:  # each part has a checksum, which is tested on reading
                arrays[name] = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
            names, sources = (archive.read(part).decode("utf-8", "surrogateescape").split("\0") for part in _TEXTS)
        columns = _checked(arrays, names, sources)
        dataset = _dataset(meta, columns)
    except Exception:  # on damaged bytes the readers of archives and arrays raise nearly anything
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it was used
    return replace(dataset, kept=Kept(folder, key, meta["digest"], columns))


_TEXTS = ("file_names", "sources")


def _checked(arrays: dict[str, Any], names: list[str], sources: list[str]) -> Columns:
    """Raises `ValueError` where arrays do not belong together."""
    n, total = len(arrays["image_ids"]), len(arrays["boxes"])
    starts = arrays["starts"]
    shapes = {
        "image_ids": ((n,), np.int64),
        "sizes": ((n, 2), np.int32),
        "upright": ((n,), np.bool_),
        "starts": ((n + 1,), np.int64),
        "boxes": ((total, 4), np.float32),
        "classes": ((total,), np.int32),
        "crowd": ((total,), np.bool_),
        "difficult": ((total,), np.bool_),
        "areas": ((total,), np.float64),
        "annotation_ids": ((total,), np.int64),
    }
    for name, (shape, kind) in shapes.items():
        if arrays[name].shape != shape or arrays[name].dtype != kind:
            raise ValueError(name)
    if n == 0 or len(names) != n or len(sources) != n:
        raise ValueError("images")
    if starts[0] != 0 or starts[-1] != total or (np.diff(starts) < 0).any():
        raise ValueError("starts")
    return Columns(file_names=names, sources=sources, **arrays)


def _dataset(meta: dict[str, Any], columns: Columns) -> Dataset:
    said = meta["coco"]
    coco = None
    if said is not None:
        path, size, changed, is_plain, skip_bad = said["entries"]
        coco = CocoSource(
            header=said["header"],
            categories=said["categories"],
            load=FileEntries(Path(path), (size, changed), is_plain, skip_bad),
            with_dropped={int(i): ids for i, ids in said["with_dropped"]},
            category_keys={int(i): str(text) for i, text in said["category_keys"]},
        )
    class_names = tuple(str(name) for name in meta["class_names"])
    if columns.classes.size and not 0 <= columns.classes.min() <= columns.classes.max() < len(class_names):
        raise ValueError("classes")
    return Dataset(
        class_names=class_names,
        category_ids=tuple(int(i) for i in meta["category_ids"]),
        records=Records(columns),
        summary=Summary(tuple(Finding(*one) for one in meta["findings"])),
        root=None if meta["root"] is None else Path(meta["root"]),
        split=meta["split"],
        format=meta["set_format"],
        skip_bad=bool(meta["skip_bad"]),
        coco=coco,
        watched=tuple(Watched(*one) for one in meta["watched"]),
    )


def write_index(key: str, dataset: Dataset, began: float) -> Dataset:
    """Keeps what was read, where all files were still since shortly before the reading ``began``.

    Returns the data set, which then knows its place in the index.
    """
    columns, folder = dataset.columns, _in_use[0]
    if not len(columns) or not all(isinstance(source, str) for source in columns.sources):
        return dataset
    if not all(may_be_watched(w.path, columns.sources) for w in dataset.watched if w.kind == "tree"):
        return dataset
    if any("\0" in name for name in columns.file_names):
        return dataset
    found = fingerprint(dataset.watched)
    if found is None or not found.is_settled(began):
        return dataset
    try:
        content = _content(key, dataset, found.digest)
        if len(content) > LARGEST:
            return dataset
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(folder / f"{key}{_ENTRY}", content)
        _tidy(folder)
    except (OSError, WriteError, TypeError, ValueError):
        return dataset
    return replace(dataset, kept=Kept(folder, key, found.digest, columns))


def _content(key: str, dataset: Dataset, digest: str) -> bytes:
    columns, coco = dataset.columns, dataset.coco
    said = None
    if coco is not None:
        if not isinstance(coco.load, FileEntries):
            raise TypeError("the entries of this data set are not those of a file")
        said = {
            "entries": [str(coco.load.path), *coco.load.state, coco.load.is_plain, coco.load.skip_bad],
            "header": coco.header,
            "categories": coco.categories,
            "with_dropped": list(coco.with_dropped.items()),
            "category_keys": list(coco.category_keys.items()),
        }
    meta = {
        "format": FORMAT,
        "key": key,
        "digest": digest,
        "watched": dataset.watched,
        "class_names": dataset.class_names,
        "category_ids": dataset.category_ids,
        "findings": dataset.summary.findings,
        "root": None if dataset.root is None else str(dataset.root),
        "split": dataset.split,
        "set_format": dataset.format,
        "skip_bad": dataset.skip_bad,
        "coco": said,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("meta", json.dumps(meta))
        for name in _TEXTS:
            archive.writestr(name, "\0".join(getattr(columns, name)).encode("utf-8", "surrogateescape"))
        for name in _ALL_ARRAYS:
            part = io.BytesIO()
            np.lib.format.write_array(part, np.ascontiguousarray(getattr(columns, name)), allow_pickle=False)
            archive.writestr(name, part.getbuffer())
    return buffer.getvalue()


def _tidy(folder: Path) -> None:
    """Removes the entries not used for longest, until at most `LARGEST` bytes remain."""
    there = {}
    for entry in os.scandir(folder):
        if entry.name.endswith((_ENTRY, _FACT)):
            with contextlib.suppress(OSError):  # removed by another process meanwhile
                there[entry.path] = entry.stat()
    total = sum(status.st_size for status in there.values())
    for path in sorted(there, key=lambda path: there[path].st_mtime):
        if total <= LARGEST:
            break
        total -= there[path].st_size
        with contextlib.suppress(OSError):
            os.unlink(path)
