"""``yolojax train`` and ``demo``: every setting is reachable, and no run is overwritten."""

import dataclasses
import json
import sys
import typing
from pathlib import Path

import pytest

from tests.cli.small_run import DATA, SMALL
from yolojax.cli import parse
from yolojax.cli.train import Demo, Train
from yolojax.config import TrainConfig, demo_config, from_dict
from yolojax.errors import ConfigError, Terminated
from yolojax.eval.report.pictures import PICTURE_FILES

FILES = {
    *("config.json", "metrics.jsonl", "results.csv", "results.png", "labels.png", "train_batch0.png"),
    *("val_predictions.png", "detections.json", "checkpoints", "best", "report"),
    *PICTURE_FILES,
}


def train(*arguments: str) -> TrainConfig:
    """The configuration that the command would train with."""
    command = parse(["train", *arguments])
    assert isinstance(command, Train)
    return command.config()


def settings(config: object, prefix: str = "") -> dict[str, object]:
    """All settings by their dotted names."""
    found: dict[str, object] = {}
    for field in dataclasses.fields(config):  # pyright: ignore[reportArgumentType]
        value = getattr(config, field.name)
        inner = settings(value, f"{prefix}{field.name}.") if dataclasses.is_dataclass(value) else None
        found |= inner if inner is not None else {prefix + field.name: value}
    return found


OPTIONS = {
    "data.path": (["elsewhere"], "elsewhere"),
    "data.train_split": (["--train-split", "a"], "a"),
    "data.val_split": (["--val-split", "b"], "b"),
    "data.skip_bad": (["--skip-bad"], True),
    "data.max_objects": (["--max-objects", "40"], 40),
    "model.name": (["--model", "lesson"], "lesson"),
    "model.size": (["--size", "640"], 640),
    "model.rectangular": (["--square"], False),
    "model.options": (["--option", "box_loss=mse", "k=[1,2]", "m=.5"], {"box_loss": "mse", "k": [1, 2], "m": 0.5}),
    "hyper": (["--hyper", "lambda_cls=2", "lambda_coord=.5"], {"lambda_cls": 2.0, "lambda_coord": 0.5}),
    "final_hyper": (["--final-hyper", "lambda_l1=1"], {"lambda_l1": 1.0}),
    "optimiser.decay": (["--optimiser.decay", "coupled"], "coupled"),
    "init": (["--init", "runs/a", "--model", "compact"], "runs/a"),
    "freeze": (["--freeze", "backbone", "neck/level0"], ("backbone", "neck/level0")),
    "minutes": (["--minutes", "7.5"], 7.5),
    "select_by": (["--select-by", "F1"], "F1"),
    "validate_raw": (["--validate-raw"], True),
    "remat": (["--remat", "segments"], "segments"),
    "data.fraction": (["--fraction", "0.5"], 0.5),
    "data.sampling": (["--sampling", "class-balanced"], "class-balanced"),
    "data.repeat_threshold": (["--repeat-threshold", "0.1"], 0.1),
    "data.cache": (["--cache", "disk"], "disk"),
    "data.images": (["--images", "there"], "there"),
    "data.cache_folder": (["--cache-folder", "there"], "there"),
    "model.multi_scale": (["--multi-scale", "3"], 3),
    "model.multi_scale_range": (["--multi-scale-range", "0.5"], 0.5),
    "validation.confidence": (["--validation.confidence", ".5"], 0.5),
    "validation.iou": (["--validation.iou", ".6"], 0.6),
    "validation.max_detections": (["--validation.max-detections", "7"], 7),
    "validation.suppress": (["--validation.suppress", "diou"], "diou"),
    "validation.suppress_parameter": (["--validation.suppress-parameter", ".4"], 0.4),
    "compute": (["--compute", "bfloat16"], "bfloat16"),
    "select": (["--select", "best"], "best"),
    "optimiser.name": (["--optimiser.name", "sgd"], "sgd"),
    "optimiser.schedule": (["--optimiser.schedule", "linear"], "linear"),
}


@pytest.mark.parametrize("name", sorted(settings(TrainConfig())))
def test_every_setting_is_reachable(name):
    """And changes itself only."""
    default = settings(TrainConfig())
    if name in OPTIONS:
        arguments, wanted = OPTIONS[name]
    else:
        value = default[name]
        assert isinstance(value, int | float)
        wanted = type(value)(value + 3)
        arguments = [f"--{name.replace('_', '-')}", str(wanted)]
    data = [] if name == "data.path" else ["shapes"]
    assert settings(train(*data, *arguments)) == {**default, name: wanted}


def test_without_options_the_configuration_is_the_default():
    assert train("shapes") == TrainConfig()
    hints = typing.get_type_hints(Demo)
    assert hints["seed"] is int and settings(demo_config(3))["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which data?"),
        (["shapes", "--option", "widths"], "--option widths: give NAME=VALUE"),
        (["shapes", "--hyper", "lambda_cls=much"], "--hyper lambda_cls=much: give a number"),
        (["shapes", "--hyper", "lambda_cls=true"], "--hyper lambda_cls=true: give a number"),
        (["shapes", "--epochs", "0"], "epochs = 0: give at least 1"),
        (["shapes", "--accumulate", "0"], "accumulate = 0: give at least 1"),
        (["shapes", "--augment.flip-vertical", "2"], "augment.flip_vertical = 2.0"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["--resume", "nowhere"], "nowhere holds no run"),
        ([DATA, *SMALL, "--option", "widht=3"], "compact has no option widht; did you mean widths?"),
        ([DATA, "--model", "compakt"], "did you mean compact?"),
        ([DATA, *SMALL, "--option", "reg_max=0"], "reg_max = 0: give a whole number of at least 2"),
        ([DATA, *SMALL, "--option", "k=0"], "k = 0: give a whole number of at least 1"),
        ([DATA, *SMALL, "--init", "nowhere"], "nowhere: no such folder"),
        ([DATA, "--seed", str(2**63)], "seed = 9223372036854775808: give less than 2^63"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_leaves_nothing(arguments, said, yolojax, tmp_path):
    ended = (
        yolojax("train", *arguments, "--out", "runs/wrong")
        if "--resume" not in arguments
        else yolojax("train", *arguments)
    )
    assert ended.code == 2 and ended.out == ""
    assert ended.err.count("\n") == 1 and said in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["--model", "--init"])
def test_devices_are_chosen_and_a_job_is_joined_before_a_file_asks_for_them(option, yolojax, monkeypatch):
    done = []

    def stop(*_):
        done.append("read")
        raise ConfigError("here")

    monkeypatch.setattr("yolojax.processor.memory.prepare_processor", lambda *_: done.append("prepared"))
    monkeypatch.setattr("yolojax.sharding.processes.join", lambda *_: done.append("joined"))
    monkeypatch.setattr("yolojax.cli.train.choose_model", stop)
    assert yolojax("train", DATA, option, "w.pt").code == 2 and done == ["prepared", "joined", "read"]
    done.clear()
    assert yolojax("train", DATA, option, "w.pt", "--epochs", 0).code == 2 and not done


def test_a_run_explains_itself(trained):
    assert {p.name for p in trained.iterdir()} == FILES
    config = from_dict(json.loads((trained / "config.json").read_text()))
    assert config == dataclasses.replace(train(DATA, *SMALL), epochs=2, validate_every=0, checkpoint_every=1)


def test_a_folder_completed_by_the_shell_can_be_frozen():
    assert train("shapes", "--freeze", "backbone/", "neck/level0").freeze == ("backbone", "neck/level0")


def test_what_cannot_be_trained_is_found_before_the_run_directory_is_made(yolojax, tmp_path, monkeypatch):
    def loss(*_, **__):
        raise TypeError("shapes (3,) and (4,) do not agree")

    monkeypatch.setattr(sys.modules["yolojax.zoo.yolov8"], "yolov8_loss", loss)  # the package has a function yolov8
    ended = yolojax("train", DATA, *SMALL, "--out", "wrong")
    assert ended.code == 2 and "compact cannot be trained with widths = [8, 8, 16]" in ended.err
    assert "TypeError: shapes (3,) and (4,) do not agree" in ended.err and not (tmp_path / "wrong").exists()


def test_a_run_is_never_overwritten(trained, yolojax):
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    ended = yolojax("train", DATA, *SMALL, "--out", trained)
    assert ended.code == 2 and f"--out {trained} exists already" in ended.err
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before


def test_without_out_the_next_free_name_is_taken(yolojax, monkeypatch, tmp_path):
    asked = []

    def fit(config, out, *, resume, reporter, callbacks=()):
        asked.append(str(out))
        out.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("yolojax.training.fit.fit", fit)
    for _ in range(3):
        assert yolojax("train", "shapes") == (130, "", "yolojax: interrupted\n")
    assert yolojax("demo").code == 130
    assert asked == ["runs/train", "runs/train2", "runs/train3", "runs/demo"]
    (tmp_path / "empty").mkdir()
    asked.clear()
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    assert yolojax("train", "shapes", "--out", "empty").code == 130  # made beforehand by the user: his to fill
    assert asked == ["empty"]


def test_an_interrupted_run_says_how_to_go_on(trained, yolojax, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("yolojax.training.fit.fit", interrupt)
    ended = yolojax("train", "--resume", trained)
    assert ended == (130, "", f"yolojax: interrupted; go on with: yolojax train --resume {trained}\n")


def test_a_run_that_was_ended_says_how_to_go_on(trained, yolojax, monkeypatch):
    def end(*_, **__):
        raise Terminated

    monkeypatch.setattr("yolojax.training.fit.fit", end)
    ended = yolojax("train", "--resume", trained)
    assert ended == (143, "", f"yolojax: ended by SIGTERM; go on with: yolojax train --resume {trained}\n")


def test_auto_batch_size_is_an_option():
    assert train("shapes", "--batch-size", "auto").batch_size == "auto"


def test_resume_takes_the_settings_of_the_run(trained, yolojax, monkeypatch):
    asked = []

    def fit(config, out, *, resume, reporter, callbacks=()):
        asked.append((config, out, resume))
        raise KeyboardInterrupt

    monkeypatch.setattr("yolojax.training.fit.fit", fit)
    config = from_dict(json.loads((trained / "config.json").read_text()))
    assert yolojax("train", "--resume", trained).code == 130
    assert yolojax("train", DATA, "--resume", trained).code == 130
    assert asked == [(config, trained, True)] * 2
    ended = yolojax("train", "shapes", "--resume", trained, "--epochs", "3", "--augment.hue", ".5", "--out", "x")
    assert ended.code == 2
    assert f"the settings of {trained}; leave out DATA, --out, --epochs, --augment" in ended.err
