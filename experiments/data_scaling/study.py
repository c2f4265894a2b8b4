"""How does AP grow with the number of training images?

Question: what would twice the images be worth, for a detector of this size, and does the curve flatten?

Method: the lesson's detector with CIoU on the first 25, 50, 100, 200 and 400 images of *shapes* of 96 x 96 pixels, 200
test images, five seeds. Every run takes the same number of steps, so that what differs is variety and not time: 25
images are seen 240 times each, 400 images 15 times. The seeds of a count are the trials of one call of
`yolojax.training.sweep`. The gain of a doubling is taken seed by seed.

Command:   python -m experiments.data_scaling
Expected:  20 minutes on two cores.
Quick:     python -m experiments.data_scaling --quick    (runs of four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from experiments.shared.record import Runs, figure, interval, paired, run_study, table, verdict
from experiments.shared.small_runs import evaluate, images, lesson_detector, scale_of, train_trials
from yolojax.detector import Variables
from yolojax.training.sweep import Trial

COUNTS = (25, 50, 100, 200, 400)
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale = scale_of(args)
    detector = lesson_detector(scale)
    counts = (scale.train // 2, scale.train) if args.quick else COUNTS
    learn, test = images(counts[-1], scale.side).dataset, images(scale.test, scale.side, "test")
    runs = Runs(args, "data_scaling", scale.facts() | {"steps": scale.steps})

    def measured(variables: Variables) -> Record:
        result = evaluate(detector, variables, test).result
        return {name: getattr(result, name) for name in ("AP", "AP50", "AP75")}

    for count in counts:
        missing = runs.missing({"seed": seed, "images": count} for seed in range(scale.seeds))
        trials = [Trial(key["seed"]) for key in missing]
        for key, variables in zip(
            missing, train_trials(detector, learn.take(range(count)), scale, trials), strict=True
        ):
            runs(key, partial(measured, variables))
    return {"scale": scale.facts() | {"steps": scale.steps}, "runs": runs.all}


def at(record: Record, count: int, name: str = "AP") -> list[float]:
    return [r[name] for r in sorted(record["runs"], key=lambda r: r["seed"]) if r["images"] == count]


def counts_of(record: Record) -> list[int]:
    return sorted({r["images"] for r in record["runs"]})


def conclude(record: Record) -> str:
    counts = counts_of(record)
    gains = [paired(at(record, more), at(record, fewer)) for fewer, more in pairwise(counts)]

    def gained(fewer: int, more: int) -> list[float]:
        return [b - a for a, b in zip(at(record, fewer), at(record, more), strict=True)]

    less = paired(gained(counts[-2], counts[-1]), gained(counts[0], counts[1]))
    flat = {"less": "flattens", "more": "steepens"}.get(verdict(less), "is not shown to flatten")
    return (
        f"AP rises from {np.mean(at(record, counts[0])):.3f} with {counts[0]} images to "
        f"{np.mean(at(record, counts[-1])):.3f} with {counts[-1]} in equally many steps; the first doubling is worth "
        f"{gains[0].mean:+.3f} ({gains[0].low:+.3f} to {gains[0].high:+.3f}), the last {gains[-1].mean:+.3f} "
        f"({gains[-1].low:+.3f} to {gains[-1].high:+.3f}), their difference {less.mean:+.3f} ({less.low:+.3f} to "
        f"{less.high:+.3f}): the curve {flat}."
    )


def page(record: Record) -> str:
    counts, rows = counts_of(record), []
    for i, count in enumerate(counts):
        gain = paired(at(record, count), at(record, counts[i - 1])) if i else None
        apart = f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})" if gain else ""
        rows.append([count, *(interval(at(record, count, n)) for n in ("AP", "AP50", "AP75")), apart])
    return f"{record['scale']['steps']} steps each, {record['scale']['seeds']} seeds.\n\n" + table(
        ["images", "AP", "AP50", "AP75", "AP gained by the doubling"], rows
    )


def draw(record: Record) -> Any:
    made, (axes,) = figure(6, 3.2)
    counts = counts_of(record)
    for name in ("AP50", "AP", "AP75"):
        spans = [interval(at(record, count, name)) for count in counts]
        axes.plot(counts, [s.mean for s in spans], marker="o", label=name)
        axes.fill_between(counts, [s.low for s in spans], [s.high for s in spans], alpha=0.2)
    axes.set(xscale="log", xlabel="training images", ylim=(0, 1), title="equally many steps; bands: 95 % over seeds")
    axes.set_xticks(counts, [str(c) for c in counts], minor=False)
    axes.grid(alpha=0.3)
    axes.legend()
    return made


main = partial(run_study, sys.modules[__name__])
