"""Which of the five numbers that weigh a YOLO loss matter, and where do YOLOv1's 5 and .5 stand?

Question: `lambda_coord` 5, `lambda_noobj` .5, the two ones between them and the IoU above which a negative is ignored
are copied from paper to paper. How much does AP depend on each, and does a sweep find values that are better by more
than luck?

Method: 64 runs of the lesson's detector with CIoU on 100 images of *shapes* of 96 x 96 pixels, 60 epochs, by one call
of `yolojax.training.sweep.sweep`: one compiled program, in which the weights are traced. They are drawn by a Latin
hypercube, the four weights on a logarithmic scale, a tenth to ten times YOLOv1's, the ignored IoU from .3 to .9; every
run has a seed of its own, so that chance is in the spread. For each number: Spearman's rank correlation with AP (95 %
by the bootstrap over runs), and the share of the variance of AP that a parabola in it explains. The best setting on the
100 validation images and YOLOv1's then train anew, ten seeds each, since the best of 64 is also the luckiest; that AP
is of 200 test images. What 64 runs take in one program, and separate ones that compile for themselves, is measured on
three of each.

Command:   python -m experiments.loss_weights
Expected:  25 minutes on two cores.
Quick:     python -m experiments.loss_weights --quick    (a few runs of eight steps: the machinery only)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.loss_weights.trials import DEFAULTS, NAMES, drawn, settings, times, trained
from experiments.shared.record import figure, folder_of, interval, paired, run_study, table
from experiments.shared.small_runs import QUICK, Scale

Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale, count = (replace(QUICK, epochs=4), 4) if args.quick else (Scale(seeds=10), 64)
    kept = json.loads((folder_of("loss_weights") / "results.json").read_text()) if args.seconds_only else None
    with tempfile.TemporaryDirectory() as folder:
        config = settings(Path(folder), scale)
        found = {name: kept[name] for name in ("runs", "best", "again")} if kept else trained(config, scale, count)
        seconds = times(config, drawn(count), 1 if args.quick else 3)
    return {"scale": {**scale.facts(), "runs": count}, **found, "time": seconds}


def effects(record: Record) -> dict[str, tuple[float, float, float, float]]:
    """For each number: rank correlation with AP, its 95 % interval, and the variance that a parabola explains."""
    from scipy.stats import rankdata

    def correlation(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])

    aps, rng, found = np.array([r["AP"] for r in record["runs"]]), np.random.default_rng(0), {}
    draws = rng.integers(0, len(aps), (2000, len(aps)))
    for name in NAMES:
        x = np.array([r[name] for r in record["runs"]])
        x = x if name == "ignore_iou" else np.log(x)
        some = [correlation(x[d], aps[d]) for d in draws if np.ptp(aps[d]) and np.ptp(x[d])]
        low, high = np.percentile(some, [2.5, 97.5]) if some else (-1.0, 1.0)
        rest = aps - np.polyval(np.polyfit(x, aps, 2), x)
        r = correlation(x, aps) if np.ptp(aps) else 0.0
        found[name] = (float(r), float(low), float(high), float(1 - rest.var() / max(aps.var(), 1e-12)))
    return found


def conclude(record: Record) -> str:
    of, again, seconds = effects(record), record["again"], record["time"]
    clear = [f"{n} ({'more' if e[0] > 0 else 'less'} is better)" for n, e in of.items() if e[1] > 0 or e[2] < 0]
    aps = [r["AP"] for r in record["runs"]]
    usual, apart = interval(again["yolov1"]), paired(again["best"], again["yolov1"])
    return (
        f"An effect on AP is seen of {' and '.join(clear) or 'none'} of the five; AP goes from {min(aps):.3f} to "
        f"{max(aps):.3f}. YOLOv1's numbers reach {usual} on new seeds; the best of the sweep "
        f"differs from them by {apart.mean:+.3f} ({apart.low:+.3f} to {apart.high:+.3f}, {apart.n} seeds). One program "
        f"for all: {seconds['sweep']:.0f} s, against {seconds['separate']:.0f} s for {len(aps)} runs that compile each."
    )


def page(record: Record) -> str:
    header = ["number", "YOLOv1's", "rank correlation with AP", "variance explained", "in the best run"]
    rows = []
    for name, (r, low, high, share) in effects(record).items():
        span, best = f"{r:+.2f} ({low:+.2f} to {high:+.2f})", f"{record['best'][name]:.3g}"
        rows.append([f"`{name}`", f"{DEFAULTS[name]:g}", span, f"{share:.0%}", best])
    scale, again = record["scale"], record["again"]
    pair = [["YOLOv1's", interval(again["yolov1"])], ["best of the sweep", interval(again["best"])]]
    return (
        f"{scale['runs']} runs, {scale['train']} training images, {scale['side']} pixels, {scale['epochs']} epochs:\n\n"
        f"{table(header, rows)}\n\nTrained anew with {scale['seeds']} seeds, on {scale['test']} test images:\n\n"
        f"{table(['weights', 'AP'], pair)}"
    )


def draw(record: Record) -> Any:
    made, panels = figure(12, 2.8, len(NAMES))
    for axes, name in zip(panels, NAMES, strict=True):
        axes.scatter([r[name] for r in record["runs"]], [r["AP"] for r in record["runs"]], s=9)
        axes.axvline(DEFAULTS[name], color="C1", linewidth=0.8)
        axes.set(xlabel=name, xscale="linear" if name == "ignore_iou" else "log")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("AP of a run (line: YOLOv1's)")
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds-only", action="store_true", help="measure the time again; the runs are the record's")


main = partial(run_study, sys.modules[__name__], add=add)
