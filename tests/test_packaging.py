"""`eval/` lies at the top level and is `yolojax.eval` to every import, from a checkout too."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_eval_is_found_in_a_bare_checkout() -> None:
    """`-S -E` hides whatever is installed: only the working directory is left, as for `python -c` in a fresh clone."""
    program = "import yolojax.eval, pathlib; print(pathlib.Path(yolojax.eval.__file__).resolve().parent)"
    answer = subprocess.run([sys.executable, "-S", "-E", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert Path(answer.stdout.strip()) == ROOT / "eval"


def test_setup_names_no_top_level_eval() -> None:
    program = """
import setuptools
setuptools.setup = lambda **given: print(*given["packages"], given["package_dir"])
import runpy
runpy.run_path("setup.py")
"""
    listed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    if "No module named 'setuptools'" in listed.stderr:
        import pytest

        pytest.skip("setuptools is not installed (Python 3.12 and later)")
    assert listed.returncode == 0, listed.stderr
    packages = listed.stdout.split("{")[0].split()
    assert "yolojax.eval" in packages and "yolojax.models" in packages
    assert not [name for name in packages if name.partition(".")[0] != "yolojax"]


def test_templates_of_the_report_are_package_data() -> None:
    """A wheel without them fails only where the report is written."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    shipped = {path for pattern in data["yolojax.eval"] for path in (ROOT / "eval").glob(pattern)}
    others = {path for path in (ROOT / "eval").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert others and others <= shipped
