"""Which labels of BCCD do detectors find most doubtful?

Question: `label_errors` measures how well the loss of an object finds labels that were spoilt on purpose. What does it
say of a data set as it is?

Method: a detector knows the labels that it was trained on, so others judge them: five small detectors with CIoU are
trained on the 205 training photos of BCCD at 160 x 160 pixels, and five on the 159 of the other two parts, and every
label is ranked by the mean `per_object_loss` of those five that do not know it (but for the anchors, the same for all,
which come from the training part; and for about as many steps over fewer photos). The five are the trials of one call
of `yolojax.training.sweep`; the loss of an object comes from the library's function, called directly, since no training
computes it. The first 50 are listed, with what the first of the five sees at their place (score .25 and more), and
drawn on the sheet `runs/label_suspects.png`, for somebody to judge.

Command:   python -m experiments.label_suspects --bccd FOLDER    (the data set)
Expected:  15 minutes on two cores.
Quick:     python -m experiments.label_suspects --quick    (generated images, runs of four steps)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.label_suspects.doubtful_labels import draw_suspects, find_suspects
from experiments.shared.record import figure, run_study, table
from experiments.shared.small_runs import BCCD, QUICK, add_bccd

COUNT, SHEET = 50, Path("runs/label_suspects.png")
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale = QUICK if args.quick else replace(BCCD, folder=args.bccd)
    suspects, losses = find_suspects(scale, COUNT)
    sheet = Path(tempfile.mkdtemp()) / SHEET.name if args.quick else SHEET
    sheet.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_suspects(scale, suspects)).save(sheet)
    return {"scale": scale.facts(), "suspects": suspects, "losses": losses}


def other_class(record: Record) -> list[int]:
    """The places in the list where the detector sees an object of another class (IoU .5 and more)."""
    return [
        place
        for place, label in enumerate(record["suspects"], 1)
        if label["sees"]["class"] not in (None, label["label"]) and label["sees"]["iou"] >= 0.5
    ]


def conclude(record: Record) -> str:
    numbers, suspects, losses = other_class(record), record["suspects"], sorted(record["losses"])
    apart = [suspects[number - 1] for number in numbers]
    said = "; ".join(f"{label['file']} {label['label']}, seen as {label['sees']['class']}" for label in apart)
    nothing = sum(label["sees"]["iou"] < 0.5 for label in suspects)
    parts = Counter(label["split"] for label in suspects)
    told = ", ".join(f"{parts[name]} in {name}" for name in ("train", "val", "test"))
    return (
        f"Of {len(losses)} labels the {len(suspects)} with the highest loss have {suspects[-1]['loss']:.1f} and more "
        f"(median of all {losses[len(losses) // 2]:.1f}): {told}. At the place of {len(numbers)} the detector sees "
        f"another class{' (' + said + ')' if said else ''}; at that of {nothing} nothing with an IoU of .5."
    )


def page(record: Record) -> str:
    rows = []
    for number, label in enumerate(record["suspects"], 1):
        sees, box = label["sees"], " ".join(map(str, label["box"]))
        what = f"{sees['class']} {sees['score']:.2f}, IoU {sees['iou']:.2f}" if sees["class"] else "nothing"
        rows.append([number, label["file"], label["split"], label["label"], box, f"{label['loss']:.1f}", what])
    return table(["", "image", "part", "label", "x1 y1 x2 y2", "loss", "nearest thing that a detector sees"], rows)


def draw(record: Record) -> Any:
    made, (axes,) = figure(6, 3)
    axes.hist(record["losses"], bins=80, log=True)
    axes.axvline(record["suspects"][-1]["loss"], color="C1", label=f"the {len(record['suspects'])} suspects begin here")
    axes.set(xlabel="per_object_loss", ylabel="labels")
    axes.legend()
    return made


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not (args.quick or args.bccd):
        parser.error("give --bccd FOLDER or --quick")


main = partial(run_study, sys.modules[__name__], add=add_bccd, check=check)
