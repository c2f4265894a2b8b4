"""Training, from top to bottom: data, detector, devices, program, loop, release."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import yolojax
from yolojax import zoo
from yolojax.augment import Augmentation, compose, mosaic, random_affine, random_flip, random_hsv
from yolojax.config import AugmentConfig, TrainConfig, check, to_json
from yolojax.data import CanvasCache, Dataset, build_cache, sample_indices
from yolojax.detector import Detector, Variables
from yolojax.errors import ConfigError, DataError, NonFiniteError
from yolojax.eval.coco import CocoResult
from yolojax.eval.files import write_json, write_metrics
from yolojax.geometry import fit_to_canvas
from yolojax.structures import Batch, Hyper, hyper_as_arrays
from yolojax.training import plots
from yolojax.training.checkpoint import restore_newest, save_checkpoint
from yolojax.training.evaluation import Evaluation, evaluate_cache, make_detect_batch
from yolojax.training.optimiser import make_schedule
from yolojax.training.progress import Quiet, Reporter
from yolojax.training.rundir import RunDirectory
from yolojax.training.splits import open_splits
from yolojax.training.start import start_from
from yolojax.training.state import TrainState, make_state
from yolojax.training.step import StepReport, make_train_step
from yolojax.weights.released import save_released


class Run(NamedTuple):
    """A finished run: its directory, the released detector, and its evaluation on the validation images."""

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
      NonFiniteError: the loss or its gradient stopped being finite; the last finite state is in the checkpoints.
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
    train_cache = make_cache(train_set, detector, config.data.max_objects, bool(config.augment.mosaic), reporter)
    val_cache = make_cache(val_set, detector, None, False, reporter) if val_set is not None else None

    # Devices: one program over all of them; the state is replicated, a batch is split.
    devices = jax.devices()
    if config.batch_size % len(devices):
        raise ConfigError(f"batch_size = {config.batch_size}: give a multiple of the {len(devices)} devices")
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,))
    replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))

    # Program: one compiled step for the whole run.
    steps_per_epoch = max(1, round(len(train_cache) / config.batch_size))
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
        plain_from=round(total_steps * (1 - config.augment.mosaic_off)) if config.augment.mosaic else None,
        plain_augmentation=plain if config.augment.mosaic else None,
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
    facts: dict[str, Any] = {"best_AP": None, "seconds": 0.0}
    if resume:
        state, facts, passed_over = restore_newest(out / "checkpoints", jax.eval_shape(fresh))
        for line in passed_over:
            reporter.say(f"passed over a damaged checkpoint: {line}")
        run = RunDirectory.reopen(out, int(state.step))
        reporter.say(f"resuming {out} after step {int(state.step)} of {total_steps}")
    else:
        run = RunDirectory.create(out, to_json(config))
        state = fresh()
        if config.init is not None:
            state, remarks = start_from(Path(config.init), state, config.optimiser, total_steps)
            for line in remarks:
                reporter.say(line)
        save_inputs(run.folder, config, with_mosaic, train_cache, detector, seed)
    state = jax.device_put(state, replicated)

    # Loop: the host runs one step ahead of the device and reads each report while the next step computes.
    log = EpochLog()
    seconds = Counter(train=float(facts["seconds"]), prepare=time.monotonic() - started)
    step = int(state.step)
    schedule = make_schedule(config.optimiser, total_steps)
    best: float | None = facts["best_AP"]
    result: Evaluation | None = None

    def save(state: TrainState) -> None:
        save_checkpoint(
            run.folder / "checkpoints", int(state.step), state, {"best_AP": best, "seconds": seconds["train"]}
        )

    with reporter.task("training", total_steps) as advance:
        pending: tuple[int, Batch, StepReport] | None = None
        clock = time.monotonic()
        while step < total_steps:
            waited = time.monotonic()
            batch = train_cache.batch(sample_indices(config.seed, step, config.batch_size, len(train_cache)))
            log.waiting += time.monotonic() - waited
            state, report = train_step(state, batch, hyper)
            if pending is not None:
                log.add(*checked(*pending, train_cache))
            pending = (step, batch, report)
            step += 1
            if step % steps_per_epoch and step != total_steps:
                if step % 4 == 0:
                    advance(step, log.note())
                continue

            log.add(*checked(*pending, train_cache))
            pending = None
            epoch = step // steps_per_epoch
            seconds["train"] += time.monotonic() - clock
            row = {"epoch": epoch, "step": step, "seconds": round(seconds["train"], 2)}
            row |= {"learning_rate": float(schedule(step - 1) * hyper.learning_rate)}
            row |= log.row(time.monotonic() - clock)
            last = step == total_steps
            if val_cache is not None and (last or every(epoch, config.validate_every)):
                mark = time.monotonic()
                result = evaluate_cache(detect, detector, state.ema, val_cache, config.validation, reporter)
                seconds["validate"] += time.monotonic() - mark
                row |= {f"val/{name}": getattr(result.result, name) for name in VALIDATION_COLUMNS}
                score = result.result.AP
                if config.select == "last" or score is None or best is None or score > best:
                    best = score
                    release(run.folder / "best", detector, state.ema, config, row, train_set, val_set)
            advance(step, log.note() + validation_note(row))
            log = EpochLog()
            run.add(row)
            if last or every(epoch, config.checkpoint_every):
                save(state)
            clock = time.monotonic()

    # Release: the EMA parameters, their evaluation, and pictures.
    jax.block_until_ready(state.step)
    if val_cache is None:
        release(run.folder / "best", detector, state.ema, config, {"step": step}, train_set, None)
    variables = state.ema
    if config.select == "best" and val_cache is not None:
        from yolojax.predict import load_detector

        _, variables = load_detector(run.folder / "best")
        result = evaluate_cache(detect, detector, variables, val_cache, config.validation, reporter)
    plots.save_curves(run.folder / "results.png", run.rows)
    if result is None and val_cache is not None:  # resumed after the last step
        result = evaluate_cache(detect, detector, variables, val_cache, config.validation, reporter)
    if result is not None and val_cache is not None:
        write_json(run.folder / "detections.json", result.detections)
        write_metrics(run.folder / "report" / "metrics.json", result.result)
        plots.save_predictions(run.folder / "val_predictions.png", val_cache.dataset, result.detections)
    reporter.say(
        f"{programs['train']} training program compiled, {max(programs['train'] - 1, 0)} recompilations; "
        f"{seconds['train']:.0f} s of training"
    )
    return Run(run.folder, detector, variables, result.result if result else None, dict(seconds), programs["train"])


VALIDATION_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "precision", "recall")


def every(epoch: int, period: int) -> bool:
    """Whether something done every ``period`` epochs (0: never) is due after this one."""
    return period > 0 and epoch % period == 0


def choose_canvas(config: TrainConfig, dataset: Dataset) -> tuple[int, int]:
    """``(height, width)``: a square of the configured size, shortened where all training images share an aspect ratio.

    The short side is rounded up to a multiple of 32, so that nothing of a photo is lost.
    """
    size = config.model.size
    if size % 32:
        raise ConfigError(f"model.size = {size}: give a multiple of 32, the largest stride")
    ratios = {round(r.size[0] / r.size[1], 2) for r in dataset.records}
    if not config.model.rectangular or len(ratios) != 1:
        return size, size
    (ratio,) = ratios
    short = min(size, 32 * max(1, -(-round(size * min(ratio, 1 / ratio)) // 32)))
    return (short, size) if ratio < 1 else (size, short)


def box_sizes_on_canvas(dataset: Dataset, canvas: tuple[int, int]) -> np.ndarray:
    """Widths and heights ``[n, 2]`` of all objects in canvas pixels."""
    from yolojax.geometry import Preprocess

    sizes = [np.zeros((0, 2), np.float32)]
    for record in dataset.records:
        placement = fit_to_canvas(record.size, canvas, Preprocess())
        scale = np.array([placement.width / record.size[1], placement.height / record.size[0]], np.float32)
        sizes.append((record.boxes[:, 2:] - record.boxes[:, :2])[~record.crowd] * scale)
    return np.concatenate(sizes)


def make_cache(dataset: Dataset, detector: Detector, cap: int | None, mosaic: bool, reporter: Reporter) -> CanvasCache:
    """All images on their canvases; a mosaic of four is given room for twice the objects of the fullest image."""
    from yolojax.data import padded_objects

    padding = padded_objects(dataset)
    padding = min(cap, 2 * padding if mosaic else padding) if cap is not None else (2 * padding if mosaic else padding)
    with reporter.task("reading images", len(dataset)) as advance:
        cache = build_cache(
            dataset,
            detector.spec.canvas,
            detector.spec.preprocess,
            max_objects=padding,
            progress=lambda done, _: advance(done),
        )
    if dropped := int(cache.targets.dropped.sum()):
        reporter.say(f"{dropped} objects did not fit the padding of {padding}; raise data.max_objects to keep them")
    return cache


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


def make_augmentations(config: AugmentConfig) -> tuple[Augmentation, Augmentation]:
    """What most of the run trains with, and the same without mosaic; only what is turned on is compiled."""
    plain: list[Augmentation] = []
    if config.flip_horizontal:
        plain.append(random_flip(config.flip_horizontal))
    if config.flip_vertical:
        plain.append(random_flip(config.flip_vertical, vertical=True))
    if config.translate or (config.scale_min, config.scale_max) != (1.0, 1.0):
        plain.append(random_affine(scale=(config.scale_min, config.scale_max), translate=config.translate))
    if config.hue or config.saturation or config.value:
        plain.append(random_hsv(config.hue, config.saturation, config.value))
    full = [mosaic(config.mosaic), *plain] if config.mosaic else plain
    return compose(full), compose(plain)


class EpochLog:
    """Sums over the steps of one epoch."""

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.waiting = 0.0
        self.sums: Counter[str] = Counter()

    def add(self, report: StepReport, dropped: int) -> None:
        self.steps += 1
        self.images += report.image_loss.shape[0]
        self.sums["loss"] += float(report.loss)
        self.sums["gradient_norm"] += float(report.gradient_norm)
        for name, value in report.parts.items():
            self.sums[name] += float(value)
        for name, value in report.counts.items():
            self.sums[f"count/{name}"] += float(value)
        self.sums["count/dropped"] += dropped

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


def checked(step: int, batch: Batch, report: StepReport, cache: CanvasCache) -> tuple[StepReport, int]:
    """The report on the host; raises `NonFiniteError` naming step, parts and images when it is not finite."""
    report = jax.device_get(report)
    if bool(report.finite):
        return report, int(batch.targets.dropped.sum())
    parts = [f"{name} = {float(value)}" for name, value in report.parts.items() if not np.isfinite(value)]
    culprits = np.flatnonzero(~np.isfinite(report.image_loss))
    names = {r.image_id: r.file_name for r in cache.dataset.records}
    images = [names[int(batch.image_id[i])] for i in culprits]
    where = f"in {', '.join(parts)} of {', '.join(images)}" if images else "in the gradient, while the loss is finite"
    raise NonFiniteError(
        f"step {step}: not finite {where}; the state before this step is kept: lower optimiser.learning_rate or "
        "optimiser.clip_norm and resume from the last checkpoint"
    )


def validation_note(row: dict[str, Any]) -> str:
    ap, ap50 = row.get("val/AP"), row.get("val/AP50")
    return f", AP {ap:.3f}, AP50 {ap50:.3f}" if ap is not None and ap50 is not None else ""


def release(
    folder: Path,
    detector: Detector,
    variables: Variables,
    config: TrainConfig,
    row: dict[str, Any],
    train_set: Dataset,
    val_set: Dataset | None,
) -> None:
    """Write the detector so that it describes itself: architecture, classes, canvas, data, versions, numbers."""
    description = {
        "detector": zoo.describe(detector.spec),
        "training": {
            "config": to_json(config),
            "step": row["step"],
            "validation": {k: v for k, v in row.items() if k.startswith("val/")},
            "train_fingerprint": train_set.fingerprint(),
            "val_fingerprint": val_set.fingerprint() if val_set is not None else None,
        },
        "versions": {"yolojax": yolojax.__version__, "jax": jax.__version__},
    }
    save_released(folder, jax.device_get(variables), description)


def save_inputs(
    folder: Path,
    config: TrainConfig,
    augmentation: Augmentation,
    cache: CanvasCache,
    detector: Detector,
    seed: jax.Array,
) -> None:
    """``labels.png`` and the first training batch as the network will see it."""
    from yolojax.data.check import save_label_histogram

    save_label_histogram(folder / "labels.png", cache.dataset)
    batch = cache.batch(sample_indices(config.seed, 0, min(16, config.batch_size), len(cache)))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(seed, 1), 0), 0)
    images, targets = jax.jit(augmentation)(key, jnp.asarray(batch.images), jax.tree.map(jnp.asarray, batch.targets))
    plots.save_batch(
        folder / "train_batch0.png", np.asarray(images), jax.device_get(targets), detector.spec.class_names
    )
