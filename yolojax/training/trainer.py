"""A training run under way: the steps of an epoch, and all that happens between steps and at the end of an epoch.

`yolojax.training.fit.fit` drives a `Trainer`; each of its methods does one thing and can be called by itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from yolojax.data import InputImages, device_batches, prefetch
from yolojax.detector import Detector, Variables, variable_shapes
from yolojax.errors import NonFiniteError
from yolojax.inference.evaluate import Evaluation, evaluate_images
from yolojax.paths import how_to_resume
from yolojax.progress import Reporter, Task
from yolojax.sharding.devices import device_memory
from yolojax.sharding.processes import any_process, first_of, is_first, replicate, wait_for_all
from yolojax.structures import Batch
from yolojax.training.budget import CHECK_EVERY, Clock, is_check_due, steps_that_fit
from yolojax.training.callbacks import Callback, Event, EventKind
from yolojax.training.checkpoint import save_checkpoint
from yolojax.training.log import EpochLog, checked, epoch_line, validation_note
from yolojax.training.optimiser import schedule_at
from yolojax.training.preparation import Preparation
from yolojax.training.run_directory import RunDirectory, release
from yolojax.training.run_state import FOLDERS, RunState, is_released, validation_columns
from yolojax.training.state import TrainState
from yolojax.training.step import StepReport, hyper_of_step
from yolojax.training.stop import StopSignal
from yolojax.weights.released import WEIGHTS, fit_tree, load_weights


class Started(NamedTuple):
    """A step that was handed to the devices, and the report that they will have computed.

    Attributes:
      step: index of the step, from 0.
      image_ids: of its batch.
      report: on the devices.
      state: after the step; None where the next step reuses its memory.
    """

    step: int
    image_ids: Int[np.ndarray, " B"]
    report: StepReport
    state: TrainState | None


class Trainer:
    """The state of a run and what is done with it.

    Use it as a context manager: within the block SIGTERM and Ctrl-C stop the run between two steps, batches are read
    ahead, and an error leaves a checkpoint.

    Args:
      run: data, detector and program.
      directory: where the log, checkpoints and released detectors go.
      state: the arrays to go on from.
      run_state: the host-side state that belongs to them.
      val_images: the validation images at the input size; None where nothing is measured.
      callbacks: told of every event, in this order.
      reporter: where progress goes.
      given: what the run was given as arguments (`yolojax.training.run_directory.describe_given`).
      started: when the run was started, by `time.monotonic`.

    Attributes:
      step: how many steps were handed to the devices.
      total_steps: where the run ends; a budget of time moves it.
      steps_per_epoch: steps that see as many images as there are, about once each.
      pending: steps whose report was not read yet: at most two.
      seconds: of the phases of the run, by name.
    """

    def __init__(
        self,
        run: Preparation,
        directory: RunDirectory,
        state: TrainState,
        run_state: RunState,
        *,
        val_images: InputImages | None,
        callbacks: Sequence[Callback],
        reporter: Reporter,
        given: dict[str, Any] | None = None,
        started: float | None = None,
    ) -> None:
        self.run, self.directory, self.run_state = run, directory, run_state
        self.callbacks, self.reporter, self.given = tuple(callbacks), reporter, given or {}
        state, self.hyper = replicate((state, run.hyper), run.devices.replicated)
        self._packed, self._unpacked = run.step.pack(state), None
        self.step, self.total_steps = int(state.step), int(state.total_steps)
        self.steps_per_epoch = steps_per_epoch(run)
        self.pending: deque[Started] = deque()
        self.evaluation: tuple[int, Evaluation] | None = None
        self.val_images = val_images
        self.started = time.monotonic() if started is None else started
        self.seconds = {"prepare": time.monotonic() - self.started, "validate": 0.0}

        self._first_step, self._shown_total = self.step, self.total_steps
        self._saved_step, self._total_of_last_step = self.step, self.total_steps
        self._trained_before, self._compiled_before = run_state.train_seconds, run.step.seconds
        self._clock = Clock(run_state.spent_seconds)
        self._stop, self._stopping, self._ending = StopSignal(), False, False
        self._learning_rate = jax.jit(self._learning_rate_at)
        self._exits = ExitStack()
        self._advance: Task | None = None
        self._batches: Iterator[tuple[Int[np.ndarray, " B"], Batch]] = iter(())

    def __enter__(self) -> Trainer:
        run = self.run
        batches = device_batches(
            run.images,
            run.sampler,
            run.config.seed,
            run.batch_size,
            run.devices.split,
            first_step=self.step,
            resize=run.resize,
        )
        self._advance = self._exits.enter_context(self.reporter.task("training", self.total_steps))
        self._batches = self._exits.enter_context(closing(prefetch(batches)))
        self._exits.enter_context(self._stop)
        try:
            self._ending |= self.tell("start")
        except BaseException:
            self._exits.close()
            raise
        # The budget of time counts from here. What was compiled to choose the batch size counts, reading does not.
        self._clock = Clock(self.run_state.spent_seconds + self.run.step.seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a loss that is not finite the run could only end there again.
        if isinstance(error, Exception) and not isinstance(error, NonFiniteError):
            self.save_after_error()
        self._exits.__exit__(kind, error, trace)
        # A signal that came while the last epoch ended: its checkpoint is written, what is left is to resume.
        if kind is None and any_process(self._stop.requested):
            raise self._stop.exception()

    @property
    def state(self) -> TrainState:
        """The arrays after ``step`` steps, until the next step begins."""
        if self._unpacked is None:
            self._unpacked = self.run.step.unpack(self._packed)
        return self._unpacked

    # ---- The loop

    def epochs(self) -> Iterator[int]:
        """Yields the number of each epoch, from 1, until the end of the run, which may move meanwhile.

        A run that was stopped at the end of an epoch, before the epoch was evaluated, begins with that epoch.
        """
        while self.step < self.total_steps or self.run_state.log.steps:
            done = self.step / self.steps_per_epoch
            yield int(np.ceil(done)) if self.run_state.log.steps else int(done) + 1

    def steps(self, epoch: int) -> Iterator[Started]:
        """Runs the remaining steps of an epoch and yields each, one step late.

        While the host reads the report of one step, the devices compute the next. The epoch ends early at the end of
        the run and when the run is asked to stop (see `stop_if_asked`).
        """
        begun = self.step
        while True:
            at_end = self.step >= epoch * self.steps_per_epoch
            if self.step > begun and (at_end or is_check_due(self.step - self._first_step)):
                self.shorten()
            self._stopping = self._is_stop_requested()
            if at_end or self.step >= self.total_steps or self._stopping:
                break
            self.start_step()
            if len(self.pending) > 1:
                yield self.pending.popleft()
        while self.pending:
            yield self.pending.popleft()

    def start_step(self) -> None:
        """Hands the next step to the devices, without waiting for it."""
        waited = time.monotonic()
        image_ids, batch = next(self._batches)
        self.run_state.log.waiting += time.monotonic() - waited
        self._unpacked = None
        self._packed, report = self.run.step(self._packed, batch, self.hyper)
        kept = None if self.run.step.donates else self.state
        self.pending.append(Started(self.step, image_ids, report, kept))
        self._total_of_last_step = self.total_steps
        self.step += 1

    def record(self, done: Started) -> None:
        """Enters the report of a step into the log and tells the callbacks.

        Raises `NonFiniteError` when loss or gradient are not finite.
        """
        row = self._add_to_log(done)
        self._ending |= self.tell("step", step=done.step + 1, row=row, state=done.state)
        if (done.step + 1) % 4 == 0:
            self._show_progress(done.step + 1, self.run_state.log.note())

    def end_epoch(self, epoch: int) -> None:
        """Measures, releases, logs, tells the callbacks and saves, each where it is due after this epoch."""
        config = self.run.config
        self.count_time()
        self._end_if_asked()  # by a step of this epoch: the run then ends like any other, measured and released
        last = self.step >= self.total_steps
        row = self.epoch_row(epoch)
        if last and config.select == "last":  # the weights are safe before anything is measured
            self.release("ema", self.state.ema, row)
        measured = None
        if self.val_images is not None and (last or every(epoch, config.validate_every)):
            measured = self.validate(epoch, row)
        note, self.run_state.log = self.run_state.log.note() + validation_note(row), EpochLog()
        self.directory.add(row)
        self._ending |= self.tell("epoch", row=row, state=self.state, evaluation=measured)
        last |= self._end_if_asked()
        # The last checkpoint comes after everything else: a run that is resumed from it is complete.
        if last or every(epoch, config.checkpoint_every):
            self.save()
        self.reporter.say(epoch_line(row, -(-self.total_steps // self.steps_per_epoch)))
        self._show_progress(self.step, note)
        self._clock.lap()

    def _end_if_asked(self) -> bool:
        """Moves the end of the run here when a callback or patience has asked for it in any process."""
        self._ending = any_process(self._ending)
        if self._ending:
            self.end_at(self.step)
        return self._ending

    # ---- What happens at the end of an epoch

    def epoch_row(self, epoch: int) -> dict[str, Any]:
        """Returns the row of an epoch for the log of the run, without measurements."""
        row = {"epoch": epoch, "step": self.step, "seconds": round(self.run_state.train_seconds, 2)}
        row |= {"learning_rate": float(self._learning_rate(self.step - 1, self._total_of_last_step))}
        row |= self.run_state.log.row(self.run.config.model.multi_scale)
        if (memory := device_memory()) is not None:
            row["device_memory"] = memory
        return row

    def validate(self, epoch: int, row: dict[str, Any]) -> Evaluation:
        """Measures the average, and with ``validate_raw`` also the variables, and enters the numbers into ``row``.

        Releases what became the best, and ends the run when patience has run out. A stop signal that arrives meanwhile
        ends the measurement at once; the checkpoint then holds the run as it was before it.
        """
        config = self.run.config
        kinds = {"ema": self.state.ema} | ({"raw": self.state.variables} if config.validate_raw else {})
        try:
            # One of several processes that stopped at once would leave the others waiting.
            with self._stop.at_once() if jax.process_count() == 1 else nullcontext():
                found = {kind: self.measure(variables) for kind, variables in kinds.items()}
        except KeyboardInterrupt:
            if self._stop.requested:
                self._clock.lap()  # the measurement that was given up is no time of training
                self.save_and_stop()
            raise
        self.evaluation, elapsed = (self.step, found["ema"]), self._clock.lap()
        self.run_state.validation_seconds = elapsed
        self.seconds["validate"] += elapsed
        row |= validation_columns(found, config.select_by)
        for kind in self.run_state.note_improvements(found, config.select_by, epoch, self.step):
            if kind == "raw" or config.select == "best":
                self.release(kind, kinds[kind], row)
        if self.run_state.out_of_patience(config.patience, epoch):
            best, self._ending = self.run_state.best["ema"], True
            self.reporter.say(f"no better {config.select_by} since epoch {best.epoch} ({best.value}): stopping")
        return found["ema"]

    def measure(self, variables: Variables) -> Evaluation:
        """Evaluates variables on the validation images."""
        assert self.val_images is not None
        return evaluate_images(
            self.run.detect_batch,
            self.run.detector,
            variables,
            self.val_images,
            validation=self.run.config.validation,
            reporter=self.reporter,
            split=self.run.devices.split,
        )

    def release(self, kind: str, variables: Variables, row: dict[str, Any]) -> None:
        """Writes the detector with these variables to ``best/`` (``ema``) or ``best_raw/`` (``raw``)."""
        if is_first():
            release(
                self.directory.folder / FOLDERS[kind],
                detector=self.run.detector,
                variables=variables,
                config=self.run.config,
                given=self.given,
                row=row,
                train_data=self.run_state.train_data,
                val_data=self.run_state.val_data,
            )
        wait_for_all("release")
        if kind == "ema" and self.step >= self.total_steps:
            self.seconds["until_weights"] = time.monotonic() - self.started

    def tell(
        self,
        kind: EventKind,
        *,
        step: int | None = None,
        row: dict[str, Any] | None = None,
        state: TrainState | None = None,
        evaluation: Evaluation | None = None,
    ) -> bool:
        """Calls every callback; returns whether one of them wants the training to end with this epoch."""
        event = Event(
            kind=kind,
            folder=self.directory.folder,
            step=self.step if step is None else step,
            total_steps=self.total_steps,
            row=self.directory.last_row if row is None else row,
            rows=self.directory.rows,
            state=self.state if state is None and kind != "step" else state,
            evaluation=evaluation,
            run=self.run,
        )
        answers = [callback(event) for callback in self.callbacks]
        return any(answers)

    # ---- Saving and stopping

    def save(self) -> None:
        """Writes a checkpoint of the run as it is after ``step`` steps."""
        self.run_state.spent_seconds = self._clock.spent
        state = self.state  # may be unpacked by a compiled program, which all processes run
        if is_first():
            save_checkpoint(self.directory.folder / "checkpoints", self.step, state, self.run_state.to_dict())
        wait_for_all("checkpoint")
        self._saved_step = self.step

    def stop_if_asked(self) -> None:
        """Saves and raises `Terminated` or `KeyboardInterrupt` when a signal has asked the run to stop."""
        if self._stopping:
            self.save_and_stop()

    def save_and_stop(self) -> None:
        """Saves and raises what the signal asked for."""
        self.count_time()
        self.save()
        raise self._stop.exception()

    def save_after_error(self) -> None:
        """Saves the steps that were done before an error, where that is still possible; never raises.

        Of several processes the others would be waiting for each other, so none saves.
        """
        if jax.process_count() > 1 or self.step == self._saved_step:
            return
        try:
            while self.pending:
                self._add_to_log(self.pending.popleft())
            jax.block_until_ready(self.state)
            self.count_time()
            self.save()
        except Exception as second:  # the error that is on its way must not be replaced
            self.reporter.say(f"the steps since the last checkpoint are lost: {second}")
            return
        resume = how_to_resume(self.directory.folder)
        self.reporter.say(f"saved a checkpoint after step {self.step}; to go on: {resume}")

    # ---- The length of the run

    def shorten(self) -> None:
        """With a budget of time, moves the end of the run to the last step that still fits."""
        minutes = self.run.config.minutes
        if minutes is None:
            return
        self.count_time()
        compiled = self.run.step.seconds - self._compiled_before
        pace = (self.run_state.train_seconds - self._trained_before - compiled) / (self.step - self._first_step)
        left = minutes * 60 - self._clock.spent - self._expected_validation(pace)
        planned = self.run.config.epochs * self.steps_per_epoch
        # The clocks of several processes differ, so that of the first decides.
        self.end_at(int(first_of(float(steps_that_fit(self.step, planned, left, pace)))))

    def _expected_validation(self, seconds_per_step: float) -> float:
        """Seconds to keep for the measurement at the end: those of the last one, or before it an estimate.

        Measuring an image takes about a third of the time of training on it; the rest is for compiling the program.
        """
        if self.val_images is None:
            return 0.0
        if self.run_state.validation_seconds is not None:
            return self.run_state.validation_seconds
        return seconds_per_step * len(self.val_images) / self.run.batch_size

    def end_at(self, total_steps: int) -> None:
        """Moves the end of the run and of its learning-rate schedule. Nothing is compiled anew."""
        self.total_steps = total_steps
        total = jax.device_put(np.int32(total_steps), self.run.devices.replicated)
        self._packed, self._unpacked = self._packed._replace(total_steps=total), None

    # ---- The end of the run

    def finish(self) -> tuple[Variables, Evaluation | None]:
        """Releases the chosen variables, measures them, and tells the callbacks that the run is complete.

        Returns the variables and their evaluation on the validation images, where there are any.
        """
        config, run = self.run.config, self.run
        best, folder = self.run_state.best.get("ema"), self.directory.folder / FOLDERS["ema"]
        if config.select == "best" and self.val_images is not None and is_released(folder, best):
            assert best is not None
            variables, step = replicate(self._released_variables(run.detector), run.devices.replicated), best.step
        else:
            variables, step = self.state.ema, self.step
            self.release("ema", variables, self.directory.last_row or {"step": self.step})
        self.seconds.setdefault("until_weights", time.monotonic() - self.started)
        evaluation = None
        if self.val_images is not None:
            measured = self.evaluation is not None and self.evaluation[0] == step
            evaluation = self.evaluation[1] if self.evaluation and measured else self.measure(variables)
        self.seconds["train"] = self.run_state.train_seconds
        self.tell("end", evaluation=evaluation)
        wait_for_all("end")
        summary = run.step.summary(config.model.multi_scale)
        self.reporter.say(f"{summary}; {self.seconds['train']:.0f} s of training")
        return variables, evaluation

    def _released_variables(self, detector: Detector) -> Variables:
        path = self.directory.folder / FOLDERS["ema"] / WEIGHTS
        shapes = variable_shapes(detector)
        return jax.device_put(fit_tree(load_weights(path), shapes, str(path)))

    # ---- Small parts

    def _add_to_log(self, done: Started) -> dict[str, float]:
        return self.run_state.log.add(checked(done.step, done.image_ids, done.report, self.run.images))

    def _is_stop_requested(self) -> bool:
        """Whether a signal asked any process to stop; all processes ask at the same steps."""
        ask = jax.process_count() == 1 or self.step % CHECK_EVERY == 0
        return ask and any_process(self._stop.requested)

    def count_time(self) -> None:
        """Adds the time since the last lap to the time of training."""
        elapsed, log = self._clock.lap(), self.run_state.log
        log.elapsed += elapsed
        log.programs = max(log.programs, self.run.step.count)
        self.run_state.train_seconds += elapsed

    def _show_progress(self, done: int, note: str) -> None:
        if self._advance is None:
            return
        if self.total_steps == self._shown_total:
            self._advance(done, note)
        else:
            self._advance(done, note, total=self.total_steps)
            self._shown_total = self.total_steps

    def _learning_rate_at(self, step: Any, total_steps: Any) -> Any:
        step, total_steps = jnp.asarray(step, jnp.int32), jnp.asarray(total_steps, jnp.int32)
        run = self.run
        hyper = hyper_of_step(run.hyper, run.hyper_at, step, total_steps)
        return schedule_at(run.config.optimiser, step, total_steps) * hyper.learning_rate


def steps_per_epoch(run: Preparation) -> int:
    """Returns the number of steps that see as many images as there are, rounded, at least one."""
    return max(1, round(len(run.images) / run.batch_size))


def every(epoch: int, period: int) -> bool:
    """Whether something done every ``period`` epochs (0: never) is due after this one."""
    return period > 0 and epoch % period == 0
