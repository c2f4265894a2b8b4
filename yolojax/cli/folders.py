"""Where a command writes: nothing that is there already is overwritten without being asked for."""

from pathlib import Path

from yolojax.errors import ConfigError


def choose_folder(out: Path | None, default: Path) -> Path:
    """The folder asked for, or else the first free one of ``default``, ``default2``, ``default3``, ...

    Raises `ConfigError` when the folder asked for has something in it.
    """
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"--out {out} exists already and is not empty; give another, or remove it")
        return out
    number, folder = 1, default
    while folder.exists():
        number += 1
        folder = default.with_name(f"{default.name}{number}")
    return folder
