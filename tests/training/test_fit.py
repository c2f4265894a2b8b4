"""A whole run on generated images: what it leaves, that it resumes to the same bytes, and how it stops."""

import csv
import dataclasses
import json
import shutil

import pytest

import yolojax
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig, ValidationConfig
from yolojax.data import open_dataset
from yolojax.errors import CheckpointError, ConfigError, NonFiniteError
from yolojax.training.evaluation import evaluate
from yolojax.training.fit import fit

SMALL = {"widths": (4, 4, 8, 8, 8), "depths": (0, 0, 0, 0, 0), "head_width": 8, "reg_max": 8}
CONFIG = TrainConfig(
    data=DataConfig(path="shapes:?count=24&size=64"),
    model=ModelConfig(name="compact", size=64, options=SMALL),
    augment=AugmentConfig(mosaic=0.5, mosaic_off=0.34, flip_vertical=0.5),
    epochs=3,
    batch_size=8,
    validation=ValidationConfig(samples=20),
    validate_every=2,
    checkpoint_every=1,
)


class Heard:
    """A reporter that remembers."""

    def __init__(self):
        self.lines: list[str] = []
        self.tasks: list[str] = []

    from contextlib import contextmanager

    @contextmanager
    def task(self, description, total):
        self.tasks.append(description)
        done = []
        yield lambda n, note="": done.append(n)
        assert max(done) == total, f"{description} ended at {max(done)} of {total}"

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    heard = Heard()
    return fit(CONFIG, tmp_path_factory.mktemp("fit") / "run", reporter=heard), heard


def test_a_run_leaves_a_directory_that_explains_itself(finished):
    run, heard = finished
    names = {p.relative_to(run.folder).as_posix() for p in run.folder.rglob("*") if p.is_file()}
    assert {
        "config.json",
        "metrics.jsonl",
        "results.csv",
        "results.png",
        "labels.png",
        "train_batch0.png",
        "val_predictions.png",
        "detections.json",
        "report/metrics.json",
        "best/weights.safetensors",
        "best/detector.json",
    } <= names
    assert json.loads((run.folder / "config.json").read_text())["epochs"] == 3
    with (run.folder / "results.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["val/AP"] == "" and rows[1]["val/AP"] != "" and rows[2]["val/AP"] != ""
    metrics = json.loads((run.folder / "report" / "metrics.json").read_text())
    assert metrics["AP"] == run.result.AP and metrics["AR100"] == run.result.AR100
    assert "training" in heard.tasks and "evaluating" in heard.tasks


def test_one_program_is_compiled_for_a_run(finished):
    assert finished[0].programs == 1


def test_the_released_detector_is_the_trained_one(finished):
    run, _ = finished
    again = evaluate(run.folder, CONFIG.data.path, "val", validation=CONFIG.validation)
    direct = evaluate((run.detector, run.variables), CONFIG.data.path, "val", validation=CONFIG.validation)
    assert again.detections == direct.detections
    assert again.result.AP == run.result.AP
    assert json.loads((run.folder / "detections.json").read_text()) == again.detections


def test_an_interrupted_run_resumes_to_the_same_bytes(finished, tmp_path):
    """The first checkpoint alone survives; the rest is trained again and must come out identical."""
    run, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    steps = sorted((copy / "checkpoints").iterdir())
    assert [s.name for s in steps] == ["00000006", "00000009"]
    shutil.rmtree(steps[-1])
    (copy / "best" / "weights.safetensors").unlink()
    heard = Heard()
    fit(CONFIG, copy, resume=True, reporter=heard)
    assert any("after step 6 of 9" in line for line in heard.lines)
    for name in ("best/weights.safetensors", "detections.json"):
        assert (copy / name).read_bytes() == (run.folder / name).read_bytes()
    timeless = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("seconds", "images_per_second", "waiting_share")}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (copy, run.folder)
    ]
    assert timeless[0] == timeless[1]


def test_an_existing_run_is_not_overwritten(finished):
    with pytest.raises(ConfigError, match="already holds a run"):
        fit(CONFIG, finished[0].folder)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_place(tmp_path):
    config = dataclasses.replace(CONFIG, hyper={"lambda_cls": 1e38}, epochs=1)
    with pytest.raises(NonFiniteError, match=r"step 0: not finite in .*cls = inf.*; start again with a lower"):
        fit(config, tmp_path / "run")


def test_training_starts_from_given_weights_and_names_what_does_not_fit(finished, tmp_path):
    run, _ = finished
    options = {**SMALL, "head_width": 4}
    config = dataclasses.replace(
        CONFIG, epochs=1, model=ModelConfig("compact", 64, options=options), init=str(run.folder), validate_every=0
    )
    heard = Heard()
    fit(config, tmp_path / "run", reporter=heard)
    assert any("freshly initialised" in line and "head/level0" in line for line in heard.lines)
    with pytest.raises(CheckpointError, match="no weights there"):
        fit(dataclasses.replace(config, init=str(tmp_path / "nothing")), tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 3}, "multiple of the 2 devices"),
        ({"hyper": {"lambda_box": 1.0}}, "unknown hyper-parameter hyper.lambda_box"),
        ({"model": ModelConfig("compact", 65)}, "multiple of 32"),
        ({"epochs": 0}, "epochs = 0"),
    ],
)
def test_wrong_settings_are_named(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fit(dataclasses.replace(CONFIG, **change), tmp_path / "run")


def test_evaluation_refuses_other_classes(finished):
    run, _ = finished
    data = open_dataset("shapes:val?count=4&size=64")
    other = dataclasses.replace(data, class_names=tuple(f"{n}2" for n in data.class_names))
    with pytest.raises(ConfigError, match="classes the detector does not know"):
        evaluate((run.detector, run.variables), other)


def test_the_public_names_are_the_engines():
    assert yolojax.fit is fit and yolojax.evaluate is evaluate
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = yolojax.nothing
