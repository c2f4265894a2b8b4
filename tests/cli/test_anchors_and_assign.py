"""``yolojax anchors`` and ``yolojax data assign``."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.small_run import DATA
from yolojax.anchors import design_anchors
from yolojax.data import open_dataset

MANY = "shapes:?count=90"


def design_of(data, strides, per_level, scale):
    """The same design from the annotations, without the input image: images of the set are square."""
    sizes = [(scale * (x2 - x1), scale * (y2 - y1)) for r in open_dataset(data).records for x1, y1, x2, y2 in r.boxes]
    return design_anchors(np.array(sizes), strides, per_level)


def test_anchors_as_json_table_and_plot(yolojax, tmp_path):
    command = ["anchors", MANY, "--levels", "2", "--per-level", "2", "--size", "320"]
    ended = yolojax(*command, "--json", "--plot", "anchors.png")
    assert ended.code == 0 and ended.err == ""
    told, design = json.loads(ended.out), design_of(MANY, (16, 32), 2, 2)
    assert told["warning"] is None and told["retune"] == [level.stride for level in design.levels if level.retune]
    for level, wanted in zip(told["levels"], design.levels, strict=True):
        assert level["stride"] == wanted.stride and level["boxes"] == wanted.boxes
        np.testing.assert_allclose(level["anchors"], wanted.anchors, atol=0.01)
        for key in ("median_iou", "recall", "area_coverage"):
            assert level[key] == pytest.approx(getattr(wanted, key), abs=1e-6)
    with Image.open(tmp_path / "anchors.png") as plot:
        assert plot.width > 500 and len(plot.convert("RGB").getcolors(1 << 20)) > 20
    table = yolojax(*command)
    assert table.code == 0 and design.recommendation in table.out
    assert all(word in table.out for word in ("median IoU", "recall", "in area reach", "    16"))


def test_anchors_flag_a_level_to_retune_and_evolve(yolojax):
    """One anchor for all sizes cannot have nine tenths of the boxes over an IoU of .5."""
    command = ["anchors", MANY, "--levels", "1", "--per-level", "1"]
    plain = json.loads(yolojax(*command, "--json").out)
    assert plain["levels"][0]["retune"] and plain["retune"] == [32] and plain["recall"] < 0.9
    assert "retune" in yolojax(*command).out
    evolved = json.loads(yolojax(*command, "--evolve", "60", "--json").out)
    assert evolved["mean_iou"] > plain["mean_iou"]


def test_anchors_of_few_boxes_warn_and_name_the_published_ones(yolojax):
    ended = yolojax("anchors", "shapes:?count=10", "--json")
    told = json.loads(ended.out)
    assert ended.code == 0 and "warning: only" in ended.err and "COCO" in told["recommendation"]


def test_of_a_data_set_in_parts_the_training_part_is_read(yolojax):
    """Parts that are files of their own cannot be read together."""
    assert yolojax("data", "convert", "shapes?count=12&size=64", "--to", "coco", "--out", "parts").code == 0
    named, found = yolojax("anchors", "parts", "--split", "train"), yolojax("anchors", "parts")
    assert found.code == 0 and found.out == named.out
    assert yolojax("data", "assign", "parts", "--count", "1", "--size", "64").code == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ["--levels", "0"],
        ["--per-level", "0"],
        ["--size", "0"],
        ["--evolve", "-1"],
        ["--seed", "-1"],
        ["--plot", "a.jpg"],
        ["--plot", "no/where.png"],
    ],
)
def test_anchor_errors(wrong, yolojax):
    ended = yolojax("anchors", "shapes:?count=4", *wrong)
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and wrong[0] in ended.err


@pytest.mark.parametrize("rule", ["atss", "best-anchor"])
def test_assignment_is_drawn_and_counted(rule, yolojax, tmp_path):
    ended = yolojax("data", "assign", DATA, "--rule", rule, "--count", "2", "--size", "64", "--out", "seen")
    assert ended.code == 0 and ended.err == ""
    first, second = (line.split() for line in ended.out.splitlines()[1:3])
    assert first[0] == "train_000000.png" and second[0] == "train_000001.png"
    for name, objects, left, cells, *_ in (first, second):
        assert name and int(cells) >= int(objects) - int(left) >= 0
        if rule == "best-anchor":
            assert int(cells) == int(objects) - int(left)
    with Image.open(tmp_path / "seen" / "assignment.png") as picture:
        assert picture.width > 960


@pytest.mark.parametrize("rule", ["task-aligned", "simota", "one-to-one"])
def test_assignment_by_predictions(rule, trained, yolojax):
    ended = yolojax("data", "assign", DATA, "--rule", rule, "--model", trained, "--count", "1")
    assert ended.code == 0 and ended.err == "" and "runs/assign: assignment.png" in ended.out
    _, objects, left, cells, *_ = ended.out.splitlines()[1].split()
    if rule == "one-to-one":
        assert left == "0" and cells == objects


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--rule", "simota"], "--model"),
        (["--first", "8"], "0 to 7"),
        (["--count", "0"], "--count"),
        (["--size", "100"], "multiple of 32"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_assignment_errors(wrong, said, yolojax):
    ended = yolojax("data", "assign", DATA, *wrong)
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and said in ended.err
