"""What does it cost to begin with a data set of COCO train's size, the first time and the second?

Question: how many processor seconds and how much memory do `data check` and the start of training take on a data set of
COCO train's size, the first time and again?

Method: 118,000 JPEG images of 16 x 16 pixels (64 different ones) with some 864,000 boxes of 80 classes, drawn at random
from seed 0, as a COCO file; and 5,000 of them again for validation. *data check* is the command in a new process, its
pictures included. *start of training* is everything of the data set's size up to the first batch, in a new process:
reading both parts, the tests before training, targets, sampler, fingerprints, the first batch, the picture of the
labels; no network is made and nothing compiled. Each is run twice, with an empty index of data sets before the first.
Seconds are of the processor (user and system), because others may compute at the same time; memory is the peak resident
size. Real photos take longer to decode, and no longer to read.

Command:   python -m experiments.benchmarks.data_start
Expected:  about two minutes on two cores; see experiments/benchmarks/data_start/README.md.
Quick:     python -m experiments.benchmarks.data_start --quick    (300 images: the machinery only; no record)
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.shared.record import write_page
from yolojax.processor.memory import available_cores

RESULTS = Path(__file__).parent
IMAGES, VALIDATION, CLASSES = 118_000, 5_000, 80
GOALS = {"first": (20.0, 800.0), "second": (3.0, 800.0)}
"""Processor seconds and megabytes."""

START = (
    "import sys; from experiments.benchmarks.data_start.study import begin_training as b; b(sys.argv[1], sys.argv[2])"
)


def write_case(folder: Path, images: int, validation: int) -> int:
    """Writes the data set; returns the number of its boxes for training."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(64):
        held = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).save(held, "JPEG")
        pictures.append(held.getvalue())
    (folder / "annotations").mkdir(parents=True)
    categories = [{"id": c, "name": f"class{c}"} for c in range(1, CLASSES + 1)]
    total = 0
    for part, count in (("val", validation), ("train", images)):
        (folder / part).mkdir()
        counts = np.minimum(random.geometric(1 / 8.35, count) - 1, 93)
        total = int(counts.sum())
        boxes = np.concatenate([random.uniform(0, 10, (total, 2)), random.uniform(1, 5.9, (total, 2))], 1)
        rows = zip(np.repeat(np.arange(count), counts), boxes.round(2).tolist(), strict=True)
        names = [f"{i + 1:012d}.jpg" for i in range(count)]
        for i, name in enumerate(names):
            (folder / part / name).write_bytes(pictures[i % 64])
        content = {
            "images": [
                {"id": i + 1, "file_name": name, "height": 16, "width": 16, "date_captured": "2013-11-14 11:18:45"}
                for i, name in enumerate(names)
            ],
            "annotations": [
                {
                    "id": k,
                    "image_id": int(image) + 1,
                    "category_id": 1 + k * 7 % CLASSES,
                    "bbox": box,
                    "area": round(box[2] * box[3] * 0.7, 4),
                    "iscrowd": int(k % 100 == 0),
                }
                for k, (image, box) in enumerate(rows, 1)
            ],
            "categories": categories,
        }
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return total


def begin_training(path: str, picture: str) -> None:
    """Everything of the data set's size that a run does before its first step."""
    from yolojax.config import DataConfig
    from yolojax.data import box_sizes_on_input, choose_input_size, make_sampler, open_input_images
    from yolojax.data.check import check_dataset, plot_labels
    from yolojax.data.index import keep_index
    from yolojax.geometry import Preprocess
    from yolojax.progress import Quiet
    from yolojax.training.data import open_data
    from yolojax.training.run_state import RunState

    keep_index()
    pair = open_data(DataConfig(path=path), 0, None, Quiet())
    size = choose_input_size(pair.train, 640)
    box_sizes_on_input(pair.train, size)
    images = open_input_images(pair.train, size, Preprocess(), images_per_sample=4, cache="stream")
    if pair.val is not None:
        open_input_images(pair.val, size, Preprocess(), cache="stream")
    sampler = make_sampler(pair.train, 16)
    RunState.start(pair)
    images.batch(sampler(0, 0))
    plot_labels(images.dataset, check_dataset(images.dataset, decode=False), Path(picture))


def measure(arguments: list[str], cache: Path) -> dict[str, float]:
    """Processor seconds, seconds and peak megabytes of a Python process with an index of its own."""
    began = time.perf_counter()
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, *arguments],
        {**os.environ, "YOLOJAX_COMPILATION_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)},
        file_actions=[(os.POSIX_SPAWN_OPEN, one, os.devnull, os.O_WRONLY, 0) for one in (1, 2)],
    )
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"python {' '.join(arguments)} ended with exit code {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return {
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "seconds": round(time.perf_counter() - began, 1),
        "megabytes": round(usage.ru_maxrss * unit / 1e6),
    }


def study(folder: Path, images: int, validation: int) -> dict[str, Any]:
    """Writes the data set and runs everything twice."""
    # In a process of its own: what is measured later inherits the peak of this one.
    call = "import sys; from experiments.benchmarks.data_start.study import write_case as w; from pathlib import Path; "
    call += "print(w(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))"
    writing = [sys.executable, "-c", call, str(folder / "set"), str(images), str(validation)]
    boxes = int(subprocess.run(writing, check=True, stdout=subprocess.PIPE, text=True).stdout)
    time.sleep(3)  # an index is only kept of files that lie still
    rows: list[dict[str, Any]] = []
    for what in ("data check", "start of training"):
        cache = folder / what.replace(" ", "_")
        for run in ("first", "second"):
            out = str(folder / f"{cache.name}_{run}")
            arguments = ["-m", "yolojax", "data", "check", str(folder / "set"), "--split", "train", "--out", out]
            if what == "start of training":
                arguments = ["-c", START, str(folder / "set"), f"{out}.png"]
            row = {"what": what, "run": run} | measure(arguments, cache)
            print(row, flush=True)
            rows.append(row)
    return {"images": images, "boxes": boxes, "rows": rows}


def markdown(record: dict[str, Any]) -> str:
    """The page of a record."""
    lines = [
        "# The start with a data set of COCO train's size",
        "",
        f"`{record['command']}`, {record['date']}; {record['cores']} processor cores, load {record['load']}.",
        f"{record['images']:,} images of 16 x 16 pixels, {record['boxes']:,} boxes.",
        "",
        "| what | run | processor seconds | goal | seconds | peak MB | goal |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {r['what']} | {r['run']} | {r['processor_seconds']} | {GOALS[r['run']][0]:g} | {r['seconds']} | "
            f"{r['megabytes']} | {GOALS[r['run']][1]:g} |"
            for r in record["rows"]
        ),
        *(["", record["note"]] if record.get("note") else []),
    ]
    return "\n".join(lines) + "\n"


def conclude(record: dict[str, Any]) -> str:
    """The sentence of the table of studies."""
    told = "; ".join(
        f"{r['what']}, {r['run']} run: {r['processor_seconds']:g} s of a processor and {r['megabytes']} MB"
        for r in record["rows"]
    )
    return f"{record['images']:,} images, {record['boxes']:,} boxes: {told}."


def main() -> int:
    """Measures, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 images and no record, unless --out is given")
    parser.add_argument("--out", type=Path, help="folder of the record (default experiments/benchmarks/data_start)")
    args = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as scratch:
        found = study(Path(scratch), *((300, 20) if args.quick else (IMAGES, VALIDATION)))
    record = {
        "command": "python -m experiments.benchmarks.data_start" + (" --quick" if args.quick else ""),
        "load": load,
        "date": datetime.date.today().isoformat(),
        "cores": available_cores(),
    } | found
    if args.quick and args.out is None:
        return 0
    write_page(args.out or RESULTS, record, markdown(record))
    return 0
