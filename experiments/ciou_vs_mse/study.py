"""Does a CIoU box loss give a better AP than squared error after the same epochs, by how much, and at which IoU?

Question: the lesson's second exercise expects CIoU to converge to a better AP (IoU .50 to .95) on 100 generated images.
IoU, GIoU, DIoU and SIoU are tried as well. A loss has a scale of its own, and ``lambda_coord`` multiplies it, so a
comparison at one value of it would compare scales: every loss is trained at two.

Method: the lesson's detector on 100 images of *shapes* of 96 x 96 pixels, the same epochs, initial parameters, order of
images and augmentation for all six losses, which the detector takes as `box_loss`; five seeds. The runs of a loss, over
seeds and weights, are the trials of one call of `yolojax.training.sweep`. The weight of each loss is chosen on 100
validation images (mean AP over the seeds); the AP reported is that of 200 test images. The same again on BCCD's photos
of blood cells at 160 x 160 pixels: 205 to train with, 87 to choose by, 72 to test on. Differences are taken seed by
seed.

Command:   python -m experiments.ciou_vs_mse --bccd FOLDER    (the data set; without it generated images only)
Expected:  an hour and a half on two cores.
Pieces:    python -m experiments.ciou_vs_mse --losses mse ciou --weights 5    (what the record has is not run again)
Quick:     python -m experiments.ciou_vs_mse --quick    (runs of four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from experiments.ciou_vs_mse.comparison import IOUS, against_mse, best_weight, losses, of
from experiments.shared.record import Runs, figure, interval, paired, run_study, table, verdict
from experiments.shared.small_runs import (
    BCCD,
    BOX_LOSSES,
    Scale,
    add_bccd,
    ap_by_iou,
    by_data,
    evaluate,
    lesson_detector,
    part,
    scales_of,
    train_trials,
)
from yolojax.detector import Variables
from yolojax.training.sweep import Trial

WEIGHTS = (5.0, 15.0)
Record = dict[str, Any]


def measured(scale: Scale, variables: Variables, choose_by: int) -> Record:
    """Of a run: AP on the images to choose by, and on the test images by IoU threshold."""
    detector = lesson_detector(scale)  # one for all losses, since detecting does not use the loss
    chosen_by = evaluate(detector, variables, part(scale, "val", choose_by)).result.AP
    return {"val_AP": chosen_by, "by_iou": ap_by_iou(evaluate(detector, variables, part(scale, "test")))}


def measure(args: argparse.Namespace) -> Record:
    scales = scales_of(args)
    runs = Runs(args, "ciou_vs_mse", scales["shapes"].facts(), BCCD=BCCD.facts())
    weights: list[float] = args.weights[:1] if args.quick else args.weights
    # Squared error always: the others are held against it.
    names = list(BOX_LOSSES[:2]) if args.quick else [BOX_LOSSES[0], *(n for n in args.losses if n != BOX_LOSSES[0])]
    for (data, scale), name in product(scales.items(), names):
        settings = product(weights, range(scale.seeds))
        missing = runs.missing({"data": data, "loss": name, "weight": w, "seed": seed} for w, seed in settings)
        trials = [Trial(key["seed"], {"lambda_coord": key["weight"]}) for key in missing]
        trained = train_trials(lesson_detector(scale, box_loss=name), part(scale).dataset, scale, trials)
        for key, variables in zip(missing, trained, strict=True):
            runs(key, partial(measured, scale, variables, 8 if args.quick else 100))
    # An interrupted piece may have left some seeds.
    count = Counter((run["data"], run["loss"], run["weight"]) for run in runs.all)
    whole = [r for r in runs.all if count[r["data"], r["loss"], r["weight"]] == scales["shapes"].seeds]
    return {"scale": scales["shapes"].facts(), "BCCD": BCCD.facts(), "runs": whole}


def conclude(record: Record) -> str:
    said = {"more": "wins", "less": "loses", "no difference shown": "shows no difference"}

    def found(runs: list[Record], name: str, weight: float | None) -> str:
        whole = against_mse(runs, name, weight=weight)
        loose, tight = (against_mse(runs, name, at, weight) for at in (slice(0, 1), slice(5, 9)))
        return (
            f"{said[verdict(whole)]}, AP {whole.mean:+.3f} ({whole.low:+.3f} to {whole.high:+.3f}; "
            f"{loose.mean:+.3f} at IoU .50, {tight.mean:+.3f} from .75 to .90)"
        )

    sentences = []
    for data, runs in by_data(record).items():
        name = "ciou" if "ciou" in losses(runs) else losses(runs)[-1]
        weights = sorted({r["weight"] for r in runs})
        common = 5.0 if 5.0 in weights else weights[0]
        sentence = f"{data}: {spelt(name)} against squared error, the weight {common:g} for both, "
        sentence += found(runs, name, common)
        if len(weights) == 1:
            sentence += "; no other weight was tried there, and a loss may do better at one of its own"
        else:
            each = f"each at the better of {' and '.join(f'{w:g}' for w in weights)}"
            sentence += f"; {each}, {found(runs, name, None)}"
        sentences.append(f"{sentence}.")
    return " ".join(sentences)


def spelt(name: str) -> str:
    return name.upper() if name == "mse" else f"{name[:-3].upper()}IoU"


def page(record: Record) -> str:
    text = ""
    for data, runs in by_data(record).items():
        scale, names = record["scale" if data == "shapes" else "BCCD"], losses(runs)
        weights, rows = sorted({r["weight"] for r in runs}), []
        for name in names:
            aps, difference = np.array(of(runs, name)), against_mse(runs, name)
            cells = [interval(aps.mean(axis=1)), *(interval(aps[:, i]) for i in (0, 5, 8))]
            apart = "" if name == "mse" else f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
            rows.append([name, f"{best_weight(runs, name):g}", *cells, apart])
        grid = [[n, *(f"{np.mean(aps):.3f}" if (aps := of(runs, n, w)) else "" for w in weights)] for n in names]
        head = ["box loss", "weight", "AP", "AP at .50", "at .75", "at .90", "AP less that of mse"]
        text += (
            f"{data}: {scale['train']} training images, {scale['test']} test images of {scale['side']} x "
            f"{scale['side']}, {scale['epochs']} epochs, {scale['seeds']} seeds. Each loss at the weight with its best "
            f"validation AP of {', '.join(f'{w:g}' for w in weights)}:\n\n{table(head, rows)}\n\n"
            "Test AP at every weight `lambda_coord` (mean of the seeds):\n\n"
            f"{table(['box loss', *(f'{w:g}' for w in weights)], grid)}\n\n"
        )
    return text


def draw(record: Record) -> Any:
    parts = by_data(record)
    made, panels = figure(9 * len(parts), 3.6, 2 * len(parts))
    for (data, runs), left, right in zip(parts.items(), panels[::2], panels[1::2], strict=True):
        for name in losses(runs):
            aps = np.array(of(runs, name))
            colour = f"C{BOX_LOSSES.index(name)}"
            left.plot(
                IOUS, aps.mean(axis=0), "o-", color=colour, markersize=3, label=f"{name} ({best_weight(runs, name):g})"
            )
            if name != "mse":
                apart = [paired(aps[:, i].tolist(), np.array(of(runs, "mse"))[:, i].tolist()) for i in range(10)]
                right.plot(IOUS, [d.mean for d in apart], color=colour, label=name)
                if name == "ciou":
                    right.fill_between(IOUS, [d.low for d in apart], [d.high for d in apart], alpha=0.2, color=colour)
        left.set(title=f"{data}: AP by IoU threshold, best weight", xlabel="IoU", ylabel="AP", ylim=(0, None))
        right.set(title="less that of squared error (band: CIoU, 95 %)", xlabel="IoU")
        right.axhline(0, color="black", linewidth=0.8)
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    add_bccd(parser)
    parser.add_argument("--losses", nargs="+", choices=BOX_LOSSES, default=list(BOX_LOSSES))
    parser.add_argument("--weights", nargs="+", type=float, default=list(WEIGHTS))


main = partial(run_study, sys.modules[__name__], add=add)
