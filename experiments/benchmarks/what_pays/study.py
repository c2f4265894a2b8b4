"""Which of the measures for training on a processor pay, each left out?

Question: XLA on a processor is good at matrix products and poor at much else, so convolutions are rewritten, every core
is a device, and the heap is kept in shape. What is each of these worth, and what did not pay?

Method: YOLOv8n, 320 pixels, batch 16, float32: `yolojax bench train` in a fresh process, as it is and with one measure
left out; at the end as it is again, to see how far two runs of the same differ. Two things more that were tried are put
in instead: large pages for the heap, and XLA without threads inside its operations.

Command:   python -m experiments.benchmarks.what_pays
Expected:  15 minutes on two cores, with nothing beside it.
Quick:     python -m experiments.benchmarks.what_pays --quick
           (a tiny network, as it is and with one measure left out)
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from experiments.shared.bench_command import TINY, bench_train
from experiments.shared.record import Runs, environment, figure, run_study, table

WHOLE, AGAIN = "all measures", "all measures, again"
Record = dict[str, Any]


def _set(module: str, **values: Any) -> Callable[[], None]:
    def put() -> None:
        place = importlib.import_module(f"yolojax.{module}")
        for name, value in values.items():
            assert hasattr(place, name), f"{module} has no {name}"
            setattr(place, name, value)

    return put


def _plain_pointwise() -> None:
    from yolojax.processor import convolution

    convolution.pointwise = convolution.plain


def _plain() -> None:
    _plain_pointwise()
    _set("processor.convolution", COLUMNS_CHANNELS=10**9)()


LEFT_OUT: dict[str, Callable[[], None]] = {
    WHOLE: lambda: None,
    "holes of compilations stay in the heap": _set("processor.memory", set_holes_aside=lambda: None),
    "freed memory is given back": _set("processor.memory", keep_freed_memory=lambda: True),  # as if it were kept
    "all cores one device": _set("processor.memory", devices_for=lambda batch: 1),
    "strided convolutions not by columns": _set("processor.convolution", COLUMNS_CHANNELS=10**9),
    "1x1 convolutions not as products": _plain_pointwise,
    "all convolutions as XLA has them": _plain,
}
PUT_IN = {
    "large pages (glibc.malloc.hugetlb=1)": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "no threads inside operations": {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
}


def one(name: str, scale: Record, options: Record, seconds: float) -> Record:
    """A measurement in a process of its own."""
    program = ["-m", "experiments.benchmarks.what_pays", "--without", name]
    settings = {**scale, "seconds": seconds}
    found = bench_train(program, settings, options, JAX_PLATFORMS="cpu", **PUT_IN.get(name, {}))
    return {key: found[key] for key in ("images_per_second", "compile_seconds", "memory", "steps")}


def measure(args: argparse.Namespace) -> Record:
    names, scale = [*LEFT_OUT, *PUT_IN, AGAIN], {"model": "yolov8", "size": 320, "batch": 16}
    options, seconds = {}, 15.0
    if args.quick:
        names, scale = [WHOLE, "all convolutions as XLA has them"], {"model": "compact", "size": 32, "batch": 4}
        options, seconds = TINY, 0.2
    runs = Runs(args, "benchmarks.what_pays", scale, environment=environment())
    for name in names:
        runs({"what": name}, partial(one, name, scale, options, seconds))
    return {"scale": scale, "runs": runs.all}


def whole_speed(record: Record) -> float:
    return float(np.mean([run["images_per_second"] for run in record["runs"] if run["what"] in (WHOLE, AGAIN)]))


def shares(record: Record) -> dict[str, float]:
    """Images a second of each, of those with all measures: the mean of both runs of these."""
    whole = whole_speed(record)
    return {run["what"]: run["images_per_second"] / whole for run in record["runs"]}


def conclude(record: Record) -> str:
    found = shares(record)
    out = {name: share for name, share in found.items() if name not in (WHOLE, AGAIN, *PUT_IN)}
    listed = "; ".join(f"{name} {share:.2f}" for name, share in sorted(out.items(), key=lambda item: item[1]))
    text = f"Images a second, of those with all measures ({whole_speed(record):.1f}): {listed}."
    if put := [f"{name} {found[name]:.2f}" for name in PUT_IN if name in found]:
        text += f" Put in: {'; '.join(put)}."
    return text + (f" All measures, twice: {found[WHOLE]:.2f} and {found[AGAIN]:.2f}." if AGAIN in found else "")


def page(record: Record) -> str:
    share = shares(record)
    rows = []
    for run in record["runs"]:
        memory = "" if run["memory"] is None else f"{run['memory'] / 1e9:.2f}"
        speed = [f"{run['images_per_second']:.1f}", f"{share[run['what']]:.2f}"]
        rows.append([run["what"], *speed, f"{run['compile_seconds']:.0f}", memory])
    return table(["", "images/s", "of all measures", "compilation, s", "GB"], rows)


def draw(record: Record) -> Any:
    made, (axes,) = figure(8, 3.2)
    found = shares(record)
    axes.barh(list(found), list(found.values()), color=["C2" if name in (WHOLE, AGAIN) else "C0" for name in found])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xlabel="images a second, of those with all measures")
    axes.grid(alpha=0.3, axis="x")
    return made


def main(argv: Sequence[str] | None = None) -> Record:
    """The study; or a command of yolojax with a measure left out, for ``--without NAME COMMAND``."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] != ["--without"]:
        return run_study(sys.modules[__name__], words)
    from yolojax.cli import main as yolojax

    LEFT_OUT.get(words[1], lambda: None)()
    raise SystemExit(yolojax(words[2:]))
