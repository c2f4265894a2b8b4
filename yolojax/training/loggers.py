"""Experiment loggers as callbacks of `yolojax.training.fit.fit`: TensorBoard, Weights & Biases, MLflow.

    fit(config, "runs/mine", callbacks=[TensorBoard()])

Each writes the settings once, the losses of every step, the rows of the epochs, and at the end the pictures that the
run directory holds. Each needs a package of its own, and says how to install it where it is missing. The files of the
run directory (``metrics.jsonl``, ``results.csv``) are written whether there are loggers or not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from yolojax.errors import ConfigError
from yolojax.sharding.processes import is_first
from yolojax.training.callbacks import Event

PICTURES = (
    "labels.png",
    "train_batch0.png",
    "val_predictions.png",
    "results.png",
    "PR_curve.png",
    "F1_curve.png",
    "confusion_matrix.png",
)
"""The pictures of a run directory, in the order in which they are made."""


class TensorBoard:
    """Writes losses, counts and measurements for TensorBoard, by tensorboardX (``pip install yolojax[tensorboard]``).

    Args:
      folder: where to; by default ``tensorboard`` in the run directory.
      every_step: also write the losses of every step, not only the rows of the epochs.

    Raises `ConfigError` when tensorboardX is not installed.
    """

    reads_state = False

    def __init__(self, folder: str | Path | None = None, *, every_step: bool = True) -> None:
        self._make_writer, self._writer = _imported("tensorboardX", "tensorboard").SummaryWriter, None
        self._folder, self._every_step = folder, every_step

    def __call__(self, event: Event) -> None:
        if not is_first():
            return
        if event.kind == "start":
            folder = Path(self._folder) if self._folder is not None else event.folder / "tensorboard"
            # What an interrupted run wrote beyond its checkpoint is discarded.
            self._writer = self._make_writer(str(folder), purge_step=event.step + 1)
            self._writer.add_text("settings", f"```json\n{settings_text(event)}\n```", event.step)
        if self._writer is None:
            return
        for name, value in numbers(event, self._every_step).items():
            self._writer.add_scalar(name, value, event.step)
        if event.kind == "epoch":
            self._writer.flush()
        if event.kind == "end":
            for path in pictures(event):
                self._writer.add_image(path.stem, _pixels(path), event.step, dataformats="HWC")
            self._writer.close()
            self._writer = None


class WeightsAndBiases:
    """Logs to Weights & Biases (``pip install yolojax[wandb]``).

    A resumed run goes on in the run of ``wandb_run.txt`` in the run directory. Where to, and whether at all, is for
    wandb's own environment variables, such as ``WANDB_MODE=offline``.

    Args:
      project: the project's name.
      every_step: also log the losses of every step, not only the rows of the epochs.
      options: further arguments of ``wandb.init``.

    Raises `ConfigError` when wandb is not installed.
    """

    reads_state = False

    def __init__(self, project: str = "yolojax", *, every_step: bool = True, **options: Any) -> None:
        self._wandb, self._run = _imported("wandb", "wandb"), None
        self._project, self._every_step, self._options = project, every_step, options

    def __call__(self, event: Event) -> None:
        if not is_first():
            return
        if event.kind == "start":
            known = event.folder / "wandb_run.txt"
            again = {"id": known.read_text().strip(), "resume": "allow"} if known.is_file() else {}
            settings = {"project": self._project, "name": event.folder.name, "dir": str(event.folder)}
            self._run = self._wandb.init(**{**settings, **again, "config": settings_of(event), **self._options})
            known.write_text(f"{self._run.id}\n")
        if self._run is None:
            return
        if logged := numbers(event, self._every_step):
            self._run.log(logged, step=event.step)
        if event.kind == "end":
            self._run.log({path.stem: self._wandb.Image(str(path)) for path in pictures(event)}, step=event.step)
            self._run.finish()
            self._run = None


class MLflow:
    """Logs to MLflow (``pip install yolojax[mlflow]``).

    A resumed run goes on in the run of ``mlflow_run.txt`` in the run directory. The server is that of MLflow's own
    environment variable ``MLFLOW_TRACKING_URI``. Without a server, install the whole of mlflow, which keeps a database;
    or give a ``file://`` address there and set ``MLFLOW_ALLOW_FILE_STORE=true``.

    Args:
      experiment: the experiment's name; it is made where there is none.
      every_step: also log the losses of every step, not only the rows of the epochs.

    Raises `ConfigError` when mlflow is not installed.
    """

    reads_state = False

    def __init__(self, experiment: str = "yolojax", *, every_step: bool = True) -> None:
        self._mlflow, self._client, self._run_id = _imported("mlflow", "mlflow"), None, ""
        self._experiment, self._every_step = experiment, every_step

    def __call__(self, event: Event) -> None:
        if not is_first():
            return
        if event.kind == "start":
            self._client = self._mlflow.MlflowClient()
            known = event.folder / "mlflow_run.txt"
            if known.is_file():
                self._run_id = known.read_text().strip()
            else:
                experiment = self._client.get_experiment_by_name(self._experiment)
                to = (
                    self._client.create_experiment(self._experiment) if experiment is None else experiment.experiment_id
                )
                self._run_id = self._client.create_run(to, run_name=event.folder.name).info.run_id
                known.write_text(f"{self._run_id}\n")
                for name, value in flat(settings_of(event)):
                    self._client.log_param(self._run_id, name, value)
        if self._client is None:
            return
        for name, value in numbers(event, self._every_step).items():
            self._client.log_metric(self._run_id, name, value, step=event.step)
        if event.kind == "end":
            for path in pictures(event):
                self._client.log_artifact(self._run_id, str(path))
            self._client.set_terminated(self._run_id)
            self._client = None


LOGGERS: dict[str, Callable[[], Any]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
"""Loggers by the names that ``yolojax train --log`` takes."""


def numbers(event: Event, every_step: bool) -> dict[str, int | float]:
    """What a logger writes of an event: the numbers of its row; those of a step have names that begin with ``step/``.

    Empty for events that have no row of their own.
    """
    if event.kind not in ("step", "epoch") or (event.kind == "step" and not every_step):
        return {}
    prefix = "step/" if event.kind == "step" else ""
    return {prefix + name: value for name, value in event.row.items() if isinstance(value, int | float)}


def settings_of(event: Event) -> dict[str, Any]:
    """The configuration of the run as plain values."""
    return dataclasses.asdict(event.run.config)


def settings_text(event: Event) -> str:
    """The configuration of the run as JSON."""
    return json.dumps(settings_of(event), indent=1, default=str)


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings by their dotted names, as texts of at most 500 characters."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)[:500]


def pictures(event: Event) -> Iterator[Path]:
    """The pictures of the run directory that are there."""
    return (path for name in PICTURES if (path := event.folder / name).is_file())


def _pixels(path: Path) -> Any:
    from yolojax.data.images import read_image

    return read_image(path)


def _imported(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"logging to {extra} needs the package {name}: pip install 'yolojax[{extra}]'") from error
