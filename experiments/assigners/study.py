"""Which assigner trains the best detector when everything else is equal?

Question: best anchor shape (YOLOv3), side ratio with neighbour cells (v5), ATSS, SimOTA (YOLOX), task-aligned (v8) and
one-to-one matching (DETR) come with detectors that differ in much else. Here only the assigner differs.

Method: *shapes* of 96 x 96 pixels, the lesson's network with one prediction a cell at strides 8, 16 and 32, boxes by
YOLOX's coder (which reaches every place), 100 training and 200 test images, the same epochs, initial parameters, order
of images and augmentation; five seeds. Each run is one of `yolojax.fit` with a detector whose loss takes the assigner
as a function; a callback counts the positives. The loss is the same: CIoU of positives, BCE of objectness over all
predictions, BCE of classes over positives, all divided by the number of positives. Class targets are 1 (no soft
scores), so what differs is only who is positive. One anchor a level, the k-means of the training boxes, serves the two
rules that want one. The same again on BCCD's photos of blood cells at 160 x 160 pixels, 205 to train with and 72 to
test on. Differences from task-aligned are taken seed by seed.

Command:   python -m experiments.assigners --bccd FOLDER    (the data set; without it generated images only)
Expected:  an hour on two cores.
Quick:     python -m experiments.assigners --quick    (two assigners, runs of four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

import numpy as np

from experiments.assigners.anchor_free import ASSIGNERS, assigner_of, with_assigner
from experiments.shared.record import Runs, figure, interval, paired, run_study, table
from experiments.shared.small_runs import (
    BCCD,
    Scale,
    add_bccd,
    ap_by_iou,
    by_data,
    evaluate,
    lesson_detector,
    part,
    scales_of,
    train,
)
from yolojax.detector import Detector
from yolojax.training.callbacks import Event

REFERENCE = "task-aligned"
Record = dict[str, Any]


class Positives:
    """A callback that keeps the number of positives an image in the last step of a run."""

    reads_state = False

    def __init__(self) -> None:
        self.per_image = 0.0

    def __call__(self, event: Event) -> None:
        if event.kind == "step":
            self.per_image = event.row["count/positives"] / event.run.batch_size


def trained(detector: Detector, scale: Scale, seed: int) -> Record:
    """Of a run: AP on the test images by IoU threshold, and the positives an image at its end."""
    positives = Positives()
    variables = train(detector, part(scale).dataset, scale, seed, callbacks=[positives])
    found = evaluate(detector, variables, part(scale, "test"))
    return {"by_iou": ap_by_iou(found), "positives": positives.per_image}


def measure(args: argparse.Namespace) -> Record:
    scales = scales_of(args)
    runs = Runs(args, "assigners", scales["shapes"].facts(), BCCD=BCCD.facts())
    for data, scale in scales.items():
        lesson = lesson_detector(scale, per_level=1)
        for name in (REFERENCE, ASSIGNERS[0]) if args.quick else ASSIGNERS:
            detector = with_assigner(lesson, assigner_of(name, lesson))
            for seed in range(1 if args.quick else scale.seeds):
                runs({"data": data, "seed": seed, "assigner": name}, partial(trained, detector, scale, seed))
    return {"scale": scales["shapes"].facts(), "BCCD": BCCD.facts(), "runs": runs.all}


def aps(record: Record, data: str, name: str, at: slice = slice(None)) -> list[float]:
    return [float(np.mean(r["by_iou"][at])) for r in record["runs"] if (r["data"], r["assigner"]) == (data, name)]


def names(record: Record) -> list[str]:
    """The assigners that were tried."""
    return [name for name in ASSIGNERS if any(r["assigner"] == name for r in record["runs"])]


def against(record: Record, data: str, name: str) -> Any:
    return paired(aps(record, data, name), aps(record, data, REFERENCE))


def conclude(record: Record) -> str:
    said = []
    for data in by_data(record):
        best = max(names(record), key=lambda name: np.mean(aps(record, data, name)))
        apart = {name: against(record, data, name) for name in names(record) if name != REFERENCE}
        clear = [(name, d.mean) for name, d in apart.items() if d.low > 0 or d.high < 0]
        listed = ", ".join(f"{name} {mean:+.3f}" for name, mean in sorted(clear, key=lambda item: -item[1])) or "none"
        said.append(
            f"{data}: {best} is best, AP {interval(aps(record, data, best))}. Of {REFERENCE}, "
            f"{interval(aps(record, data, REFERENCE))}, the seeds show apart: {listed}."
        )
    return " ".join(said)


def page(record: Record) -> str:
    text = ""
    for data in by_data(record):
        rows = []
        for name in names(record):
            d = against(record, data, name)
            own = [r for r in record["runs"] if (r["data"], r["assigner"]) == (data, name)]
            positives = np.mean([r["positives"] for r in own])
            cells = [interval(aps(record, data, name, at)) for at in (slice(None), slice(0, 1), slice(5, 6))]
            span = f" ({d.low:+.3f} to {d.high:+.3f})" if d.n > 1 else ""
            apart = "" if name == REFERENCE else f"{d.mean:+.3f}{span}"
            rows.append([name, *cells, f"{positives:.1f}", apart])
        head = ["assigner", "AP", "AP50", "AP75", "positives an image, at the end", f"AP less that of {REFERENCE}"]
        text += f"{data}:\n\n{table(head, rows)}\n\n"
    return text


def draw(record: Record) -> Any:
    made, panels = figure(7 * len(by_data(record)), 3.2, len(by_data(record)))
    for axes, data in zip(panels, by_data(record), strict=True):
        for place, name in enumerate(names(record)):
            values = aps(record, data, name)
            axes.plot([place] * len(values), values, "o", alpha=0.6)
            axes.plot(place, np.mean(values), "_", color="black", markersize=24)
        axes.set_xticks(range(len(names(record))), names(record), fontsize=8)
        axes.set(ylabel="AP", title=f"{data}: one dot a seed, the line their mean")
        axes.grid(alpha=0.3, axis="y")
    return made


main = partial(run_study, sys.modules[__name__], add=add_bccd)
