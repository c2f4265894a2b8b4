"""``yolojax plan`` as it is typed, with wrong arguments too; no compiler is needed."""

import pytest

from yolojax.planning.plan import Plan


@pytest.fixture(autouse=True)
def no_change_of_platform(monkeypatch):
    monkeypatch.setattr("yolojax.planning.compilers.compile_on_processor", lambda: None)


@pytest.fixture
def asked(monkeypatch):
    """What `make_plan` is asked for, where every compiler counts as installed."""
    calls = []

    def record(config, target, reporter, **given):
        calls.append((config, target.text, given))
        facts = {"device": "TPU", "chips": 4, "compiler": "libtpu", "detector": "compact", "options": {}}
        sizes = {
            "input_size": (64, 64),
            "classes": 3,
            "objects": 32,
            "compute": "bfloat16",
            "accumulate": 1,
            "remat": "none",
        }
        return Plan(target=target.text, **facts, **sizes, batch_size=8, programs=[], largest_batch=None)

    monkeypatch.setattr("yolojax.planning.compilers.missing_compiler", lambda target: None)
    monkeypatch.setattr("yolojax.planning.plan.make_plan", record)
    return calls


def test_the_list_of_targets(yolojax):
    ended = yolojax("plan", "--target", "list")
    assert ended.code == 0 and "v5e" in ended.out and "b200" in ended.out and "https://docs.cloud" in ended.out


def test_settings_reach_the_plan(yolojax, asked):
    options = (
        "--model",
        "yolov8",
        "--option",
        "scale=l",
        "--size",
        "640",
        "--batch-size",
        "256",
        "--augment.mosaic",
        "1",
    )
    ended = yolojax("plan", *options, "--target", "v5e:4x4", "--programs", "train", "--no-largest", "--json")
    assert ended.code == 0 and '"estimated": true' in ended.out
    ((config, target, given),) = asked
    assert (config.model.name, config.model.options, config.model.size) == ("yolov8", {"scale": "l"}, 640)
    assert (config.batch_size, config.compute, config.augment.mosaic, target) == (256, "bfloat16", 1.0, "v5e:4x4")
    assert given["data"] is None and given["programs"] == ("train",) and not given["largest"]


def test_train_with_plan_plans_that_run_and_does_nothing_else(yolojax, asked, tmp_path):
    ended = yolojax("train", "shapes:?count=4&size=64", "--size", "64", "--batch-size", "8", "--plan", "v5e:2x2")
    assert ended.code == 0 and "does not fit" not in ended.out and not (tmp_path / "runs").exists()
    ((config, target, given),) = asked
    assert (config.batch_size, config.compute, target) == (8, "float32", "v5e:2x2")
    assert len(given["data"]) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan"], "which target? give one"),
        (["plan", "--target", "v5f:2x2"], "known are v5e, v5p, v6e, h100"),
        (["plan", "--target", "v5e:5x5"], "there is no slice 5x5 of TPU v5e; give one of 1x1, 2x2"),
        (["plan", "--target", "v5e:2x2", "--model", "yolov88"], "did you mean yolov8"),
        (["plan", "--target", "v5e:2x2", "--classes", "0"], "--classes 0: give a number from 1"),
        (["plan", "--target", "v5e:2x2", "--batch-size", "0"], "batch_size = 0"),
        (["train", "--plan", "v5e:2x2"], "--plan is for a run that begins, and needs its data"),
        (["train", "shapes", "--plan", "h100:99"], "there is no slice 99"),
        (["train", "shapes", "--resume", "runs/x", "--plan", "h100"], "without --resume"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(arguments, said, yolojax, asked):
    ended = yolojax(*arguments)
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1
    assert said in ended.err and not asked


@pytest.mark.parametrize(("target", "extra"), [("v5e:2x2", "plan-tpu"), ("h100", "plan-gpu")])
def test_a_missing_compiler_is_one_line_with_the_command_that_installs_it(target, extra, yolojax, monkeypatch):
    monkeypatch.setattr("yolojax.planning.compilers._is_installed", lambda module: False)
    ended = yolojax("plan", "--target", target)
    assert ended.code == 2 and ended.err.endswith(f"pip install 'yolojax[{extra}]'\n")
