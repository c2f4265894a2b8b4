"""Do the strategies of a sweep give what separate runs give, and how many seconds does a run take by each?

Question: a sweep trains many runs by mapping every operation over them (`vmap`), by a program that holds several
(`unroll`), or with runs of its own on every device (`devices`). Which is fastest on this machine, and do all give the
losses, and in the end the AP, of runs made one by one?

Method: the network is the demo's kind, small, on generated images of 96 x 96 pixels, batch 8. Four runs of 12 steps
(two seeds, two learning rates) by each strategy: seconds, and the losses of the first ten steps beside those of
separate runs. Where programs differ, so does rounding, and training magnifies it: how much is seen on separate runs
that begin with every parameter moved to the next number of float32, up or down at random. Compilation, and the making
of initial parameters, which is compiled as well, are counted apart: they are paid once a sweep. Then five seeds of 240
steps by each strategy: the AP of the same seed may differ by magnified rounding, but by less than seeds do.

Command:   python -m experiments.benchmarks.sweep_speed
Expected:  10 minutes on two cores.
Quick:     python -m experiments.benchmarks.sweep_speed --quick
           (two runs of two steps of a tiny network, one strategy)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.sweep_speed.separate_runs import apart, one_by_one, settings
from experiments.shared.record import figure, run_study, table
from yolojax.processor.memory import prepare_processor
from yolojax.training.sweep import grid, sweep

ALONE, MOVED = "one by one", "one by one, parameters moved"
WAYS: dict[str, tuple[Any, int | None]] = {
    "unroll": ("unroll", 1),
    "unroll, 4 in a program": ("unroll", 4),
    "devices": ("devices", None),
    "vmap": ("vmap", None),
}
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    quick, seeds = args.quick, range(2 if args.quick else 5)
    scale = {"size": 32, "batch_size": 2, "steps": 2} if quick else {"size": 96, "batch_size": 8, "steps": 12}
    ways = {"unroll": WAYS["unroll"]} if quick else WAYS
    trials = grid(seed=range(2), learning_rate=[5e-4] if quick else [5e-4, 4e-3])
    with tempfile.TemporaryDirectory() as folder:
        short = settings(Path(folder) / "short", epochs=1, tiny=quick, **scale)
        alone, moved = one_by_one(short, trials), one_by_one(short, trials, moved=True)
        nothing, rounding = (apart(run.losses, alone.losses, trials) for run in (alone, moved))
        runs: list[Record] = [{"way": ALONE, "together": 1, "seconds": alone.seconds, "differs": nothing}]
        runs.append({"way": MOVED, "together": 1, "differs": rounding})
        for way, (strategy, width) in ways.items():
            found = sweep(short, trials, strategy=strategy, width=width, measure=False)
            together = width or {"vmap": len(trials), "devices": jax.device_count()}[strategy]
            differs = apart(found.losses, alone.losses, trials)
            runs.append({"way": way, "together": together, "seconds": found.seconds, "differs": differs})
            print(runs[-1], flush=True)
        long = settings(Path(folder) / "long", epochs=1 if quick else 20, tiny=quick, **scale)
        beside = (ALONE,) if quick else (ALONE, MOVED)
        ends = {way: one_by_one(long, grid(seed=seeds), moved=way == MOVED, measure=True).aps for way in beside}
        for way in ("unroll",) if quick else ("unroll", "devices", "vmap"):
            results = sweep(long, grid(seed=seeds), strategy=WAYS[way][0], width=WAYS[way][1]).results
            ends[way] = [float(result.AP or 0.0) for result in results if result]
            print(way, ends[way], flush=True)
    scale |= {"runs": len(trials), "seeds": len(seeds), "devices": jax.device_count()}
    return {"scale": {**scale, "long": 1 if quick else 20}, "runs": runs, "AP": ends}


def each(run: Record, record: Record) -> float:
    """Seconds of training of a run."""
    return run["seconds"]["train"] / record["scale"]["runs"]


def away(record: Record, way: str) -> np.ndarray:
    """AP less that of the separate run of the same seed."""
    return np.subtract(record["AP"][way], record["AP"][ALONE])


def conclude(record: Record) -> str:
    timed = {run["way"]: each(run, record) for run in record["runs"] if "seconds" in run}
    fastest = min((way for way in timed if way != ALONE), key=lambda way: timed[way])
    said = ", ".join(f"{way} {seconds / timed[ALONE]:.2f}" for way, seconds in timed.items() if way != ALONE)
    low = min(record["runs"][0]["differs"], key=float)
    worst = max(run["differs"][low] for run in record["runs"] if run["way"] not in (ALONE, MOVED))
    aps, others = record["AP"][ALONE], [way for way in record["AP"] if way not in (ALONE, MOVED)]
    most = max(float(np.max(np.abs(away(record, way)))) for way in others)
    steps = record["scale"]["long"] * record["scale"]["steps"]
    return (
        f"Time of a run, of one made by itself: {said}; {fastest} is fastest. At a learning rate of {low} the first "
        f"losses of all are within {worst:.1e} of separate runs', relatively. AP after {steps} steps is "
        f"within {most:.3f} of that of the same seed made by itself; seeds differ by up to {max(aps) - min(aps):.3f}."
    )


def page(record: Record) -> str:
    scale, rows = record["scale"], []
    for run in record["runs"]:
        times = run.get("seconds", {})
        cells = (
            [f"{each(run, record):.3f}", f"{times['compile']:.1f}", f"{times.get('prepare', 0):.1f}"]
            if times
            else [""] * 3
        )
        rows.append([run["way"], run["together"], *cells, *(f"{x:.1e}" for x in run["differs"].values())])
    rates = [f"losses at {rate}" for rate in record["runs"][0]["differs"]]
    head = ["way", "together", "s a run", "compilation, s", "initial parameters, s", *rates]
    text = (
        f"{scale['runs']} runs of {scale['steps']} steps, {scale['size']} pixels, batch {scale['batch_size']}, "
        f"{scale['devices']} devices. Losses: the largest relative difference of the first ten from those of runs made "
        f"one by one, by learning rate.\n\n{table(head, rows)}\n\n"
    )
    ends = []
    for way, aps in record["AP"].items():
        difference = "" if way == ALONE else f"{np.max(np.abs(away(record, way))):.4f}"
        ends.append([way, *(f"{ap:.4f}" for ap in aps), difference])
    head = ["way", *(f"seed {seed}" for seed in range(scale["seeds"])), "largest difference from one by one"]
    return text + f"AP after {scale['long'] * scale['steps']} steps:\n\n{table(head, ends)}"


def draw(record: Record) -> Any:
    made, (left, right) = figure(10.5, 3.2, 2)
    timed = {run["way"]: each(run, record) for run in record["runs"] if "seconds" in run}
    left.barh(list(timed), list(timed.values()))
    left.invert_yaxis()
    left.set(xlabel="seconds of training a run")
    for way, aps in record["AP"].items():
        right.plot(aps, "x" if way == ALONE else ".", label=way)
    right.set(xlabel="seed", title="AP at the end", xticks=range(record["scale"]["seeds"]))
    right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return made


def main(argv: Sequence[str] | None = None) -> Record:
    """The study, with a device for every core."""
    prepare_processor(8)
    return run_study(sys.modules[__name__], argv)
