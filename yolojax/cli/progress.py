"""Progress on standard error: bars on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from yolojax.progress import Reporter, Task

SHORT = 2.0
"""Seconds. Work that took less than this leaves no bar and no line."""

LINE_EVERY = 15.0
"""Seconds between the lines of `LineReporter`."""


def make_reporter() -> Reporter:
    """Bars when standard error is a terminal, lines when it is a file or a pipe."""
    return RichReporter() if sys.stderr.isatty() else LineReporter()


class RichReporter:
    """Shows bars with the time spent and the time left; a task within a task is a bar below it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeftColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeftColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            # Results printed meanwhile go above the bars, but never from a file or a pipe to the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._open = 0

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """Shows a bar for the time of a ``with`` block; the bar stays when the work took longer than `SHORT`."""
        progress, started = self._progress, time.monotonic()
        if not self._open:
            progress.start()
        self._open += 1
        row = progress.add_task(description, total=total, note="")

        def advance(done: int, note: str = "", total: int | None = None) -> None:
            progress.update(row, completed=done, note=note, total=total)  # rich keeps the total where it gets None

        try:
            yield advance
        finally:
            progress.stop_task(row)
            if time.monotonic() - started < SHORT:
                progress.remove_task(row)
            self._open -= 1
            if not self._open:
                progress.stop()
                for shown in progress.task_ids:  # what is printed stays; the next task starts a display of its own
                    progress.remove_task(shown)

    def say(self, line: str) -> None:
        """Prints one line above the bars."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


class LineReporter:
    """Prints an occasional line, for logs: how far the work is, when it will end, and its note."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """Prints lines for the time of a ``with`` block, and one at its end when the work took longer than `SHORT`."""
        started = last = time.monotonic()
        first: tuple[float, int] | None = None
        latest, end = (0, ""), total

        def advance(done: int, note: str = "", total: int | None = None) -> None:
            nonlocal first, last, latest, end
            now, latest = time.monotonic(), (done, note)
            end = end if total is None else total
            if first is None:
                first = now, done  # the rate counts from here: what came before was compilation
            elif now - last >= LINE_EVERY and first[1] < done < end:
                last = now
                left = (now - first[0]) * (end - done) / (done - first[1])
                self.say(_line(description, done, end, f"about {_clock(left)} left", note))

        yield advance
        if time.monotonic() - started >= SHORT:
            self.say(_line(description, latest[0], end, f"in {_clock(time.monotonic() - started)}", latest[1]))

    def say(self, line: str) -> None:
        """Prints one line."""
        print(line, file=sys.stderr, flush=True)


def _line(description: str, done: int, total: int, clock: str, note: str) -> str:
    return f"{description}: {done} of {total}, {clock}" + (f"; {note}" if note else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
