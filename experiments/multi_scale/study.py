"""Does looking at an image at three sizes, and mirrored, find more than one larger look that takes the same time?

Question: the lesson's third exercise: three resolutions, the union of what they find, one suppression. What is the lift
of AP, what does it cost in time, and what would a single size have given for that time?

Method: `yolojax.inference.tta`, one compiled program. Against the detector's own size: mirrored as well; three sizes;
three sizes and mirrored, by greedy suppression, soft-NMS and weighted box fusion, the last two also of one look alone;
and one larger size, with about as many pixels as all augmentations. Generated: the lesson's detector trained on 400
*shapes* of 96 x 96 pixels, five seeds, 200 held-out images, intervals over seeds. BCCD: one run of `yolojax train`, of
YOLOX-Nano from its published weights as in `fine_tuning`, the 72 test images. COCO: Yolo-Fastest-1.1 and YOLOX-Nano,
published weights, 128 images of COCO train2017. Intervals of the last two are of 300 resamples of the images. The
published weights were trained on these very images, at many sizes and mirrored: they know them at each, so that the
lift says nothing certain of new ones. COCO protocol (score .001, IoU .7, 100 an image). Time: a batch of one image,
compiled, the fastest of several, as a multiple of one look in the same call.

Command:   python -m experiments.multi_scale --data FOLDER --model RUN    (weights and data in FOLDER; RUN of BCCD)
Pieces:    --parts generated bccd coco time    (what the record has is not run again)
Expected:  20 minutes on two cores.
Quick:     python -m experiments.multi_scale --quick    (a detector that was trained for four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

import numpy as np

from experiments.multi_scale.augmentations import (
    FUSED,
    NUMBERS,
    ONE,
    OWN_SOFT,
    PAIRS,
    looks_of,
    named,
    on_photos,
    seconds,
    tested,
    times,
)
from experiments.shared.candidate_rows import apart, load_real, say
from experiments.shared.record import Runs, figure, interval, paired, run_study, table
from experiments.shared.small_runs import QUICK, images, lesson_detector
from experiments.shared.trained_members import PLAIN, members
from yolojax.data import open_dataset
from yolojax.inference.loading import load_detector

PARTS = ("generated", "bccd", "coco", "time")
REAL = ("yolo-fastest-1.1", "yolox-nano")
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale = QUICK if args.quick else PLAIN
    runs = Runs(args, "multi_scale", scale.facts())
    test, small = images(scale.test, scale.side, "test").dataset, lesson_detector(scale)
    for name, tta in looks_of(small.spec).items() if "generated" in args.parts else ():
        if args.quick and name not in (ONE, "mirrored"):
            continue
        for seed in range(scale.seeds):
            one = partial(tested, "small", small, lambda s=seed: members(scale, range(scale.seeds))[s], test, tta)
            runs({"part": "generated", "look": name, "seed": seed}, one)
    real = {model: partial(load_real, args.data, model) for model in (REAL if args.data else ())}
    if args.model:
        real["bccd"] = partial(load_detector, args.model)
    for name, load in real.items():
        part, folder, split = ("bccd", "bccd", "test") if name == "bccd" else ("coco", "coco128_train", None)
        detector, variables = load()
        dataset = open_dataset(f"{args.data}/data/{folder}", split, class_names=detector.spec.class_names)
        for look, tta in looks_of(detector.spec).items() if part in args.parts else ():
            one = partial(tested, name, detector, lambda v=variables: v, dataset, tta, 300)
            runs({"part": part, "model": name, "look": look}, one)
        if "time" in args.parts:
            runs({"part": "time", "model": name}, partial(seconds, detector, variables))
    if "time" in args.parts and not args.quick:
        runs({"part": "time", "model": "generated"}, partial(seconds, small, members(scale, [0])[0]))
    return {"scale": scale.facts(), "runs": runs.all}


def generated(record: Record, look: str, name: str = "AP") -> list[float]:
    runs = [r for r in record["runs"] if r["part"] == "generated" and r["look"] == look]
    return [r[name] for r in sorted(runs, key=lambda r: r["seed"])]


def looks(record: Record) -> list[str]:
    return list(dict.fromkeys(r["look"] for r in record["runs"] if r["part"] == "generated"))


def against_one(record: Record, look: str) -> tuple[float, float, float]:
    """AP of a look less that of the plain one, seed by seed, and its interval."""
    return paired(generated(record, look), generated(record, ONE))[:3]


def conclude(record: Record) -> str:
    six, larger = "three sizes, mirrored", PAIRS["three sizes, mirrored"]
    six = six if six in looks(record) else looks(record)[-1]
    photos = on_photos(record)
    told = []
    for look in (look for look in (six, FUSED, OWN_SOFT, larger) if look in looks(record)):
        found = [against_one(record, look), *(apart(by_look[look], by_look[ONE]) for by_look in photos.values())]
        values = (f"{mean:+.3f}{'*' if low > 0 or high < 0 else ''}" for mean, low, high in found)
        told.append(f"{named(look)} {', '.join(values)}")
    on = ", ".join(("generated images", *photos))
    return f"AP less that of one look, on {on} (* where the interval leaves out 0): {'; '.join(told)}."


def page(record: Record) -> str:
    rows, ms = [], times(record, "generated")
    for look in looks(record):
        less = "" if look == ONE else say(*against_one(record, look))
        measured = [generated(record, look, n) for n in NUMBERS]
        cells = ["n/a" if None in values else str(interval(values)) for values in measured]
        rows.append([named(look), *cells, less, f"{ms[look] / ms[ONE]:.1f}" if ms else ""])
    head = ["look", *NUMBERS, "AP less that of one look", "time, of one look"]
    text = f"Generated images, {len(generated(record, ONE))} seeds:\n\n" + table(head, rows)
    for model, by_look in on_photos(record).items():
        rows, ms = [], times(record, model)
        for look, one in by_look.items():
            less = "" if look == ONE else say(*apart(one, by_look[ONE]))
            cells = ["n/a" if one[n] is None else f"{one[n]:.3f}" for n in NUMBERS]
            rows.append([named(look), *cells, less, f"{ms[look] / ms[ONE]:.1f}" if ms else ""])
        text += f"\n\n{model}:\n\n" + table(head, rows)
    return text


def draw(record: Record) -> Any:
    made, (axes,) = figure(7.5, 4)
    names = [look for look in looks(record) if look != ONE]
    places = np.arange(len(names))
    ways = np.array([against_one(record, look) for look in names])
    axes.errorbar(ways[:, 0], places, xerr=np.nan_to_num(ways[:, 2] - ways[:, 0]), fmt="o", label="generated")
    for shift, (model, by_look) in enumerate(on_photos(record).items(), 1):
        values = np.array([apart(by_look[look], by_look[ONE]) for look in names])
        bars = np.abs(values[:, 1:].T - values[:, 0])
        axes.errorbar(values[:, 0], places + 0.15 * shift, xerr=bars, fmt=".", label=model)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, [named(name) for name in names])
    axes.set(xlabel="AP less that of one look at the detector's own size")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="folder with weights/, data/coco128_train and data/bccd")
    parser.add_argument("--model", help="a run that was trained on BCCD")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.quick and args.data is None and {"bccd", "coco"} & set(args.parts):
        parser.error("give --data FOLDER, --parts generated time, or --quick")


main = partial(run_study, sys.modules[__name__], add=add, check=check)
