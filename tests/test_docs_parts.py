"""The page about the parts keeps its promises: the names in its tables exist, its code runs, its pictures exist."""

import re
from pathlib import Path

import pytest

from yolojax import anchors, assign, boxes, coding, losses, nms

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "parts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", [boxes, nms, coding, anchors, assign, losses], ids=lambda module: module.__name__)
def test_names_in_the_tables_exist(module):
    section = PAGE.split(f": `{module.__name__}`")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| ")]
    names = re.findall(r"`([a-z]\w*_\w+|nms)`", " ".join(row[0] for row in rows))
    names += re.findall(r"`(paired_\w+)`", " ".join(row[1] for row in rows))
    assert names or module is anchors
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.slow
def test_the_code_on_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) > 6
    exec("\n".join(blocks), {})


def test_links_and_pictures_lead_somewhere():
    targets = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert [target for target in targets if not (DOCS / target).exists()] == []
