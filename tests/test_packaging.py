"""`eval/` lies at the top level and is `yolojax.eval` to every import, from a checkout too."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import yolojax
from tests.use_installed import FOUND, TRUTH

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


@pytest.mark.parametrize(
    ("name", "said"),
    [("fti", "did you mean fit"), ("zoo_", "evaluate, fit, load"), ("tests_are_not_in_it", "evaluate")],
)
def test_a_name_that_is_not_there_is_explained(name, said) -> None:
    with pytest.raises(AttributeError, match=said):
        getattr(yolojax, name)


def test_a_submodule_that_was_not_imported_is_explained() -> None:
    program = "import yolojax; print(sorted({*yolojax.__all__} - {*dir(yolojax)})); yolojax.tiling"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "[]\n" and "from yolojax import tiling" in ended.stderr


def test_one_version_everywhere() -> None:
    """The package, the project, the citation and the newest entry of the changes name the same version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert yolojax.__version__ == project["version"]
    assert f"\nversion: {yolojax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None and newest[1] == yolojax.__version__


def test_files_of_the_repository_front_parse() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert templates
    for path in templates:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= set(form)
        assert len({field["id"] for field in form["body"]}) == len(form["body"])


BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def built(kind: str, source: Path, out: Path) -> set[str]:
    """The files in a wheel or an sdist that setuptools builds from a tree, without the network."""
    made = subprocess.run([sys.executable, "-c", BUILD, kind, str(out)], cwd=source, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    path = out / made.stdout.strip().splitlines()[-1]
    if kind == "build_wheel":
        with zipfile.ZipFile(path) as wheel:
            return set(wheel.namelist())
    with tarfile.open(path) as sdist:
        sdist.extractall(out, filter="data")
        return {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}


def use_without_checkout(wheel: Path, site: Path) -> None:
    """Unpacks a wheel, as installing does, and evaluates and reports with it; `.ci/wheels` uses it at length."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    (site / "truth.json").write_text(json.dumps(TRUTH))
    (site / "found.json").write_text(json.dumps(FOUND))
    program = """
import sys, yolojax, yolojax.eval
from yolojax.cli import main
print(yolojax.__file__, yolojax.eval.__file__, sep="\\n")
sys.exit(main(["models", "yolov8"]) or main(["eval", "truth.json", "found.json", "--out", "report"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", program]
    used = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr
    assert all(Path(line).is_relative_to(site) for line in used.stdout.splitlines()[:2])
    assert json.loads((site / "report" / "metrics.json").read_text())["AP"] > 0.999


def test_wheel_and_sdist_hold_everything(tmp_path) -> None:
    """The wheel built from the sdist is the wheel built from the tree: all modules, data files and the licence."""
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip("setuptools 77 or later builds yolojax")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no checkout")
    tree, out = tmp_path / "tree", tmp_path / "out"
    for name in tracked.stdout.split("\0")[:-1]:
        if not name.startswith(("experiments/", "tests/")) and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    wheel = built("build_wheel", tree, out)
    modules = {str(path.relative_to(tree)) for path in (tree / "yolojax").rglob("*.py")}
    modules |= {f"yolojax/{path.relative_to(tree)}" for path in (tree / "eval").rglob("*.py")}
    data = {"yolojax/py.typed", "yolojax/catalogue.json", "yolojax/planning/devices.json"}
    data |= {"yolojax/eval/templates/report.html"}
    assert modules | data <= wheel
    assert {name.partition("/")[0] for name in wheel} == {"yolojax", f"yolojax-{yolojax.__version__}.dist-info"}
    assert [name for name in wheel if name.endswith("/LICENSE")]
    use_without_checkout(next(out.glob("*.whl")), tmp_path / "installed")
    sdist = built("build_sdist", tree, out)
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE", "CHANGELOG.md", "eval/coco.py"} <= sdist
    assert built("build_wheel", out / f"yolojax-{yolojax.__version__}", tmp_path / "again") == wheel
