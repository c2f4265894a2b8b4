"""Runs made one by one through one compiled training step, beside which sweeps are held. Used by
`experiments.benchmarks.sweep_speed`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared.bench_command import TINY
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig
from yolojax.data import open_input_images, open_splits, shapes_dataset, uniform_sampler, write_yolo
from yolojax.inference.evaluate import evaluate_images, make_detect_batch
from yolojax.progress import Quiet
from yolojax.training.preparation import build, step_maker
from yolojax.training.state import make_state
from yolojax.training.step import make_hyper
from yolojax.training.sweep import Trial

SMALL = {"widths": [16, 24, 48, 96], "depths": [0, 1, 1, 1], "head_width": 32}


def settings(folder: Path, *, size: int, batch_size: int, steps: int, epochs: int, tiny: bool = False) -> TrainConfig:
    """Runs of ``epochs`` times ``steps`` steps of a small detector on generated images, which are written."""
    counts = {"train": batch_size * steps, "val": 8 if tiny else 100}
    write_yolo({part: shapes_dataset(n, size=(size, size), split=part) for part, n in counts.items()}, folder)
    return TrainConfig(
        data=DataConfig(path=str(folder)),
        model=ModelConfig(name="compact", size=size, options=TINY if tiny else SMALL),
        augment=AugmentConfig(),
        optimiser=OptimiserConfig(),
        epochs=epochs,
        batch_size=batch_size,
    )


class Separate(NamedTuple):
    """The losses ``[R, T]`` of separate runs, their AP where it was asked for, and the seconds that they took."""

    losses: np.ndarray
    aps: list[float]
    seconds: dict[str, float]


def one_by_one(config: TrainConfig, trials: list[Trial], *, moved: bool = False, measure: bool = False) -> Separate:
    """Each trial through the ordinary training step, compiled once.

    All initial parameters are ``moved`` to the next number, up or down at random. With ``measure`` the averages of the
    parameters are evaluated on the validation images, as a sweep does it.
    """
    assert isinstance(config.batch_size, int)
    train_set, val_set = open_splits(config.data.path)
    detector = build(config, train_set)
    images = open_input_images(train_set, detector.spec.input_size, detector.spec.preprocess, cache="memory")
    sampler = uniform_sampler(len(images), config.batch_size)
    steps = config.epochs * max(1, round(len(images) / config.batch_size))
    make = step_maker(config, detector)
    step = jax.jit(lambda key, *rest: make(key)(*rest), donate_argnums=1)
    compiled, seconds, losses, averages = None, {"compile": 0.0, "train": 0.0}, [], []
    for trial in trials:
        key = jax.random.key(trial.seed)
        hyper = make_hyper(replace(config, hyper=dict(trial.hyper)), detector)
        state = make_state(detector, config.optimiser, steps, jax.random.fold_in(key, 0))
        if moved:
            params = _moved(state.variables["params"], trial.seed)
            variables, ema = (jax.tree.map(jnp.array, {**v, "params": params}) for v in (state.variables, state.ema))
            state = state._replace(variables=variables, ema=ema)
        own: list[float] = []
        pending: Any = None
        clock = time.monotonic()
        for t in range(steps):
            arguments = (jax.random.fold_in(key, 1), state, images.batch(sampler(trial.seed, t)), hyper)
            if compiled is None:
                mark = time.monotonic()
                compiled = step.lower(*arguments).compile()
                seconds["compile"] = time.monotonic() - mark
                clock += seconds["compile"]
            state, report = compiled(*arguments)
            if pending is not None:  # read while the next step computes
                own.append(float(pending))
            pending = report.loss
        own.append(float(pending))
        seconds["train"] += time.monotonic() - clock
        losses.append(own)
        averages.append(jax.tree.map(np.asarray, state.ema))
    aps: list[float] = []
    if measure:
        assert val_set is not None
        val_images = open_input_images(val_set, detector.spec.input_size, detector.spec.preprocess)
        detect = make_detect_batch(detector, config.validation.max_detections)
        results = [
            evaluate_images(detect, detector, v, val_images, config.validation, Quiet()).result for v in averages
        ]
        aps = [float(result.AP or 0.0) for result in results]
    return Separate(np.array(losses), aps, seconds)


def apart(losses: np.ndarray, reference: np.ndarray, trials: Sequence[Trial]) -> dict[str, float]:
    """The largest relative difference of the first ten losses, by learning rate."""
    error = np.max(np.abs(losses / reference - 1)[:, :10], axis=1)
    rates = np.array([trial.hyper["learning_rate"] for trial in trials])
    return {f"{rate:g}": float(f"{np.max(error[rates == rate]):.2g}") for rate in sorted(set(rates))}


def _moved(params: Any, seed: int) -> Any:
    """Every parameter at the next number of float32, up or down at random."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.nextafter(x, x + rng.choice([-1, 1], x.shape).astype(np.float32)), params)
