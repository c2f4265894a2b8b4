"""Many training runs as one computation, mapped over seeds and hyper-parameters.

    trials = grid(seed=range(3), learning_rate=[1e-3, 2e-3], lambda_cls=[0.5, 1.0])
    found = sweep(TrainConfig(data=DataConfig(path="path/to/data"), epochs=20), trials)
    for trial, result in zip(found.trials, found.results):
        print(trial, result.AP)

A run of a sweep is the run that `fit` makes of the same settings: the same initial parameters, batches, augmentation
and schedule. What differs between the runs of a sweep must not change a shape or a program: the seed, and the fields of
`Hyper`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, UInt8

from yolojax.config import SELECTABLE, TrainConfig, changed_settings, check
from yolojax.data import ImageCache, InputImages, Sampler, open_input_images
from yolojax.detector import Detector, Variables, check_parts, checked_detector, variable_shapes
from yolojax.errors import ConfigError
from yolojax.eval.coco import CocoResult
from yolojax.inference.evaluate import evaluate_images, make_detect_batch, validation_suppression
from yolojax.processor.platform import for_platform
from yolojax.progress import Quiet, Reporter
from yolojax.settings import is_number, shown
from yolojax.structures import Batch, Hyper, Targets
from yolojax.training.augmentation import images_per_sample
from yolojax.training.data import GivenData, open_data, sampler_of
from yolojax.training.preparation import build, step_maker, take_detector
from yolojax.training.run_state import number_of
from yolojax.training.state import TrainState, make_state
from yolojax.training.step import HyperAt, TrainStep, make_hyper, make_hyper_at

Strategy = Literal["vmap", "unroll", "devices"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: its seed, and overrides of the traced hyper-parameters by their names in `Hyper`."""

    seed: int = 0
    hyper: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join([f"seed {self.seed}", *(f"{name} {value:g}" for name, value in self.hyper.items())])


def grid(*, seed: Sequence[int] | range = (0,), **hyper: Sequence[float]) -> list[Trial]:
    """Returns every combination of the given values; the seed changes fastest."""
    names = list(hyper)
    combinations = itertools.product(*(hyper[name] for name in names))
    return [Trial(s, dict(zip(names, values, strict=True))) for values in combinations for s in seed]


class TrainData(NamedTuple):
    """What a run reads: all input images, the indices of every step's images, and the key of its random numbers."""

    images: UInt8[Array, "n H W 3"]
    targets: Targets
    order: Int[Array, "T B"]
    key: PRNGKeyArray


Train = Callable[[TrainState, TrainData, Hyper], tuple[TrainState, Float[Array, " T"]]]
"""A run, or a part of one, as a pure function: ``(state, data, hyper) -> (state, loss of every step)``."""


def make_train(step_of: Callable[[PRNGKeyArray], TrainStep], *, unroll: bool | None = None) -> Train:
    """Returns training for as many steps as ``data.order`` has rows, a function that `jit` and `vmap` apply to.

    Args:
      step_of: makes the training step from its key; see `make_train_step`.
      unroll: whether the program repeats the steps instead of looping. This is the default on a processor, where XLA
        runs convolutions inside a loop some twenty times slower. The program then grows with the number of steps.
    """
    unroll = jax.default_backend() == "cpu" if unroll is None else unroll

    def train(state: TrainState, data: TrainData, hyper: Hyper) -> tuple[TrainState, Float[Array, " T"]]:
        step = step_of(data.key)

        def one(state: TrainState, indices: Int[Array, " B"]) -> tuple[TrainState, Float[Array, ""]]:
            state, report = step(state, take_batch(data, indices), hyper)
            return state, report.loss

        if not unroll:
            return jax.lax.scan(one, state, data.order)
        losses = []
        for indices in data.order:  # no scan: even of one step it may stay a loop
            state, loss = one(state, indices)
            losses.append(loss)
        return state, jnp.stack(losses)

    return train


def take_batch(data: TrainData, indices: Int[Array, " B"]) -> Batch:
    """The batch of these images."""
    return Batch(data.images[indices], jax.tree.map(lambda a: a[indices], data.targets))


class Group(NamedTuple):
    """Runs that train together: everything stacked along a first axis."""

    state: TrainState
    order: Int[np.ndarray, "R T B"]
    key: PRNGKeyArray
    hyper: Hyper


def over_runs(train: Train, strategy: Strategy) -> Any:
    """``(state, images, targets, order, key, hyper) -> (state, losses)``, all but the images stacked over runs.

    - ``vmap``: one program whose every operation works on all runs;
    - ``unroll``: one program that holds the runs one after another;
    - ``devices``: one program in which every device trains its share of the runs, unrolled, without communication; the
      number of runs must be a multiple of the number of devices.
    """

    train = for_platform(jax.default_backend(), train)

    def one(state: TrainState, images: Array, targets: Targets, order: Array, key: Array, hyper: Hyper) -> tuple:
        return train(state, TrainData(images, targets, order, key), hyper)

    mapped = jax.vmap(one, in_axes=(0, None, None, 0, 0, 0))

    def unrolled(state: TrainState, images: Array, targets: Targets, order: Array, key: Array, hyper: Hyper) -> tuple:
        def part(i: int) -> tuple:
            own = jax.tree.map(lambda a: a[i], (state, order, key, hyper))
            return one(own[0], images, targets, *own[1:])

        return jax.tree.map(lambda *parts: jnp.stack(parts), *(part(i) for i in range(order.shape[0])))

    if strategy == "vmap":
        return jax.jit(mapped, donate_argnums=0)
    if strategy == "unroll":
        return jax.jit(unrolled, donate_argnums=0)
    runs, shared = PartitionSpec("run"), PartitionSpec()
    split = jax.shard_map(
        unrolled,
        mesh=_run_mesh(),
        in_specs=(runs, shared, shared, runs, runs, runs),
        out_specs=runs,
        check_vma=False,  # nothing is shared between devices but the images, which are only read
    )
    return jax.jit(split, donate_argnums=0)


def _run_mesh() -> jax.sharding.Mesh:
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), ("run",), axis_types=(AxisType.Auto,), devices=devices)


class Sweep(NamedTuple):
    """What a sweep found, for every trial in order.

    ``losses`` holds the loss of every step: NaN or infinite where a run diverged. ``variables`` are the averages of the
    parameters, as `fit` releases them; ``results`` their measurements on the validation images, None where there are
    none. ``seconds``: ``compile``, ``prepare`` (initial parameters, with the compilation of what makes them), ``train``
    and ``validate``, and ``per_run``, the training time by the trial.
    """

    trials: tuple[Trial, ...]
    detector: Detector
    losses: Float[np.ndarray, "R T"]
    variables: tuple[Variables, ...]
    results: tuple[CocoResult | None, ...]
    strategy: Strategy
    seconds: dict[str, float]

    def best(self, metric: str = "AP") -> int:
        """The index of the trial whose ``metric`` (of `yolojax.config.SELECTABLE`) is highest; the first of equals.

        Raises `ConfigError` for another name, and when nothing was measured.
        """
        if metric not in SELECTABLE:
            raise ConfigError(f"metric = {metric!r}: give one of {', '.join(SELECTABLE)}")
        values = {i: number_of(r, metric) for i, r in enumerate(self.results) if r is not None}
        measured = {i: value for i, value in values.items() if value is not None}
        if not measured:
            raise ConfigError(f"no trial has a measured {metric}: the data set has no validation images with objects")
        return max(measured, key=lambda i: measured[i])


def choose_strategy() -> Strategy:
    """``unroll`` on a processor, where its cores are devices too; ``devices`` on several accelerators, ``vmap`` on one.

    Measured by `experiments.benchmarks.sweep_speed`: on two cores a run takes 1.7 times as long by ``devices`` as by
    ``unroll``.
    """
    if jax.default_backend() == "cpu":
        return "unroll"
    return "devices" if jax.local_device_count() > 1 else "vmap"


def choose_width(strategy: Strategy, runs: int) -> int:
    """How many runs train together: all of them, one on each device, or, unrolled, one (a program grows with each)."""
    return {"vmap": runs, "unroll": 1, "devices": jax.local_device_count()}[strategy]


def sweep(
    config: TrainConfig,
    trials: Sequence[Trial],
    *,
    strategy: Strategy | Literal["auto"] = "auto",
    width: int | None = None,
    measure: bool = True,
    data: GivenData | None = None,
    detector: Detector | None = None,
    hyper: HyperAt | None = None,
    reporter: Reporter | None = None,
) -> Sweep:
    """Trains one detector for every trial, with the settings of ``config`` otherwise, and measures each at its end.

    Nothing is written. The images must fit into the memory of each device. A trial is the run that `fit` makes with
    its seed and hyper-parameters; what a sweep cannot do as `fit` does is an error that names the setting.

    Args:
      config: of every run. The seeds are those of the trials. Anchors and padding are found once, for all.
      trials: the runs; see `grid`.
      strategy: how runs share the machine; see `over_runs`. ``auto``: `choose_strategy`.
      width: how many runs train together, by one program compiled once; the others follow. Memory grows with it. By
        default `choose_width`.
      measure: evaluate every run on the validation images.
      data, detector, hyper: as `fit` takes them.
      reporter: where progress goes.

    Raises:
      ConfigError: no trial, an unknown hyper-parameter, a width that the strategy cannot have, or a setting that a
        sweep cannot honour.
    """
    config, reporter = check(config), reporter or Quiet()
    trials = tuple(check_trial(trial, config) for trial in trials)
    check_settings(config, trials)
    assert config.batch_size != "auto"
    if strategy != "auto" and strategy not in STRATEGIES:
        raise ConfigError(f"sweep strategy = {strategy!r}: give auto, {', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}")
    if width is not None and (not is_number(int, width) or width < 1):
        raise ConfigError(f"sweep width = {width!r}: give a whole number of at least 1")
    chosen = choose_strategy() if strategy == "auto" else strategy
    width = min(choose_width(chosen, len(trials)) if width is None else width, len(trials))
    if chosen == "devices":
        width = -(-width // jax.local_device_count()) * jax.local_device_count()

    # Data and detector, as `fit` has them. With a fraction of the images all trials have one seed.
    train_set, val_set = open_data(config.data, trials[0].seed, data, reporter)
    detector = build(config, train_set) if detector is None else take_detector(config, train_set, detector)
    check_parts(variable_shapes(detector)["params"], config.freeze)
    spec, hyper_at = detector.spec, make_hyper_at(config, hyper)
    hypers = [make_hyper(replace(config, hyper={**config.hyper, **trial.hyper}), detector) for trial in trials]
    train_images = open_input_images(
        train_set,
        spec.input_size,
        spec.preprocess,
        reporter,
        max_objects=config.data.max_objects,
        images_per_sample=images_per_sample(config.augment),
        cache="memory",
    )
    sampler = sampler_of(config.data, train_images.dataset, config.batch_size)
    steps_per_epoch = max(1, round(len(train_images) / config.batch_size))
    total_steps = config.epochs * steps_per_epoch

    # One program trains one group of runs after the other. The last group is filled up with copies of the last run,
    # whose results are dropped, because a smaller group would need a program of its own.
    run = GroupRunner(make_train(step_maker(config, checked_detector(detector), hyper_at)), chosen, train_images)
    losses: list[Float[np.ndarray, " T"]] = []
    variables: list[Variables] = []
    fresh = jax.jit(lambda key: make_state(detector, config.optimiser, total_steps, jax.random.fold_in(key, 0)))
    seconds = {"compile": 0.0, "prepare": 0.0, "train": 0.0, "validate": 0.0}
    with reporter.task(f"training {len(trials)} runs", len(trials) * total_steps) as advance:
        for start in range(0, len(trials), width):
            clock = time.monotonic()
            members = [min(start + i, len(trials) - 1) for i in range(width)]
            keys = [jax.random.key(trials[i].seed) for i in members]
            group = Group(
                stack([fresh(key) for key in keys]),
                np.stack([_order(sampler, trials[i].seed, total_steps) for i in members]),
                jnp.stack([jax.random.fold_in(key, 1) for key in keys]),
                stack([hypers[i] for i in members]),
            )
            jax.block_until_ready(group)
            seconds["prepare"] += time.monotonic() - clock
            clock = time.monotonic()
            real = len(set(members))
            states, of_group = run(group, lambda done, s=start, n=real: advance(s * total_steps + n * done))
            losses += list(of_group[:real])
            averages = jax.tree.map(np.asarray, states.ema)
            variables += [jax.tree.map(lambda a, i=i: a[i], averages) for i in range(real)]
            seconds["train"] += time.monotonic() - clock
    seconds["compile"] = run.compile_seconds
    seconds["train"] -= run.compile_seconds
    seconds["per_run"] = seconds["train"] / len(trials)

    # Measurements.
    results: list[CocoResult | None] = [None] * len(trials)
    if measure and val_set is not None:
        clock = time.monotonic()
        val_images = open_input_images(val_set, spec.input_size, spec.preprocess, reporter)
        detect = make_detect_batch(
            detector, config.validation.max_detections, suppress=validation_suppression(config.validation)
        )
        results = [
            evaluate_images(detect, detector, v, val_images, config.validation, reporter).result for v in variables
        ]
        seconds["validate"] = time.monotonic() - clock
    reporter.say(
        f"{len(trials)} runs of {total_steps} steps, {width} at a time ({chosen}): {seconds['per_run']:.1f} s each, "
        f"and {seconds['compile'] + seconds['prepare']:.0f} s of compilation and initial parameters"
    )
    return Sweep(trials, detector, np.stack(losses), tuple(variables), tuple(results), chosen, seconds)


def check_trial(trial: Trial, config: TrainConfig) -> Trial:
    """The trial with plain numbers; raises `ConfigError` for what is none, or has a seed or value that no run takes."""
    if not isinstance(trial, Trial):
        raise ConfigError(f"{shown(trial)} is no trial; see yolojax.training.sweep.grid")

    def plain(value: Any) -> Any:  # a grid may go over the elements of an array of NumPy or JAX
        return value.item() if isinstance(value, np.generic | jax.Array) and value.ndim == 0 else value

    own = check(
        replace(config, seed=plain(trial.seed), hyper={name: plain(value) for name, value in trial.hyper.items()})
    )
    return Trial(own.seed, own.hyper)


def check_settings(config: TrainConfig, trials: Sequence[Trial]) -> None:
    """Raises `ConfigError` for a setting that a sweep cannot honour, and names it.

    All runs of a sweep are one program without a host between its steps, so nothing may stop a run, change its length
    or its input size, or happen between its epochs.
    """
    refused = {
        "minutes": "the runs of a sweep have one length",
        "patience": "the runs of a sweep have one length",
        "select": "a sweep measures the final parameters only",
        "select_by": "Sweep.best takes the number",
        "validate_raw": "a sweep measures the averages only",
        "init": "a sweep starts from fresh parameters",
    }
    for name, value in changed_settings(config, refused):
        raise ConfigError(f"{name} = {value!r}: {refused[name]}; leave it out, or train by fit")
    for name, value in changed_settings(config, ("validate_every", "checkpoint_every")):
        if value != 0:
            raise ConfigError(f"{name} = {value!r}: a sweep measures at the end and saves nothing; give 0")
    if config.batch_size == "auto":
        raise ConfigError("batch_size = 'auto': a sweep needs a number")
    if config.model.multi_scale != 1:
        raise ConfigError(f"model.multi_scale = {config.model.multi_scale}: a sweep trains at one input size; give 1")
    if config.data.cache not in ("auto", "memory"):
        raise ConfigError(f"data.cache = {config.data.cache!r}: a sweep needs all images in memory; give auto")
    if not trials:
        raise ConfigError("a sweep needs at least one trial; see yolojax.training.sweep.grid")
    if config.data.fraction < 1 and len({trial.seed for trial in trials}) > 1:
        raise ConfigError(
            f"data.fraction = {config.data.fraction}: the seed of a run draws its images, and the trials have several "
            "seeds; give all trials one seed, or prepare a smaller data set"
        )


def _order(sampler: Sampler, seed: int, steps: int) -> Int[np.ndarray, "T B"]:
    return np.stack([sampler(seed, step) for step in range(steps)]).astype(np.int32)


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Returns trees of equal shapes as one tree whose leaves have a first axis over them."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


class GroupRunner:
    """Trains groups of equally many runs to their end by one compiled program, a few steps at a call.

    ``compile_seconds`` is the time of the one compilation.
    """

    def __init__(self, train: Train, strategy: Strategy, images: InputImages) -> None:
        self.compile_seconds = 0.0
        self._function, self._program = over_runs(train, strategy), None
        self._runs, shared = None, None
        if strategy == "devices":
            mesh = _run_mesh()
            self._runs, shared = NamedSharding(mesh, PartitionSpec("run")), NamedSharding(mesh, PartitionSpec())
        if not isinstance(images, ImageCache):
            raise ConfigError("a sweep needs all images in memory")
        self._shared = jax.device_put((images.images, images.targets), shared)

    def __call__(self, group: Group, progress: Callable[[int], None]) -> tuple[TrainState, Float[np.ndarray, "R T"]]:
        """Returns the final states, stacked, and the loss of every step; ``progress`` gets the number of steps done."""
        state, key, hyper = jax.device_put((group.state, group.key, group.hyper), self._runs)
        steps = group.order.shape[1]
        chunk = steps_at_once(steps)
        losses, pending = [], None
        for start in range(0, steps, chunk):
            order = jax.device_put(group.order[:, start : start + chunk], self._runs)
            if self._program is None:
                clock = time.monotonic()
                self._program = self._function.lower(state, *self._shared, order, key, hyper).compile()
                self.compile_seconds = time.monotonic() - clock
            state, found = self._program(state, *self._shared, order, key, hyper)
            if pending is not None:  # read while the next steps compute
                losses.append(np.asarray(pending))
                progress(start)
            pending = found
        losses.append(np.asarray(pending))
        progress(steps)
        return state, np.concatenate(losses, axis=1)


def steps_at_once(steps: int) -> int:
    """Steps in one call of the program: one on a processor (see `make_train`), else the most up to 64 that divide."""
    if jax.default_backend() == "cpu":
        return 1
    return next(n for n in range(min(64, steps), 0, -1) if steps % n == 0)
