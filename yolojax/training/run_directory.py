"""The directory a training run leaves behind, with the names the field already knows.

config.json  metrics.jsonl  results.csv  results.png  labels.png  train_batch0.png  val_predictions.png
detections.json  checkpoints/  best/  report/index.html  report/report.md  report/metrics.json
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from yolojax.config import TrainConfig, from_dict
from yolojax.errors import CheckpointError, ConfigError
from yolojax.paths import check_writable


class RunDirectory:
    """Writes the log of a run; every file is complete after every call.

    With ``writes`` False, as in all processes of a job but the first, the rows are only remembered.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.writes = writes
        self.folder = folder
        self.rows: list[dict[str, Any]] = []

    @classmethod
    def create(cls, folder: Path, config_json: str, writes: bool = True) -> RunDirectory:
        """A new directory; raises `ConfigError` when it holds a run already or cannot be written."""
        if not writes:
            return cls(folder, writes)
        cls.check_free(folder)
        try:
            (folder / "report").mkdir(parents=True, exist_ok=True)
            _write_whole(folder / "config.json", config_json)
        except OSError as error:
            raise ConfigError(f"cannot write to {folder} ({error.strerror}); give another --out") from error
        return cls(folder)

    @staticmethod
    def check_free(folder: Path) -> None:
        """Before any work: raises `ConfigError` when the directory holds a run already or cannot be written to."""
        if (folder / "config.json").exists():
            raise ConfigError(
                f"{folder} already holds a run; give another --out, or --resume {folder} to go on with it"
            )
        check_writable(folder, "give another --out")

    @classmethod
    def reopen(cls, folder: Path, step: int, *, writes: bool = True) -> RunDirectory:
        """An existing directory, its log cut back to what had happened by ``step``."""
        run = cls(folder, writes)
        log = folder / "metrics.jsonl"
        if log.exists():
            for number, line in enumerate(log.read_bytes().splitlines(), 1):
                try:
                    row = json.loads(line)
                except ValueError:
                    break  # the line that a stop cut short; it is after the checkpoint
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
        try:
            _write_whole(self.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows))
            self._write_csv()
        except OSError as error:
            raise CheckpointError(f"cannot write to {self.folder}: {error.strerror}; free space and resume") from error

    def _write_csv(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        _write_whole(self.folder / "results.csv", text.getvalue())


def _write_whole(path: Path, text: str) -> None:
    """A reader, or a run that is taken up again, finds the old file or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", newline="") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def read_config(folder: Path) -> TrainConfig:
    """The configuration of an existing run; raises `CheckpointError`, which names the file, when there is none or it
    holds what is no configuration."""
    try:
        return from_dict(json.loads((folder / "config.json").read_text()))
    except OSError as error:
        raise CheckpointError(f"{folder} holds no run (config.json: {error.strerror}); give a run directory") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is damaged: {error}; give another run") from error
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'} is of no run of this version: {error}") from error
