"""The text of a Darknet ``.cfg``: sections in brackets, ``key=value`` lines, comments. No key is understood here.

Blanks carry no meaning anywhere in a line, and a line that starts with ``#`` or ``;`` is a comment, as in Darknet. A
``#`` further on starts a comment too: Darknet's own number reader stops there.
"""

from __future__ import annotations

from typing import NamedTuple

from yolojax.errors import ConfigError


class Option(NamedTuple):
    """The text of a value and the line (from 1) where it stands."""

    text: str
    line: int


class Section(NamedTuple):
    """A section: its name without brackets, the line of its header, and its options by key.

    ``repeated`` holds what a key says that is given again with another value; of the two the first counts, as in
    Darknet.
    """

    name: str
    line: int
    options: dict[str, Option]
    repeated: dict[str, Option]


def split_sections(text: str, source: str) -> list[Section]:
    """All sections in order; ``source`` is the file's name for messages.

    Raises `ConfigError` with the line for text outside of a section, a line without ``=``, an empty key or value, a
    character that is not ASCII outside of a comment.
    """
    sections: list[Section] = []
    for number, whole in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = "".join(whole.split())
        line = "" if line.startswith(";") else line.partition("#")[0]
        if not line:
            continue
        where = f"{source}: line {number}"
        if not line.isascii() or not line.isprintable():
            raise ConfigError(f"{where}: {shown(line)} is not plain text; give a Darknet .cfg file")
        if line.startswith("["):
            if not line.endswith("]") or len(line) < 3:
                raise ConfigError(f"{where}: {shown(line)} is no section; write it as [name]")
            sections.append(Section(line[1:-1], number, {}, {}))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"{where}: {shown(line)} is neither [section] nor key=value")
        if not sections:
            raise ConfigError(f"{where}: {shown(line)} stands before the first section; a .cfg begins with [net]")
        options = sections[-1].options
        if key in options and options[key].text != value:
            sections[-1].repeated.setdefault(key, Option(value, number))
        options.setdefault(key, Option(value, number))
    if not sections:
        raise ConfigError(f"{source}: holds no section; a .cfg begins with [net]")
    return sections


def shown(text: str, length: int = 40) -> str:
    """Text for a message, quoted and cut to a readable length."""
    return repr(text if len(text) <= length else text[: length - 3] + "...")
