"""What the studies share: arguments, statistics over seeds, the record of a study, the table of all of them.

A study is a folder ``experiments/NAME``; a comparison of speed is a folder ``experiments/benchmarks/NAME``. In it lie
``study.py`` and its record: ``results.json``, the page ``README.md`` and ``plot.png``. The docstring of ``study.py``
begins with the question and goes on with ``Method:``, ``Command:``, ``Expected:`` and ``Quick:``. The module has four
functions, and ``main = partial(run_study, sys.modules[__name__], ...)`` or its own:

- ``measure(args) -> results``: JSON values, every single run included;
- ``conclude(record) -> str``: the sentence that follows from the numbers, for the table;
- ``page(record) -> str``: the tables of the record's page, in Markdown;
- ``draw(record) -> Figure``: its picture.

The last three read what was recorded and nothing else, so that the pages can be made again from ``results.json`` alone;
the tests hold that the committed ones are those.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from yolojax.files import write_whole

HERE = Path(__file__).parent.parent
UNFINISHED = "runs.jsonl"
GPU_PACKAGES = ("jax-cuda13-plugin", "nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cublas")
SECTIONS = ("Question:", "Method:", "Command:", "Expected:")

Record = dict[str, Any]


class Interval(NamedTuple):
    """A mean and its confidence interval, ``n`` values wide; no interval (NaN) from one value."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.high - self.mean:.3f}" if self.n > 1 else f"{self.mean:.3f}"


def interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent values, such as one number of several seeds."""
    from scipy.stats import t

    x = np.asarray(list(values), np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"an interval needs at least one value, all finite, not {x.tolist()}")
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = float(t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x))


def paired(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95) -> Interval:
    """The interval of ``ours - theirs``, run by run: what both have of the same seed cancels."""
    return interval([a - b for a, b in zip(ours, theirs, strict=True)], level)


def verdict(difference: Interval) -> str:
    """``more``, ``less``, or ``no difference shown`` when zero lies inside the interval (or there is none)."""
    if difference.low > 0:
        return "more"
    return "less" if difference.high < 0 else "no difference shown"


def environment(*packages: str) -> Record:
    """Where a record was made, without names of hosts, people or folders."""
    import jax

    device = jax.devices()[0]
    hardware = f"{os.cpu_count()} processor cores" if device.platform == "cpu" else device.device_kind
    if device.platform == "gpu":
        packages = (*packages, *(name for name in GPU_PACKAGES if _installed(name)))
    versions = {name: importlib.metadata.version(name) for name in ("jax", *packages)}
    return {"hardware": hardware, "versions": {"python": platform.python_version(), **versions}}


def device_name() -> str:
    """The kind of device as the name of a file: ``cpu``, ``nvidia_h200``."""
    import jax

    device = jax.devices()[0]
    return "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "_")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def arguments(doc: str, name: str) -> argparse.ArgumentParser:
    """The options that every study has; it adds its own."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="seconds, to try the machinery; not recorded without --out"
    )
    place = folder_of(name).relative_to(HERE.parent)
    parser.add_argument("--out", type=Path, help=f"where the record goes (default {place})")
    return parser


class Runs:
    """The runs of a study, each computed unless an earlier call of the study did so: ``runs(key, compute)``.

    Looked for in the record that is there and in ``runs.jsonl`` beside it, where runs wait until the record is written,
    if they were made at the same ``scale`` and of the same ``facts``, which the record holds by these names: a study of
    times names its ``environment``, since those of another machine are of no use. Quick runs are neither kept nor
    looked for.
    """

    def __init__(self, args: argparse.Namespace, name: str, scale: Record, **facts: Record) -> None:
        self.keep, folder = not args.quick, args.out or folder_of(name)
        self.file, self.all = folder / UNFINISHED, []
        self.facts = json.loads(json.dumps({"scale": scale, **facts}))
        for file in (folder / "results.json", self.file) if self.keep else ():
            made, found = _kept(file)
            if all(made.get(name) == fact for name, fact in self.facts.items()):
                self.all += [run for run in found if run not in self.all]
            elif found:
                print(f"{file.name}: {len(found)} runs of other settings, made again", flush=True)

    def missing(self, keys: Iterable[Record]) -> list[Record]:
        """Those of the keys whose run has yet to be computed."""
        return [key for key in keys if not any(run.items() >= key.items() for run in self.all)]

    def __call__(self, key: Record, compute: Callable[[], Record]) -> None:
        if not self.missing([key]):
            return
        self.all.append({**key, **compute()})
        if self.keep:
            # Whole each time, by one rename: a stop leaves the file as it was before or as it is after.
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(line, allow_nan=False) for line in (self.facts, *self.all)]
            write_whole(self.file, "\n".join(lines) + "\n")
        said = {k: round(v, 3) if isinstance(v, float) else v for k, v in self.all[-1].items()}
        print({k: f"{len(v)} values" if isinstance(v, list) else v for k, v in said.items()}, flush=True)


def _kept(file: Path) -> tuple[Record, list[Record]]:
    """What a record, or runs that wait for one, say that they are runs of; and the runs."""
    if not file.exists():
        return {}, []
    if file.name == UNFINISHED:
        facts, *runs = map(json.loads, file.read_text().splitlines())
        return facts, runs
    record = json.loads(file.read_text())
    return record, record["runs"]


def run_study(
    module: ModuleType,
    argv: Sequence[str] | None = None,
    *,
    add: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    check: Callable[[argparse.ArgumentParser, argparse.Namespace], None] = lambda parser, args: None,
    packages: Sequence[str] = (),
) -> Record:
    """The ``main`` of a study: parse, measure, record; returns the record.

    Args:
      module: the study.
      argv: the command line; that of the process by default.
      add: adds the study's own options.
      check: refuses arguments that do not go together, by ``parser.error``.
      packages: whose versions matter besides jax's.
    """
    name = name_of(module)
    parser = arguments(module.__doc__ or "", name)
    add(parser)
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(words)
    check(parser, args)
    started = time.monotonic()
    results = module.measure(args)
    record = {
        "command": " ".join([f"python -m experiments.{name}", *without_paths(words)]),
        "date": datetime.date.today().isoformat(),
        "environment": environment(*packages),
        "seconds": round(time.monotonic() - started),
        **results,
    }
    folder = args.out or (Path(tempfile.mkdtemp(prefix=f"{name}-")) if args.quick else folder_of(name))
    write(folder, record, module)
    print(f"{module.conclude(record)}\nwritten to {folder}")
    return record


def without_paths(words: Sequence[str]) -> list[str]:
    """A command line for a record: in the place of a path stands the name of its option."""
    told: list[str] = []
    name = "PATH"
    for word in words:
        option, equals, _ = word.partition("=") if word.startswith("--") else ("", "", "")
        if word.startswith("--"):
            name = (option or word).lstrip("-").upper()
        told.append(word if os.sep not in word else f"{option}{equals}{name}")
    return told


def write(folder: Path, record: Record, module: ModuleType) -> None:
    """``results.json``, ``README.md`` and the picture, which bears the folder's name."""
    write_page(folder, record, render(record, module))
    (folder / UNFINISHED).unlink(missing_ok=True)
    module.draw(record).savefig(folder / "plot.png", dpi=110)


def write_page(folder: Path, record: Record, page: str) -> None:
    """``results.json`` and ``README.md``; a value that is not finite is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    (folder / "README.md").write_text(page)


def render(record: Record, module: ModuleType) -> str:
    """The page of a record."""
    where = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    made = f"`{record['command']}`, {record['date']}, {where['hardware']}, {versions}, "
    made += f"{record['seconds']} s (the last call, where runs were kept)."
    lines = [f"# {question(module.__doc__ or '')}", "", made, ""]
    lines += [f"**{module.conclude(record)}**", "", module.page(record).strip(), "", "![plot](plot.png)", ""]
    return "\n".join(lines)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """A figure without a window, and its row of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots(1, columns, squeeze=False)[0]


def question(doc: str) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join(doc.strip().split("\n\n")[0].split())


def name_of(module: ModuleType) -> str:
    """The name of the study in ``experiments/NAME/study.py``; that of a benchmark is ``benchmarks.NAME``."""
    return module.__name__.removeprefix("experiments.").removesuffix(".study")


def folder_of(name: str) -> Path:
    """The folder of a study and of its record."""
    return HERE.joinpath(*name.split("."))


def import_study(name: str) -> ModuleType:
    """The module of a study."""
    return importlib.import_module(f"experiments.{name}.study")


def studies() -> dict[str, str]:
    """The docstrings of all studies and benchmarks by name; none is imported."""
    files = sorted(HERE.glob("*/study.py")) + sorted(HERE.glob("benchmarks/*/study.py"))
    names = {".".join(file.parent.relative_to(HERE).parts): file for file in files}
    return {name: ast.get_docstring(ast.parse(file.read_text())) or "" for name, file in names.items()}


def records_of(name: str) -> list[Path]:
    """The folders of a study's records: its own, and those below it that are named after another device."""
    folder = folder_of(name)
    return [file.parent for file in (folder / "results.json", *sorted(folder.glob("*/results.json"))) if file.exists()]


def _title(page: Path, folder: Path) -> str:
    if page.stem != "README":
        return page.stem
    return "record" if page.parent == folder else page.parent.name


def index() -> str:
    """The table of all studies, from their docstrings and records."""
    rows = []
    for name, doc in studies().items():
        folder = folder_of(name)
        path = folder.relative_to(HERE)
        pages = sorted(folder.glob("*.md")) + sorted(folder.glob("*/README.md"))
        links = ", ".join(f"[{_title(p, folder)}]({p.relative_to(HERE)})" for p in pages)
        found = "not recorded yet"
        if files := sorted(folder.glob("*.json")) + sorted(folder.glob("*/results.json")):
            module = import_study(name)
            told = [module.conclude(json.loads(file.read_text())) for file in files if hasattr(module, "conclude")]
            found = " ".join(told) or "see the record"
        elif pages:
            found = "see the record"
        rows.append([f"[{path}]({path}/study.py)", question(doc), found, links or ""])
    intro = (
        "# Studies\n\nEach is a program that anyone can run again: `python -m experiments.NAME` (a comparison of "
        "speed: `python -m experiments.benchmarks.NAME`), with `--quick` to try it in seconds. Its folder "
        "holds the program and the record of what it found, the single runs included. Intervals are of 95 %: "
        "Student's over seeds, "
        "differences taken seed by seed; and where one detector is measured on photos, those of its images resampled. "
        "This page is made by `python -m experiments`.\n\n"
    )
    return intro + table(("study", "question", "what was found", ""), rows) + "\n"
