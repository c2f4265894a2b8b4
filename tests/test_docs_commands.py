"""The commands, options, names and links on the pages for users exist, and the names that they import."""

import re
import shlex
from pathlib import Path

import pytest

from yolojax.catalogue import rows
from yolojax.cli import parse

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
README = (ROOT / "README.md").read_text(encoding="utf-8")
USERS = ("migrating.md", "troubleshooting.md", "glossary.md")
VERBS = "train|val|predict|eval|diagnose|data|anchors|info|export|models|doctor|bench|plan"
COMMAND = re.compile(rf"(?<![\w/.-])yolojax ((?:{VERBS})[^`\n#]+)")


def commands(text: str) -> list[str]:
    """Every ``yolojax VERB ...`` in code spans and blocks."""
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    blocks = "\n".join(re.findall(r"```(?:bash|sh)?\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    return [found.strip() for span in [*spans, *blocks] for found in COMMAND.findall(span)]


@pytest.mark.parametrize("name", [*USERS[:2], "getting_started.md", "README.md"])
def test_every_command_is_one_that_the_parser_takes(name, capsys):
    found = commands(README if name == "README.md" else PAGES[name])
    assert len(found) > 6
    refused = []
    for command in found:
        try:
            parse(shlex.split(command))
        except SystemExit as stop:  # with 0 where the command asks for --help
            refused += [command] if stop.code else []
    capsys.readouterr()
    assert refused == []


ALL = {**PAGES, **{f"examples/{path.name}": path.read_text("utf-8") for path in (ROOT / "docs/examples").glob("*.md")}}


def test_every_command_of_a_block_on_any_page_is_one_that_the_parser_takes(capsys):
    """Lines that only a shell understands, with variables or in the background, are those of clusters."""
    blocks = {name: re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for name, text in ALL.items()}
    lines = [(n, line) for n, own in blocks.items() for b in own for line in b.replace("\\\n", " ").splitlines()]
    found = [(name, command) for name, line in lines for command in COMMAND.findall(line) if not {*"&$"} & {*command}]
    found = [(name, command) for name, command in found if command.count('"') % 2 == 0]  # the others are within quotes
    assert len({name for name, _ in found}) > 10
    refused = []
    for name, command in found:
        try:
            parse(shlex.split(command))
        except SystemExit as stop:
            refused += [(name, command)] if stop.code else []
    capsys.readouterr()
    assert refused == []


@pytest.fixture(scope="module")
def options():
    """The options of all commands."""
    import contextlib
    import io

    known = set()
    for verb in (
        "train",
        "val",
        "predict",
        "eval",
        "anchors",
        "bench train",
        "data tile",
        "data convert",
        "doctor",
        "plan",
    ):
        told = io.StringIO()
        with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
            parse([*verb.split(), "--help"])
        known |= set(re.findall(r"--[a-z][\w.-]*\w", told.getvalue()))
    return known


@pytest.mark.parametrize("name", USERS)
def test_every_option_of_ours_exists(name, options):
    """In a table the first column is the other program's, and a span that calls python is not ours either."""
    ours = []
    for line in PAGES[name].splitlines():
        cells = line.split("|")[2:] if line.startswith("|") and name == "migrating.md" else [line]
        spans = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
        ours += [
            o
            for span in spans
            if not span.startswith(("python", "darknet", "pip"))
            for o in re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", span)
        ]
    assert {*ours} - {*options} - {"--help", "--version", "--augment"} == set()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL))
    own = [target for target in targets if "://" not in target]
    assert [target for target in own if not (ROOT / "docs" / target).exists()] == []


def test_names_that_are_imported_on_the_page_exist():
    blocks = re.findall(r"```python\n(.*?)```", PAGES["migrating.md"], re.DOTALL)
    assert len(blocks) == 2
    exec("\n".join(line for line in "\n".join(blocks).splitlines() if line.startswith(("from", "import"))), {})


def test_the_glossary_is_sorted_and_says_each_term_once():
    terms = re.findall(r"^([^\s:].*)\n: ", PAGES["glossary.md"], re.MULTILINE)
    assert len(terms) > 40 and len(set(terms)) == len(terms)
    assert terms == sorted(terms, key=lambda term: re.sub(r"[^a-z0-9 ,]", "", term.lower()))


def test_a_newcomer_reads_the_readme_in_three_minutes():
    assert README.count("\n") <= 150
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_models_of_the_readme_are_those_of_the_catalogue():
    listed = {row.model: row for row in rows()}
    found = re.findall(
        r"^\| `(\S+)` to `(\S+)` \| (\S+) to (\S+) M \| (\S+) to (\S+) \| (\S+) to (\S+) \|", README, re.M
    )
    assert len(found) > 5
    for small, large, *figures in found:
        for name, (parameters, gflops, ap) in zip((small, large), (figures[::2], figures[1::2]), strict=True):
            row = listed[name]
            assert row.parameters is not None and row.gflops is not None and row.ap is not None
            assert (parameters, gflops) == (f"{row.parameters / 1e6:.1f}", f"{row.gflops:.1f}")
            assert ap == f".{round(1000 * row.ap):03d}"
