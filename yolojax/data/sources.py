"""Finds the photos and videos that a user names: files, folders, patterns, standard input."""

from __future__ import annotations

import glob
import os
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from yolojax.data.images import is_image, why_unread
from yolojax.data.paths import is_apple_double
from yolojax.data.video import is_stream, is_video, without_password
from yolojax.errors import DataError
from yolojax.paths import user_path

STANDARD_INPUT = "-"

_WANTED = "give one image, or names of files, one a line"
_LONGEST_PATH = 4096
_PLAIN_PNM = re.compile(r"P[1-6]\s+(#.*\s+)*\d+\s+\d+\s")
"""The formats PBM, PGM and PPM may be all text."""
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class Source(NamedTuple):
    """A photo or a video: a file, (``data``) the bytes of a photo that came on standard input, or (``stream``) the
    number of a camera or the address of a stream. ``path`` then only names what is written.
    """

    path: Path
    data: bytes | None = None
    stream: str | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return self.stream is not None or (self.data is None and is_video(self.path))

    @property
    def name(self) -> str:
        """What it is called in messages: the file or stream, without a password."""
        return str(self.path) if self.stream is None else without_password(self.stream)


def find_sources(
    names: Iterable[str | Path],
    read_input: Callable[[], bytes] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Source]:
    """The photos and videos that these names stand for, each once, in order.

    Args:
      names: files as they are, existing or not (reading them says what is wrong); folders, for the photos and videos
        directly in them; patterns with ``*``, ``?`` or ``[ ]``, where no file has that very name (``**`` goes into
        subfolders); the number of a camera or the address of a stream, as ``rtsp://...``; ``-`` for standard input: a
        photo, or names of files, one a line.
      read_input: gives all of standard input.
      say: told, for each folder, which pictures in it are of formats that are not read.

    Raises:
      DataError: a folder or pattern without a photo, or a standard input that is empty, holds several photos, or is
        neither a photo nor names of files.
    """
    sources: list[Source] = []
    for name in names:
        if str(name) == STANDARD_INPUT and read_input is not None:
            sources += _from_input(read_input())
        elif is_stream(str(name)):
            sources.append(_stream(str(name)))
        else:
            sources += [Source(path) for path in _files(str(name), say)]
    return list(dict.fromkeys(sources))


def _stream(name: str) -> Source:
    """A camera or stream, whose files are called after its number, or its host and path."""
    address = re.sub(r"^\w+://([^/]*@)?|[?#].*$", "", name)
    if name.lower().startswith("http") and is_image(address):
        raise DataError(
            f"{without_password(name)} is the address of a photo; download it and give the path of the file"
        )
    safe = re.sub(r"[^\w-]+", "_", address).strip("_")[:80] or "stream"
    return Source(Path(f"camera_{name}" if name.isdecimal() else safe), stream=name)


def _files(name: str, say: Callable[[str], None] | None = None) -> list[Path]:
    if not name.strip():
        raise DataError("one of the names of photos is empty; leave it out")
    path = user_path(name)
    if path.is_dir():
        there = sorted(p for p in path.iterdir() if p.is_file())
        unread = {p: reason for p in there if (reason := why_unread(p)) is not None}
        inside = [p for p in there if _is_known(p) and p not in unread]
        if unread and say is not None:
            first, reason = next(iter(unread.items()))
            say(f"{path}: {len(unread)} pictures left out, the first: {first.name}: {reason}")
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
    return (is_image(path.name) or is_video(path)) and not is_apple_double(path)


def _from_input(data: bytes) -> list[Source]:
    if not data.strip():
        raise DataError(f"standard input is empty; {_WANTED}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or _PLAIN_PNM.match(text):  # no file name has a zero byte, and nearly every image does
        if _starts_an_image(data[_end_of_image(data) :].lstrip(b"\0\r\n")):
            raise DataError("standard input holds several images, one behind the other; give one, or names of files")
        return [Source(Path("standard input"), data)]
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, line in lines:
        if not line.isprintable() or len(line) > _LONGEST_PATH:
            raise DataError(f"standard input line {number}: {line[:60]!r} is not the name of a file; {_WANTED}")
    if not any(glob.has_magic(line) or os.path.exists(user_path(line)) for _, line in lines):
        raise DataError(
            f"standard input is no image, and none of its {len(lines)} lines names a file that exists, the first: "
            f"{lines[0][1][:60]!r}; {_WANTED}"
        )
    return [Source(path) for _, line in lines for path in _files(line)]


def _starts_an_image(data: bytes) -> bool:
    return data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")) or (
        data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    )


def _end_of_image(data: bytes) -> int:
    """Where the image ends with which the data begin; at the end of the data, where it is not known.

    A JPEG of several pictures by intent (MPO, as stereo cameras write them) is one image.
    """
    if data.startswith(b"\x89PNG\r\n"):
        end = data.find(b"IEND")
        return len(data) if end < 0 else end + 8  # its checksum
    if data[:4] == b"RIFF" and len(data) > 8:
        return 8 + struct.unpack_from("<I", data, 4)[0]
    if not data.startswith(b"\xff\xd8") or b"MPF\0" in data[: 1 << 18]:
        return len(data)
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xD9:
            return place + 2
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
        if marker == 0xDA:  # compressed pixels, up to a marker that is neither a stuffed byte nor a restart
            after = _MARKER.search(data, place)
            place = len(data) if after is None else after.start()
    return len(data)
