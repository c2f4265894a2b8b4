"""The runs of several box losses, set against each other. Used by `experiments.ciou_vs_mse`."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.shared.record import paired

IOUS = tuple(f".{50 + 5 * i}" for i in range(10))
Record = dict[str, Any]


def of(runs: list[Record], loss: str, weight: float | None = None) -> list[list[float]]:
    """AP by IoU threshold, seed by seed, at a weight or at the one with the best validation AP."""
    weight = best_weight(runs, loss) if weight is None else weight
    own = [r for r in runs if (r["loss"], r["weight"]) == (loss, weight)]
    return [r["by_iou"] for r in sorted(own, key=lambda r: r["seed"])]


def best_weight(runs: list[Record], loss: str) -> float:
    def chosen_by(weight: float) -> float:
        return float(np.mean([r["val_AP"] for r in runs if (r["loss"], r["weight"]) == (loss, weight)]))

    return max(sorted({r["weight"] for r in runs if r["loss"] == loss}), key=chosen_by)


def losses(runs: list[Record]) -> list[str]:
    return list(dict.fromkeys(r["loss"] for r in runs))


def against_mse(runs: list[Record], loss: str, at: slice = slice(None), weight: float | None = None) -> Any:
    ours, theirs = (np.mean(np.array(of(runs, name, weight))[:, at], axis=1) for name in (loss, "mse"))
    return paired(ours.tolist(), theirs.tolist())
