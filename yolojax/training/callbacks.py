"""What a user's own functions are told while a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from yolojax.training.state import TrainState

EventKind = Literal["step", "epoch", "end"]


class Event(NamedTuple):
    """Something happened.

    ``kind`` is ``step`` (``row`` has its losses and counts; told while the next step computes already), ``epoch``
    (``row`` is the one that went into ``metrics.jsonl``) or ``end`` (the run directory is complete). ``step`` counts
    the steps done. ``state`` belongs to the run: it is used up by the next step, so copy what is to be kept.
    """

    kind: EventKind
    folder: Path
    step: int
    total_steps: int
    row: dict[str, Any]
    state: TrainState


Callback = Callable[[Event], bool | None]
"""Called once in each process, on however many devices. True ends the training with this epoch."""
