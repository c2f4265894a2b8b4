"""Paths and names as a user gives them: ``~`` is a home directory, and output folders are tested before any work."""

import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from yolojax.errors import ConfigError, shortened, shown

PROBE = ".yolojax-probe-"

LONGEST_CLASS_NAME = 500
"""Characters, in data sets and result files; a name is drawn on pictures, and what is longer is no name."""

FOREIGN = (".pt", ".pth", ".pkl", ".ckpt", ".safetensors", ".onnx")
"""Suffixes of weight files of other programs: PyTorch, safetensors, ONNX."""


_ADDRESS = re.compile(r"(https?|s3|gs|ftp|hf):/{1,2}", re.IGNORECASE)


def user_path(path: str | Path) -> Path:
    """The path with a leading ``~`` or ``~name`` resolved; raises `ConfigError` when there is no such user, or no path,
    or the address of something elsewhere.

    Every path that a user of the library gives goes through this function first.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"{shown(path)} is no path; give a text or a pathlib.Path")
    address = _ADDRESS.match(os.fspath(path))
    if address is not None and not Path(path).exists():
        whole = f"{address[1]}://{os.fspath(path)[address.end() :]}"  # a path has lost one of its slashes
        raise ConfigError(f"{shortened(whole)} is an address, not a file; download it and give the path of the file")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: there is no home directory {Path(path).parts[0]}; correct the path") from None


def how_to_resume(run: Path) -> str:
    """By which call an interrupted run goes on."""
    return f"yolojax train --resume {run}, or in Python fit(..., resume=True)"


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8; half of a surrogate pair, which JSON and YAML can spell, cannot."""
    return text.isascii() or text.encode("utf-8", "replace").decode() == text


def is_class_name(text: str) -> bool:
    """Whether the name of a class can be shown: not blank, of at most `LONGEST_CLASS_NAME` characters, UTF-8, and
    without control characters other than blanks, which steer a terminal and cannot stand in XML."""
    return bool(text.strip()) and len(text) <= LONGEST_CLASS_NAME and is_text(text) and is_printable(text)


def is_printable(text: str) -> bool:
    """Whether a text has no control characters but tabs and ends of lines."""
    return text.isprintable() or not any(unicodedata.category(c) == "Cc" and c not in "\t\n\r" for c in text)


def composed(name: str) -> str:
    """The name with accents as parts of their letters (NFC); macOS takes them apart, and most other systems do not."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_writable(folder: Path, advice: str) -> None:
    """Raises `ConfigError`, with ``advice`` at the end, unless a folder can be made and written to; leaves no trace.

    The folder is made and removed again, because permissions alone do not tell whether a file system is read-only, full
    or refuses a name. The test folder's name begins with `PROBE` and is unique, so that several processes may test at
    the same time.
    """
    place = folder
    while not os.path.lexists(place) and place.parent != place:
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"{folder} cannot be made: {place} is not a folder; {advice}")
    try:
        with tempfile.TemporaryDirectory(prefix=PROBE, dir=place) as probe:
            os.makedirs(Path(probe) / folder.relative_to(place), exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error.strerror}); {advice}") from error


def user_cache_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder for caches of this library by the convention of the platform; None for a user without a home.

    ``$XDG_CACHE_HOME/yolojax``, by default ``~/.cache/yolojax``; on macOS ``~/Library/Caches/yolojax``, on Windows
    ``%LOCALAPPDATA%\\yolojax\\Cache``. It need not exist.
    """
    # The XDG Base Directory Specification: a path that is not absolute is to be ignored.
    if os.path.isabs(stated := environment.get("XDG_CACHE_HOME", "")):
        return Path(stated) / "yolojax"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "yolojax" / "Cache"
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "yolojax"
