"""The host-side state of a run (best measurements, log, elapsed time), and how a run is resumed from a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib.version
import numpy as np

import yolojax
from yolojax.errors import CheckpointError, shortened
from yolojax.eval.coco import CocoResult
from yolojax.inference.evaluate import Evaluation
from yolojax.processor.memory import available_cores
from yolojax.progress import Reporter
from yolojax.training.checkpoint import restore_newest
from yolojax.training.data import DataPair
from yolojax.training.log import EpochLog
from yolojax.training.run_directory import check_same_images
from yolojax.training.state import TrainState
from yolojax.weights.released import complete_release, load_description

FOLDERS = {"ema": "best", "raw": "best_raw"}
"""Where the best of each kind of variables is released: the running average, and the variables themselves."""

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "precision", "recall")
"""Numbers of the report that go into the log of a run, beside the one that the run selects by."""


class Best(NamedTuple):
    """The best measurement so far; ``value`` is None where there was nothing to measure."""

    value: float | None
    epoch: int
    step: int


def _best(value: Any, epoch: Any, step: Any) -> Best:
    """A measurement from its JSON values; raises `TypeError` where they are none."""
    if type(epoch) is not int or type(step) is not int or not (value is None or isinstance(value, int | float)):
        raise TypeError("best holds no measurement")
    return Best(None if value is None else float(value), epoch, step)


@dataclass
class RunState:
    """The host-side part of a run's state; a checkpoint keeps it beside the arrays.

    Attributes:
      train_data, val_data: fingerprints of the two data sets.
      best: the best measurement so far, of ``ema`` and of ``raw``.
      log: sums over the steps of the epoch that is under way.
      train_seconds: spent in steps, compilation included.
      spent_seconds: since the first step, everything included.
      validation_seconds: of the last measurement; None before there was one.
    """

    train_data: str
    val_data: str | None
    best: dict[str, Best] = field(default_factory=dict)
    log: EpochLog = field(default_factory=EpochLog)
    train_seconds: float = 0.0
    spent_seconds: float = 0.0
    validation_seconds: float | None = None

    @classmethod
    def start(cls, data: DataPair) -> RunState:
        """Returns the state of a run that begins."""
        return cls(data.train.fingerprint(), data.val.fingerprint() if data.val is not None else None)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values, with the `environment` that has to be the same for a resumed run to give equal bytes."""
        return {
            "best": {name: best._asdict() for name, best in self.best.items()},
            "log": self.log.to_dict(),
            "train_seconds": self.train_seconds,
            "spent_seconds": self.spent_seconds,
            "validation_seconds": self.validation_seconds,
            "data": self.train_data,
            "val_data": self.val_data,
            "environment": environment(),
        }

    def restore(self, saved: dict[str, Any], run: Path) -> list[str]:
        """Takes the values of `to_dict` and returns what has changed in the environment since then.

        Raises:
          DataError: the images or their objects have changed.
          CheckpointError: the values were written by another version.
        """
        then = RunState.from_dict(saved)
        check_same_images(run, "training", then.train_data, self.train_data)
        check_same_images(run, "validation", then.val_data, self.val_data)
        self.best, self.log, self.train_seconds = then.best, then.log, then.train_seconds
        self.spent_seconds, self.validation_seconds = then.spent_seconds, then.validation_seconds
        return differences(saved["environment"], environment())

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> RunState:
        """The state that `to_dict` described.

        Raises:
          CheckpointError: the values were written by another version, or by another program.
        """
        try:
            measured = saved["validation_seconds"]
            if not isinstance(saved["environment"], dict):
                raise TypeError("environment is no object")
            return cls(
                train_data=saved["data"],
                val_data=saved["val_data"],
                best={name: _best(**values) for name, values in saved["best"].items() if name in FOLDERS},
                log=EpochLog.from_dict(saved["log"]),
                train_seconds=float(saved["train_seconds"]),
                spent_seconds=float(saved["spent_seconds"]),
                validation_seconds=None if measured is None else float(measured),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError(
                f"facts.json is of another version of yolojax ({shortened(str(error), 100)}); resume with that version"
            ) from error

    def drop_stale_best(self, run: Path, select: str) -> None:
        """Forgets a best measurement whose variables are no longer those that were released.

        A stop between a release and the next checkpoint leaves a later detector than the checkpoint knows of. The next
        measurement then replaces it.
        """
        for folder in FOLDERS.values():
            complete_release(run / folder)
        self.best = {
            name: best
            for name, best in self.best.items()
            if (name == "ema" and select == "last") or is_released(run / FOLDERS[name], best)
        }

    def note_improvements(self, found: dict[str, Evaluation], select_by: str, epoch: int, step: int) -> list[str]:
        """Enters what is better than before into ``best`` and returns the kinds that are: ``ema``, ``raw``."""
        better = []
        for kind, evaluation in found.items():
            value = number_of(evaluation.result, select_by)
            if improves(value, self.best.get(kind)):
                self.best[kind] = Best(value, epoch, step)
                better.append(kind)
        return better

    def out_of_patience(self, patience: int, epoch: int) -> bool:
        """Whether the average has not become better for ``patience`` epochs; 0 never runs out."""
        return patience > 0 and "ema" in self.best and epoch - self.best["ema"].epoch >= patience


def restore_run(
    run: Path, fresh: Callable[[], TrainState], run_state: RunState, reporter: Reporter
) -> TrainState | None:
    """Returns the arrays of the newest whole checkpoint of a run and restores ``run_state`` from it.

    ``fresh`` makes a state of the same shapes. None when the run stopped before its first checkpoint. Whatever keeps
    the continuation from equalling an uninterrupted run is said, or raised:

    Raises:
      CheckpointError: every checkpoint is damaged, or of another configuration or version.
      DataError: the images or their objects have changed.
    """
    found = restore_newest(run / "checkpoints", jax.eval_shape(fresh), check_facts=RunState.from_dict)
    if found is None:
        reporter.say(f"{run} stopped before its first checkpoint: starting from the beginning")
        return None
    state, saved, passed_over = found
    for line in passed_over:
        reporter.say(f"passed over a checkpoint: {line}")
    changed = run_state.restore(saved, run)
    if changed:
        reporter.say(f"not the same bytes as without the stop can be expected: {'; '.join(changed)}")
    return state


def number_of(result: CocoResult, name: str) -> float | None:
    """Returns a number of the report by its name in `yolojax.config.SELECTABLE`."""
    if name == "F1":
        return result.best_f1.f1 if result.best_f1 is not None else None
    return getattr(result, name)


def improves(value: float | None, best: Best | None) -> bool:
    """Whether a new measurement beats the best one. An equal one does not, and the first always does."""
    return best is None or (value is not None and (best.value is None or value > best.value))


def is_released(folder: Path, best: Best | None) -> bool:
    """Whether ``folder`` holds the detector of this step. A run that was killed may have released a later one."""
    if best is None:
        return False
    try:
        return load_description(folder).get("training", {}).get("step") == best.step
    except CheckpointError:
        return False


def validation_columns(found: dict[str, Evaluation], select_by: str) -> dict[str, float | None]:
    """Returns an epoch's measurements by the names of the log's columns: ``val/AP``, ``val_raw/AP``, ..."""
    names = dict.fromkeys((*COLUMNS, select_by))
    columns = {
        f"{'val' if kind == 'ema' else f'val_{kind}'}/{name}": number_of(evaluation.result, name)
        for kind, evaluation in found.items()
        for name in names
    }
    counts = found["ema"].truncated, found["ema"].truncated_candidates
    return {**columns, "count/truncated": counts[0], "count/truncated_candidates": counts[1]}


def environment() -> dict[str, Any]:
    """Returns what must be the same for a resumed run to give the same bytes; no name of a machine."""
    return {
        "yolojax": yolojax.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
        "numpy": np.__version__,
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "processes": jax.process_count(),
        "cores": available_cores(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "").strip(),
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns each thing that has changed, as ``cores 2 then, 1 now``."""
    return [
        f"{name} {then.get(name, 'unknown')} then, {now.get(name, 'unknown')} now"
        for name in [*now, *sorted(set(then) - set(now))]
        if then.get(name) != now.get(name)
    ]
