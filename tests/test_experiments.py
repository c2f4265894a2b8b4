"""Studies run from end to end in their quick form, and what is committed is what the recorded numbers give."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.shared import record
from experiments.shared.record import HERE, folder_of, import_study, interval, paired, studies, verdict

ROOT = Path(__file__).parent.parent
DOCS = studies()
# The others keep their records in their own way, and have tests elsewhere.
QUICK = [name for name in DOCS if "\ndef page(" in (folder_of(name) / "study.py").read_text()]
RECORDED = [pytest.param(name, folder, id=folder.name) for name in DOCS for folder in record.records_of(name)]


# Those that compile longest, even in their quick form.
LONG = (
    *("assigners", "bccd", "ciou_vs_mse", "compiled_for", "data_scaling", "ensemble", "fine_tuning"),
    *("hypergradients", "label_errors", "label_suspects"),
    *("loss_weights", "multi_scale", "scale_out", "seeds", "small_data", "suppression", "tiling"),
    *("benchmarks.first_call", "benchmarks.sweep_speed", "benchmarks.throughput", "benchmarks.what_pays"),
)
QUICK_RUNS = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in QUICK]


@pytest.mark.parametrize("name", QUICK_RUNS)
def test_quick_run_leaves_a_complete_record(name, tmp_path, capsys):
    module = import_study(name)
    made = module.main(["--quick", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(made))
    page = (tmp_path / "README.md").read_text()
    assert module.conclude(made) in page and "--quick" in page and "nan" not in page
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert module.conclude(made) in capsys.readouterr().out


@pytest.mark.parametrize("name", QUICK)
def test_docstring_says_what_a_study_must(name):
    doc = DOCS[name]
    assert record.question(doc).endswith("?")
    assert all(section in doc for section in record.SECTIONS)
    assert f"python -m experiments.{name}" in doc


def test_table_of_studies_is_the_generated_one():
    assert (HERE / "README.md").read_text() == record.index(), "run `python -m experiments` and commit what it writes"


@pytest.mark.parametrize(("name", "folder"), RECORDED)
def test_record_names_nobody_and_its_page_is_the_generated_one(name, folder):
    for file in (*folder.glob("*.json"), *folder.glob("*.md")):
        assert not re.search(r"/(home|work|tmp|root|Users)/|localhost", file.read_text()), file
    module = import_study(name)
    if hasattr(module, "page"):
        made = record.render(json.loads((folder / "results.json").read_text()), module)
        assert (folder / "README.md").read_text() == made, "run `python -m experiments` and commit what it writes"
        assert "--quick" not in made


def test_runs_of_other_settings_are_made_again(tmp_path, capsys):
    args, made = argparse.Namespace(quick=False, out=tmp_path), []

    def run(seed, scale, **facts):
        runs = record.Runs(args, "seeds", scale, **facts)
        runs({"seed": seed}, lambda: made.append(seed) or {"AP": 0.5, "many": [0.0] * 99})
        return runs.all

    run(0, {"side": 32}, BCCD={"side": 64})
    run(1, {"side": 32}, BCCD={"side": 64})
    assert [r["seed"] for r in run(1, {"side": 32}, BCCD={"side": 64})] == made == [0, 1]
    assert [r["seed"] for r in run(1, {"side": 32}, BCCD={"side": 96})] == [1] and made == [0, 1, 1]
    out = capsys.readouterr().out
    assert "2 runs of other settings" in out and "'many': '99 values'" in out
    # What a record holds counts like what waits for one.
    whole = {"scale": {"side": 32}, "BCCD": {"side": 96}, "runs": [{"seed": 7, "AP": 0.1}]}
    (tmp_path / "results.json").write_text(json.dumps(whole))
    assert [r["seed"] for r in run(7, {"side": 32}, BCCD={"side": 96})] == [7, 1]
    assert [r["seed"] for r in run(7, {"side": 32})] == [7, 1]  # what is not named does not matter
    del whole["BCCD"]
    (tmp_path / "results.json").write_text(json.dumps(whole))
    assert [r["seed"] for r in run(8, {"side": 32}, BCCD={"side": 96})] == [1, 8]


def test_a_recorded_command_names_no_path():
    words = ["--data", "/home/me/data", "--parts", "time", "--weights", "5", "--out=/tmp/a=b", "/odd", "--quick"]
    words += ["--model", "/home/me/runs/lr=0.1"]
    told = "--data DATA --parts time --weights 5 --out=OUT OUT --quick --model MODEL"
    assert " ".join(record.without_paths(words)) == told
    assert record.without_paths(["/a"]) == ["PATH"]


def test_interval_is_students():
    # R: t.test(c(.50, .52, .55, .51, .53))$conf.int
    found = interval([0.50, 0.52, 0.55, 0.51, 0.53])
    assert found.mean == pytest.approx(0.522)
    # By hand: s = .019235, t(4, .975) = 2.776445, half = t s / sqrt 5.
    assert found.high - found.mean == pytest.approx(2.776445 * 0.0192354 / 5**0.5, rel=1e-5)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert np.isnan(interval([0.5]).low) and str(interval([0.5])) == "0.500"
    for bad in ([], [0.5, float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            interval(bad)


def test_pairing_cancels_what_runs_of_a_seed_share():
    shared = np.array([0.1, 0.5, 0.9])
    better = paired((shared + np.array([0.02, 0.021, 0.019])).tolist(), shared.tolist())
    assert better.low > 0.015 and verdict(better) == "more"
    assert (
        verdict(interval(shared - 0.4)) == "no difference shown" and verdict(interval([-0.1, -0.11, -0.12])) == "less"
    )


def test_bccd_needs_data():
    command = [sys.executable, "-m", "experiments.bccd"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "--data" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_eval_speed_quick_compares_the_programs():
    command = [sys.executable, "-m", "experiments.benchmarks.eval_speed", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "yolojax eval, report, pycocotools from command" in done.stdout and "bootstrap: " in done.stdout
    apart = [float(line.split()[-3]) for line in done.stdout.splitlines() if line.endswith("from pycocotools")]
    assert len(apart) >= 4 and max(apart) <= 1e-4


@pytest.mark.slow  # four processes that import JAX
def test_data_start_quick_measures_both_starts(tmp_path):
    command = [sys.executable, "-m", "experiments.benchmarks.data_start", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=300)
    made = json.loads((tmp_path / "results.json").read_text())
    assert [(row["what"], row["run"]) for row in made["rows"]] == [
        (what, run) for what in ("data check", "start of training") for run in ("first", "second")
    ]
    assert made["images"] == 300 and all(row["processor_seconds"] > 0 for row in made["rows"])


def test_eval_speed_names_what_a_case_lacks():
    command = [sys.executable, "-m", "experiments.benchmarks.eval_speed", "--case", str(ROOT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "does not hold bench_gt.json" in done.stderr and "Traceback" not in done.stderr


def test_iou_parity_holds_against_recorded_answers():
    module = import_study("iou_parity")
    families = module.measure(argparse.Namespace(quick=True, write_golden=None))["families"]
    assert len(families) == 12 and all(f["from_torchvision"] < 1e-6 and f["finite_here"] for f in families.values())


def test_labels_are_spoilt_as_said():
    from experiments.label_errors.study import KINDS, spoil
    from experiments.shared.small_runs import images

    right = images(40, 32).targets
    wrong, kinds, missing = spoil(right, 2, 32, seed=0)
    n = int(right.valid.sum())
    changed = {kind: kinds == i for i, kind in enumerate(KINDS)}
    assert abs(sum(c.sum() for c in changed.values()) + missing.sum() - 0.1 * n) <= 1
    assert int(wrong.valid.sum()) == n - missing.sum() + changed["extra"].sum() and missing.sum() > 0
    same = right.valid & wrong.valid & (kinds < 0)
    np.testing.assert_array_equal(right.boxes[same], wrong.boxes[same])
    np.testing.assert_array_equal(right.classes[same], wrong.classes[same])
    assert (right.classes != wrong.classes)[changed["class"]].all()
    assert (np.abs(right.boxes - wrong.boxes)[changed["moved"]].max(axis=1) > 0).all()
    assert not right.valid[changed["extra"]].any()


def test_a_record_of_another_device_stands_below_the_studys_own(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "HERE", tmp_path)
    for folder in ("speed", "speed/nvidia_h200", "speed/empty"):
        (tmp_path / folder).mkdir()
    for folder in ("speed", "speed/nvidia_h200"):
        (tmp_path / folder / "results.json").write_text("{}")
    assert record.records_of("speed") == [tmp_path / "speed", tmp_path / "speed" / "nvidia_h200"]


def test_throughput_on_an_accelerator_records_itself_beside_the_processors(tmp_path, monkeypatch):
    """With invented figures: what is measured, in which of PyTorch's modes, and what the page says of it."""
    study = import_study("benchmarks.throughput")
    asked = []

    def ours(*case):
        asked.append(case)
        numbers = dict.fromkeys(study.KEPT, 1.0) | {
            "traffic": None,
            "bandwidth_share": None,
            "images_per_second": 4000.0,
        }
        return {**numbers, "parameters": 1, "steps": 3}

    def theirs(python, *case):
        asked.append(case)
        return {"images_per_second": 2000.0, "steps": 3, "compile_seconds": 5.0, "device_memory": 2**30}

    monkeypatch.setattr(study.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(study, "ours", ours)
    monkeypatch.setattr(study, "pytorch", theirs)
    monkeypatch.setattr(study.shutil, "which", lambda name: None)
    monkeypatch.setattr(study, "device_name", lambda: "device")
    monkeypatch.setattr(study, "folder_of", lambda name: tmp_path)
    made = study.main(["--torch", "python3", "--seconds", "5"])
    assert [case[-1] for case in asked[:4]] == [5.0, "eager", "graph", "compiled"]
    assert asked[-1] == ("YOLOv8s", 640, 64, "bfloat16", 5.0) and len(asked) == 4 * 4 + 1
    assert {file.name for file in (tmp_path / "device").iterdir()} == {"README.md", "results.json", "plot.png"}
    assert "YOLOv8n 4000.0 (100% of the peak)" in study.conclude(made) and "PyTorch, compiled 2000.0" in study.conclude(
        made
    )
    assert "| PyTorch, CUDA graph | 640 | 64 | bfloat16 | 2000.0 |  | 5 | 1.07 |" in study.page(made)
