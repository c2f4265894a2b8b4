"""What a run carries along beside its arrays, and how it is taken up again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax

from yolojax.config import TrainConfig, to_json
from yolojax.data import Dataset
from yolojax.errors import CheckpointError, ConfigError, DataError
from yolojax.training.best import FOLDERS, Best, is_released
from yolojax.training.checkpoint import restore_newest
from yolojax.training.environment import differences, environment
from yolojax.training.log import EpochLog
from yolojax.training.progress import Reporter
from yolojax.training.run_directory import read_config
from yolojax.training.state import TrainState
from yolojax.weights.released import complete_release


@dataclass
class Course:
    """The host's part of a run's state; `facts` is what a checkpoint keeps of it.

    Attributes:
      best: the best measurement so far, of ``ema`` and of ``raw``.
      log: of the epoch that is under way.
      train_seconds: spent in steps, compilation included.
      spent_seconds: since the first step, everything included.
      data, val_data: fingerprints of the two data sets.
    """

    data: str
    val_data: str | None
    best: dict[str, Best] = field(default_factory=dict)
    log: EpochLog = field(default_factory=EpochLog)
    train_seconds: float = 0.0
    spent_seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "best": {name: best._asdict() for name, best in self.best.items()},
            "log": self.log.facts(),
            "train_seconds": self.train_seconds,
            "spent_seconds": self.spent_seconds,
            "data": self.data,
            "val_data": self.val_data,
            "environment": environment(),
        }


def start_course(train_set: Dataset, val_set: Dataset | None) -> Course:
    """Of a run that begins."""
    return Course(train_set.fingerprint(), val_set.fingerprint() if val_set is not None else None)


def settings_of(out: Path, config: TrainConfig) -> TrainConfig:
    """The settings that the run in ``out`` was started with, a number in place of ``auto``.

    Raises `ConfigError` when ``config`` asks for others, and `CheckpointError` when there is no run.
    """
    started = read_config(out)
    asked = replace(config, batch_size=started.batch_size) if config.batch_size == "auto" else config
    if to_json(asked) != to_json(started):
        raise ConfigError(f"{out} was started with other settings than these; resume with its own config.json")
    return started


def take_up(
    out: Path, fresh: Callable[[], TrainState], course: Course, reporter: Reporter
) -> tuple[TrainState, Course] | None:
    """The newest whole checkpoint of a run, and its course; None when the run stopped before its first.

    Everything that keeps the continuation from equalling an uninterrupted run is said, or raised:

    Raises:
      CheckpointError: every checkpoint is damaged.
      DataError: the images or their objects have changed.
    """
    found = restore_newest(out / "checkpoints", jax.eval_shape(fresh))
    if found is None:
        reporter.say(f"{out} stopped before its first checkpoint: starting from the beginning")
        return None
    state, facts, passed_over = found
    for line in passed_over:
        reporter.say(f"passed over a damaged checkpoint: {line}")
    try:
        for which, then, now in (
            ("training", facts["data"], course.data),
            ("validation", facts["val_data"], course.val_data),
        ):
            if then != now:
                raise DataError(
                    f"the {which} images or their objects have changed since {out} was started; start a new run, from "
                    f"these parameters with --init {out / FOLDERS['ema']}"
                )
        changed = differences(facts["environment"], environment())
        best = {name: Best(**values) for name, values in facts["best"].items()}
        log = EpochLog.from_facts(facts["log"])
        seconds = float(facts["train_seconds"]), float(facts["spent_seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{out}: its checkpoints are of another version of yolojax (no {error}); resume with that version"
        ) from error
    if changed:
        reporter.say(f"not the same bytes as without the stop can be expected: {'; '.join(changed)}")
    return state, replace(course, best=best, log=log, train_seconds=seconds[0], spent_seconds=seconds[1])


def forget_lost_best(out: Path, course: Course, select: str) -> Course:
    """Without a best measurement whose parameters are not (any more) what was released: the next one replaces it.

    A stop between a release and the next checkpoint leaves a later detector than the checkpoint knows of.
    """
    for folder in FOLDERS.values():
        complete_release(out / folder)
    kept = {
        name: best
        for name, best in course.best.items()
        if (name == "ema" and select == "last") or is_released(out / FOLDERS[name], best)
    }
    return replace(course, best=kept)
