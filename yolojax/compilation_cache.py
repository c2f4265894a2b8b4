"""Keeps compiled programs between processes, in a folder of the user's cache, by JAX's persistent compilation cache.

An entry's name is a hash of the lowered program, the versions, the flags and the device, so that a program that has
changed is another entry. JAX writes an entry in place and never writes it again: one that a killed process left half
written would be compiled anew by every later process. `keep_programs` therefore reads each entry once, removes those
that are damaged, and after them the ones that were not used for longest, until the rest is within the limit.

What goes wrong with the cache never stops a command: programs are then compiled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

from yolojax.errors import ConfigError, WriteError
from yolojax.files import write_whole
from yolojax.paths import user_cache_folder, user_path

FOLDER_VARIABLE, SIZE_VARIABLE = "YOLOJAX_COMPILATION_CACHE", "YOLOJAX_COMPILATION_CACHE_MB"
"""Environment variables: the folder, or ``off``; and the limit in megabytes."""

DEFAULT_MEGABYTES = 1000

SHORTEST_COMPILATION = 0.1
"""Seconds: a program that compiles faster is not kept."""

INDEX = "checked.json"
"""The sizes in bytes of the entries that were read whole, by name."""

_SUFFIX = "-cache"
"""How JAX ends the name of an entry."""

KEPT = "-kept"
"""How entries end that other modules write; they tell by themselves whether they are whole."""

_ZSTANDARD = b"\x28\xb5\x2f\xfd"
"""How a frame of zstandard begins (RFC 8878, 3.1.1)."""


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns where this user's programs for this processor are kept; None where the cache is turned off.

    In `cache_base` each kind of processor has a folder of its own, because a home directory may be shared by machines
    of several kinds. Raises `ConfigError` as `cache_base` does.
    """
    base = cache_base(environment)
    return None if base is None else base / f"programs-{_processor()}"


def cache_base(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns the folder of what this library keeps between processes; None where nothing is to be kept.

    It is ``$YOLOJAX_COMPILATION_CACHE`` if that is set, otherwise `yolojax.paths.user_cache_folder`.

    Raises:
      ConfigError: ``$YOLOJAX_COMPILATION_CACHE`` is no absolute path.
    """
    given = environment.get(FOLDER_VARIABLE, "")
    if given.lower() in ("off", "0", "no", "none", "false"):
        return None
    if not given:
        return user_cache_folder(environment)
    base = user_path(given)
    if not base.is_absolute():
        raise ConfigError(f"{FOLDER_VARIABLE}={given}: give an absolute path, or off for no cache")
    return base


def cache_limit(environment: Mapping[str, str] = os.environ) -> int:
    """Returns the most bytes that are kept: those of ``$YOLOJAX_COMPILATION_CACHE_MB``, or of `DEFAULT_MEGABYTES`.

    Raises `ConfigError` when that is no whole number of at least 1.
    """
    given = environment.get(SIZE_VARIABLE, "") or str(DEFAULT_MEGABYTES)
    if not (given.isascii() and given.isdecimal() and 1 <= int(given) < 10**9):
        raise ConfigError(f"{SIZE_VARIABLE}={given}: give a whole number of megabytes of at least 1")
    return int(given) * 10**6


def keep_programs() -> Path | None:
    """Turns JAX's persistent compilation cache on for this process, and puts its folder in order.

    The commands call it; a program that uses the library calls it before it compiles anything. Several processes may
    share the folder. Where JAX was given a folder already (``JAX_COMPILATION_CACHE_DIR``), that one and JAX's own
    settings hold.

    Returns:
      The folder, or None where no program is kept: the cache is turned off, or its folder can neither be made nor read.

    Raises:
      ConfigError: an environment variable of this module has a value that it cannot have.
    """
    folder, limit = cache_folder(), cache_limit()
    if folder is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.X_OK):
            return None
    except OSError:
        return None
    with contextlib.suppress(OSError):
        tidy(folder, limit)

    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST_COMPILATION)
    # A folder that is full, read-only or was removed meanwhile is no reason for a message: the program is compiled.
    for what in ("reading", "writing"):
        warnings.filterwarnings("ignore", f"Error {what} persistent compilation cache entry", UserWarning)
    _in_use.append(folder)
    return folder


_in_use: list[Path] = []
"""The folder that `keep_programs` turned on in this process."""


def kept_folder() -> Path | None:
    """The folder that `keep_programs` turned on in this process; None where it did not."""
    return _in_use[-1] if _in_use else None


def tidy(folder: Path, limit: int) -> None:
    """Removes damaged entries of a cache folder, then those not used for longest until at most ``limit`` bytes remain.

    An entry that another process is writing may be taken for a damaged one; that process goes on undisturbed. Raises
    `OSError` when the folder cannot be listed. What cannot be removed stays.
    """
    checked, entries = _read_index(folder), {}
    for entry in os.scandir(folder):
        if entry.name.endswith((_SUFFIX, KEPT)):
            with contextlib.suppress(OSError):  # removed by another process meanwhile
                entries[entry.name] = entry.stat()
    whole = {}
    for name, status in entries.items():
        if name.endswith(KEPT) or checked.get(name) == status.st_size or _is_whole(folder / name):
            whole[name] = status.st_size
        else:
            _remove(folder / name)
    total = sum(whole.values())
    # Most file systems renew a file's time of access once a day when it is read; on others the oldest go first.
    for name in sorted(whole, key=lambda name: max(entries[name].st_atime, entries[name].st_mtime)):
        if total <= limit:
            break
        total -= whole.pop(name)
        _remove(folder / name)
    if whole != checked:
        with contextlib.suppress(WriteError):
            write_whole(folder / INDEX, json.dumps(whole, indent=0, sort_keys=True))


def _read_index(folder: Path) -> dict[str, int]:
    try:
        index = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return index if isinstance(index, dict) else {}


def _is_whole(path: Path) -> bool:
    """Whether an entry can be decompressed to its end, which no beginning of one can."""
    try:
        status = path.stat()
        content = path.read_bytes()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # this was no use of it
    except OSError:
        return True  # it cannot be judged
    try:
        if content[:4] == _ZSTANDARD:
            return _zstandard_is_whole(content)
        reader = zlib.decompressobj()  # which JAX takes where zstandard is not installed
        reader.decompress(content)
        return reader.eof
    except zlib.error:
        return False


def _zstandard_is_whole(content: bytes) -> bool:
    try:
        from compression import zstd  # pyright: ignore[reportMissingImports] (from Python 3.14 on)
    except ImportError:
        try:
            import zstandard as zstd  # pyright: ignore[reportMissingImports]
        except ImportError:
            return True  # written by another installation, and not read by this one
    try:
        zstd.decompress(content)
    except (zstd.ZstdError, EOFError):
        return False
    return True


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _processor() -> str:
    """A short name for the kind of processor and its instruction set: programs of one kind may not run on another."""
    features = platform.machine() + platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                features += line
                break
    return hashlib.sha256(features.encode()).hexdigest()[:12]
