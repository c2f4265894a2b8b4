"""The notebooks in docs/examples use public names, lead somewhere and, in a slow test, run as a user would run them."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
FOLDER = DOCS / "examples"
PAGES = {
    path.stem: text
    for path in sorted(FOLDER.glob("*.md"))
    if "kernelspec:" in (text := path.read_text(encoding="utf-8"))
}


def cells(text: str) -> list[str]:
    return re.findall(r"^```\{code-cell\} python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_all_notebooks_are_pages_of_the_site():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert len(PAGES) >= 6
    assert [name for name in PAGES if f"\nexamples/{name}\n" not in index] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_notebook_imports_public_names_of_ours_that_exist(name):
    code = "\n".join(cells(PAGES[name]))
    assert max(map(len, code.splitlines())) <= 120
    imported = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    ours = [
        (node.module, one.name) for node in imported for one in node.names if (node.module or "").startswith("yolojax")
    ]
    assert ours
    for module, one in ours:
        assert not re.search(r"(^|\.)_", f"{module}.{one}")
        assert hasattr(importlib.import_module(module), one) or importlib.import_module(f"{module}.{one}")


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_notebook_lead_somewhere(name):
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)\)", PAGES[name]) if "://" not in target]
    assert targets and [target for target in targets if not (FOLDER / target).exists()] == []


RUN = """
import ast, sys
page, space = sys.argv[1], {"__name__": "__main__"}
for code in sys.stdin.read().split("\\0"):
    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, page, "exec"), space)
    value = eval(compile(last, page, "eval"), space) if last else None
    for show in ("_repr_png_", "_repr_html_"):
        getattr(value, show, str)()
"""
"""Runs cells in one namespace and asks the value of a cell's last expression for its picture, as a notebook does."""

SAID = {
    "train_in_five_minutes": r"AP50 0\.[7-9]",
    "wrong_labels": r"class loss: of the 12 labels with the highest value (9|10|11|12) are wrong",
    "hypergradients": r"of the 6 most harmful images [4-6] have a wrong label",
}
"""What a page must print for the text around it to be true."""


@pytest.mark.slow  # up to a minute each on one core, most of it compilation
@pytest.mark.parametrize("name", PAGES)
def test_a_notebook_runs(name, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_FLAGS"))}
    environment |= {"PYTHONPATH": str(DOCS.parent), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-c", RUN, str(FOLDER / f"{name}.md")]
    code = "\0".join(cells(PAGES[name]))
    ran = subprocess.run(command, input=code, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert re.search(SAID.get(name, ""), ran.stdout), ran.stdout
