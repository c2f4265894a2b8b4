"""What the steps of one epoch add up to, and the stop when one of them is not finite."""

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
    """Sums over the steps of one epoch; ``elapsed`` and ``waiting`` (for data) are seconds.

    ``programs`` is the number of training programs of the process that ran them.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.programs = 0
        self.waiting = 0.0
        self.elapsed = 0.0
        self.sums: defaultdict[str, float] = defaultdict(float)

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> EpochLog:
        """The inverse of `facts`."""
        log = cls()
        log.steps, log.images = int(facts["steps"]), int(facts["images"])
        log.programs = int(facts["programs"])
        log.waiting, log.elapsed = float(facts["waiting"]), float(facts["elapsed"])
        log.sums.update((name, float(value)) for name, value in facts["sums"])
        return log

    def facts(self) -> dict[str, Any]:
        """JSON values that give the same sums again, to the bit, in their order, which is that of the columns."""
        return {**{k: v for k, v in vars(self).items() if k != "sums"}, "sums": [[*pair] for pair in self.sums.items()]}

    def add(self, report: StepReport) -> dict[str, float]:
        """Count one step; the report is on the host. Gives its losses and counts by the names of the log's columns."""
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
        """The mean loss so far, for a progress bar."""
        return f"loss {self.sums['train/loss'] / max(self.steps, 1):.3f}"

    def row(self, expected: int = 1) -> dict[str, float]:
        """Means of the losses, sums of the counts, and where the time went; so many programs are no recompilation."""
        row = {
            name: round(value if name.startswith("count/") else value / max(self.steps, 1), 6)
            for name, value in self.sums.items()
        }
        row["programs"], row["recompilations"] = self.programs, max(self.programs - expected, 0)
        row["images_per_second"] = round(self.images / max(self.elapsed, 1e-9), 2)
        row["waiting_share"] = round(self.waiting / max(self.elapsed, 1e-9), 4)
        return row


def checked(step: int, image_ids: Int[np.ndarray, " B"], report: StepReport, input_images: InputImages) -> StepReport:
    """The report on the host; raises `NonFiniteError` naming step, parts and images when it is not finite."""
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
    """AP and AP50 of a row that has them."""
    ap, ap50 = row.get("val/AP"), row.get("val/AP50")
    return f", AP {ap:.3f}, AP50 {ap50:.3f}" if ap is not None and ap50 is not None else ""


COUNTED = {
    "count/dropped": "objects over the padding",
    "count/collisions": "collisions in assignment",
    "count/unassigned": "objects without a prediction",
    "count/truncated_candidates": "candidates truncated",
    "count/truncated": "detections truncated",
}
"""What the line of an epoch says of a count, where the run has it."""


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One line about an epoch, from its row: what was learnt, how fast, and what was lost on the way."""
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
