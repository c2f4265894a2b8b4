"""The released detector of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

import yolojax
from yolojax import zoo
from yolojax.config import TrainConfig, to_json
from yolojax.data import Dataset
from yolojax.detector import Detector, Variables
from yolojax.weights.released import save_released


def release(
    folder: Path,
    *,
    detector: Detector,
    variables: Variables,
    config: TrainConfig,
    row: dict[str, Any],
    train_set: Dataset,
    val_set: Dataset | None,
) -> None:
    """Write the detector so that it describes itself: architecture, classes, input image, data, versions, numbers."""
    description = {
        "detector": zoo.describe(detector.spec),
        "training": {
            "config": to_json(config),
            "step": row["step"],
            "validation": {k: v for k, v in row.items() if k.startswith(("val/", "val_raw/"))},
            "train_fingerprint": train_set.fingerprint(),
            "val_fingerprint": val_set.fingerprint() if val_set is not None else None,
        },
        "versions": {"yolojax": yolojax.__version__, "jax": jax.__version__},
    }
    save_released(folder, jax.device_get(variables), description)
