"""The sums over the steps of one epoch, and the error when a step is not finite."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from yolojax.data import InputImages
from yolojax.errors import NonFiniteError
from yolojax.training.step import StepReport


class EpochLog:
    """Sums over the steps of one epoch.

    Attributes:
      steps, images: how many there were.
      programs: number of training programs that the process has compiled.
      waiting: seconds that the program waited for data.
      elapsed: seconds that the steps took, waiting included.
      sums: losses and counts by the names of the log's columns.
    """

    def __init__(self) -> None:
        self.steps: int = 0
        self.images: int = 0
        self.programs: int = 0
        self.waiting: float = 0.0
        self.elapsed: float = 0.0
        self.sums: defaultdict[str, float] = defaultdict(float)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> EpochLog:
        """Restores the log from the values of `to_dict`."""
        log = cls()
        log.steps, log.images = int(saved["steps"]), int(saved["images"])
        log.programs = int(saved["programs"])
        log.waiting, log.elapsed = float(saved["waiting"]), float(saved["elapsed"])
        log.sums.update((name, float(value)) for name, value in saved["sums"])
        return log

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values that restore the same sums, to the bit, and their order, which is that of the columns."""
        return {**{k: v for k, v in vars(self).items() if k != "sums"}, "sums": [[*pair] for pair in self.sums.items()]}

    def add(self, report: StepReport) -> dict[str, float]:
        """Adds one step, whose report is on the host. Returns its numbers by the names of the log's columns."""
        self.steps += 1
        self.images += report.image_loss.shape[0]
        row = {
            "train/loss": float(report.loss),
            "train/gradient_norm": float(report.gradient_norm),
            **{f"train/{name}": float(value) for name, value in report.parts.items()},
            **{f"count/{name}": float(value) for name, value in report.counts.items()},
        }
        for name, value in row.items():
            self.sums[name] += value
        return row

    def note(self) -> str:
        """Returns the mean loss so far, as text for a progress bar."""
        return f"loss {self.sums['train/loss'] / max(self.steps, 1):.3f}"

    def row(self, expected: int = 1) -> dict[str, float]:
        """Returns the means of the losses, the sums of the counts, and where the time went.

        ``expected`` is the number of programs that are no recompilation.
        """
        row = {
            name: round(value if name.startswith("count/") else value / max(self.steps, 1), 6)
            for name, value in self.sums.items()
        }
        row["programs"], row["recompilations"] = self.programs, max(self.programs - expected, 0)
        row["images_per_second"] = round(self.images / max(self.elapsed, 1e-9), 2)
        row["waiting_share"] = round(self.waiting / max(self.elapsed, 1e-9), 4)
        return row


def checked(step: int, image_ids: Int[np.ndarray, " B"], report: StepReport, input_images: InputImages) -> StepReport:
    """Returns the report on the host; raises `NonFiniteError` naming step, parts and images when it is not finite."""
    report = jax.device_get(report)
    if bool(report.finite):
        return report
    parts = [f"{name} = {float(value)}" for name, value in report.parts.items() if not np.isfinite(value)]
    culprits = np.flatnonzero(~np.isfinite(report.image_loss))
    names = {r.image_id: r.file_name for r in input_images.dataset.records}
    images = [names[int(image_ids[i])] for i in culprits]
    where = f"in {', '.join(parts)} of {', '.join(images)}" if images else "in the gradient, while the loss is finite"
    raise NonFiniteError(
        f"step {step}: not finite {where}; start again with a lower optimiser.learning_rate or optimiser.clip_norm, or "
        "look at the images named"
    )


def validation_note(row: dict[str, Any]) -> str:
    """Returns AP and AP50 of a row, as text; empty where it has none."""
    ap, ap50 = row.get("val/AP"), row.get("val/AP50")
    return f", AP {ap:.3f}, AP50 {ap50:.3f}" if ap is not None and ap50 is not None else ""


COUNTED = {
    "count/dropped": "objects over the padding",
    "count/unassigned": "objects without a prediction",
    "count/truncated_candidates": "candidates truncated",
    "count/truncated": "detections truncated",
}
"""The text for each count in the line of an epoch, where the run has it."""


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """Returns one line about an epoch, from its row: losses and AP, speed, programs and counts.

    ``epochs`` is the number of epochs that the run is planned to have by now.
    """
    said = [
        f"loss {row['train/loss']:.3f}{validation_note(row)}",
        f"{row['images_per_second']:.1f} images/s, {row['waiting_share']:.1%} waiting for data",
        f"{_number(row['programs'], 'program')} compiled, {_number(row['recompilations'], 'recompilation')}",
        *(f"{row[name]:.0f} {text}" for name, text in COUNTED.items() if name in row),
    ]
    if row.get("device_memory") is not None:
        said.append(f"{row['device_memory'] / 1e9:.2f} GB of device memory")
    return f"epoch {row['epoch']} of {epochs}: {'; '.join(said)}"


def _number(count: int, of: str) -> str:
    return f"{count} {of}{'' if count == 1 else 's'}"
