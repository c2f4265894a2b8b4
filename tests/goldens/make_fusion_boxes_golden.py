"""Writes fusion_ensemble_boxes.npz: what the authors' program for weighted box fusion makes of seeded predictions.

Run with an environment that holds ensemble-boxes: ``python tests/goldens/make_fusion_boxes_golden.py``. The program
clips boxes to [0, 1], so the inputs lie inside.
"""

import importlib.metadata
import pathlib

import numpy as np
from ensemble_boxes import weighted_boxes_fusion

SETS, N, CASES = 3, 40, 6


def main() -> None:
    out: dict[str, np.ndarray] = {"version": np.array(importlib.metadata.version("ensemble-boxes"))}
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        centre, size = rng.uniform(0.25, 0.75, (12, 2)), rng.uniform(0.1, 0.4, (12, 2))
        of = rng.integers(0, 12, (SETS, N))
        moved = centre[of] + rng.normal(size=(SETS, N, 2)) * size[of] * 0.08
        half = size[of] * np.exp(rng.normal(size=(SETS, N, 2)) * 0.1) / 2
        boxes = np.clip(np.concatenate([moved - half, moved + half], -1), 0, 1).astype(np.float32)
        scores = rng.uniform(0.05, 1, (SETS, N)).astype(np.float32)
        classes = (of % 2).astype(np.int32)
        weights = np.float32([1, 1, 1] if seed < 3 else [2, 1, 0.5])
        threshold = (0.55, 0.4, 0.7)[seed % 3]
        fused = weighted_boxes_fusion(
            list(boxes.astype(np.float64)), list(scores.astype(np.float64)), list(classes), weights, threshold
        )
        names = ("boxes", "scores", "classes", "weights", "threshold", "fused_boxes", "fused_scores", "fused_classes")
        values = (boxes, scores, classes, weights, np.float64(threshold), *fused)
        out |= {f"{seed}/{name}": value for name, value in zip(names, values, strict=True)}
    np.savez_compressed(pathlib.Path(__file__).with_name("fusion_ensemble_boxes.npz"), **out)


if __name__ == "__main__":
    main()
