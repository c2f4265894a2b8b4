"""The programs of docs/examples run with few images and epochs; the pages about training name what exists."""

import csv
import inspect
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest

import yolojax
from yolojax.cli import parse
from yolojax.training.fit import fit

FOLDER = Path(__file__).parent.parent / "docs" / "examples"
PROGRAMS = sorted(path.name for path in FOLDER.glob("*.py"))
TINY = {"images": 16, "epochs": 1}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Runs the ``main`` of an example in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(name, **settings):
        return runpy.run_path(str(FOLDER / f"{name}.py"))["main"](**{**TINY, **settings})

    return run


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_is_short_and_uses_public_names_only(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 68 and f"python docs/examples/{name}" in text
    imported = re.findall(r"^(?:from|import) (yolojax\S*)(?: import (.*))?$", text, re.MULTILINE)
    assert not re.search(r"\b_[a-z]", " ".join(" ".join(line) for line in imported))


def test_the_table_names_every_example():
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\w+\.py)\)", table) == PROGRAMS


@pytest.mark.slow
def test_custom_loss(example, capsys):
    example("custom_loss")
    shown = capsys.readouterr().out
    assert "'train/calm'" in shown and "AP50" in shown and "Result" in shown


@pytest.mark.slow
def test_distillation(example, capsys):
    run, rows = example("distillation")
    assert rows[-1]["train/distil"] > 0 and run.result is not None and "Result" in capsys.readouterr().out


@pytest.mark.slow  # tens of seconds of tracing
def test_own_detector(example, capsys):
    example("own_detector")
    assert "weight decay moves 5 of 10 arrays" in capsys.readouterr().out


@pytest.mark.slow
def test_own_flax_detector(example, capsys):
    example("own_flax_detector")
    shown = capsys.readouterr().out
    assert "['batch_stats', 'params']" in shown and "moved to 0.000" not in shown


@pytest.mark.slow
def test_per_example_gradients(example):
    wrong, norms = example("per_example_gradients")
    assert len(wrong) == 2 and norms.shape == (8,) and np.isfinite(norms).all() and (norms > 0).all()


@pytest.mark.slow
def test_soft_nms_validation(example):
    run, found = example("soft_nms_validation")
    assert run.result is not None and set(found) == {"nms", "soft-nms", "diou", "own"}
    count = {name: len(evaluation.detections) for name, evaluation in found.items()}
    # A box without a better one at IoU .6 has none at IoU .7 either, so greedy suppression keeps it as well.
    assert 0 < count["own"] <= count["nms"] and count["soft-nms"] > 0


@pytest.mark.slow
def test_arrays_in_memory(example):
    example("arrays_in_memory")
    assert Path("runs/arrays/arrays.png").is_file() and Path("runs/arrays/found.png").is_file()


@pytest.mark.slow
def test_tensorboard_callback(example, monkeypatch):
    """TensorBoard's writer is replaced by one that remembers, so that the test needs no extra package."""
    told = []

    class Writer:
        def __init__(self, folder, purge_step):
            assert Path(folder) == Path("runs/logged/tensorboard") and purge_step == 1

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def add_text(self, name, text, step):
            assert name == "settings" and step == 0

        def add_image(self, name, pixels, step, dataformats):
            assert dataformats == "HWC" and pixels.ndim == 3

        def flush(self):
            pass

        def close(self):
            told.append("closed")

    module = type("tensorboardX", (), {"SummaryWriter": Writer})
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", module)
    example("tensorboard_callback", epochs=2)
    with open("runs/logged/steps.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"] and told.pop() == "closed"
    logged = {step: value for name, value, step in told if name == "step/train/loss"}
    np.testing.assert_allclose([float(row["train/loss"]) for row in rows], list(logged.values()))


@pytest.mark.slow
def test_ensemble_spread(example):
    fused = example("ensemble_spread", members=2)
    assert fused.agree.max() <= 2 and np.isfinite(fused.spread).all()


@pytest.mark.slow  # compiling YOLOX, the one detector of the zoo with an L1 loss, takes longer than the others together
def test_schedule_of_hyper(example):
    """With four epochs of one step, L1 counts in the last alone."""
    run, rows = example("schedule_of_hyper", epochs=4)
    assert run.programs == 1
    assert [row["train/l1"] > 0 for row in rows] == [False, False, False, True]


PAGES = ("training.md", "scale.md")


@pytest.fixture(scope="module")
def pages():
    return {name: (FOLDER.parent / name).read_text(encoding="utf-8").replace("\\\n", " ") for name in PAGES}


def test_commands_and_options_on_the_pages_are_known(pages, capsys):
    """Every command with options is parsed, and every option is one that some command has."""
    known = {
        "--nodes",
        "--ntasks-per-node",
        "--gpus-per-node",
        "--signal",
        "--requeue",
        "--zone",
        "--worker",
        "--command",
    }
    known |= {"--quick"}  # of the studies; the others are of SLURM and gcloud
    for command in ("train", "val", "predict", "bench train", "bench predict"):
        with pytest.raises(SystemExit):
            parse([*command.split(), "--help"])
        known |= set(re.findall(r"--[a-z][\w.-]*\w", capsys.readouterr().out))
    for text in pages.values():
        options = re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text)
        assert [option for option in options if option not in known] == []
        commands = re.findall(r"yolojax ((?:train|bench)\b[^`\"\n&$]* --[^`\"\n&$]*)", text)
        assert commands
        for command in commands:
            parse(shlex.split(command))


def test_python_on_the_pages_calls_what_exists(pages, monkeypatch):
    """Each block runs with a `fit` that checks its arguments against the real signature and does nothing else.

    The package that writes for TensorBoard is extra; a stand-in of it is enough to make the callback.
    """
    calls = []
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", type("tensorboardX", (), {"SummaryWriter": None}))

    def checked_fit(*given, **named):
        calls.append(inspect.signature(fit).bind(*given, **named).arguments)

    monkeypatch.setattr(yolojax, "fit", checked_fit, raising=False)
    for text in pages.values():
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            # The sweep itself is the business of ensemble_spread.py.
            exec(block.split("found = sweep(")[0], dict.fromkeys(("config", "train_set", "val_set", "detector")))
    assert [sorted(set(call) - {"config", "out"}) for call in calls] == [["hyper"], ["data", "detector"], ["callbacks"]]


def test_links_on_the_pages_lead_somewhere(pages):
    for text in pages.values():
        targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
        assert [target for target in targets if not (FOLDER.parent / target).exists()] == []
        files = re.findall(r"`((?:yolojax|tests)/[\w/]+\.py)`", text)
        assert [file for file in files if not (FOLDER.parents[1] / file).exists()] == []
