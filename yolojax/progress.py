"""How long work reports its progress, without the library knowing about terminals."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

Progress = Callable[[int, int], None]
"""Called in the main thread with the number of units done and of all units; `Reporter` is for more than that."""


@runtime_checkable
class Task(Protocol):
    """One running piece of work."""

    def __call__(self, done: int, note: str = "", total: int | None = None) -> None:
        """Reports that ``done`` units are finished.

        Args:
          done: units that are finished.
          note: a short text such as the current loss.
          total: the new length of the work, where it has changed: a training run with a budget of time is shortened
            as it goes on. None, the usual case, leaves the length as it was.
        """
        ...


@runtime_checkable
class Reporter(Protocol):
    """Receives progress and remarks. The command line shows bars; a library user may pass any object like this."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """Opens a piece of work of ``total`` units, for the time of a ``with`` block."""
        ...

    def say(self, line: str) -> None:
        """Shows one line that stays."""
        ...


class Quiet:
    """Reports nothing. Library calls use it unless told otherwise."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        def ignore(done: int, note: str = "", total: int | None = None) -> None:
            return None

        yield ignore

    def say(self, line: str) -> None:
        return None
