"""The directory a training run leaves behind, with the names the field already knows, and the detector it releases.

config.json  metrics.jsonl  results.csv  results.png  labels.png  train_batch0.png  val_predictions.png
PR_curve.png  F1_curve.png  P_curve.png  R_curve.png  confusion_matrix.png  confusion_matrix_normalized.png
detections.json  checkpoints/  best/  report/index.html  report/report.md  report/metrics.json
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

import yolojax
from yolojax import zoo
from yolojax.config import TrainConfig, from_dict, to_json
from yolojax.detector import Detector, Variables
from yolojax.errors import CheckpointError, ConfigError, DataError
from yolojax.files import write_whole
from yolojax.paths import check_writable, how_to_resume
from yolojax.training.data import DataPair
from yolojax.training.step import HyperAt
from yolojax.weights.released import save_released
from yolojax.zoo.parts import qualified_name

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

GIVEN = "given"
"""The entry of ``config.json`` that says what `fit` was given as arguments in place of settings."""


class RunDirectory:
    """Writes the log of a run; every file is complete after every call.

    With ``writes`` False, as in all processes of a job but the first, the rows are kept in memory only.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.writes = writes
        self.folder = folder
        self.rows: list[dict[str, Any]] = []

    @classmethod
    def create(
        cls, folder: Path, config: TrainConfig, given: dict[str, Any] | None = None, *, writes: bool = True
    ) -> RunDirectory:
        """Makes a new directory; raises `ConfigError` when it holds a run already or cannot be written.

        ``given`` describes what was given as arguments in place of settings (`describe_given`).
        """
        if not writes:
            return cls(folder, writes)
        cls.check_free(folder)
        try:
            (folder / "report").mkdir(parents=True, exist_ok=True)
            values = json.loads(to_json(config)) | ({GIVEN: given} if given else {})
            text = json.dumps(values, indent=2, sort_keys=True) + "\n"
            write_whole(folder / "config.json", text, advice="free space or give another --out")
        except OSError as error:
            raise ConfigError(f"cannot write to {folder} ({error.strerror}); give another --out") from error
        return cls(folder)

    @staticmethod
    def check_free(folder: Path) -> None:
        """Raises `ConfigError` when the directory holds a run already or cannot be written to."""
        if (folder / "config.json").exists():
            raise ConfigError(
                f"{folder} already holds a run; give another --out, or to go on with it: {how_to_resume(folder)}"
            )
        check_writable(folder, "give another --out")

    @classmethod
    def reopen(cls, folder: Path, step: int, *, writes: bool = True) -> RunDirectory:
        """Opens an existing directory and cuts its log back to what had happened by ``step``."""
        run = cls(folder, writes)
        log = folder / "metrics.jsonl"
        if log.exists():
            for number, line in enumerate(log.read_bytes().splitlines(), 1):
                try:
                    row = json.loads(line)
                except ValueError:
                    break  # a stop cut this line short, so it came after the checkpoint
                if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                    raise CheckpointError(f"{log} line {number}: no row of a training log; remove the line")
                if row["step"] <= step:
                    run.rows.append(row)
        run._rewrite()
        return run

    @property
    def last_row(self) -> dict[str, Any]:
        """The newest row of the log; empty where the log was lost."""
        return self.rows[-1] if self.rows else {}

    def add(self, row: dict[str, Any]) -> None:
        """Append one row to ``metrics.jsonl`` and ``results.csv``."""
        self.rows.append(row)
        if not self.writes:
            return
        try:
            with (self.folder / "metrics.jsonl").open("a") as handle:
                handle.write(json.dumps(row) + "\n")
                handle.flush()
                os.fsync(handle.fileno())  # a checkpoint that survives a power cut must find its row
            self._write_csv()
        except OSError as error:
            raise CheckpointError(f"cannot write to {self.folder}: {error.strerror}; free space and resume") from error

    def _rewrite(self) -> None:
        if not self.writes:
            return
        rows = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_whole(self.folder / "metrics.jsonl", rows, advice="free space and resume")
        self._write_csv()

    def _write_csv(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.folder / "results.csv", text.getvalue(), advice="free space and resume")


@contextlib.contextmanager
def hold_run(folder: Path, writes: bool = True) -> Iterator[None]:
    """Keeps other processes from training in a run directory for the time of a ``with`` block.

    The lock lies on ``config.json``, which no run writes again; the system releases it when the process ends, however
    it ends. Where a file system knows no locks, nothing is held. Of the processes of one job only the first, which
    writes, holds the directory.

    Raises:
      ConfigError: another process holds the directory.
    """
    if not writes or fcntl is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context((folder / "config.json").open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{folder} is being trained in by another process; wait for it, or stop it and resume"
            ) from error
        except OSError:  # no such file, which is said elsewhere, or no locks on this file system
            pass
        yield


def describe_given(data: DataPair | None, detector: Detector | None, hyper: HyperAt | None = None) -> dict[str, Any]:
    """Describes what `fit` was given as arguments, for ``config.json`` and released detectors; empty for nothing."""
    given: dict[str, Any] = {}
    if data is not None:
        given["data"] = {
            "class_names": list(data.train.class_names),
            "train_images": len(data.train),
            "train_fingerprint": data.train.fingerprint(),
            "val_images": len(data.val) if data.val is not None else None,
            "val_fingerprint": data.val.fingerprint() if data.val is not None else None,
        }
    if detector is not None:
        given["detector"] = zoo.describe(detector)
    if hyper is not None:
        given["hyper"] = qualified_name(hyper)
    return json.loads(json.dumps(given))


def read_config(folder: Path) -> TrainConfig:
    """Reads the configuration of an existing run.

    Raises `CheckpointError`, which names the file, when there is none or it holds no configuration.
    """
    values = _read_values(folder)
    values.pop(GIVEN, None)
    if isinstance(values.get("remat"), bool):  # as runs had it before there were two kinds
        values["remat"] = "activations" if values["remat"] else "none"
    try:
        return from_dict(values)
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'} is of no run of this version: {error}") from error


def read_given(folder: Path) -> dict[str, Any]:
    """Reads what a run was given as arguments: ``data`` and ``detector``, described as `describe_given` does."""
    given = _read_values(folder).get(GIVEN, {})
    return given if isinstance(given, dict) else {}


def _read_values(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"{folder} holds no run (config.json: {error.strerror}); give a run directory") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; give another run") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is of no run of this version: expected settings by name; give another run")
    return values


def resumed_config(
    run: Path,
    config: TrainConfig,
    *,
    data: object | None = None,
    detector: object | None = None,
    hyper: object | None = None,
) -> TrainConfig:
    """Returns the settings that a run was started with, which have a number in place of an ``auto`` batch size.

    Raises:
      ConfigError: ``config`` asks for other settings, or ``data``, ``detector`` or ``hyper`` is given but was not when
        the run was started, or the other way round.
      CheckpointError: there is no run.
    """
    started, given = read_config(run), read_given(run)
    for name, value in (("data", data), ("detector", detector), ("hyper", hyper)):
        if name in given and value is None:
            raise ConfigError(
                f"{run} was started with {name}= as an argument of fit, which is stored nowhere; resume it by "
                f"fit(config, {str(run)!r}, {name}=..., resume=True) with the same {name}"
            )
        if name not in given and value is not None:
            raise ConfigError(f"{run} was started without {name}= as an argument of fit; resume it without")
    asked = replace(config, batch_size=started.batch_size) if config.batch_size == "auto" else config
    now, then = json.loads(to_json(asked)), json.loads(to_json(started))  # options may be tuples or lists
    if changed := [name for name in now if now[name] != then[name]]:
        raise ConfigError(
            f"{run} was started with other settings ({', '.join(changed)}); resume with its own config.json"
        )
    return started


def check_same_given(run: Path, given: dict[str, Any]) -> None:
    """Checks that ``given`` (`describe_given`) is what a run was started with.

    Raises:
      DataError: the images or their objects have changed (`check_same_images`).
      ConfigError: anything else has.
    """
    then = read_given(run)
    if data := then.get("data"):
        check_same_images(run, "training", data.get("train_fingerprint"), given["data"]["train_fingerprint"])
        check_same_images(run, "validation", data.get("val_fingerprint"), given["data"]["val_fingerprint"])
    if changed := [name for name, value in then.items() if given.get(name) != value]:
        raise ConfigError(f"{run} was started with another {', '.join(changed)}; give fit what it was given then")


def check_same_images(run: Path, which: str, then: str | None, now: str | None) -> None:
    """Raises `DataError` unless a data set has the fingerprint that it had when a run was started."""
    if then != now:
        raise DataError(
            f"the {which} images or their objects have changed since {run} was started; start a new run, "
            f"from these parameters with --init {run / 'best'}"
        )


def release(
    folder: Path,
    *,
    detector: Detector,
    variables: Variables,
    config: TrainConfig,
    given: dict[str, Any],
    row: dict[str, Any],
    train_data: str,
    val_data: str | None,
) -> None:
    """Writes a detector so that it describes itself: architecture, classes, input size, data, versions, numbers.

    ``train_data`` and ``val_data`` are the fingerprints of the data sets.
    """
    description = {
        "detector": zoo.describe(detector),
        "training": {
            "config": to_json(config),
            "step": row["step"],
            "validation": {k: v for k, v in row.items() if k.startswith(("val/", "val_raw/"))},
            "train_fingerprint": train_data,
            "val_fingerprint": val_data,
            **({GIVEN: given} if given else {}),
        },
        "versions": {"yolojax": yolojax.__version__, "jax": jax.__version__},
    }
    save_released(folder, jax.device_get(variables), description)
