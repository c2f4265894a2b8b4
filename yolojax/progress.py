"""How long work tells how far it is, without the engines knowing about terminals."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Task(Protocol):
    """One running piece of work."""

    def __call__(self, done: int, note: str = "") -> None:
        """So many units are done; ``note`` is a short line such as the current loss."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """Where progress and remarks go. The command line shows bars; a library user may pass any object like this."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """A piece of work of ``total`` units, for the time of a ``with`` block."""
        ...

    def say(self, line: str) -> None:
        """One line that stays."""
        ...


class Quiet:
    """Reports nothing: what library calls use unless told otherwise."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        def ignore(done: int, note: str = "") -> None:
            return None

        yield ignore

    def say(self, line: str) -> None:
        return None
