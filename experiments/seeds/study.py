"""How far apart are two training runs that differ in nothing but the seed, and how many does a claim of +.01 AP need?

Question: a table that says "A .512, B .520" from one run each may say nothing. Two kinds of chance are measured apart:
the seed (initial parameters, order, augmentation) and the choice of test images.

Method: the lesson's detector with CIoU on 100 images of *shapes* of 96 x 96 pixels, ten seeds, 200 test images. The ten
runs are the trials of one call of `yolojax.training.sweep`. The spread of the seeds is their standard deviation s, with
its own 95 % interval (chi-squared). That of the images is the standard error of `yolojax.eval.bootstrap` (500 draws of
the test images) of each run, averaged. Two methods with n seeds each tell a true difference d apart with 80 % power at
5 % (two-sided) if n is at least 2 (1.96 + .84)^2 s^2 / d^2; the images do not enter there when both methods are
measured on the same ones.

Command:   python -m experiments.seeds
Expected:  10 minutes on two cores.
Quick:     python -m experiments.seeds --quick    (runs of four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import math
import sys
from functools import partial
from typing import Any

import numpy as np

from experiments.shared.record import Runs, figure, interval, run_study, table
from experiments.shared.small_runs import evaluate, images, lesson_detector, scale_of, train_trials
from yolojax.detector import Variables
from yolojax.eval.bootstrap import bootstrap
from yolojax.eval.coco import read_both
from yolojax.training.sweep import Trial

SEEDS, DRAWS = 10, 500
NAMES = ("AP", "AP50", "AP75")
POWER = 2 * (1.96 + 0.84) ** 2
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale = scale_of(args)
    detector = lesson_detector(scale)
    learn, test = images(scale.train, scale.side), images(scale.test, scale.side, "test")

    def measured(variables: Variables) -> Record:
        found = evaluate(detector, variables, test)
        columns = read_both(test.dataset.to_coco(), found.detections)
        drawn = bootstrap(*columns, samples=4 if args.quick else DRAWS).values
        error = {name: float(np.nanstd(drawn[name], ddof=1)) for name in NAMES}
        return {**{name: getattr(found.result, name) for name in NAMES}, "standard_error": error}

    seeds = 2 if args.quick else SEEDS
    facts = scale.facts() | {"seeds": seeds}
    runs = Runs(args, "seeds", facts)
    missing = runs.missing({"seed": seed} for seed in range(seeds))
    trained = train_trials(detector, learn.dataset, scale, [Trial(key["seed"]) for key in missing])
    for key, variables in zip(missing, trained, strict=True):
        runs(key, partial(measured, variables))
    return {"scale": facts, "runs": runs.all}


def spread(record: Record, name: str) -> tuple[float, float, float]:
    """The standard deviation over seeds and its 95 % interval."""
    from scipy.stats import chi2

    values = [r[name] for r in record["runs"]]
    s, free = float(np.std(values, ddof=1)), len(values) - 1
    return s, s * math.sqrt(free / chi2.ppf(0.975, free)), s * math.sqrt(free / chi2.ppf(0.025, free))


def needed(s: float, difference: float) -> int:
    return max(2, math.ceil(POWER * s**2 / difference**2))


def conclude(record: Record) -> str:
    s, low, high = spread(record, "AP")
    of_images = np.mean([r["standard_error"]["AP"] for r in record["runs"]])
    return (
        f"AP {interval(r['AP'] for r in record['runs'])}; one seed differs from the mean by {s:.3f} (95 % from "
        f"{low:.3f} "
        f"to {high:.3f}, {len(record['runs'])} seeds), another {record['scale']['test']} test images by "
        f"{of_images:.3f}. To show +.01 AP takes {needed(s, 0.01)} seeds of each method (from {needed(low, 0.01)} to "
        f"{needed(high, 0.01)}), "
        f"to show +.03 {needed(s, 0.03)}."
    )


def page(record: Record) -> str:
    rows = []
    for name in NAMES:
        s, low, high = spread(record, name)
        values = [r[name] for r in record["runs"]]
        of_images = np.mean([r["standard_error"][name] for r in record["runs"]])
        cells = [f"{min(values):.3f}", f"{max(values):.3f}", f"{s:.4f} ({low:.4f} to {high:.4f})", f"{of_images:.4f}"]
        rows.append([name, f"{np.mean(values):.3f}", *cells, *(needed(s, d) for d in (0.01, 0.02, 0.03))])
    header = ["", "mean", "lowest", "highest", "s over seeds", "standard error over images"]
    return (
        table([*header, "seeds for +.01", "+.02", "+.03"], rows)
        + "\n\nThe number of seeds is for two methods of equal spread that share nothing. Runs that share a seed "
        "are often correlated, and then fewer are enough: take differences seed by seed."
    )


def draw(record: Record) -> Any:
    made, (axes,) = figure(6, 3)
    for r in record["runs"]:
        axes.errorbar(r["seed"], r["AP"], 1.96 * r["standard_error"]["AP"], fmt="o", color="C0", capsize=3)
    axes.axhline(np.mean([r["AP"] for r in record["runs"]]), color="black", linewidth=0.8)
    axes.set(xlabel="seed", ylabel="AP", title="AP of every seed; bars: 95 % over test images")
    axes.grid(alpha=0.3)
    return made


main = partial(run_study, sys.modules[__name__])
