"""Writing files whole: a reader finds the old content or the new one, never a part, also after a crash."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from yolojax.errors import WriteError
from yolojax.paths import user_path


def write_whole(path: str | Path, content: str | bytes, *, advice: str = "free space or give another path") -> None:
    """Writes a file so that it appears whole or not at all.

    The content goes to a temporary file beside it, is forced to the disk, and takes the name in one step.

    Args:
      path: the file, in a folder that exists; ``~`` is a home directory. An old file is replaced.
      content: bytes, or text to be written as UTF-8 with its line ends as they are. Half a surrogate pair, which UTF-8
        cannot hold, becomes ``?``.
      advice: the end of the error message.

    Raises:
      WriteError: the system refuses; the old file, if any, is unchanged.
    """
    write_together({path: content}, advice=advice)


def write_together(files: Mapping[str | Path, str | bytes], *, advice: str = "free space or give another path") -> None:
    """`write_whole` of files that belong together: none takes its name before all are on the disk."""
    mark = uuid.uuid4().hex[:12]  # several processes or machines may write the same file
    paths = [user_path(path) for path in files]
    drafts = [path.with_name(f".{mark}.{number}.part") for number, path in enumerate(paths)]
    path = Path()
    try:
        for path, draft, content in zip(paths, drafts, files.values(), strict=True):
            if path.is_dir():
                raise WriteError(f"cannot write {path}: it is a folder; {advice}")
            with draft.open("wb") as file:
                file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        for path, draft in zip(paths, drafts, strict=True):
            os.replace(draft, path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}; {advice}") from error
    finally:
        for draft in drafts:
            with contextlib.suppress(OSError):  # where its folder is a file there is no draft
                draft.unlink(missing_ok=True)


@contextlib.contextmanager
def open_whole(path: Path, *, advice: str = "free space or give another path") -> Iterator[IO[str]]:
    """A text file (UTF-8) to be written piece by piece, which takes its name at the end of a ``with`` block.

    After an exception inside the block there is no file, and an old one is unchanged. Raises `WriteError` when the
    system refuses.
    """
    draft = path.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        file = draft.open("w", encoding="utf-8", errors="replace")
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}; {advice}") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}; {advice}") from error
    finally:
        draft.unlink(missing_ok=True)
