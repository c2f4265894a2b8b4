"""Stopping on SIGTERM and on the first Ctrl-C: the run saves where it is, then ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from yolojax.errors import Terminated


class StopSignal:
    """A block within which SIGTERM and Ctrl-C set ``requested`` and do nothing else; a second signal stops at once.

    Schedulers send SIGTERM some seconds before they kill; the loop looks at ``requested`` between two steps. Outside
    the main thread, where Python handles no signals, it never becomes True.
    """

    def __init__(self) -> None:
        self.requested = False
        self._number = signal.SIGTERM
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._handle) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.requested, self._number = self.requested, True, signal.Signals(number)
        if again or self._at_once:
            raise self.exception()

    def exception(self) -> KeyboardInterrupt:
        """Returns what to raise once everything is saved."""
        return Terminated() if self._number == signal.SIGTERM else KeyboardInterrupt()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Opens a block for long work without side effects, which a signal ends by an exception.

        A signal that came just before the block ends it as well.
        """
        self._at_once = True
        try:
            if self.requested:
                raise self.exception()
            yield
        finally:
            self._at_once = False
        if self.requested:
            raise self.exception()
