"""Models can be found: the list, the description of an architecture, and one meaning of --model."""

import json

import pytest

from yolojax import zoo
from yolojax.catalogue import rows
from yolojax.cli.model import ModelChoice, choose_model
from yolojax.cli.train import Train
from yolojax.errors import ConfigError


def test_models_lists_all_of_them(yolojax):
    ended = yolojax("models")
    assert ended.code == 0 and ended.err == ""
    listed = [line.split()[0] for line in ended.out.split("\n\n")[0].splitlines()[1:]]
    assert listed == [row.model for row in rows()]
    assert "AP .449 COCO val2017" in next(line for line in ended.out.splitlines() if line.startswith("yolov8s "))


def test_models_by_name_as_json(yolojax):
    found = json.loads(yolojax("models", "yolov8s", "yolox-nano", "yolov10", "--json").out)
    assert [row["model"] for row in found] == ["yolov8s"] + [f"yolov10{s}" for s in "nsmblx"] + ["yolox-nano"]
    assert (found[0]["parameters"], found[0]["ap"], found[1]["suppression"]) == (11_166_544, 0.449, "none")


def test_models_proposes_the_near_name(yolojax):
    ended = yolojax("models", "yolov8ss")
    assert ended.code == 2 and "did you mean yolov8s?" in ended.err


def test_info_of_an_architecture(yolojax):
    ended = yolojax("info", "lesson", "--size", "64", "--classes", "3", "--option", "widths=[8,8,16,16,16]")
    assert ended.code == 0 and ended.err == ""
    told = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert told["detector"] == "lesson, an architecture without weights"
    assert "widths=(8, 8, 16, 16, 16)" in told["options"]
    assert told["input"].startswith("64 x 64 pixels") and told["published"] == "not known"


def test_info_takes_the_scale_from_the_name_or_the_option(yolojax):
    by_name, by_option = yolojax("info", "yolov5n"), yolojax("info", "--model", "yolov5", "--option", "scale=n")
    assert by_name.code == 0 and by_name.out == by_option.out
    assert "parameters  1,872,157" in by_name.out and "AP .280 COCO val2017 (Ultralytics" in by_name.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["info"], "which detector?"),
        (["info", "yolo8"], "did you mean yolov8?"),
        (["info", "runs", "--model", "runs"], "give the detector once"),
        (["info", "yolov8", "--option", "scale=q"], "yolov8 has no scale 'q'; it has n, s, m, l, x"),
        (["info", "yolov8", "--size", "7"], "--size 7: give 32"),
        (["info", "best.pt", "--option", "scale=s"], "--option belongs to an architecture, and best.pt is none"),
        (["val", "--model", "yolov8s", "--data", "shapes"], "yolov8s is an architecture, which has no weights"),
        (["train", "shapes", "--model", "yolo8s"], "did you mean yolov8s?"),
        (["bench", "train", "--model", "compct"], "did you mean compact?"),
    ],
)
def test_models_that_are_not_there(arguments, said, yolojax):
    ended = yolojax(*arguments)
    assert ended.code == 2 and ended.out == "" and said in ended.err and ended.err.count("\n") == 1


def test_a_misspelt_run_proposes_the_near_one(yolojax, tmp_path):
    (tmp_path / "runs" / "kittens").mkdir(parents=True)
    assert "did you mean runs/kittens?" in yolojax("val", "--model", "kitens").err
    assert "did you mean runs/kittens?" in yolojax("info", "runs/kitens").err
    assert "did you mean kittens?" in yolojax("train", "shapes", "--model", "kitens").err


def test_train_takes_architecture_size_and_weights_of_a_run(trained):
    config = Train(data="shapes", model=str(trained)).config()
    assert (config.model.name, config.model.size, config.init) == ("compact", 64, str(trained))
    assert config.model.options["widths"] == (8, 8, 16)
    assert Train(data="shapes", init=str(trained)).config() == config
    again = Train(data="shapes", model=str(trained), size=96, option=("reg_max=16",), init="other").config()
    assert (again.model.size, again.model.options["reg_max"], again.init) == (96, 16, "other")


def test_parts_that_no_file_holds_are_named(monkeypatch, trained):
    monkeypatch.setattr(zoo, "custom_parts", lambda detector: {"assign": "mine"})
    with pytest.raises(ConfigError, match="no whole detector of the zoo; give an architecture's name"):
        choose_model(str(trained), {})
    assert choose_model(None, {"reg_max": 8}, str(trained)) == ModelChoice("compact", {"reg_max": 8})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_a_shell(shell, yolojax):
    ended = yolojax("--tyro-print-completion", shell)
    assert ended.code == 0 and "yolojax" in ended.out and "models" in ended.out
