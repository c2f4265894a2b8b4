"""Which parameters were best so far, by one number of the report."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from yolojax.errors import CheckpointError
from yolojax.eval.coco import CocoResult
from yolojax.inference.evaluate import Evaluation
from yolojax.weights.released import load_description

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "precision", "recall")
"""Numbers of the report that go into the log of a run, beside the one that it selects by."""

FOLDERS = {"ema": "best", "raw": "best_raw"}
"""Where the best of each kind of parameters goes: the running average, and what is averaged."""


class Best(NamedTuple):
    """``value`` is None where there was nothing to measure."""

    value: float | None
    epoch: int
    step: int


def number_of(result: CocoResult, name: str) -> float | None:
    """A number of the report by its name in `yolojax.config.SELECTABLE`."""
    if name == "F1":
        return result.best_f1.f1 if result.best_f1 is not None else None
    return getattr(result, name)


def improves(value: float | None, best: Best | None) -> bool:
    """Whether a new measurement beats the best one; equal is not better, and the first always is."""
    return best is None or (value is not None and (best.value is None or value > best.value))


def is_released(folder: Path, best: Best | None) -> bool:
    """Whether ``folder`` holds the detector of this step: a run that was killed may have released a later one."""
    if best is None:
        return False
    try:
        return load_description(folder).get("training", {}).get("step") == best.step
    except CheckpointError:
        return False


def validation_columns(found: dict[str, Evaluation], select_by: str) -> dict[str, float | None]:
    """The numbers of an epoch's measurements by the names of the log's columns: ``val/AP``, ``val_raw/AP``, ..."""
    names = dict.fromkeys((*COLUMNS, select_by))
    columns = {
        f"{'val' if kind == 'ema' else f'val_{kind}'}/{name}": number_of(evaluation.result, name)
        for kind, evaluation in found.items()
        for name in names
    }
    counts = found["ema"].truncated, found["ema"].truncated_candidates
    return {**columns, "count/truncated": counts[0], "count/truncated_candidates": counts[1]}


def note_improvements(
    best: dict[str, Best], found: dict[str, Evaluation], select_by: str, epoch: int, step: int
) -> list[str]:
    """Enter what is better than before into ``best``; gives the kinds that are."""
    better = []
    for kind, evaluation in found.items():
        value = number_of(evaluation.result, select_by)
        if improves(value, best.get(kind)):
            best[kind] = Best(value, epoch, step)
            better.append(kind)
    return better


def out_of_patience(best: dict[str, Best], patience: int, epoch: int) -> bool:
    """Whether the average has not become better for ``patience`` epochs; 0 is endless patience."""
    return patience > 0 and "ema" in best and epoch - best["ema"].epoch >= patience
