"""Each row of ``docs/inputs.md`` names tests that exist, and each test of inputs stands in a row."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "inputs.md"
WHOLE = ("test_labels.py", "test_layouts.py", "test_doubts.py", "test_hostile.py")
"""Files of which every test is the word of a row."""


def functions_of(file: str) -> set[str]:
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_row_is_tested_and_every_test_has_its_row() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| input |")]
    named: set[tuple[str, str]] = set()
    for row in rows:
        found = re.findall(r"`([./\w]+\.py)::(\w+)`", row)
        assert found, row
        named |= set(found)
    for file in {file for file, _ in named}:
        there = functions_of(file)
        for name in (name for other, name in named if other == file):
            assert name in there, f"{file}::{name}"
    for file in WHOLE:
        assert functions_of(file) == {name for other, name in named if other == file}
