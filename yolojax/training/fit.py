"""Training a detector, from top to bottom: prepare, then for each epoch, for each step, then release."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from yolojax.config import TrainConfig, check
from yolojax.detector import Detector, Variables
from yolojax.eval.coco import CocoResult
from yolojax.inference.evaluate import images_a_batch
from yolojax.paths import user_path
from yolojax.progress import Quiet, Reporter
from yolojax.sharding.processes import is_first
from yolojax.training.callbacks import Callback, EvaluationReport, Pictures, check_callbacks, reads_state
from yolojax.training.data import GivenData, load_input_images
from yolojax.training.initialise import Weights, load_init, start_from
from yolojax.training.preparation import Preparation, prepare
from yolojax.training.programs import example_batch
from yolojax.training.run_directory import RunDirectory, check_same_given, describe_given, hold_run, resumed_config
from yolojax.training.run_state import RunState, restore_run
from yolojax.training.step import HyperAt
from yolojax.training.trainer import Trainer, steps_per_epoch


class Run(NamedTuple):
    """A finished run.

    Attributes:
      folder: its directory.
      detector: what was trained.
      variables: those that were released.
      result: their evaluation on the validation images; None where there are none.
      seconds: of ``prepare`` (data and detector), ``train`` (steps, compilation included), ``validate``, and
        ``until_weights``, from the call of `fit` to the final weights on disk.
      programs: how many training programs were compiled; one is what a run should need.
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
    data: GivenData | None = None,
    detector: Detector | None = None,
    callbacks: Sequence[Callback] = (),
    hyper: HyperAt | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Trains a detector and leaves a run directory that explains itself.

        fit(TrainConfig(data=DataConfig(path="path/to/data"), epochs=20), "runs/first")

    Args:
      config: the whole run; see `TrainConfig`.
      out: the run directory, made by this call, or an existing one with ``resume``.
      data: a data set to train on, or a pair of one to train on and one to validate on (or None), in place of
        ``config.data.path``.
      detector: a record of your own, or an edited one of the zoo's, in place of ``config.model``.
      callbacks: plain functions that are told of every step, epoch and the end; see `yolojax.training.callbacks`.
      hyper: changes the hyper-parameters with the step, ``(hyper, step, total_steps) -> hyper``, inside the compiled
        step; see `yolojax.training.step.HyperAt`.
      resume: go on from the newest whole checkpoint in ``out``; the continuation equals an uninterrupted run. What was
        given as ``data``, ``detector`` or ``hyper`` must be given again.
      reporter: where progress goes.

    Raises:
      ConfigError, DataError, CheckpointError: wrong settings, data or files, named.
      NonFiniteError: the loss or its gradient stopped being finite.
      WriteError: the disk refuses.
      Terminated, KeyboardInterrupt: SIGTERM or Ctrl-C arrived while training; a checkpoint was saved first.
    """
    started = time.monotonic()
    config, out, callbacks = check(config), user_path(out), check_callbacks(callbacks)
    # Of several processes the first writes and speaks; the others only compute.
    reporter = reporter if reporter is not None and is_first() else Quiet()
    with contextlib.ExitStack() as held:
        if resume:
            held.enter_context(hold_run(out, is_first()))
            config = resumed_config(out, config, data=data, detector=detector, hyper=hyper)
        elif is_first():
            RunDirectory.check_free(out)
        # Weights that cannot be read are found before the data are read.
        weights = load_init(config.init) if config.init is not None and not resume else None

        callbacks = (EvaluationReport(reporter), Pictures(), *callbacks)
        keep = reads_state(callbacks)
        run = prepare(config, reporter, data=data, detector=detector, hyper_at=hyper, keep_states=keep)
        given = describe_given(run.data if data is not None else None, detector, hyper)
        if resume:
            check_same_given(out, given)
        trainer = open_trainer(
            run, out, given, weights, resume=resume, callbacks=callbacks, reporter=reporter, started=started
        )
        if not resume:
            held.enter_context(hold_run(out, is_first()))
        with trainer:
            for epoch in trainer.epochs():
                for done in trainer.steps(epoch):
                    trainer.record(done)
                trainer.stop_if_asked()
                trainer.end_epoch(epoch)
        variables, evaluation = trainer.finish()
    result = evaluation.result if evaluation is not None else None
    return Run(out, run.detector, variables, result, trainer.seconds, run.step.count)


def open_trainer(
    run: Preparation,
    out: Path,
    given: dict[str, Any],
    weights: Weights | None,
    *,
    resume: bool,
    callbacks: Sequence[Callback],
    reporter: Reporter,
    started: float,
) -> Trainer:
    """Returns the trainer of a run that begins, or that goes on from its newest checkpoint.

    A run that begins starts from ``weights``, those of ``config.init``, or from random variables where it names none.
    That step and detection can be traced is checked before the run directory is made.
    """
    config, total_steps = run.config, run.config.epochs * steps_per_epoch(run)
    val_images = None
    if run.data.val is not None:
        val_images = load_input_images(run.data.val, run.detector.spec, config, run.devices, reporter, training=False)
    run_state = RunState.start(run.data)
    state = restore_run(out, lambda: run.fresh(total_steps=total_steps), run_state, reporter) if resume else None
    if state is not None:
        run_state.drop_stale_best(out, config.select)
        directory = RunDirectory.reopen(out, int(state.step), writes=is_first())
        reporter.say(f"resuming {out} after step {int(state.step)} of {int(state.total_steps)}")
    else:
        shapes = jax.eval_shape(lambda: run.fresh(total_steps=total_steps))
        run.step.check(shapes, example_batch(run.images), config, run.detector, run.hyper)
        if val_images is not None:
            run.detect_batch.trace(shapes.ema, images_a_batch(config.validation.batch_size, run.devices.split))
        state = run.fresh(total_steps=total_steps)
        if config.init is not None:
            weights = weights or load_init(config.init)
            state = start_from(weights, str(config.init), state, run, reporter)
        if resume:
            directory = RunDirectory.reopen(out, 0, writes=is_first())
        else:
            directory = RunDirectory.create(out, config, given, writes=is_first())
    return Trainer(
        run,
        directory,
        state,
        run_state,
        val_images=val_images,
        callbacks=callbacks,
        reporter=reporter,
        given=given,
        started=started,
    )
