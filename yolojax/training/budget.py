"""Time: where it goes, and where a run has to end so that its budget is kept."""

from __future__ import annotations

import time

CHECK_EVERY = 50
"""Steps between two looks at the clock, and of several processes at their stop signals, within an epoch."""

EARLY_CHECKS = (10, 20)
"""Numbers of steps after which a run with a budget looks at the clock for the first times, to tell its end early."""


class Clock:
    """Measures the seconds ``spent`` on a run, those before a resume included, and the laps between."""

    def __init__(self, spent_before: float) -> None:
        self._last = time.monotonic()
        self._began = self._last - spent_before

    @property
    def spent(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def lap(self) -> float:
        """Returns the seconds since the last lap, and begins the next."""
        now = time.monotonic()
        elapsed, self._last = now - self._last, now
        return elapsed


def is_check_due(steps_done: int) -> bool:
    """Whether a run looks at the clock after this many steps since it was started or resumed."""
    return steps_done in EARLY_CHECKS or (steps_done > 0 and steps_done % CHECK_EVERY == 0)


def steps_that_fit(step: int, planned: int, left: float, seconds_per_step: float) -> int:
    """Returns the total number of steps of a run that has ``left`` seconds from ``step`` on, at most ``planned``."""
    return min(planned, step + max(0, int(left / max(seconds_per_step, 1e-9))))
