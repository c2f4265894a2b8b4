"""Training, from top to bottom: data, detector, devices, program, loop, release."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from yolojax import zoo
from yolojax.augment import Augmentation
from yolojax.config import TrainConfig, check, from_dict, to_json
from yolojax.data import Canvases, prefetch, sample_indices, training_batches
from yolojax.data.check import check_dataset, plot_labels
from yolojax.detector import Detector, Variables
from yolojax.errors import ConfigError, DataError
from yolojax.eval.coco import CocoResult
from yolojax.eval.files import write_json
from yolojax.structures import Batch, Hyper, hyper_as_arrays
from yolojax.training import plots
from yolojax.training.augmentation import make_augmentations, mixes_images, room_for_objects
from yolojax.training.checkpoint import restore_newest, save_checkpoint
from yolojax.training.evaluation import Evaluation, evaluate_canvases, make_detect_batch
from yolojax.training.inputs import box_sizes_on_canvas, choose_canvas, lay_out_images
from yolojax.training.log import EpochLog, checked, validation_note
from yolojax.training.optimiser import make_schedule
from yolojax.training.progress import Quiet, Reporter
from yolojax.training.release import release
from yolojax.training.report import write_evaluation_report
from yolojax.training.rundir import RunDirectory, read_config
from yolojax.training.splits import open_splits
from yolojax.training.start import start_from
from yolojax.training.state import TrainState, make_state
from yolojax.training.step import StepReport, make_train_step


class Run(NamedTuple):
    """A finished run: its directory, the released detector, and its evaluation on the validation images.

    ``seconds``: ``prepare`` (data and detector), ``train`` (steps, compilation included), ``validate``, and
    ``until_weights``, from the call of `fit` to the final weights on disk. ``programs`` counts the training programs
    that were compiled; one is what a run should need.
    """

    folder: Path
    detector: Detector
    variables: Variables
    result: CocoResult | None
    seconds: dict[str, float]
    programs: int


def fit(config: TrainConfig, out: str | Path, *, resume: bool = False, reporter: Reporter | None = None) -> Run:
    """Train a detector and leave a run directory that explains itself.

    Args:
      config: the whole run; see `TrainConfig`.
      out: the run directory, made by this call, or an existing one with ``resume``.
      resume: go on from the newest whole checkpoint in ``out``; the continuation equals an uninterrupted run.
      reporter: where progress goes.

    Raises:
      ConfigError, DataError, CheckpointError: wrong settings, data or files, named.
      NonFiniteError: the loss or its gradient stopped being finite.
    """
    started = time.monotonic()
    config, out, reporter = check(config), Path(out), reporter or Quiet()

    # Data: read, checked, letterboxed once into memory.
    train_set, val_set = open_splits(config.data)
    for dataset in (train_set, val_set):
        if dataset is not None and dataset.summary.findings:
            reporter.say(f"{dataset.split or 'data'}: {dataset.summary.text(limit=3)}")
    if not train_set.object_count:
        raise DataError("the training images hold no object at all; there is nothing to learn from")

    # Detector: canvas and, where there are anchors, their sizes come from the training images.
    canvas = choose_canvas(config, train_set)
    detector = zoo.build(
        config.model.name,
        train_set.class_names,
        canvas,
        dtype=config.compute,
        box_sizes=box_sizes_on_canvas(train_set, canvas),
        **config.model.options,
    )
    train_images = lay_out_images(
        train_set, detector.spec, reporter, cap=config.data.max_objects, room=room_for_objects(config.augment)
    )
    val_images = lay_out_images(val_set, detector.spec, reporter) if val_set is not None else None

    # Devices: one program over all of them; the state is replicated, a batch is split.
    devices = jax.devices()
    if config.batch_size % len(devices):
        raise ConfigError(f"batch_size = {config.batch_size}: give a multiple of the {len(devices)} devices")
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,))
    replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))

    # Program: one compiled step for the whole run.
    steps_per_epoch = max(1, round(len(train_images) / config.batch_size))
    total_steps = config.epochs * steps_per_epoch
    seed = jax.random.key(config.seed)
    hyper = make_hyper(config, detector)
    with_mosaic, plain = make_augmentations(config.augment)
    programs = Counter()
    step_function = make_train_step(
        detector,
        config.optimiser,
        total_steps,
        with_mosaic,
        jax.random.fold_in(seed, 1),
        plain_from=round(total_steps * (1 - config.augment.mosaic_off)) if mixes_images(config.augment) else None,
        plain_augmentation=plain if mixes_images(config.augment) else None,
    )

    def traced_step(state: TrainState, batch: Batch, hyper: Hyper) -> tuple[TrainState, StepReport]:
        programs["train"] += 1  # runs at tracing only: every further count is a recompilation
        return step_function(state, batch, hyper)

    train_step = jax.jit(
        traced_step, donate_argnums=0, in_shardings=(replicated, split, replicated), out_shardings=replicated
    )
    detect = make_detect_batch(detector, config.validation.max_detections)

    # State: fresh, from given weights, or from a checkpoint.
    fresh = lambda: make_state(detector, config.optimiser, total_steps, jax.random.fold_in(seed, 0))  # noqa: E731
    facts: dict[str, Any] = {"best_AP": None, "seconds": 0.0, "data": train_set.fingerprint()}
    if resume:
        if to_json(from_dict(read_config(out))) != to_json(config):
            raise ConfigError(f"{out} was started with other settings than these; resume with its own config.json")
        state, facts, passed_over = restore_newest(out / "checkpoints", jax.eval_shape(fresh))
        for line in passed_over:
            reporter.say(f"passed over a damaged checkpoint: {line}")
        if facts["data"] != train_set.fingerprint():
            raise DataError(f"the training images or their objects have changed since {out} was started; start again")
        run = RunDirectory.reopen(out, int(state.step))
        reporter.say(f"resuming {out} after step {int(state.step)} of {total_steps}")
    else:
        state = fresh()
        if config.init is not None:
            state, remarks = start_from(Path(config.init), state, config.optimiser, total_steps)
            for line in remarks:
                reporter.say(line)
        run = RunDirectory.create(out, to_json(config))
        first = plain if config.augment.mosaic_off == 1 else with_mosaic
        save_inputs(run.folder, config, first, train_images, detector, seed)
    state = jax.device_put(state, replicated)

    # Loop: the host runs one step ahead of the device and reads each report while the next step computes.
    log = EpochLog()
    seconds = {"prepare": time.monotonic() - started, "train": float(facts["seconds"]), "validate": 0.0}
    step = int(state.step)
    schedule = make_schedule(config.optimiser, total_steps)
    best: float | None = facts["best_AP"]
    result: Evaluation | None = None

    def save(state: TrainState) -> None:
        save_checkpoint(
            run.folder / "checkpoints", int(state.step), state, {**facts, "best_AP": best, "seconds": seconds["train"]}
        )

    batches = prefetch(training_batches(train_images, config.seed, config.batch_size, first_step=step))
    with reporter.task("training", total_steps) as advance, closing(batches):
        pending: tuple[int, Batch, StepReport] | None = None
        clock = time.monotonic()
        while step < total_steps:
            waited = time.monotonic()
            batch = next(batches)
            log.waiting += time.monotonic() - waited
            state, report = train_step(state, batch, hyper)
            if pending is not None:
                log.add(checked(*pending, train_images))
            pending = (step, batch, report)
            step += 1
            if step % steps_per_epoch and step != total_steps:
                if step % 4 == 0:
                    advance(step, log.note())
                continue

            log.add(checked(*pending, train_images))
            pending = None
            epoch = step // steps_per_epoch
            seconds["train"] += time.monotonic() - clock
            row = {"epoch": epoch, "step": step, "seconds": round(seconds["train"], 2)}
            row |= {"learning_rate": float(jnp.asarray(schedule(step - 1)) * hyper.learning_rate)}
            row |= log.row(time.monotonic() - clock)
            last = step == total_steps
            if last:  # the weights are safe before anything is measured
                if config.select == "last" or val_images is None:
                    release(run.folder / "best", detector, state.ema, config, row, train_set, val_set)
                seconds["until_weights"] = time.monotonic() - started
            if val_images is not None and (last or every(epoch, config.validate_every)):
                mark = time.monotonic()
                result = evaluate_canvases(detect, detector, state.ema, val_images, config.validation, reporter)
                seconds["validate"] += time.monotonic() - mark
                row |= {f"val/{name}": getattr(result.result, name) for name in VALIDATION_COLUMNS}
                score = result.result.AP
                if best is None or (score is not None and score > best):
                    best = score
                    if config.select == "best":
                        release(run.folder / "best", detector, state.ema, config, row, train_set, val_set)
                if last and config.select == "last":
                    release(run.folder / "best", detector, state.ema, config, row, train_set, val_set)
            advance(step, log.note() + validation_note(row))
            log = EpochLog()
            run.add(row)
            # The last checkpoint comes after all else: whoever resumes from it finds the run complete.
            if last or every(epoch, config.checkpoint_every):
                save(state)
            clock = time.monotonic()

    # Release: the EMA parameters, their evaluation, and pictures.
    jax.block_until_ready(state.step)
    variables = state.ema
    if config.select == "best" and val_images is not None:
        from yolojax.predict import load_detector

        _, variables = load_detector(run.folder / "best")
        result = evaluate_canvases(detect, detector, variables, val_images, config.validation, reporter)
    plots.save_curves(run.folder / "results.png", run.rows)
    if result is None and val_images is not None:  # resumed after the last step
        result = evaluate_canvases(detect, detector, variables, val_images, config.validation, reporter)
    if result is not None and val_images is not None:
        write_json(run.folder / "detections.json", result.detections)
        origin = {"model": config.model.name, "seed": config.seed, "settings": "config.json beside this folder"}
        title = f"{run.folder.resolve().name}: validation images"
        write_evaluation_report(
            run.folder / "report",
            result,
            val_images.dataset,
            title=title,
            provenance=origin,
            samples=config.validation.samples,
            reporter=reporter,
        )
        plots.save_predictions(run.folder / "val_predictions.png", val_images.dataset, result.detections)
    reporter.say(
        f"{programs['train']} training program compiled, {max(programs['train'] - 1, 0)} recompilations; "
        f"{seconds['train']:.0f} s of training"
    )
    return Run(run.folder, detector, variables, result.result if result else None, seconds, programs["train"])


VALIDATION_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "precision", "recall")


def every(epoch: int, period: int) -> bool:
    """Whether something done every ``period`` epochs (0: never) is due after this one."""
    return period > 0 and epoch % period == 0


def make_hyper(config: TrainConfig, detector: Detector) -> Hyper:
    """Defaults, then what the detector wants, then the optimiser's, then what the user overrides."""
    unknown = sorted(set(config.hyper) - set(Hyper._fields))
    if unknown:
        raise ConfigError(f"unknown hyper-parameter hyper.{unknown[0]}: known are {', '.join(Hyper._fields)}")
    values = {
        **detector.spec.hyper,
        "learning_rate": config.optimiser.learning_rate,
        "weight_decay": config.optimiser.weight_decay,
        **config.hyper,
    }
    return hyper_as_arrays(Hyper()._replace(**values))


def save_inputs(
    folder: Path,
    config: TrainConfig,
    augmentation: Augmentation,
    canvases: Canvases,
    detector: Detector,
    seed: jax.Array,
) -> None:
    """``labels.png`` and the first training batch as the network will see it."""
    plot_labels(canvases.dataset, check_dataset(canvases.dataset, decode=False), folder / "labels.png")
    batch = canvases.batch(sample_indices(config.seed, 0, config.batch_size, len(canvases)))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(seed, 1), 0), 0)
    images, targets = jax.jit(augmentation)(key, jnp.asarray(batch.images), jax.tree.map(jnp.asarray, batch.targets))
    plots.save_batch(
        folder / "train_batch0.png", np.asarray(images), jax.device_get(targets), detector.spec.class_names
    )
