"""Which assigner trains the best detector when everything else is equal?

Question: best anchor shape (YOLOv3), side ratio with neighbour cells (v5), ATSS, SimOTA (YOLOX), task-aligned (v8) and
one-to-one matching (DETR) come with detectors that differ in much else. Here only the assigner differs.

Method: *shapes* of 96 x 96 pixels, the lesson's network with one prediction a cell at strides 8, 16 and 32, boxes by
YOLOX's coder (which reaches every place), 100 training and 200 test images, the same epochs, initial parameters, order
of images and augmentation; five seeds; one compiled step, in which the assigner is a traced choice. The loss is the
same: CIoU of positives, BCE of objectness over all predictions, BCE of classes over positives, all divided by the
number of positives. Class targets are 1 (no soft scores), so what differs is only who is positive. One anchor a level,
the k-means of the training boxes, serves the two rules that want one. Differences from task-aligned are taken seed by
seed.

Command:   python -m experiments.assigners
Expected:  half an hour on two cores.
Quick:     python -m experiments.assigners --quick    (runs of four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

import numpy as np

from experiments.any_assigner import ASSIGNERS, with_assigner
from experiments.record import Runs, figure, interval, paired, run_study, table
from experiments.small import Trainer, ap_by_iou, images, lesson_detector, scale_of

REFERENCE = "task-aligned"
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale = scale_of(args)
    trainer = Trainer(with_assigner(lesson_detector(scale, per_level=1), 0), scale, with_assigner)
    learn, test = images(scale.train, scale.side), images(scale.test, scale.side, "test")
    runs = Runs(args, "assigners", scale.facts())
    for seed in range(scale.seeds):
        for choice, name in enumerate(ASSIGNERS):

            def compute(seed: int = seed, choice: int = choice) -> Record:
                by_iou = ap_by_iou(trainer.evaluate(trainer.train(seed, learn, choice=choice), test))
                return {"by_iou": by_iou, "positives": trainer.positives}

            runs({"seed": seed, "assigner": name}, compute)
    return {"scale": scale.facts(), "runs": runs.all}


def aps(record: Record, name: str, at: slice = slice(None)) -> list[float]:
    return [float(np.mean(r["by_iou"][at])) for r in record["runs"] if r["assigner"] == name]


def against(record: Record, name: str) -> Any:
    return paired(aps(record, name), aps(record, REFERENCE))


def conclude(record: Record) -> str:
    ranked = sorted(ASSIGNERS, key=lambda name: -np.mean(aps(record, name)))
    said = "; ".join(f"{name} {interval(aps(record, name))}" for name in ranked)
    clear = [
        name
        for name in ASSIGNERS
        if name != REFERENCE and not against(record, name).low <= 0 <= against(record, name).high
    ]
    return f"AP, best first: {said}. Differences from {REFERENCE} that the seeds show: {', '.join(clear) or 'none'}."


def page(record: Record) -> str:
    rows = []
    for name in ASSIGNERS:
        d = against(record, name)
        positives = np.mean([r["positives"] for r in record["runs"] if r["assigner"] == name])
        cells = [interval(aps(record, name, at)) for at in (slice(None), slice(0, 1), slice(5, 6))]
        apart = "" if name == REFERENCE else f"{d.mean:+.3f} ({d.low:+.3f} to {d.high:+.3f})"
        rows.append([name, *cells, f"{positives:.1f}", apart])
    return table(
        ["assigner", "AP", "AP50", "AP75", "positives an image, at the end", f"AP less that of {REFERENCE}"], rows
    )


def draw(record: Record) -> Any:
    made, (axes,) = figure(7, 3.2)
    for place, name in enumerate(ASSIGNERS):
        axes.plot([place] * len(aps(record, name)), aps(record, name), "o", alpha=0.6)
        axes.plot(place, np.mean(aps(record, name)), "_", color="black", markersize=24)
    axes.set_xticks(range(len(ASSIGNERS)), ASSIGNERS, fontsize=8)
    axes.set(ylabel="AP", title="one dot a seed, the line their mean")
    axes.grid(alpha=0.3, axis="y")
    return made


main = partial(run_study, sys.modules[__name__])

if __name__ == "__main__":
    main()
