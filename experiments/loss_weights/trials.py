"""The runs of the sweep over the weights of a loss. Used by `experiments.loss_weights`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shared.small_runs import Scale, images, lesson_detector
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig
from yolojax.data import write_yolo
from yolojax.structures import Hyper
from yolojax.training.sweep import Trial, sweep

NAMES = ("lambda_coord", "lambda_obj", "lambda_noobj", "lambda_cls", "ignore_iou")
DEFAULTS = {name: float(getattr(Hyper(), name)) for name in NAMES}
SPAN, IGNORED = 10.0, (0.3, 0.9)
Record = dict[str, Any]


def settings(folder: Path, scale: Scale) -> TrainConfig:
    """A run of the small detector. The folder ``test`` holds the images to be measured on instead of to choose by."""
    learn = images(scale.train, scale.side).dataset
    for name, split, count in (("choose", "val", min(100, scale.test)), ("test", "test", scale.test)):
        write_yolo({"train": learn, "val": images(count, scale.side, split).dataset}, folder / name)
    return TrainConfig(
        data=DataConfig(path=str(folder / "choose")),
        model=ModelConfig(name="lesson", size=scale.side, options=lesson_detector(scale).spec.options),
        augment=AugmentConfig(flip_vertical=0.5, scale_min=0.8, scale_max=1.25, hue=0.0, saturation=0.0, value=0.0),
        optimiser=OptimiserConfig(learning_rate=scale.learning_rate),
        epochs=scale.epochs,
        batch_size=scale.batch,
    )


def drawn(count: int) -> list[Record]:
    """A Latin hypercube over the five numbers."""
    rng, found = np.random.default_rng(0), []
    for row in (rng.permuted(np.tile(np.arange(count), (len(NAMES), 1)), axis=1).T + 0.5) / count:
        values = {name: DEFAULTS[name] * SPAN ** (2 * u - 1) for name, u in zip(NAMES[:4], row[:4], strict=True)}
        found.append({**values, "ignore_iou": IGNORED[0] + (IGNORED[1] - IGNORED[0]) * row[4]})
    return found


def trained(config: TrainConfig, scale: Scale, count: int) -> Record:
    """The sweep, and the best setting beside the usual one with new seeds."""
    points = drawn(count)
    found = sweep(config, [Trial(seed, point) for seed, point in enumerate(points)])
    runs = [{"seed": i, **p, "AP": r.AP} for i, (p, r) in enumerate(zip(points, found.results, strict=True)) if r]
    print(f"{count} runs: {found.seconds}", flush=True)
    best = points[int(np.argmax([r["AP"] for r in runs]))]
    on_test = replace(config, data=DataConfig(path=str(Path(config.data.path).parent / "test")))
    again = sweep(on_test, [Trial(1000 + s, w) for w in (DEFAULTS, best) for s in range(scale.seeds)])
    aps = [r.AP for r in again.results if r]
    return {"runs": runs, "best": best, "again": {"yolov1": aps[: scale.seeds], "best": aps[scale.seeds :]}}


def times(config: TrainConfig, points: list[Record], some: int) -> Record:
    """Seconds of all runs in one program and of as many that compile for themselves, from ``some`` of each."""
    trials = [Trial(seed, point) for seed, point in enumerate(points[:some])]
    whole = sweep(config, trials, measure=False).seconds
    alone = [sweep(config, [trial], measure=False).seconds for trial in trials]
    each = float(np.mean([sum(seconds[part] for part in ("compile", "prepare", "train")) for seconds in alone]))
    once = whole["compile"] + whole["prepare"]  # of which what grows with the runs is next to nothing
    return {"sweep": once + whole["per_run"] * len(points), "separate": each * len(points)}
