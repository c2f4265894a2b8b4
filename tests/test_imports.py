"""An import only goes down the layers, and the cheap parts stay cheap to import."""

import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import yolojax

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("flax", "orbax", "grain", "matplotlib", "tensorstore")
GROUND = ("boxes", "structures", "geometry", "errors", "paths", "draw", "fonts")
PARTS = ("assign", "losses", "nms", "coding", "augment", "anchors", "weights")


def run_python(program: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


def test_imports_go_down_the_layers(tmp_path: Path) -> None:
    """Contracts are in pyproject.toml; the linter wants one tree, so it sees a copy with `eval/` where it installs."""
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "yolojax", tmp_path / "yolojax", ignore=no_caches)
    shutil.copytree(ROOT / "eval", tmp_path / "yolojax" / "eval", ignore=no_caches)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    linted = run_python("from importlinter.cli import lint_imports_command as c; c(['--no-cache'])", cwd=tmp_path)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_parts_import_nothing_heavy() -> None:
    existing = {module.name for module in pkgutil.iter_modules(yolojax.__path__)}
    names = [f"yolojax.{name}" for name in (*GROUND, *PARTS, "eval") if name in existing]
    assert "yolojax.structures" in names
    program = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for inner in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        importlib.import_module(inner.name)
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    loaded = run_python(program, *names)
    assert loaded.returncode == 0, loaded.stderr
    assert not set(HEAVY) & set(loaded.stdout.split())


def test_kept_predictors_are_opened_without_the_code_of_networks() -> None:
    """A second call of `predict` takes the program that the first one kept and needs no Flax."""
    loaded = run_python("import sys, yolojax.inference.kept; print('flax' in sys.modules, 'optax' in sys.modules)")
    assert loaded.stdout.split() == ["False", "False"], loaded.stderr


def test_help_does_not_import_jax() -> None:
    program = """
import sys, time
start = time.process_time()
sys.argv = ["yolojax", "--help"]
from yolojax.cli import main
try:
    code = main()
except SystemExit as stop:
    code = stop.code
assert not code, code
loaded = {name.partition(".")[0] for name in sys.modules}
print("LOADED", time.process_time() - start, *sorted(loaded))
"""
    helped = run_python(program)
    assert helped.returncode == 0, helped.stdout + helped.stderr
    _, seconds, *loaded = helped.stdout.splitlines()[-1].split()
    assert not {"jax", "numpy", "PIL", *HEAVY} & set(loaded)
    # Processor time, which other work on the machine does not lengthen; measured at about .15 s.
    assert float(seconds) < 1.0


def test_a_report_of_detections_does_not_import_jax() -> None:
    """Detections are measured on machines without an accelerator, where importing JAX takes as long as the table."""
    program = """
import sys
import yolojax.cli.photos, yolojax.eval.analysis, yolojax.eval.report.write, yolojax.eval.table
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    loaded = run_python(program)
    assert loaded.returncode == 0, loaded.stderr
    assert not {"jax", *HEAVY} & set(loaded.stdout.split())


def test_every_public_name_of_data_is_found() -> None:
    import yolojax.data

    assert [name for name in yolojax.data.__all__ if not hasattr(yolojax.data, name)] == []
