"""``yolojax val``, ``eval`` and ``diagnose``."""

import json

import pytest

from tests.cli.small_run import DATA
from yolojax.data import open_dataset
from yolojax.eval.coco import METRICS
from yolojax.eval.report.pictures import PICTURE_FILES
from yolojax.eval.report.write import REPORT_FILES

pytestmark = pytest.mark.usefixtures("compiled_once")


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
    assert "8 images" in ended.out and "AP50" in ended.out
    assert (
        "runs/val: detections.json, index.html, report.md, metrics.json, curves and confusion matrix as PNG"
        in ended.out
    )
    written = json.loads((tmp_path / "runs" / "val" / "metrics.json").read_text())
    assert set(METRICS) | {"precision", "recall"} <= set(written)
    detections = json.loads((tmp_path / "runs" / "val" / "detections.json").read_text())
    assert detections and set(detections[0]) == {"image_id", "category_id", "bbox", "score"}
    assert min(d["score"] for d in detections) >= 0.01

    # The same numbers come from the detections alone, through the other command.
    (tmp_path / "truth.json").write_text(json.dumps(open_dataset(DATA, "val").to_coco()))
    again = yolojax("eval", "truth.json", "runs/val/detections.json", "--out", "again", "--samples", "0")
    assert again.code == 0 and "diagnosis: " in again.out
    page = (tmp_path / "again" / "index.html").read_text()
    assert "8 images are shown as boxes alone" in page  # generated images are in no file
    assert (
        "yolojax eval truth.json runs/val/detections.json --out again" in (tmp_path / "again" / "report.md").read_text()
    )
    assert "data:image/jpeg" in (tmp_path / "runs" / "val" / "index.html").read_text()
    other = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert {name: other[name] for name in METRICS} == {name: written[name] for name in METRICS}

    diagnosed = yolojax("diagnose", "runs/val")
    assert diagnosed.code == 0
    assert diagnosed.out.startswith("diagnosis: ") and diagnosed.out.splitlines()[1].startswith("next: ")


def test_val_on_other_data(trained, yolojax):
    data = ["--data", "shapes:?count=3&size=64", "--split", "test"]
    options = ["--tta", "--tta-scales", "1", "1.5", "--tta-flip", "no"]
    ended = yolojax("val", "--model", trained, *data, "--out", "here", "--samples", "0", *options)
    assert ended.code == 0 and "3 images" in ended.out and "here: detections.json" in ended.out
    assert "test-time augmentation: 2 augmentations, 64 x 64, 96 x 96 pixels, combined by one suppression" in ended.err
    ended = yolojax("val", "--model", trained, "--out", "here")
    assert ended.code == 2 and "--out here exists already" in ended.err


def test_val_takes_the_validation_part_of_other_data_and_says_so(trained, yolojax, tmp_path):
    ended = yolojax("val", "--model", trained, "--data", "shapes:?count=3&size=64", "--out", "there")
    assert ended.code == 0 and "measuring on the part val" in ended.err
    ids = {d["image_id"] for d in json.loads((tmp_path / "there" / "detections.json").read_text())}
    assert ids <= {record.image_id for record in open_dataset("shapes:?count=3&size=64", "val").records}


def test_val_takes_another_part_of_the_runs_own_data(trained, yolojax, tmp_path):
    ended = yolojax("val", "--model", trained, "--split", "test", "--out", "there", "--samples", "0")
    assert ended.code == 0 and "8 images" in ended.out
    assert "(test)" in (tmp_path / "there" / "index.html").read_text()


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
        (["--model", "RUN", "--split", "vla"], "there is no split 'vla'"),
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


def test_eval_compares_two_lists_and_writes_a_report(truth, yolojax, tmp_path):
    perfect = json.loads((truth / "perfect.json").read_text())
    (tmp_path / "worse.json").write_text(json.dumps([{**d, "bbox": [v + 3 for v in d["bbox"]]} for d in perfect]))
    files = [truth / "truth.json", truth / "perfect.json", "--compare", "worse.json"]
    ended = yolojax("eval", *files, "--samples", "8", "--out", "report")
    assert ended.code == 0 and "A less B" in ended.out and "100.0%" in ended.out
    facts = json.loads((tmp_path / "report" / "metrics.json").read_text())
    row = facts["comparison"]["numbers"][0]
    assert (row["name"], row["wins"]) == ("AP", 1) and row["interval"]["low"] > 0
    assert "SHA-256" in facts["provenance"]["truth"] and facts["resamples"] == {"count": 8, "seed": 0, "level": 0.95}
    assert {p.name for p in (tmp_path / "report").iterdir()} == {*REPORT_FILES, *PICTURE_FILES}
    assert yolojax("diagnose", "report").out == "\n".join(ended.out.splitlines()[-4:-2]) + "\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--samples", "1"], "at least two resamples"),
        (["--compare", "worse.json", "--samples", "0"], "--compare needs resamples"),
        (["--compare", "nowhere.json"], "cannot read nowhere.json"),
        (["--out", "x", "--images", "nowhere"], "--images nowhere: no such folder"),
        (["--confidence", "1.5"], "confidence must lie within 0..1"),
        (["--seed", "0.5"], "seed"),
        (["--seed", "-1"], "--seed -1: it must lie within"),
        (["--seed", "2147483648"], "--seed 2147483648: it must lie within"),
        (["--samples", "1000001"], "at most 1000000 resamples"),
    ],
)
def test_eval_errors(truth, yolojax, tmp_path, arguments, said):
    (tmp_path / "worse.json").write_text("[]")
    ended = yolojax("eval", truth / "truth.json", truth / "perfect.json", *arguments)
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err and not (tmp_path / "x").exists()


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


def test_detections_that_are_no_file_are_refused(truth, yolojax):
    for path, said in ((truth, "it is a folder; give a COCO result list"), ("/dev/null", "it is no ordinary file")):
        ended = yolojax("eval", truth / "truth.json", path)
        assert ended.code == 2 and ended.err.count("\n") == 1 and said in ended.err


def test_eval_split_and_json_contradict(truth, yolojax):
    ended = yolojax("eval", truth / "truth.json", truth / "perfect.json", "--split", "val")
    assert ended.code == 2 and "leave --split out" in ended.err


def test_diagnose_of_four_numbers(yolojax):
    ended = yolojax("diagnose", "--precision", ".9", "--recall", ".3", "--ap50", ".5", "--ap", ".3")
    assert ended.code == 0 and "under-predicting" in ended.out and ended.out.count("\n") == 2


GOOD = ["--precision", ".75", "--recall", ".75", "--ap50", ".7", "--ap", ".5"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*GOOD[:4], "--ap50", ".7", "--ap", ".1"], "boxes are rough"),
        ([*GOOD[:4], "--ap50", ".9", "--ap", ".5"], "localisation is loose"),
        (["--precision", ".3", "--recall", ".8", *GOOD[4:]], "over-predicting"),
        (["--precision", ".9", "--recall", ".3", *GOOD[4:]], "under-predicting"),
        ([*GOOD, "--class-recall", "cat=.8", "dog=.4"], "class imbalance: recall is below 0.5 for dog (0.400)"),
        ([*GOOD, "--confused", "cat:dog=.2", "dog:cat=.15"], "cat and dog are ambiguous"),
        (GOOD, "no single fault stands out"),
    ],
)
def test_every_rule_speaks_from_the_command_line(arguments, said, yolojax):
    ended = yolojax("diagnose", *arguments)
    assert ended.code == 0 and ended.out.startswith("diagnosis: ") and said in ended.out


def test_confused_classes_are_found_in_a_report(yolojax, tmp_path):
    """From files to the rule: of ten cats and ten dogs, two of each are taken for the other."""
    boxes = [[30.0 * k, 0.0, 20.0, 20.0] for k in range(20)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    objects = [{"id": k + 1, "image_id": 1, "category_id": 1 + k // 10, "bbox": b} for k, b in enumerate(boxes)]
    truth = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": categories, "annotations": objects}
    taken = [1 + (k // 10 + (k % 10 < 2)) % 2 for k in range(20)]
    found = [
        {"image_id": 1, "category_id": c, "bbox": b, "score": 0.9 - k / 100}
        for k, (b, c) in enumerate(zip(boxes, taken, strict=True))
    ]
    (tmp_path / "t.json").write_text(json.dumps(truth))
    (tmp_path / "d.json").write_text(json.dumps(found))
    assert yolojax("eval", "t.json", "d.json", "--out", "here", "--samples", "0").code == 0
    said = yolojax("diagnose", "here").out
    assert "cat and dog are ambiguous: 20.0% of cat" in said


@pytest.mark.parametrize("given", ["cat", "cat=x", "cat=1.2", "=.5", "cat=nan"])
def test_class_recall_that_is_none(given, yolojax):
    ended = yolojax("diagnose", *GOOD, "--class-recall", given)
    assert ended.code == 2 and "as in cat=.4" in ended.err


def test_what_is_given_twice_is_refused(yolojax):
    for option, value in (("--class-recall", "cat"), ("--confused", "cat:dog")):
        ended = yolojax("diagnose", *GOOD, option, f"{value}=.1", f"{value}=.2")
        assert ended.code == 2 and f"{option}: {value} is given twice; give it once" in ended.err


@pytest.mark.parametrize("given", ["cat=.2", "cat:=.2", "cat:cat=.2"])
def test_confusions_that_are_none(given, yolojax):
    ended = yolojax("diagnose", *GOOD, "--confused", given)
    assert ended.code == 2 and "cat:dog=.2" in ended.err


def test_diagnose_of_a_run(trained, yolojax):
    by_run, by_file = yolojax("diagnose", trained), yolojax("diagnose", trained / "report" / "metrics.json")
    assert by_run.code == 0 and by_run == by_file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a run directory, or all of --precision, --recall, --ap50 and --ap"),
        (["--precision", ".5"], "all of --precision, --recall, --ap50 and --ap"),
        (["RUN", "--recall", ".5"], "not both"),
        (["RUN", "--confused", "a:b=.5"], "not both"),
        (["nowhere"], "nowhere: no metrics.json there"),
        (["--precision", ".5", "--recall", ".5", "--ap50", ".3", "--ap", ".6"], "are they swapped?"),
        (["bad.json"], "bad.json: not a metrics.json of ours (it has no 'precision'); write it anew"),
        (["deep.json"], "deep.json: not a metrics.json of ours"),
        (["photo.jpg"], "photo.jpg: not a metrics.json of ours (no text); write it anew"),
    ],
)
def test_diagnose_errors(arguments, said, trained, yolojax, tmp_path):
    (tmp_path / "bad.json").write_text('{"AP": 1}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "photo.jpg").write_bytes(bytes(range(256)) * 100)
    ended = yolojax("diagnose", *[str(trained) if a == "RUN" else a for a in arguments])
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and said in ended.err


@pytest.mark.parametrize(
    "change",
    [
        {"AP": "0.5"},
        {"recall": True},
        {"classes": [{"name": 1, "at_confidence": {"recall": 0.5}}]},
        {"classes": [{"name": "a", "at_confidence": {"recall": [0.5]}}]},
        {"confusions": {"shares": [{"object": "a", "taken_for": "b", "share": None}]}},
    ],
)
def test_diagnose_refuses_values_of_other_types(change, yolojax, tmp_path):
    numbers = {"precision": 0.5, "recall": 0.5, "AP50": 0.5, "AP": 0.3, "classes": []}
    (tmp_path / "metrics.json").write_text(json.dumps({**numbers, **change}))
    ended = yolojax("diagnose", ".")
    assert ended.code == 2 and ended.err.count("\n") == 1 and "not a metrics.json of ours" in ended.err


def test_diagnose_of_a_data_set_without_objects(yolojax, tmp_path):
    numbers = {"precision": None, "recall": None, "AP50": None, "AP": None, "classes": []}
    (tmp_path / "metrics.json").write_text(json.dumps(numbers), encoding="utf-8-sig")
    ended = yolojax("diagnose", ".")
    assert ended.code == 2 and "has no objects" in ended.err
