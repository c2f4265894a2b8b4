"""Training, from top to bottom: data, detector, program (`prepare`), state, loop, release."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from yolojax.config import TrainConfig, check, to_json
from yolojax.data import prefetch
from yolojax.detector import Detector, Variables
from yolojax.eval.coco import CocoResult
from yolojax.eval.files import write_json
from yolojax.inference.evaluate import Evaluation, evaluate_images, make_detect_batch
from yolojax.inference.predict import load_detector
from yolojax.sharding.processes import any_process, first_of, is_first, replicate, wait_for_all
from yolojax.training import plots
from yolojax.training.best import FOLDERS, is_released, note_improvements, out_of_patience, validation_columns
from yolojax.training.budget import CHECK_EVERY, Clock, steps_that_fit
from yolojax.training.callbacks import Callback, Event, EventKind
from yolojax.training.checkpoint import save_checkpoint
from yolojax.training.feeding import device_batches
from yolojax.training.initialise import lacks_statistics, load_init, take_matching, with_measured_statistics
from yolojax.training.inputs import lay_out_images
from yolojax.training.log import EpochLog, checked, epoch_line, validation_note
from yolojax.training.optimiser import schedule_at
from yolojax.training.preparation import prepare
from yolojax.training.programs import device_memory
from yolojax.training.progress import Quiet, Reporter
from yolojax.training.release import release
from yolojax.training.report import write_evaluation_report
from yolojax.training.run_directory import RunDirectory
from yolojax.training.run_state import forget_lost_best, settings_of, start_course, take_up
from yolojax.training.state import TrainState, wrap_variables
from yolojax.training.step import StepReport, augmentation_key
from yolojax.training.stop import StopSignal


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


def fit(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train a detector and leave a run directory that explains itself.

    Args:
      config: the whole run; see `TrainConfig`.
      out: the run directory, made by this call, or an existing one with ``resume``.
      resume: go on from the newest whole checkpoint in ``out``; the continuation equals an uninterrupted run.
      reporter: where progress goes.
      callbacks: plain functions that are told of every step, epoch and the end; see `Event`.

    Raises:
      ConfigError, DataError, CheckpointError: wrong settings, data or files, named.
      NonFiniteError: the loss or its gradient stopped being finite.
      Terminated, KeyboardInterrupt: SIGTERM or Ctrl-C arrived while training; a checkpoint was saved first.
    """
    started = time.monotonic()
    config, out = check(config), Path(out)
    # Of several processes the first writes and speaks; the others only compute.
    first, reporter = is_first(), (reporter if reporter is not None and is_first() else Quiet())
    if resume:
        config = settings_of(out, config)
    elif first:
        RunDirectory.check_free(out)
    start_from = load_init(config.init) if config.init is not None and not resume else None

    # Data, detector, program.
    ready = prepare(config, reporter)
    config, detector, devices, train_step, hyper = ready.config, ready.detector, ready.devices, ready.step, ready.hyper
    train_set, val_set, train_images = ready.train_set, ready.val_set, ready.images
    sampler, fresh = ready.sampler, ready.fresh
    val_images = lay_out_images(val_set, detector.spec, reporter) if val_set is not None else None
    detect_batch = make_detect_batch(detector, config.validation.max_detections, devices.split)

    # State: from a checkpoint, from given parameters, or fresh.
    steps_per_epoch = max(1, round(len(train_images) / ready.batch_size))
    planned = config.epochs * steps_per_epoch
    course = start_course(train_set, val_set)
    taken_up = take_up(out, lambda: fresh(total_steps=planned), course, reporter) if resume else None
    if taken_up is not None:
        state, course = taken_up[0], forget_lost_best(out, taken_up[1], config.select)
        run = RunDirectory.reopen(out, int(state.step), writes=first)
        reporter.say(f"resuming {out} after step {int(state.step)} of {int(state.total_steps)}")
    else:
        shapes = jax.eval_shape(lambda: fresh(total_steps=planned))
        train_step.check(shapes, train_images.batch(np.zeros(1, np.int64)), config, hyper)
        state = fresh(total_steps=planned)
        if config.init is not None:
            given, given_spec = start_from or load_init(config.init)
            variables, summary = take_matching(state.variables, given, config.init, detector.spec, given_spec)
            reporter.say(summary)
            if lacks_statistics(given):
                variables, summary = with_measured_statistics(
                    detector, variables, train_images, config.seed, config.freeze
                )
                reporter.say(summary)
            state = wrap_variables(variables, config.optimiser, planned)
        run = RunDirectory.reopen(out, 0, writes=first) if resume else RunDirectory.create(out, to_json(config), first)
        if first:
            shown = ready.plain if config.augment.close_mosaic == 1 else ready.augmentation
            key = augmentation_key(ready.step_seed, 0)
            plots.save_inputs(run.folder, train_images, shown, key, sampler(config.seed, 0))
    state, hyper = replicate((state, hyper), devices.replicated)

    # Loop: the host runs one step ahead of the device and reads each report while the next step computes.
    step, total_steps = int(state.step), int(state.total_steps)
    first_step, first_total, ending, last_validation = step, total_steps, False, 0.0
    clock, trained_before = Clock(course.spent_seconds), course.train_seconds
    seconds = {"prepare": time.monotonic() - started, "validate": 0.0}
    top_rate = float(hyper.learning_rate)
    learning_rate = jax.jit(lambda step, total: schedule_at(config.optimiser, step, total) * top_rate)
    release_it = partial(release, detector=detector, config=config, train_set=train_set, val_set=val_set)
    measure = partial(
        evaluate_images,
        detect_batch,
        detector,
        validation=config.validation,
        reporter=reporter,
        split=devices.split,
    )
    pending: tuple[int, np.ndarray, StepReport] | None = None
    measured: tuple[int, Evaluation] | None = None

    def tick() -> None:  # the time since the last tick went into training
        elapsed = clock.lap()
        course.log.elapsed += elapsed
        course.log.programs = max(course.log.programs, train_step.count)
        course.train_seconds += elapsed

    def end_at(total: int) -> TrainState:
        return state._replace(total_steps=jax.device_put(np.int32(total), devices.replicated))

    def publish(folder: Path, *, variables: Variables, row: dict[str, Any]) -> None:
        if first:
            release_it(folder, variables=variables, row=row)
        wait_for_all("release")

    def save() -> None:
        course.spent_seconds = clock.spent
        if first:
            save_checkpoint(run.folder / "checkpoints", step, state, course.facts())
        wait_for_all("checkpoint")

    def must_stop() -> bool:  # all processes at the same step
        ask = jax.process_count() == 1 or step % CHECK_EVERY == 0
        return ask and any_process(stop.requested)

    def tell(kind: EventKind, row: dict[str, Any]) -> bool:
        event = Event(kind, run.folder, step, total_steps, row, state)
        answers = [callback(event) for callback in callbacks]
        return any(answers)

    batches = prefetch(
        device_batches(
            train_images,
            sampler,
            config.seed,
            ready.batch_size,
            devices.split,
            first_step=step,
            resize=ready.resize,
        )
    )
    with reporter.task("training", total_steps) as advance, closing(batches), StopSignal() as stop:
        while True:
            boundary = step % steps_per_epoch == 0
            if config.minutes is not None and step > first_step and (boundary or step % CHECK_EVERY == 0):
                tick()
                pace = (course.train_seconds - trained_before - train_step.seconds) / (step - first_step)
                left = config.minutes * 60 - clock.spent - last_validation
                total_steps = int(first_of(float(steps_that_fit(step, planned, left, pace))))
                state = end_at(total_steps)
            boundary |= step == total_steps
            stopping = must_stop()
            if pending is not None and (boundary or stopping):
                ending |= tell("step", course.log.add(checked(*pending, train_images)))
                pending = None
            if stopping:
                tick()
                save()
                raise stop.exception()

            if boundary and course.log.steps:  # the end of an epoch
                tick()
                epoch, last = -(-step // steps_per_epoch), step == total_steps
                row = {"epoch": epoch, "step": step, "seconds": round(course.train_seconds, 2)}
                row |= {"learning_rate": float(learning_rate(step - 1, total_steps))}
                row |= course.log.row(config.model.multi_scale)
                if (memory := device_memory()) is not None:
                    row["device_memory"] = memory
                if last and config.select == "last":  # the weights are safe before anything is measured
                    publish(run.folder / FOLDERS["ema"], variables=state.ema, row=row)
                    seconds["until_weights"] = time.monotonic() - started
                if val_images is not None and (last or every(epoch, config.validate_every)):
                    kinds = {"ema": state.ema} | ({"raw": state.variables} if config.validate_raw else {})
                    try:
                        # One of several processes that stopped at once would leave the others waiting.
                        with stop.at_once() if jax.process_count() == 1 else nullcontext():
                            found = {kind: measure(variables, val_images) for kind, variables in kinds.items()}
                    except KeyboardInterrupt:
                        if stop.requested:
                            continue  # to save what there was before it
                        raise
                    measured, last_validation = (step, found["ema"]), clock.lap()
                    seconds["validate"] += last_validation
                    row |= validation_columns(found, config.select_by)
                    for kind in note_improvements(course.best, found, config.select_by, epoch, step):
                        if kind == "raw" or config.select == "best":
                            publish(run.folder / FOLDERS[kind], variables=kinds[kind], row=row)
                    if out_of_patience(course.best, config.patience, epoch):
                        ending = True
                        best = course.best["ema"]
                        reporter.say(f"no better {config.select_by} since epoch {best.epoch} ({best.value}): stopping")
                run.add(row)
                if tell("epoch", row) or ending:
                    last, total_steps, state = True, step, end_at(step)
                note = course.log.note() + validation_note(row)
                course.log = EpochLog()
                # The last checkpoint comes after all else: whoever resumes from it finds the run complete.
                if last or every(epoch, config.checkpoint_every):
                    save()
                reporter.say(epoch_line(row, config.epochs))
                advance(first_total if last else step, note)
                clock.lap()
            if step >= total_steps:
                break

            waited = time.monotonic()
            ids, batch = next(batches)
            course.log.waiting += time.monotonic() - waited
            state, report = train_step(state, batch, hyper)
            if pending is not None:
                ending |= tell("step", course.log.add(checked(*pending, train_images)))
            pending = (step, ids, report)
            step += 1
            if step % 4 == 0:
                advance(min(step, first_total), course.log.note())

    # Release: the parameters that were chosen, their evaluation, and pictures.
    variables = state.ema
    if config.select == "best" and val_images is not None and is_released(out / FOLDERS["ema"], course.best.get("ema")):
        variables = replicate(load_detector(out)[1], devices.replicated)
        measured = measured if measured is not None and measured[0] == course.best["ema"].step else None
    else:
        publish(run.folder / FOLDERS["ema"], variables=variables, row=run.last_row)
        measured = measured if measured is not None and measured[0] == step else None
    seconds.setdefault("until_weights", time.monotonic() - started)
    result = None
    if val_images is not None:
        result = measured[1] if measured is not None else measure(variables, val_images)
        if first:
            write_json(run.folder / "detections.json", result.detections)
            origin = {
                "model": config.model.name,
                "seed": str(config.seed),
                "settings": "config.json beside this folder",
            }
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
    if first:
        plots.save_curves(run.folder / "results.png", run.rows)
    wait_for_all("end")
    seconds["train"] = course.train_seconds
    reporter.say(f"{train_step.summary(config.model.multi_scale)}; {seconds['train']:.0f} s of training")
    tell("end", run.last_row)
    return Run(run.folder, detector, variables, result.result if result else None, seconds, train_step.count)


def every(epoch: int, period: int) -> bool:
    """Whether something done every ``period`` epochs (0: never) is due after this one."""
    return period > 0 and epoch % period == 0
