"""Frames of a video file, and frames into one: what the optional extra ``video`` (OpenCV) is for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from yolojax.errors import ConfigError, DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
"""Suffixes, in lower case, by which a file is taken for a video."""


def is_video(path: Path) -> bool:
    """Whether the file's name says so; it need not exist."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _opencv(what: str) -> Any:
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(f"{what}: video needs OpenCV; install it with: pip install 'yolojax[video]'") from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our own errors say what is wrong
    return cv2


class Video:
    """A video file opened for reading, frame after frame.

    Attributes:
      path: the file.
      frames_per_second: as the file says; 25 where it does not.
      count: frames, as the file says; 0 where it does not. Never relied on.
    """

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError` without OpenCV, `DataError` when the file cannot be read as a video."""
        cv2 = _opencv(str(path))
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        self.path = path
        self._cv2 = cv2
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DataError(f"{path}: not a video that can be read; convert it to MP4")
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.frames_per_second = rate if 0 < rate < 1000 else 25.0
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """The frames as RGB; raises `DataError` when there is not a single one."""
        read = 0
        while True:
            more, frame = self._capture.read()
            if not more:
                break
            read += 1
            yield np.ascontiguousarray(frame[..., ::-1])
        self._capture.release()
        if not read:
            raise DataError(f"{self.path}: holds no frame that can be read; convert it to MP4")


@contextmanager
def video_writer(path: Path, frames_per_second: float) -> Iterator[Any]:
    """A function that appends an RGB frame to a new MP4 file, for the time of a ``with`` block.

    All frames must have the size of the first. Raises `ConfigError` without OpenCV, `DataError` when the file cannot be
    written.
    """
    cv2 = _opencv(str(path))
    writer = None

    def append(frame: UInt8[np.ndarray, "h w 3"]) -> None:
        nonlocal writer
        # The codec wants even sides.
        frame = frame[: max(2, frame.shape[0] // 2 * 2), : max(2, frame.shape[1] // 2 * 2)]
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), code, frames_per_second, (frame.shape[1], frame.shape[0]))
            if not writer.isOpened():
                raise DataError(f"{path}: the video cannot be written; give another --out or free space")
        writer.write(np.ascontiguousarray(frame[..., ::-1]))

    try:
        yield append
    finally:
        if writer is not None:
            writer.release()
