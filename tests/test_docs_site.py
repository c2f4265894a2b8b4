"""The reference of the site has every public name, each with a docstring; the site builds without a warning."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from jaxtyping import Array, Float

DOCS = Path(__file__).resolve().parent.parent / "docs"

INTERNAL = (
    "yolojax.cli",
    "yolojax.processor",
    "yolojax.bench",
    "yolojax.export",
    "yolojax.sharding",
    "yolojax.inference",
    "yolojax.planning",
)
"""Packages of which single modules are in the reference, or none: the command and what only a processor needs."""


@pytest.fixture(scope="module")
def api_pages():
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("api_pages")
    finally:
        sys.path.remove(str(DOCS))


def test_every_package_with_public_names_is_in_the_reference(api_pages):
    listed = {name for modules in api_pages.MODULES.values() for name in modules}
    own = pkgutil.iter_modules([str(DOCS.parent / "yolojax")])  # the other folder of __path__ is the checkout's
    packages = ["yolojax.eval", *(f"yolojax.{module.name}" for module in own if module.ispkg)]
    public = [name for name in packages if name not in INTERNAL and hasattr(importlib.import_module(name), "__all__")]
    assert "yolojax.nms" in public and [name for name in public if name not in listed] == []


def test_every_public_name_is_on_its_page_with_a_docstring(api_pages):
    missing, silent = [], []
    for name in [name for modules in api_pages.MODULES.values() for name in modules]:
        module, page = importlib.import_module(name), api_pages.page(name)
        assert inspect.getdoc(module), name
        for entry in api_pages.public_names(module):
            value = getattr(module, entry)
            missing += [] if f"\n## {entry}\n" in page else [f"{name}.{entry}"]
            if inspect.isclass(value) or inspect.isfunction(value):
                silent += [] if (inspect.getdoc(value) or "").strip() else [f"{name}.{entry}"]
    assert missing == [] and silent == []


@pytest.mark.slow  # with the extra docs, some half a minute
def test_the_site_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "api" / "yolojax.nms.html").is_file() and (tmp_path / "migrating.html").is_file()


def test_sections_of_a_docstring_become_lists(api_pages):
    """The text and its tables stay as they are."""
    docstring = """Adds.

| a | b |

Args:
  x, y: the numbers,
    which are added.
  *rest: more.

Returns:
  The sum.

Example:
  >>> add(1, 2)
  3
"""
    found = api_pages.as_markdown(docstring)
    assert "| a | b |" in found and "**Args**\n\n- `x, y`: the numbers,\n  which are added.\n- `*rest`: more." in found
    assert "**Returns**\n\nThe sum." in found and found.endswith("```python\n>>> add(1, 2)\n3\n```")


def test_a_signature_reads_as_in_the_source(api_pages):
    """Quotes go, and what is given by keyword alone stays so, in one line and in many."""

    def short(a: Float[Array, " K"], *, b: int = 1) -> Float[Array, ""]: ...

    def long(first: tuple[int, int] = (1, 2), second: Float[Array, "K 4"] | None = None, *, third_of_them: int = 3): ...

    assert "\nf(a: Float[Array, K], *, b: int = 1) -> Float[Array]\n" in api_pages._signature("f", short)
    told = api_pages._signature("f", long)
    assert "    second: Float[Array, K 4] | None = None,\n    *,\n    third_of_them: int = 3,\n)" in told
