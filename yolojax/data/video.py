"""Frames of a video file, a camera or a stream, and frames into a file, by OpenCV (the optional extra ``video``)."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from yolojax.errors import ConfigError, DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
"""Suffixes, in lower case, by which a file is taken for a video."""


def is_video(path: Path) -> bool:
    """Whether the file's name says so; it need not exist."""
    return path.suffix.lower() in VIDEO_SUFFIXES


_STREAM = re.compile(r"(rtsps?|rtmps?|https?|udp|tcp|srt)://\S+", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")

TIMEOUT = 10.0
"""Seconds that a stream may take to open, and then to give a frame."""


def is_stream(name: str) -> bool:
    """Whether a name stands for a camera (its number) or for an address of a stream; a file of that name goes first."""
    return bool(_STREAM.fullmatch(name)) or (name.isascii() and name.isdecimal() and not Path(name).exists())


def without_password(name: str) -> str:
    """The address of a stream as it may be printed and written.

    Example:
      >>> without_password("rtsp://me:secret@host/1")
      'rtsp://me:***@host/1'
    """
    return _PASSWORD.sub(r"\1:***@", name)


def _opencv(what: str) -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: our own errors say what is wrong
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ConfigError(f"{what}: video needs OpenCV; install it with: pip install 'yolojax[video]'") from None
    except ImportError as error:  # such as a library of the system that a server without a display lacks
        raise ConfigError(
            f"{what}: OpenCV cannot be loaded ({error}); install the library that it misses, or replace it with: "
            "pip install --force-reinstall --no-deps opencv-python-headless"
        ) from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


class Frame(NamedTuple):
    """A frame of a video: its number from 0 on, its time in seconds from the first one, and its RGB pixels."""

    number: int
    seconds: float
    image: UInt8[np.ndarray, "h w 3"]


class Video:
    """A video file, a camera or a stream opened for reading, frame after frame.

    Attributes:
      name: the file, camera or address as it may be printed, without a password.
      is_live: whether frames come at their own pace, from a camera or a stream without a stated length.
      frames_per_second: of the frames that are given: as the source says, 25 where it does not; or the ``most``.
      count: frames that will be given, as the file says; 0 where it does not. Never relied on.
    """

    def __init__(self, source: str | Path, most_per_second: float | None = None) -> None:
        """Opens a video.

        Args:
          source: a file as a path; as a text also the number of a camera or the address of a stream, see `is_stream`.
          most_per_second: frames given of each second at most; the others are left out, evenly. None gives all.

        Raises:
          ConfigError: without OpenCV, or for a rate that is not above 0.
          DataError: when the source cannot be read as a video.
        """
        self._stream = str(source) if isinstance(source, str) and is_stream(source) else None
        self.name: str = without_password(str(source))
        if most_per_second is not None and not 0 < most_per_second < float("inf"):
            raise ConfigError(f"frames per second = {most_per_second}: give a number above 0")
        self._cv2 = cv2 = _opencv(self.name)
        if self._stream is None and not Path(source).is_file():
            raise DataError(f"{source}: no such file")
        self._capture = self._open(source)
        if not self._capture.isOpened():
            raise DataError(f"{self.name}: {self._why_closed()}")
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._rate = rate if 0 < rate < 1000 else 25.0
        self.is_live: bool = self._stream is not None and (self._stream.isdecimal() or not count)
        self._share = min(1.0, (most_per_second or self._rate) / self._rate)
        self.frames_per_second: float = self._rate * self._share
        self.count: int = math.ceil(count * self._share)

    def _open(self, source: str | Path) -> Any:
        if self._stream is None:
            return self._cv2.VideoCapture(str(source))
        if self._stream.isdecimal():
            return self._cv2.VideoCapture(int(self._stream))
        limit = int(1000 * TIMEOUT)
        limits = [self._cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, self._cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
        return self._cv2.VideoCapture(self._stream, self._cv2.CAP_FFMPEG, limits)

    def _why_closed(self) -> str:
        if self._stream is None:
            return "not a video that can be read; convert it to MP4"
        if self._stream.isdecimal():
            return "no camera of this number can be opened; connect it, or end the program that uses it"
        return "the stream cannot be opened; check its address and the network"

    def __iter__(self) -> Iterator[Frame]:
        """The frames; those that are left out are not decoded.

        Raises:
          DataError: the file has not a single frame, or the camera or stream gives no more.
        """
        number = given = 0
        started = time.monotonic()
        try:
            while self._capture.grab():
                seconds = time.monotonic() - started if self.is_live else number / self._rate
                # Rounding must not leave out a frame whose time is just that of the next one to be given.
                place = (seconds * self._rate if self.is_live else number) * self._share
                if place + 1e-6 >= given:
                    more, frame = self._capture.retrieve()
                    if not more:
                        break
                    given = max(given, math.floor(place + 1e-6)) + 1 if self._share < 1 else 0
                    yield Frame(number, seconds, np.ascontiguousarray(frame[..., ::-1]))
                number += 1
        finally:
            self._capture.release()
        if self.is_live:
            what = "camera" if str(self._stream).isdecimal() else "stream"
            raise DataError(f"{self.name}: the {what} gave no more frames after {number}; check its connection")
        if not number:
            raise DataError(f"{self.name}: holds no frame that can be read; convert it to MP4")


@contextmanager
def video_writer(path: Path, frames_per_second: float) -> Iterator[Any]:
    """A function that appends an RGB frame to a new MP4 file, for the time of a ``with`` block.

    Raises `ConfigError` without OpenCV, `DataError` when the file cannot be written, or for a frame of another size
    than the first.
    """
    cv2 = _opencv(str(path))
    writer = None
    first = (0, 0)

    def append(frame: UInt8[np.ndarray, "h w 3"]) -> None:
        nonlocal writer, first
        # The codec wants even sides.
        frame = frame[: max(2, frame.shape[0] // 2 * 2), : max(2, frame.shape[1] // 2 * 2)]
        if writer is None:
            first = frame.shape[:2]
            code = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), code, frames_per_second, (frame.shape[1], frame.shape[0]))
            if not writer.isOpened():
                raise DataError(f"{path}: the video cannot be written; give another --out or free space")
        if frame.shape[:2] != first:  # OpenCV would leave it out and say nothing
            raise DataError(f"{path}: a frame of {frame.shape[:2]} pixels cannot follow one of {first}; cut the film")
        writer.write(np.ascontiguousarray(frame[..., ::-1]))

    try:
        yield append
    finally:
        if writer is not None:
            writer.release()
