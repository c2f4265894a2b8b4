"""What a report says of where it comes from: the command, and the files with their hashes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

given: ContextVar[tuple[str, ...]] = ContextVar("given", default=())
"""The arguments of the command that is running."""


def command_line() -> str:
    """The running command as one would type it."""
    return shlex.join(["yolojax", *given.get()])


def described(path: Path | str) -> str:
    """A file with its SHA-256; a folder, or the address of generated data, by its name alone."""
    from yolojax.eval.report.facts import file_hash

    return f"{path} (SHA-256 {file_hash(path)})" if Path(path).is_file() else str(path)


def remember(arguments: Sequence[str]) -> None:
    """Keep the arguments for `command_line`."""
    given.set(tuple(arguments))
