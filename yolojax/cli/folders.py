"""Where a command writes: nothing that is there already is overwritten without being asked for."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yolojax.errors import ConfigError
from yolojax.paths import PROBE, check_writable, user_path


def choose_folder(out: Path | None, default: Path) -> Path:
    """The folder asked for, or else the first free one of ``default``, ``default2``, ``default3``, ...

    Raises `ConfigError` when the folder asked for has something in it, or when it cannot be written to: before the
    work whose result it is to hold.
    """
    if out is not None:
        out = user_path(out)
        try:
            taken = out.exists() and (not out.is_dir() or any(not p.name.startswith(PROBE) for p in out.iterdir()))
        except OSError as error:
            raise ConfigError(f"--out {out} cannot be looked into ({error.strerror}); give another") from error
        if taken:
            raise ConfigError(f"--out {out} exists already and is not empty; give another, or remove it")
        check_writable(out, "give another --out")
        return out
    number, folder = 1, default
    while folder.exists():
        number += 1
        folder = default.with_name(f"{default.name}{number}")
    check_writable(folder, "give a place with --out")
    return folder


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder whose content becomes that of ``out`` once the ``with`` block ends, and is removed where it fails.

    What was interrupted thus leaves no part of a data set that looks like all of it.
    """
    there = out.is_dir()  # an empty one, which may be a link or a file system of its own
    name = f".{os.getpid()}.part"
    partial = out / name if there else out.with_name(f".{out.name}{name}")
    try:
        yield partial
        if there:
            for path in partial.iterdir():
                os.replace(path, out / path.name)
        else:
            os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
