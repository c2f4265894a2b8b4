"""Loggers as callbacks: each gets settings, rows and pictures of a run, by a stand-in of its package."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from yolojax.cli.train import Train
from yolojax.config import TrainConfig
from yolojax.errors import ConfigError
from yolojax.training.callbacks import Event
from yolojax.training.loggers import LOGGERS, MLflow, TensorBoard, WeightsAndBiases, flat, numbers


def events(folder: Path, first: int = 0) -> list[Event]:
    """A run of two steps and one epoch, after ``first`` steps."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), 7, np.uint8)).save(folder / "results.png")
    run: Any = SimpleNamespace(config=TrainConfig(seed=3))
    row = {"epoch": 1, "train/loss": 2.0, "val/AP": 0.5, "weights": "ema"}
    kinds = [("start", first, {}), ("step", first + 1, {"train/loss": 3.0}), ("step", first + 2, {"train/loss": 1.0})]
    kinds += [("epoch", first + 2, row), ("end", first + 2, row)]
    return [Event(kind, folder, step, 9, row, [], None, None, run) for kind, step, row in kinds]


STEPS = {1: {"step/train/loss": 3.0}, 2: {"step/train/loss": 1.0}}
EPOCH = {"epoch": 1, "train/loss": 2.0, "val/AP": 0.5}


def test_tensorboard(tmp_path, monkeypatch):
    told = []

    class Writer:
        def __init__(self, folder, purge_step):
            told.append(("open", folder, purge_step))

        def __getattr__(self, name):
            return lambda *given, **named: told.append((name, *given))

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=Writer))
    logger = TensorBoard()
    for event in events(tmp_path / "run", first=4):
        logger(event)
    assert told[0] == ("open", str(tmp_path / "run" / "tensorboard"), 5)
    assert told[1][:2] == ("add_text", "settings") and '"seed": 3' in told[1][2]
    scalars = [entry[1:] for entry in told if entry[0] == "add_scalar"]
    assert scalars[:2] == [("step/train/loss", 3.0, 5), ("step/train/loss", 1.0, 6)]
    assert scalars[2:] == [(name, value, 6) for name, value in EPOCH.items()]
    ((name, pixels, step),) = (entry[1:] for entry in told if entry[0] == "add_image")
    assert (name, pixels.shape, step) == ("results", (4, 6, 3), 6) and told[-1] == ("close",)


def test_weights_and_biases_goes_on_in_the_same_run(tmp_path, monkeypatch):
    inits, logged = [], []

    def init(**settings):
        inits.append(settings)
        return SimpleNamespace(id="abc", log=lambda row, step: logged.append((row, step)), finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Image=Path))
    for first in (0, 2):
        logger = WeightsAndBiases("mine", tags=["a"])
        for event in events(tmp_path / "run", first):
            logger(event)
    assert inits[0]["config"]["seed"] == 3 and inits[0]["project"] == "mine" and inits[0]["tags"] == ["a"]
    assert "id" not in inits[0] and (inits[1]["id"], inits[1]["resume"]) == ("abc", "allow")
    assert logged[:3] == [(STEPS[1], 1), (STEPS[2], 2), (EPOCH, 2)]
    assert logged[3] == ({"results": tmp_path / "run" / "results.png"}, 2)


def test_mlflow_goes_on_in_the_same_run(tmp_path, monkeypatch):
    told = []

    class Client:
        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return f"id of {name}"

        def create_run(self, experiment, run_name):
            told.append(("run", experiment, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

        def __getattr__(self, name):
            return lambda *given, **named: told.append((name, *given, *named.values()))

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    for first in (0, 2):
        logger = MLflow()
        for event in events(tmp_path / "run", first):
            logger(event)
    assert [entry for entry in told if entry[0] == "run"] == [("run", "id of yolojax", "run")]
    assert ("log_param", "r1", "optimiser.learning_rate", str(TrainConfig().optimiser.learning_rate)) in told
    metrics = [entry[2:] for entry in told if entry[0] == "log_metric"]
    assert metrics[0] == ("step/train/loss", 3.0, 1) and ("val/AP", 0.5, 4) in metrics
    assert ("log_artifact", "r1", str(tmp_path / "run" / "results.png")) in told


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_missing_package_is_one_clear_error_before_any_work(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}: pip install 'yolojax\[{name}\]'"):
        Train(data="nowhere", out=tmp_path / "run", log=(name,)).run()
    assert not (tmp_path / "run").exists() and set(LOGGERS) == {"tensorboard", "wandb", "mlflow"}


def test_only_rows_have_numbers(tmp_path):
    start, step, _, epoch, end = events(tmp_path / "run")
    assert [numbers(event, True) for event in (start, end)] == [{}, {}] and numbers(step, False) == {}
    assert numbers(epoch, False) == EPOCH


def test_settings_are_flattened():
    assert dict(flat({"a": {"b": 1, "c": {}}, "d": "x" * 600})) == {"a.b": "1", "a.c": "{}", "d": "x" * 500}
