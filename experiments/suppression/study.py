"""Which kind of suppression is best on the candidates of real detectors, and on crowded scenes?

Question: greedy suppression by IoU is what everyone uses; soft, DIoU, matrix, fast and cluster suppression and box
fusion were each published as better. Everything else equal, what do they gain, and what do they cost?

Method: each kind gets the same rows, the 1000 strongest of an image from a score of .001, and reports 100. Its
threshold (of ``kinds.KINDS``) is chosen on other images than it is measured on. Real: Yolo-Fastest-1.1 and -xl and
YOLOX-Nano, published weights, 128 images of COCO train2017, which they were trained on: for comparing kinds, not for
absolute numbers. There the threshold of each half of the images is the one best on the other half; intervals are of 300
resamples of the images. Crowded scenes: *shapes* of 96 x 96 pixels, up to 24 figures, of each of which .4 stay visible;
the lesson's detector trained on such, five seeds, each with its threshold by 100 validation images; 200 test images;
intervals over seeds. Time: the suppression alone, one image, compiled, median over images.

Command:   python -m experiments.suppression --data FOLDER    (weights and data/coco128_train in FOLDER)
Pieces:    --parts crowded coco time    (what the record has is not run again)
Expected:  10 minutes on two cores.
Quick:     python -m experiments.suppression --quick    (a detector that was trained for four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

import numpy as np

from experiments.shared.candidate_rows import REAL, apart, say
from experiments.shared.record import Runs, figure, interval, paired, run_study, table
from experiments.shared.small_runs import QUICK
from experiments.shared.trained_members import CROWDED
from experiments.suppression.methods import KINDS, K, crowded, crowded_run, halves, kinds, models, of, program, timed

NUMBERS = ("AP", "AP50", "AR100")
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale = QUICK if args.quick else CROWDED
    facts = {"rows": 1000, "detections": K, **scale.facts()}
    runs = Runs(args, "suppression", facts)
    programs = {kind: program(kind) for kind in (("greedy", "soft, Gaussian") if args.quick else KINDS)}
    for seed in range(scale.seeds) if "crowded" in args.parts else ():
        for kind, run in programs.items():
            runs(
                {"part": "crowded", "kind": kind, "seed": seed}, partial(crowded_run, scale, seed, run, KINDS[kind][2])
            )
    for model in REAL if args.data else ():
        for kind, run in programs.items():
            if "coco" in args.parts:
                one = partial(halves, args.data, model, run, KINDS[kind][2])
                runs({"part": "coco", "model": model, "kind": kind}, one)
            if "time" in args.parts:
                one = partial(timed, args.data, model, run, KINDS[kind][2])
                runs({"part": "time", "model": model, "kind": kind}, one)
    return {"scale": facts, "runs": runs.all}


def against_greedy(record: Record, kind: str, model: str) -> tuple[float, float, float]:
    return apart(*(of(record, "coco", k, model)[0] for k in (kind, "greedy")))


def conclude(record: Record) -> str:
    others = [kind for kind in kinds(record) if kind not in ("greedy", "cluster")]
    ways = {k: paired(crowded(record, k), crowded(record, "greedy")) for k in others}
    better, worse = ([k for k in others if sign(ways[k])] for sign in (lambda d: d.low > 0, lambda d: d.high < 0))

    def listed(chosen: list[str]) -> str:
        ranked = sorted(chosen, key=lambda k: -ways[k].mean)
        return ", ".join(f"{k} {ways[k].mean:+.3f}" for k in ranked) or "none"

    text = (
        f"AP less that of greedy suppression; crowded scenes, {ways[others[0]].n} seeds: better are {listed(better)}; "
        f"worse {listed(worse)}."
    )
    for model in models(record):
        best = max(others, key=lambda k: against_greedy(record, k, model)[0])
        text += (
            f" {model} on images that it was trained on: at most {best}, {say(*against_greedy(record, best, model))}."
        )
    return text


def page(record: Record) -> str:
    rows = []
    for kind in kinds(record):
        d = paired(crowded(record, kind), crowded(record, "greedy"))
        cells = [f"{interval(crowded(record, kind, n))}" for n in NUMBERS]
        used = " ".join(f"{t:g}" for t in sorted({r["threshold"] for r in of(record, "crowded", kind)}))
        rows.append([kind, used if KINDS[kind][1] else "", *cells, "" if kind == "greedy" else say(*d[:3])])
    text = f"Crowded scenes, {len(crowded(record, 'greedy'))} seeds:\n\n"
    text += table(["kind", "thresholds", *NUMBERS, "AP less that of greedy"], rows)
    for model in models(record):
        rows = []
        for kind in kinds(record):
            one = of(record, "coco", kind, model)[0]
            ms = " ".join(f"{r['ms']:.2f}" for r in of(record, "time", kind, model))
            steps = " and ".join(f"{t:g}" for t in dict.fromkeys(one["thresholds"])) if KINDS[kind][1] else ""
            less = "" if kind == "greedy" else say(*against_greedy(record, kind, model))
            rows.append([kind, steps, *(f"{one[n]:.4f}" for n in NUMBERS), less, ms])
        head = ["kind", "threshold", *NUMBERS, "AP less that of greedy", "ms an image"]
        text += f"\n\n{model}, 128 images of COCO train2017:\n\n" + table(head, rows)
    return text


def draw(record: Record) -> Any:
    others = [kind for kind in kinds(record) if kind != "greedy"]
    made, (axes,) = figure(7, 3.6)
    places = np.arange(len(others))
    ways = [paired(crowded(record, k), crowded(record, "greedy")) for k in others]
    error = np.nan_to_num([d.high - d.mean for d in ways])
    axes.errorbar([d.mean for d in ways], places, xerr=error, fmt="o", label="crowded scenes (seeds)")
    for shift, model in enumerate(models(record), 1):
        values = np.array([against_greedy(record, k, model) for k in others])
        bars = np.abs(values[:, 1:].T - values[:, 0])
        axes.errorbar(values[:, 0], places + 0.15 * shift, xerr=bars, fmt=".", label=f"{model} (images)")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, others)
    axes.set(xlabel="AP less that of greedy suppression", title="each at a threshold chosen on other images")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="folder with weights/ and data/coco128_train")
    parser.add_argument("--parts", nargs="+", choices=("crowded", "coco", "time"), default=["crowded", "coco", "time"])


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.quick and args.data is None and set(args.parts) != {"crowded"}:
        parser.error("give --data FOLDER, --parts crowded, or --quick")


main = partial(run_study, sys.modules[__name__], add=add, check=check)
