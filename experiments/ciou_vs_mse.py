"""Does a CIoU box loss give a better AP than squared error after the same epochs, by how much, and at which IoU?

Question: the lesson's second exercise expects CIoU to converge to a better AP (IoU .50 to .95) on 100 generated images.
IoU, GIoU, DIoU and SIoU are tried as well. A loss has a scale of its own, and ``lambda_coord`` multiplies it, so a
comparison at one value of it would compare scales: every loss is trained at two.

Method: the lesson's detector on 100 images of *shapes* of 96 x 96 pixels, the same epochs, initial parameters, order of
images and augmentation for all six losses; five seeds; one compiled step, in which the loss is a traced choice. The
weight of each loss is chosen on 100 validation images (mean AP over the seeds); the AP reported is that of 200 test
images. Differences are taken seed by seed.

Command:   python -m experiments.ciou_vs_mse
Expected:  an hour on two cores.
Pieces:    python -m experiments.ciou_vs_mse --losses mse ciou --weights 5    (what the record has is not run again)
Quick:     python -m experiments.ciou_vs_mse --quick    (runs of four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from experiments.record import Runs, figure, interval, paired, run_study, table, verdict
from experiments.small import BOX_LOSSES, ap_by_iou, images, lesson_trainer, scale_of

WEIGHTS = (5.0, 15.0)
IOUS = tuple(f".{50 + 5 * i}" for i in range(10))
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale = scale_of(args)
    trainer = lesson_trainer(scale)
    learn, choose, test = (images(n, scale.side, s) for n, s in ((scale.train, "train"), (100, "val"), (200, "test")))
    if args.quick:
        learn, choose, test = (images(scale.test, scale.side, split) for split in ("train", "val", "test"))
    runs = Runs(args, "ciou_vs_mse", scale.facts())
    for weight in args.weights[:1] if args.quick else args.weights:
        for name in BOX_LOSSES[:2] if args.quick else args.losses:
            for seed in range(scale.seeds):

                def compute(seed: int = seed, name: str = name, weight: float = weight) -> Record:
                    variables = trainer.train(seed, learn, choice=BOX_LOSSES.index(name), lambda_coord=weight)
                    chosen_by = trainer.evaluate(variables, choose).result.AP
                    return {"val_AP": chosen_by, "by_iou": ap_by_iou(trainer.evaluate(variables, test))}

                runs({"loss": name, "weight": weight, "seed": seed}, compute)
    count = Counter((run["loss"], run["weight"]) for run in runs.all)  # an interrupted piece may have left some seeds
    whole = [run for run in runs.all if count[run["loss"], run["weight"]] == scale.seeds]
    return {"scale": scale.facts(), "runs": whole}


def of(record: Record, loss: str, weight: float | None = None) -> list[list[float]]:
    """AP by IoU threshold, seed by seed, at a weight or at the one with the best validation AP."""
    own = [r for r in record["runs"] if r["loss"] == loss]
    if weight is None:
        weight = best_weight(record, loss)
    return [r["by_iou"] for r in sorted(own, key=lambda r: r["seed"]) if r["weight"] == weight]


def best_weight(record: Record, loss: str) -> float:
    own = [r for r in record["runs"] if r["loss"] == loss]
    return max(
        sorted({r["weight"] for r in own}), key=lambda w: np.mean([r["val_AP"] for r in own if r["weight"] == w])
    )


def losses(record: Record) -> list[str]:
    return list(dict.fromkeys(r["loss"] for r in record["runs"]))


def against_mse(record: Record, loss: str, at: slice = slice(None), weight: float | None = None) -> Any:
    ours, theirs = (np.mean(np.array(of(record, name, weight))[:, at], axis=1) for name in (loss, "mse"))
    return paired(ours.tolist(), theirs.tolist())


def conclude(record: Record) -> str:
    name = "ciou" if "ciou" in losses(record) else losses(record)[-1]
    weights = sorted({r["weight"] for r in record["runs"]})
    said = {"more": "wins", "less": "loses", "no difference shown": "shows no difference"}

    def sentence(weight: float | None) -> str:
        whole = against_mse(record, name, weight=weight)
        loose, tight = (against_mse(record, name, at, weight) for at in (slice(0, 1), slice(5, 9)))
        return (
            f"{name.upper()} {said[verdict(whole)]} against squared error: AP {whole.mean:+.3f} (95 % from "
            f"{whole.low:+.3f} to {whole.high:+.3f}, {whole.n} seeds); {loose.mean:+.3f} at IoU .50, {tight.mean:+.3f} "
            "from .75 to .90."
        )

    common = 5.0 if 5.0 in weights else weights[0]
    same = f"At the weight {common:g} for both {sentence(common)}"
    if len(weights) == 1:
        return same
    return f"{same} With each at the better of {' and '.join(f'{w:g}' for w in weights)} {sentence(None)}"


def page(record: Record) -> str:
    scale, names = record["scale"], losses(record)
    weights = sorted({r["weight"] for r in record["runs"]})
    rows = []
    for name in names:
        aps, difference = np.array(of(record, name)), against_mse(record, name)
        cells = [interval(aps.mean(axis=1)), *(interval(aps[:, i]) for i in (0, 5, 8))]
        apart = "" if name == "mse" else f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
        rows.append([name, f"{best_weight(record, name):g}", *cells, apart])
    grid = [[name, *(f"{np.mean(aps):.3f}" if (aps := of(record, name, w)) else "" for w in weights)] for name in names]
    return (
        f"{scale['train']} training images, {scale['test']} test images of {scale['side']} x {scale['side']}, "
        f"{scale['epochs']} epochs, {scale['seeds']} seeds. Each loss at the weight with its best validation AP:\n\n"
        + table(["box loss", "weight", "AP", "AP at .50", "at .75", "at .90", "AP less that of mse"], rows)
        + "\n\nTest AP at every weight `lambda_coord` (mean of the seeds):\n\n"
        + table(["box loss", *(f"{w:g}" for w in weights)], grid)
    )


def draw(record: Record) -> Any:
    made, (left, right) = figure(9, 3.6, 2)
    for name in losses(record):
        aps = np.array(of(record, name))
        left.plot(IOUS, aps.mean(axis=0), marker="o", markersize=3, label=f"{name} ({best_weight(record, name):g})")
        if name != "mse":
            apart = [paired(aps[:, i].tolist(), np.array(of(record, "mse"))[:, i].tolist()) for i in range(10)]
            right.plot(IOUS, [d.mean for d in apart], label=name)
            if name == "ciou":
                right.fill_between(IOUS, [d.low for d in apart], [d.high for d in apart], alpha=0.2, color="C4")
    left.set(title="AP by IoU threshold, best weight", xlabel="IoU", ylabel="AP", ylim=(0, None))
    right.set(title="less that of squared error (band: CIoU, 95 %)", xlabel="IoU")
    right.axhline(0, color="black", linewidth=0.8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--losses", nargs="+", choices=BOX_LOSSES, default=list(BOX_LOSSES))
    parser.add_argument("--weights", nargs="+", type=float, default=list(WEIGHTS))


main = partial(run_study, sys.modules[__name__], add=add)

if __name__ == "__main__":
    main()
