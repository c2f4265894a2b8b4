"""What the steps of one epoch add up to, and the stop when one of them is not finite."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import jax
import numpy as np

from yolojax.data import Canvases
from yolojax.errors import NonFiniteError
from yolojax.structures import Batch
from yolojax.training.step import StepReport


class EpochLog:
    """Sums over the steps of one epoch."""

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.waiting = 0.0
        self.sums: defaultdict[str, float] = defaultdict(float)

    def add(self, report: StepReport) -> None:
        self.steps += 1
        self.images += report.image_loss.shape[0]
        self.sums["loss"] += float(report.loss)
        self.sums["gradient_norm"] += float(report.gradient_norm)
        for name, value in report.parts.items():
            self.sums[name] += float(value)
        for name, value in report.counts.items():
            self.sums[f"count/{name}"] += float(value)

    def note(self) -> str:
        return f"loss {self.sums['loss'] / max(self.steps, 1):.3f}"

    def row(self, elapsed: float) -> dict[str, float]:
        """Means of the losses, sums of the counts, and where the time went."""
        row = {}
        for name, value in self.sums.items():
            row[name if name.startswith("count/") else f"train/{name}"] = round(
                value if name.startswith("count/") else value / max(self.steps, 1), 6
            )
        row["images_per_second"] = round(self.images / max(elapsed, 1e-9), 2)
        row["waiting_share"] = round(self.waiting / max(elapsed, 1e-9), 4)
        return row


def checked(step: int, batch: Batch, report: StepReport, canvases: Canvases) -> StepReport:
    """The report on the host; raises `NonFiniteError` naming step, parts and images when it is not finite."""
    report = jax.device_get(report)
    if bool(report.finite):
        return report
    parts = [f"{name} = {float(value)}" for name, value in report.parts.items() if not np.isfinite(value)]
    culprits = np.flatnonzero(~np.isfinite(report.image_loss))
    names = {r.image_id: r.file_name for r in canvases.dataset.records}
    images = [names[int(batch.image_id[i])] for i in culprits]
    where = f"in {', '.join(parts)} of {', '.join(images)}" if images else "in the gradient, while the loss is finite"
    raise NonFiniteError(
        f"step {step}: not finite {where}; start again with a lower optimiser.learning_rate or optimiser.clip_norm, or "
        "look at the images named"
    )


def validation_note(row: dict[str, Any]) -> str:
    ap, ap50 = row.get("val/AP"), row.get("val/AP50")
    return f", AP {ap:.3f}, AP50 {ap50:.3f}" if ap is not None and ap50 is not None else ""
