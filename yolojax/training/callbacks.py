"""What is told of a run while it goes on: a user's own functions, and the report and pictures that ship.

A callback is any function of an `Event`:

    def watch(event):
        if event.kind == "epoch" and event.row["train/loss"] > 100:
            return True  # ends the training with this epoch

    fit(config, "runs/mine", callbacks=[watch])

Loggers (TensorBoard, Weights & Biases, MLflow) are callbacks of `yolojax.training.loggers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from yolojax.errors import ConfigError
from yolojax.eval.files import write_json
from yolojax.inference.evaluate import Evaluation
from yolojax.inference.report import write_evaluation_report
from yolojax.progress import Quiet, Reporter
from yolojax.settings import shown
from yolojax.sharding.processes import is_first
from yolojax.training import plots
from yolojax.training.preparation import Preparation
from yolojax.training.state import TrainState

EventKind = Literal["start", "step", "epoch", "end"]


class Event(NamedTuple):
    """Something happened in a run.

    Attributes:
      kind: ``start`` (before the first step of this process), ``step``, ``epoch`` or ``end`` (all is released).
      folder: the run directory.
      step: how many steps are done.
      total_steps: where the run ends, as far as is known now.
      row: of a ``step`` its losses and counts; of an ``epoch`` the row that went into ``metrics.jsonl``; at the ``end``
        the last of these.
      rows: all rows of ``metrics.jsonl`` so far.
      state: the arrays after exactly ``step`` steps. The next step may use them up, so copy what is to be kept. None
        at a ``step`` where no callback reads states (see `reads_state`).
      evaluation: at an ``epoch`` the measurement of the average, where there was one; at the ``end`` that of the
        released variables, where there are validation images.
      run: data, detector and programs.
    """

    kind: EventKind
    folder: Path
    step: int
    total_steps: int
    row: dict[str, Any]
    rows: Sequence[dict[str, Any]]
    state: TrainState | None
    evaluation: Evaluation | None
    run: Preparation


Callback = Callable[[Event], bool | None]
"""Called once in each process, on however many devices. True ends the training with this epoch.

An attribute ``reads_state = False`` on the callback says that it never looks at `Event.state`.
"""


def check_callbacks(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    """The callbacks as a tuple; raises `ConfigError` where they are no list of functions."""
    if not isinstance(callbacks, Iterable):
        raise ConfigError(f"callbacks = {shown(callbacks)}: give a list of functions")
    found = tuple(callbacks)
    for one in found:
        if not callable(one):
            raise ConfigError(f"callbacks: {shown(one)} is no function of an event; see yolojax.training.callbacks")
    return found


def reads_state(callbacks: Sequence[Callback]) -> bool:
    """Whether some callback may look at the state after every step.

    The host reads the report of a step while the next step computes. For the state of a step to exist by then, the
    next step must not reuse its memory, so a run with such a callback needs the memory of one more state. On a GPU its
    states are not packed either (`yolojax.training.packing`), and a step starts about twice as many kernels.
    """
    return any(getattr(callback, "reads_state", True) for callback in callbacks)


class EvaluationReport:
    """Writes, at the end, ``detections.json`` and the report of the released detector on the validation images.

    Its curves and confusion matrix lie in the run directory as pictures.
    """

    reads_state = False

    def __init__(self, reporter: Reporter | None = None) -> None:
        self.reporter = reporter or Quiet()

    def __call__(self, event: Event) -> None:
        if event.kind != "end" or event.evaluation is None or event.run.data.val is None or not is_first():
            return
        config = event.run.config
        write_json(event.folder / "detections.json", event.evaluation.detections)
        write_evaluation_report(
            event.folder / "report",
            event.evaluation,
            event.run.data.val,
            title=f"{event.folder.resolve().name}: validation images",
            provenance={
                "model": event.run.detector.spec.name,
                "seed": str(config.seed),
                "settings": "config.json beside this folder",
            },
            samples=config.validation.samples,
            reporter=self.reporter,
            pictures=event.folder,
            history=event.rows,
        )


class Pictures:
    """Draws what the run is trained on when it begins, and its curves and predictions when it ends.

    The pictures are ``labels.png`` and ``train_batch0.png``, then ``results.png`` and ``val_predictions.png``.
    """

    reads_state = False

    def __call__(self, event: Event) -> None:
        run = event.run
        if not is_first():
            return
        if event.kind == "start" and event.step == 0:
            plots.save_inputs(event.folder, run.images, run.augment, run.sampler(run.config.seed, 0))
        if event.kind == "end":
            if event.evaluation is not None and run.data.val is not None:
                path = event.folder / "val_predictions.png"
                plots.save_predictions(path, run.data.val, event.evaluation.detections)
            plots.save_curves(event.folder / "results.png", list(event.rows), run.config.select_by)
