"""What the readers of foreign weight files share: an allowance of memory, a mapped file, and one kind of refusal."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from yolojax.errors import CheckpointError, YolojaxError
from yolojax.paths import user_path

SMALLEST_ALLOWANCE = 16 << 20
"""Bytes of memory that even the smallest file may use: its Python objects are larger than their bytes in the file."""

Buffer = bytes | bytearray | mmap.mmap

Result = TypeVar("Result")


class Malformed(ValueError):
    """Says what is wrong inside a file and where. `guarded` adds the file's name and raises `CheckpointError`."""


class Budget:
    """An allowance of bytes. Readers charge what they are about to allocate, before they allocate it."""

    def __init__(self, limit: int, subject: str) -> None:
        self.left = limit
        self.limit = limit
        self.subject = subject

    def charge(self, amount: int) -> None:
        """Subtracts ``amount`` bytes; raises `Malformed` when the allowance is used up."""
        self.left -= amount
        if self.left < 0:
            raise Malformed(f"{self.subject} would take more than the {self.limit} bytes allowed for this file")

    def release(self, amount: int) -> None:
        """Gives back ``amount`` bytes that were charged and are free again."""
        self.left += amount


def object_budget(file_size: int) -> Budget:
    """Returns the allowance for all that is built from a file: a little less than twice its size.

    The rest is for what is not charged: pieces of the file while they are converted.
    """
    return Budget(max(2 * file_size - file_size // 8, SMALLEST_ALLOWANCE), "what the file describes")


def map_file(path: Path) -> mmap.mmap:
    """Maps a whole file for reading. Raises `Malformed` if it is empty, and what the operating system raises."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Malformed("the file is empty")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def guarded(path: str | Path, read: Callable[[Path], Result], mend: str) -> Result:
    """Calls ``read(path)`` and raises `CheckpointError`, with the file's name and ``mend``, for whatever goes wrong."""
    path = user_path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the path of a weight file")
    try:
        return read(path)
    except YolojaxError:
        raise
    except Malformed as error:
        raise CheckpointError(f"{path}: {error}; {mend}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); check the file's permissions and the disk") from error
    except Exception as error:  # Hostile bytes: whatever a check did not foresee is still the file's fault.
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error}); {mend}") from error
