"""A whole run on generated images: what it leaves, what it says, how it starts from another, and how it ends early."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yolojax
from tests.training import test_own_detector as tiny
from tests.training.own_detectors import NAMES, SIZE, tuple_detector
from tests.training.toy import toy_detector
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import open_dataset
from yolojax.errors import CheckpointError, ConfigError
from yolojax.inference.evaluate import evaluate
from yolojax.inference.predict import load_detector
from yolojax.structures import Candidates
from yolojax.training.fit import fit
from yolojax.training.initialise import Weights
from yolojax.training.state import wrap_variables
from yolojax.weights.released import flatten

pytestmark = pytest.mark.usefixtures("compiled_once")

SMALL = {"widths": (4, 4, 8), "depths": (0, 0, 0), "head_width": 8, "reg_max": 4, "shared_head": True}
CONFIG = TrainConfig(
    data=DataConfig(path="shapes:?count=24&size=64"),
    model=ModelConfig(name="compact", size=64, options=SMALL),
    augment=AugmentConfig(mosaic=0.5, close_mosaic=0.34, flip_vertical=0.5),
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
        length = total

        def advance(n, note="", total=None):
            nonlocal length
            done.append(n)
            length = length if total is None else total

        yield advance
        assert max(done) == length, f"{description} ended at {max(done)} of {length}"

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    heard = Heard()
    return fit(CONFIG, tmp_path_factory.mktemp("fit") / "run", reporter=heard), heard


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


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


def test_one_program_is_compiled_for_a_run_and_every_epoch_says_so(finished):
    run, heard = finished
    assert run.programs == 1
    epochs = [line for line in heard.lines if line.startswith("epoch ")]
    assert len(epochs) == 3
    for line in epochs:
        assert "1 program compiled, 0 recompilations" in line and "images/s" in line and "waiting for data" in line
        assert "objects over the padding" in line and "objects without a prediction" in line
    assert "candidates truncated" in epochs[1] and "candidates truncated" not in epochs[0]
    assert {(row["programs"], row["recompilations"]) for row in rows_of(run.folder)} == {(1, 0)}


def test_the_released_detector_is_the_trained_one(finished):
    run, _ = finished
    again = evaluate(run.folder, CONFIG.data.path, "val", validation=CONFIG.validation)
    assert again.result.AP == run.result.AP
    assert json.loads((run.folder / "detections.json").read_text()) == again.detections
    _, variables = load_detector(run.folder)
    jax.tree.map(np.testing.assert_array_equal, variables, dict(run.variables))


def test_an_existing_run_is_not_overwritten(finished):
    with pytest.raises(ConfigError, match="already holds a run"):
        fit(CONFIG, finished[0].folder)


@pytest.fixture(scope="module")
def tuned(finished, blank_plots, tmp_path_factory):
    """Everything else at once: another head on the finished run's frozen backbone, in parts, until it stops early."""
    config = dataclasses.replace(
        CONFIG,
        data=DataConfig(path="shapes:?count=24&size=64", fraction=0.7),
        model=ModelConfig("compact", 64, options={**SMALL, "head_width": 4}),
        augment=AugmentConfig(scale_min=1.0, scale_max=1.0, translate=0.0, hue=0.0, saturation=0.0, value=0.0),
        optimiser=OptimiserConfig(name="sgd", learning_rate=1e-12, ema_decay=0.5),
        **{"epochs": 9, "accumulate": 2, "validate_every": 1, "checkpoint_every": 1, "patience": 2},
        **{"select": "best", "select_by": "AR100", "validate_raw": True, "freeze": ("backbone",)},
        init=str(finished[0].folder),
    )
    events, heard = [], Heard()
    run = fit(config, tmp_path_factory.mktemp("tuned") / "run", reporter=heard, callbacks=[events.append])
    return config, run, heard, events


def test_fine_tuning_keeps_what_fits_names_the_rest_and_leaves_the_frozen_part_to_the_byte(finished, tuned):
    _, run, heard, _ = tuned
    before, after = flatten(dict(finished[0].variables)), flatten(dict(run.variables))
    kept = [n for n in after if n.split("/")[1] == "backbone"]
    assert any("batch_stats" in name for name in kept) and any(name.endswith("kernel") for name in kept)
    for name in kept:
        np.testing.assert_array_equal(np.asarray(before[name]), np.asarray(after[name]), err_msg=name)
    (summary,) = [line for line in heard.lines if "arrays taken from" in line]
    assert "of another shape: " in summary and "params/head/" in summary and "freshly initialised" in summary


def test_weights_without_statistics_get_those_of_the_training_images_before_the_first_step(tmp_path, monkeypatch):
    """What folded weights look like after unfolding: every mean zero."""
    toy = toy_detector()
    spec = dataclasses.replace(toy.spec, class_names=NAMES, input_size=SIZE)
    nothing = lambda outputs: Candidates(jnp.zeros((len(outputs), 1, 4)), jnp.zeros((len(outputs), 1, 1)))  # noqa: E731
    detector = toy._replace(spec=spec, decode=nothing)
    variables = jax.device_get(detector.init(jax.random.key(5)))
    variables["batch_stats"] = jax.tree.map(np.zeros_like, variables["batch_stats"])
    weights = Weights(variables, spec)
    monkeypatch.setattr("yolojax.training.fit.load_init", lambda _: weights)
    seen = []

    def first_state(*args):
        seen.append(flatten(jax.tree.map(np.array, dict(args[0]))))
        return wrap_variables(*args)

    monkeypatch.setattr("yolojax.training.initialise.wrap_variables", first_state)
    heard = Heard()
    config = dataclasses.replace(tiny.CONFIG, epochs=1, init="given")
    fit(config, tmp_path / "run", reporter=heard, data=tiny.one_class(18, "train"), detector=detector)
    assert any("measured on 16 of the 18 training images" in line for line in heard.lines)
    means = [value for name, value in seen[0].items() if name.startswith("batch_stats/") and name.endswith("/mean")]
    assert means and all(np.any(mean) for mean in means)


def test_training_stops_when_the_chosen_number_gets_no_better(tuned):
    """With a learning rate of nothing it cannot."""
    config, run, heard, _ = tuned
    rows = rows_of(run.folder)
    values = [row["val/AR100"] for row in rows]
    best = values.index(max(values)) + 1
    assert len(rows) == best + config.patience < config.epochs
    assert any(f"no better AR100 since epoch {best}" in line for line in heard.lines)
    assert all("val_raw/AP" in row for row in rows)
    described = json.loads((run.folder / "best" / "detector.json").read_text())
    assert described["training"]["step"] == rows[best - 1]["step"]
    assert (run.folder / "best_raw" / "weights.safetensors").is_file()


def test_callbacks_are_told_of_every_step_every_epoch_and_the_end(tuned):
    _, run, _, events = tuned
    rows = rows_of(run.folder)
    steps = [e.step for e in events if e.kind == "step"]
    assert steps == list(range(1, rows[-1]["step"] + 1)) and rows[0]["step"] == 2  # 17 of 24 images, by 8
    assert [e.row for e in events if e.kind == "epoch"] == rows
    assert [e.kind for e in events][-1] == "end" and events[-1].folder == run.folder


def test_a_complete_run_that_is_resumed_trains_no_further(tuned):
    config, run, _, _ = tuned
    before = (run.folder / "metrics.jsonl").read_bytes()
    again = fit(config, run.folder, resume=True)
    assert again.programs == 0 and again.result.AR100 == run.result.AR100
    assert (run.folder / "metrics.jsonl").read_bytes() == before
    jax.tree.map(np.testing.assert_array_equal, dict(again.variables), dict(run.variables))


def test_what_has_changed_since_is_said_before_going_on(finished, tmp_path, monkeypatch):
    import shutil

    run, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    with pytest.raises(ConfigError, match="started with other settings"):
        fit(dataclasses.replace(CONFIG, epochs=4), copy, resume=True)
    newest = max((copy / "checkpoints").iterdir())
    (newest / "facts.json").write_text("{}")  # damaged: the one before is used
    monkeypatch.setattr("yolojax.processor.memory.os.sched_getaffinity", lambda _: range(77))
    heard = Heard()
    again = fit(CONFIG, copy, resume=True, reporter=heard)
    assert any("passed over a checkpoint" in line and "facts.json is damaged" in line for line in heard.lines)
    assert any("not the same bytes" in line and "then, 77 now" in line for line in heard.lines)
    assert any("after step 6 of 9" in line for line in heard.lines)
    # In truth the cores are the same, and so are the bytes.
    jax.tree.map(np.testing.assert_array_equal, dict(again.variables), dict(run.variables))
    for name in ("best/weights.safetensors", "detections.json"):
        assert (copy / name).read_bytes() == (run.folder / name).read_bytes()
    config = json.loads((copy / "config.json").read_text())
    config["data"]["path"] = "shapes:?count=25&size=64"
    (copy / "config.json").write_text(json.dumps(config))
    other = dataclasses.replace(CONFIG, data=DataConfig(path="shapes:?count=25&size=64"))
    with pytest.raises(yolojax.errors.DataError, match=r"training images or their objects have changed.*--init"):
        fit(other, copy, resume=True)


def test_a_budget_of_time_shortens_the_run_and_the_same_program_goes_on(tmp_path):
    """No second epoch fits into a millisecond."""
    config = dataclasses.replace(tiny.CONFIG, minutes=1e-5, validate_every=2)
    run = fit(config, tmp_path / "run", data=tiny.DATA, detector=tuple_detector())
    rows = rows_of(run.folder)
    assert [row["epoch"] for row in rows] == [1] and run.programs == 1
    assert rows[0]["val/AP"] is not None and run.result is not None
    schedule_end = config.optimiser.final_fraction * config.optimiser.learning_rate
    assert rows[0]["learning_rate"] > schedule_end  # it was not known beforehand


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch_size": 3}, ConfigError, "multiple of the 2 devices"),
        ({"batch_size": 8, "accumulate": 8}, ConfigError, "multiple of the 2 devices times accumulate = 8"),
        ({"accumulate": 3}, ConfigError, "accumulate = 3: give a divisor"),
        ({"hyper": {"lambda_box": 1.0}}, ConfigError, "unknown hyper-parameter hyper.lambda_box"),
        ({"hyper": {"progress": 0.5}}, ConfigError, "unknown hyper-parameter hyper.progress"),
        ({"model": ModelConfig("compact", 65)}, ConfigError, "multiple of 32"),
        ({"epochs": 0}, ConfigError, "epochs = 0"),
        ({"freeze": ("spine",)}, ConfigError, "no such part; there are backbone, head"),
        ({"patience": 3, "validate_every": 0}, ConfigError, "patience = 3: give validate_every"),
        ({"select_by": "mAP"}, ConfigError, "select_by = 'mAP': give one of AP, AP50"),
        ({"init": "nothing"}, CheckpointError, "nothing: no such folder"),
        ({"init": "nothing.safetensors"}, CheckpointError, r"nothing\.safetensors: cannot be read \(No such file"),
    ],
)
def test_wrong_settings_are_named_and_leave_nothing(change, error, message, tmp_path):
    with pytest.raises(error, match=message):
        fit(dataclasses.replace(CONFIG, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


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
