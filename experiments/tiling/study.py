"""What does cutting large images into tiles find that one look does not, and what does it cost?

Question: an image five times as wide as the detector's own has small objects. One look at the detector's size shrinks
them away. Do overlapping tiles find them, does the rule for objects that a seam cuts pay, and does one look at the full
size, which has as many pixels and no seams, do as well?

Method: the lesson's detector trained on 400 *shapes* of 96 x 96 pixels, as in `multi_scale`, five seeds. Test scenes:
*shapes* of 480 x 480 pixels with up to 60 figures of the same size in pixels as in training (14 to 48). COCO protocol
(score .001, IoU .7), 100 detections an image, which no scene exceeds in objects. `tiles` are of 96 pixels and overlap
by .5, so that every figure is whole on one of them; `less overlap` has .2; `by IoU alone` leaves out the rule of
`yolojax.tiling` for boxes against a seam; `and the whole` adds the shrunk image. Time: of one scene from its pixels to
its boxes, tiles in batches of 8, the median of several scenes, as a multiple of one look at the full size.

Command:   python -m experiments.tiling
Expected:  fifteen minutes on two cores.
Quick:     python -m experiments.tiling --quick    (a detector that was trained for four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from experiments.shared.record import Runs, environment, figure, interval, paired, run_study, table
from experiments.shared.small_runs import CLASSES, QUICK, ROUND, Scale, lesson_detector
from experiments.shared.trained_members import PLAIN, members
from yolojax.data import Dataset
from yolojax.data.shapes import CLASS_NAMES, SIZES, shapes_dataset
from yolojax.detector import Detector, Variables
from yolojax.eval.coco import evaluate_coco
from yolojax.eval.files import detections_to_coco
from yolojax.inference.loading import with_input_size
from yolojax.inference.predict import Predictor
from yolojax.inference.tiled import TiledPredictor
from yolojax.tiling import Tiling

TIMES_AS_WIDE, SCENES, OBJECTS, MOST = 5, 40, 60, 100
SHRUNK, FULL = "one look, shrunk", "one look, full size"
TILES, LESS, BY_IOU, WHOLE = "tiles", "tiles, less overlap", "tiles, by IoU alone", "tiles and the whole"
LOOKS = (SHRUNK, FULL, TILES, LESS, BY_IOU, WHOLE)
NUMBERS = ("AP", "AP50", "AR100")
Record = dict[str, Any]


class ByIoU(TiledPredictor):
    """Without the rule for boxes that lie against a seam."""

    join_seams = staticmethod(lambda boxes, *_: np.ones(len(boxes), bool))


def scenes(scale: Scale, count: int) -> Dataset:
    """Large scenes whose figures have the size of the training images', in pixels."""
    side = TIMES_AS_WIDE * scale.side
    sizes = SIZES[0] / TIMES_AS_WIDE, SIZES[1] / TIMES_AS_WIDE
    dataset = shapes_dataset(count, size=(side, side), split="test", objects=OBJECTS, figures=sizes)
    group = np.array([name not in ROUND for name in CLASS_NAMES], np.int32)
    records = tuple(replace(record, classes=group[record.classes]) for record in dataset.records)
    return replace(dataset, class_names=CLASSES, category_ids=(1, 2), records=records)


def predictor_of(look: str, detector: Detector, variables: Variables) -> Predictor:
    """The detector as it takes this look at a scene."""
    side = detector.spec.input_size[0]
    if look == FULL:
        return Predictor(with_input_size(detector, TIMES_AS_WIDE * side), variables, max_detections=MOST)
    if look == SHRUNK:
        return Predictor(detector, variables, max_detections=MOST)
    made = ByIoU if look == BY_IOU else TiledPredictor
    tiling = Tiling(side, 0.2 if look == LESS else 0.5, whole=look == WHOLE)
    return made(Predictor(detector, variables, max_detections=MOST, batch_size=8), tiling)


def measured(predictor: Predictor, dataset: Dataset) -> Record:
    """COCO's numbers, and the median seconds of a scene after the first."""
    rows, seconds = [], []
    thresholds = predictor.spec.postprocess.validation
    for record in dataset.records:
        pixels = record.pixels()
        started = time.perf_counter()
        result = predictor(pixels, confidence=thresholds.confidence, iou=thresholds.iou)
        seconds.append(time.perf_counter() - started)
        rows += detections_to_coco(record.image_id, result.boxes, result.scores, result.classes, dataset.category_ids)
    found = evaluate_coco(dataset.to_coco(), rows)
    return {**{name: getattr(found, name) for name in NUMBERS}, "seconds": statistics.median(seconds[1:] or seconds)}


def measure(args: argparse.Namespace) -> Record:
    scale = QUICK if args.quick else PLAIN
    facts = {**scale.facts(), "scenes": 2 if args.quick else SCENES, "objects": OBJECTS}
    runs = Runs(args, "tiling", facts, environment=environment())
    dataset, detector = scenes(scale, facts["scenes"]), lesson_detector(scale)
    for seed in range(scale.seeds):
        for look in LOOKS:

            def one(look: str = look, seed: int = seed) -> Record:
                variables = members(scale, range(scale.seeds))[seed]
                return measured(predictor_of(look, detector, variables), dataset)

            runs({"look": look, "seed": seed}, one)
    return {"scale": facts, "runs": runs.all}


def of(record: Record, look: str, name: str) -> list[float]:
    """A number of one look, seed by seed."""
    return [run[name] for run in sorted(record["runs"], key=lambda run: run["seed"]) if run["look"] == look]


def times(record: Record, look: str) -> float:
    """Seconds of a scene, as a multiple of one look at the full size, the median over seeds."""
    return statistics.median(
        a / b for a, b in zip(of(record, look, "seconds"), of(record, FULL, "seconds"), strict=True)
    )


def said(record: Record, look: str, other: str) -> str:
    mean, low, high, _ = paired(of(record, look, "AP"), of(record, other, "AP"))
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def conclude(record: Record) -> str:
    times_of = {look: f"{times(record, look):.1f}" for look in (TILES, LESS)}
    return (
        f"AP of tiles less that of one look at the detector's own size {said(record, TILES, SHRUNK)}, less that of one "
        f"look at the full size {said(record, TILES, FULL)} in {times_of[TILES]} times its time (with an overlap of .2 "
        f"{said(record, LESS, FULL)}, {times_of[LESS]}). Without the rule for boxes against a seam AP changes by "
        f"{said(record, BY_IOU, TILES)}, with the whole image besides by {said(record, WHOLE, TILES)}."
    )


def page(record: Record) -> str:
    rows = []
    for look in LOOKS:
        cells = [str(interval(of(record, look, name))) for name in NUMBERS]
        seconds = statistics.median(of(record, look, "seconds"))
        rows.append(
            [
                look,
                *cells,
                said(record, look, FULL) if look != FULL else "",
                f"{1e3 * seconds:.0f}",
                f"{times(record, look):.1f}",
            ]
        )
    head = ["look", *NUMBERS, "AP less that of the full size", "ms a scene", "time, of the full size"]
    return table(head, rows)


def draw(record: Record) -> Any:
    made, (axes,) = figure(7, 4)
    for look in LOOKS:
        ap, seconds = of(record, look, "AP"), of(record, look, "seconds")
        axes.plot([1e3 * statistics.median(seconds)] * len(ap), ap, "o", label=look)
    axes.set(xlabel="milliseconds a scene", ylabel="AP of each seed", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower right")
    return made


main = partial(run_study, sys.modules[__name__])
