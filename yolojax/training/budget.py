"""Time: where it goes, and where a run has to end so that its budget is kept."""

from __future__ import annotations

import time

CHECK_EVERY = 50
"""Steps between two looks at the clock within an epoch."""


class Clock:
    """Seconds ``spent`` on a run, those before it was taken up again included, and the laps between."""

    def __init__(self, spent_before: float) -> None:
        self._last = time.monotonic()
        self._began = self._last - spent_before

    @property
    def spent(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        elapsed, self._last = now - self._last, now
        return elapsed


def steps_that_fit(step: int, planned: int, left: float, seconds_per_step: float) -> int:
    """The total number of steps of a run that has ``left`` seconds from ``step`` on, at most ``planned``."""
    return min(planned, step + max(0, int(left / max(seconds_per_step, 1e-9))))
