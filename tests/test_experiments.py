"""Studies run from end to end in their quick form."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_bccd_quick_leaves_a_complete_record(tmp_path):
    command = [sys.executable, "-m", "experiments.bccd", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "results.json").read_text())
    (run,) = summary["runs"]
    assert run["programs"] == 1
    assert 0 < run["seconds"]["until_weights"] <= run["seconds_to_weights"]
    assert set(run["test"]) == set(run["val"]) and run["curve"][-1]["epoch"] == 1
    assert (tmp_path / "curve.png").stat().st_size > 0
    assert "seed 0" in (tmp_path / "README.md").read_text()


def test_bccd_needs_data():
    command = [sys.executable, "-m", "experiments.bccd"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "--data" in done.stderr and "Traceback" not in done.stderr


def test_eval_speed_quick_compares_the_programs():
    command = [sys.executable, "-m", "experiments.eval_speed", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "yolojax, compiled from memory" in done.stdout and "bootstrap: " in done.stdout
    far = [line for line in done.stdout.splitlines() if "within" in line and float(line.split()[-3]) > 1e-4]
    assert not far


def test_eval_speed_needs_a_case():
    command = [sys.executable, "-m", "experiments.eval_speed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "--case" in done.stderr and "Traceback" not in done.stderr
