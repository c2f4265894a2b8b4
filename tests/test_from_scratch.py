"""The page that builds a detector step by step: every block runs, and every picture that it shows exists."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "from_scratch.md"


@pytest.mark.slow
def test_every_block_runs(capsys):
    text = PAGE.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert len(blocks) == text.count("```python") >= 14
    namespace: dict[str, object] = {}
    for block in blocks:
        above = text[: block.start(1)].count("\n")  # so that a failure names the line of the page
        exec(compile("\n" * above + block[1], str(PAGE), "exec"), namespace)
    assert "AP50" in capsys.readouterr().out


def test_its_pictures_are_those_in_the_folder():
    shown = set(re.findall(r"!\[[^\]]+\]\((from_scratch/\w+\.png)\)", PAGE.read_text()))
    assert shown == {f"from_scratch/{path.name}" for path in (DOCS / "from_scratch").glob("*.png")}


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([\w./-]+)\)", PAGE.read_text())
    assert links and all((DOCS / link).exists() for link in links)
