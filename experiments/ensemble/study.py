"""What does an ensemble of five detectors give that one does not: better boxes, honest scores, known uncertainty?

Question: five detectors that differ in nothing but their seed, stacked and run as one vmapped program
(`yolojax.inference.ensemble`). Against one of them, and against five separate programs whose detections are fused
afterwards: AP, calibration, time. And does the spread of the members' boxes tell how wrong a box is?

Method: the lesson's detector with CIoU on 400 *shapes* of 96 x 96 pixels; 25 members by 25 seeds, five ensembles of
five, no member in two. The members of an ensemble are trained by one call of `yolojax.training.sweep`: on a processor
one after another, since a program that maps over weights takes two to four times as long there. 200 test images, COCO
protocol. Calibration: the expected calibration error of `yolojax.eval.confidence` (Guo et al. 2017; Kueppers et al.
2020, arXiv 2004.13546, without position) over detections that score at least .1, true at IoU .5. Uncertainty:
Spearman's rank correlation, over true positives that at least two members see, of `box_uncertainty` with 1 - IoU;
beside it that of the score, which is known without an ensemble. An ensemble counts once; one member means the average
of an ensemble's five. Time: a batch of eight images, compiled, the fastest of several, in the same call.

Command:   python -m experiments.ensemble
Pieces:    --parts quality time    (what the record has is not run again)
Expected:  15 minutes on two cores, training included; members are kept in runs/members.
Quick:     python -m experiments.ensemble --quick    (two ensembles of two, trained for four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.ensemble.combinations import CONFIDENCE, IOU, NUMBERS, Ways, numbers, over, ranks
from experiments.shared.candidate_rows import say
from experiments.shared.record import Runs, figure, interval, paired, run_study, table, verdict
from experiments.shared.small_runs import QUICK, images, lesson_detector
from experiments.shared.trained_members import PLAIN, members
from yolojax.inference.ensemble import stack_members

Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale, size = (QUICK, 2) if args.quick else (PLAIN, 5)
    facts = {**scale.facts(), "members": size}
    runs, test = Runs(args, "ensemble", facts), images(scale.test, scale.side, "test")
    ways = Ways(lesson_detector(scale))

    def quality(seed: int) -> Record:
        own = members(scale, range(size * seed, size * (seed + 1)))
        alone = [numbers(test, over(test, lambda x, v=v: ways.one(v, x, CONFIDENCE, IOU), 8)) for v in own]
        apart = over(test, partial(ways.separate, own), 8)
        together = over(test, partial(ways.together, stack_members(own)), 8)
        return {
            "one": {n: [a[n] for a in alone] for n in NUMBERS},
            "separate": numbers(test, apart.detections),
            "together": numbers(test, together.detections),
            "ranks": ranks(test, together),
        }

    def timed() -> Record:
        own, pixels = members(scale, range(size)), jax.device_put(test.images[:8])
        stacked = stack_members(own)
        calls = {
            "one": lambda: ways.one(own[0], pixels, CONFIDENCE, IOU),
            "separate": lambda: ways.separate(own, pixels),
            "together": lambda: ways.together(stacked, pixels),
        }
        fastest = dict.fromkeys(calls, np.inf)
        for round_ in range(3 if args.quick else 30):
            for name, call in calls.items():
                clock = time.perf_counter()
                jax.block_until_ready(call())
                fastest[name] = min(fastest[name], (time.perf_counter() - clock) * 1e3 / 8) if round_ else np.inf
        return {"ms": fastest}

    for seed in range(scale.seeds) if "quality" in args.parts else ():
        runs({"part": "quality", "seed": seed}, partial(quality, seed))
    if "time" in args.parts:
        runs({"part": "time"}, timed)
    return {"scale": facts, "runs": runs.all}


def values(record: Record, way: str, name: str) -> list[float]:
    """A number of every ensemble; of one member, the average of its five."""
    return [float(np.mean(r[way][name])) for r in record["runs"] if r["part"] == "quality"]


def milliseconds(record: Record) -> dict[str, float]:
    return next((r["ms"] for r in record["runs"] if r["part"] == "time"), {})


def conclude(record: Record) -> str:
    more, error = (paired(values(record, "together", n), values(record, "one", n)) for n in ("AP", "calibration"))
    spread, score = (interval(values(record, "ranks", n)) for n in ("spread", "score"))
    unlike = max(abs(np.subtract(values(record, "together", "AP"), values(record, "separate", "AP"))))
    honest = {"more": "less honest", "less": "more honest"}.get(verdict(error), "as honest")
    shown = verdict(paired(values(record, "ranks", "spread"), values(record, "ranks", "score")))
    text = (
        f"{record['scale']['members']} members against one: AP {say(*more[:3])}, the scores {honest}: calibration "
        f"error {say(*error[:3])} ({more.n} ensembles); the same as separate ones fused (AP within {unlike:.0e}). The "
        f"spread of a box ranks its error by {spread}, its score by {score}: {shown}."
    )
    ms = milliseconds(record)
    if ms:
        mapped, apart = (ms[way] / ms["one"] for way in ("together", "separate"))
        text += f" Mapped, they take {mapped:.1f} times the time of one; one by one {apart:.1f}."
    return text


def page(record: Record) -> str:
    titles = {"one": "one member", "separate": "separate, fused", "together": "one vmapped program"}
    ms, rows = milliseconds(record), []
    for way, title in titles.items():
        rows.append([title, *(interval(values(record, way, n)) for n in NUMBERS), f"{ms[way]:.2f}" if ms else ""])
    ranked = [
        ["spread", interval(values(record, "ranks", "spread"))],
        ["score", interval(values(record, "ranks", "score"))],
    ]
    difference = paired(values(record, "ranks", "spread"), values(record, "ranks", "score"))
    return (
        table(["way", "AP", "AP50", "AP75", "calibration error", "ms an image"], rows)
        + "\n\nRank correlation with 1 - IoU of the true positives:\n\n"
        + table(["by", "Spearman's"], ranked)
        + f"\n\nThe spread less the score: {say(*difference[:3])}: "
        + f"{verdict(difference)}."
    )


def draw(record: Record) -> Any:
    made, (left, right) = figure(8, 3.4, 2)
    for axes, name in ((left, "AP"), (right, "calibration")):
        both = np.array([values(record, way, name) for way in ("one", "together")])
        axes.plot([0, 1], both, color="grey", marker="o")
        axes.set_xticks([0, 1], ["one member", "ensemble"])
        axes.set(xlim=(-0.4, 1.4), ylim=(0, None), title="AP" if name == "AP" else "calibration error")
        axes.grid(alpha=0.3)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=("quality", "time"), default=["quality", "time"])


main = partial(run_study, sys.modules[__name__], add=add)
