"""``yolojax val``, ``eval`` and ``diagnose``."""

import json

import pytest

from tests.cli.small_run import DATA
from yolojax.data import open_dataset
from yolojax.eval.coco import METRICS


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Ground truth of the validation images as COCO JSON, and detections that are the objects themselves."""
    folder = tmp_path_factory.mktemp("truth")
    coco = open_dataset(DATA, "val").to_coco()
    (folder / "truth.json").write_text(json.dumps(coco))
    perfect = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9} for a in coco["annotations"]]
    (folder / "perfect.json").write_text(json.dumps(perfect))
    return folder


def test_val_prints_and_writes_the_numbers(trained, yolojax, tmp_path):
    ended = yolojax("val", "--model", trained, "--confidence", ".01")
    assert ended.code == 0
    assert "8 images" in ended.out and "AP50" in ended.out and "runs/val: detections.json, metrics.json" in ended.out
    written = json.loads((tmp_path / "runs" / "val" / "metrics.json").read_text())
    assert set(METRICS) | {"precision", "recall"} <= set(written)
    detections = json.loads((tmp_path / "runs" / "val" / "detections.json").read_text())
    assert detections and set(detections[0]) == {"image_id", "category_id", "bbox", "score"}
    assert min(d["score"] for d in detections) >= 0.01

    # The same numbers come from the detections alone, through the other command.
    (tmp_path / "truth.json").write_text(json.dumps(open_dataset(DATA, "val").to_coco()))
    again = yolojax("eval", "truth.json", "runs/val/detections.json", "--out", "again")
    assert again.code == 0
    other = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert {name: other[name] for name in METRICS} == {name: written[name] for name in METRICS}

    diagnosed = yolojax("diagnose", "runs/val")
    assert diagnosed.code == 0
    assert diagnosed.out.startswith("diagnosis: ") and diagnosed.out.splitlines()[1].startswith("next: ")


def test_val_on_other_data(trained, yolojax):
    ended = yolojax("val", "--model", trained, "--data", "shapes:?count=3&size=64", "--split", "test", "--out", "here")
    assert ended.code == 0 and "3 images" in ended.out and "here: detections.json" in ended.out
    ended = yolojax("val", "--model", trained, "--out", "here")
    assert ended.code == 2 and "--out here exists already" in ended.err


def test_val_takes_the_validation_part_of_other_data_and_says_so(trained, yolojax, tmp_path):
    ended = yolojax("val", "--model", trained, "--data", "shapes:?count=3&size=64", "--out", "there")
    assert ended.code == 0 and "measuring on the part val" in ended.err
    ids = {d["image_id"] for d in json.loads((tmp_path / "there" / "detections.json").read_text())}
    named = yolojax("val", "--model", trained, "--data", "shapes:?count=3&size=64", "--split", "val", "--out", "named")
    assert named.code == 0 and "measuring on" not in named.err
    same = json.loads((tmp_path / "named" / "detections.json").read_text())
    assert {d["image_id"] for d in same} == ids and same == json.loads(
        (tmp_path / "there" / "detections.json").read_text()
    )


def test_val_asks_which_part_where_none_is_for_validation(trained, yolojax, tmp_path):
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    for part in ("first", "second"):
        (tmp_path / "set" / "annotations" / f"instances_{part}.json").write_text("{}")
    ended = yolojax("val", "--model", trained, "--data", "set")
    assert ended.code == 2 and "first, second" in ended.err and "--split" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nowhere"], "nowhere: no such folder"),
        (["--model", "RUN", "--split", "val"], "--split is a part of --data"),
        (["--model", "RUN", "--data", "nowhere"], "nowhere: no such file or folder"),
        (["--model", "RUN", "--data", DATA, "--split", "vla"], "there is no split 'vla'"),
        (["--model", "RUN", "--max-detections", "0"], "max_detections"),
    ],
)
def test_val_errors(arguments, said, trained, yolojax):
    ended = yolojax("val", *[str(trained) if a == "RUN" else a for a in arguments])
    assert ended.code == 2 and ended.err.count("\n") == 1 and said in ended.err


def test_eval_of_perfect_detections(truth, yolojax):
    ended = yolojax("eval", truth / "truth.json", truth / "perfect.json")
    assert ended.code == 0 and ended.err == ""
    row = next(line for line in ended.out.splitlines() if line.startswith("AP "))
    assert row.split()[1:4] == ["1.000", "1.000", "1.000"]
    assert "precision 1.000, recall 1.000" in ended.out
    assert yolojax("eval", truth / "truth.json", truth / "perfect.json", "--dense").code == 0


def test_eval_takes_a_data_set_in_any_layout(truth, yolojax):
    ended = yolojax("eval", DATA, truth / "perfect.json", "--split", "val")
    assert ended.code == 0 and "precision 1.000, recall 1.000" in ended.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: [{**d[0], "score": float("nan")}], "only finite numbers"),
        (lambda d: [{**d[0], "image_id": 999}], "999"),
        (lambda d: {"a": 1}, "detections.json"),
    ],
)
def test_eval_refuses_what_cannot_be_evaluated(truth, yolojax, tmp_path, change, said):
    perfect = json.loads((truth / "perfect.json").read_text())
    (tmp_path / "detections.json").write_text(json.dumps(change(perfect)))
    ended = yolojax("eval", truth / "truth.json", "detections.json")
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and said in ended.err


def test_eval_split_and_json_contradict(truth, yolojax):
    ended = yolojax("eval", truth / "truth.json", truth / "perfect.json", "--split", "val")
    assert ended.code == 2 and "leave --split out" in ended.err


def test_diagnose_of_four_numbers(yolojax):
    ended = yolojax("diagnose", "--precision", ".9", "--recall", ".3", "--ap50", ".5", "--ap", ".3")
    assert ended.code == 0 and "under-predicting" in ended.out and ended.out.count("\n") == 2


def test_diagnose_of_a_run(trained, yolojax):
    by_run, by_file = yolojax("diagnose", trained), yolojax("diagnose", trained / "report" / "metrics.json")
    assert by_run.code == 0 and by_run == by_file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a run directory, or all of --precision, --recall, --ap50 and --ap"),
        (["--precision", ".5"], "all of --precision, --recall, --ap50 and --ap"),
        (["RUN", "--recall", ".5"], "not both"),
        (["nowhere"], "nowhere: no metrics.json there"),
        (["--precision", ".5", "--recall", ".5", "--ap50", ".3", "--ap", ".6"], "are they swapped?"),
        (["bad.json"], "bad.json: not a metrics.json of ours"),
    ],
)
def test_diagnose_errors(arguments, said, trained, yolojax, tmp_path):
    (tmp_path / "bad.json").write_text('{"AP": 1}')
    ended = yolojax("diagnose", *[str(trained) if a == "RUN" else a for a in arguments])
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and said in ended.err


def test_diagnose_of_a_data_set_without_objects(yolojax, tmp_path):
    numbers = {"precision": None, "recall": None, "AP50": None, "AP": None, "classes": []}
    (tmp_path / "metrics.json").write_text(json.dumps(numbers))
    ended = yolojax("diagnose", ".")
    assert ended.code == 2 and "has no objects" in ended.err
