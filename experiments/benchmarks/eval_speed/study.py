"""How long does a COCO evaluation take, from arrays in memory and from files, beside the programs people use?

Question: how long does COCO's evaluation of COCO val's size take here, in memory, from files and as the command with
and without its report, and how do pycocotools, hotcoco and faster-coco-eval compare? What does a bootstrap cost?

Method: 5000 images, 80 classes, 36,710 objects and 458,582 detections, drawn at random from seed 0 (or `--case`, a
folder with bench_gt.json and bench_dt.json). *In memory*: pycocotools from its two indexed data sets to its twelve
numbers; ours from two sets of NumPy columns (boxes, scores, classes, images, areas) to the twelve numbers. *From
files*: everything from reading the JSON on, in a process that has its libraries loaded. *Command*: a new process, its
start included, with its peak memory. Every program's numbers are compared with those of pycocotools: the backends must
be equal to the bit, our evaluation in float32 to 1e-4. From memory ours is the median of three calls after the first;
of the others, what takes less than 20 seconds is the median of three calls, and the rest runs once. A resample costs
the difference of two bootstraps, of 10 resamples and of more, by their number. The record says how busy the machine
was; a load above `BUSY` is not recorded without `--out`.

Command:   python -m experiments.benchmarks.eval_speed
Expected:  about six minutes on two idle cores; see experiments/benchmarks/eval_speed/README.md.
Quick:     python -m experiments.benchmarks.eval_speed --quick    (50 generated images: the machinery only; no record)

hotcoco and faster-coco-eval are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.shared.record import write_page
from yolojax.eval.bootstrap import bootstrap
from yolojax.eval.coco import METRICS, evaluate_coco, read_both
from yolojax.eval.weighted import coco_numbers
from yolojax.processor.memory import available_cores

RESULTS = Path(__file__).parent
GOAL = 10.0
ONCE = 20.0
"""Seconds."""
TRUTH, FOUND = "bench_gt.json", "bench_dt.json"
BUSY = 0.5
"""Load average of the last minute, before the start, above which times mean nothing."""


def write_large_case(folder: Path, images: int = 5000, classes: int = 80, seed: int = 0) -> None:
    """A case of COCO val's size: objects in three classes an image, jittered copies of them, and boxes of nothing."""
    rng = np.random.default_rng(seed)
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        count, kinds = rng.poisson(7.3), rng.choice(classes, size=3)
        for _ in range(count):
            x, y = rng.uniform(0, 500, 2).tolist()
            w, h = np.exp(rng.uniform(2, 5.2, 2)).tolist()
            one = {"image_id": image, "category_id": int(rng.choice(kinds)) + 1}
            crowd = int(rng.random() < 0.01)
            objects.append({"id": len(objects) + 1, **one, "bbox": [x, y, w, h], "area": w * h * 0.6, "iscrowd": crowd})
            for _ in range(rng.integers(1, 4) if rng.random() < 0.8 else 0):
                a, b, c, d = rng.normal(0, 0.1, 4).tolist()
                category = one["category_id"] if rng.random() < 0.8 else int(rng.integers(classes)) + 1
                box = [x + a * w, y + b * h, w * float(np.exp(c)), h * float(np.exp(d))]
                found.append({"image_id": image, "category_id": category, "bbox": box, "score": float(rng.beta(2, 2))})
        for _ in range(80):
            box = [*rng.uniform(0, 500, 2).tolist(), *np.exp(rng.uniform(2, 5.2, 2)).tolist()]
            category = int(rng.integers(classes)) + 1
            found.append({"image_id": image, "category_id": category, "bbox": box, "score": float(rng.beta(1, 6))})
    listed = [{"id": k, "width": 640, "height": 640} for k in range(1, images + 1)]
    categories = [{"id": k, "name": str(k)} for k in range(1, classes + 1)]
    (folder / TRUTH).write_text(json.dumps({"images": listed, "annotations": objects, "categories": categories}))
    (folder / FOUND).write_text(json.dumps(found))


def write_small_case(folder: Path, images: int = 50, classes: int = 5, seed: int = 0) -> None:
    """A case of the same kind for trying this script: jittered copies of objects, and boxes of nothing."""
    rng = np.random.default_rng(seed)
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []

    def box() -> list[float]:
        return [*rng.uniform(0, 500, 2).tolist(), *np.exp(rng.uniform(2, 5.2, 2)).tolist()]

    for image in range(1, images + 1):
        for _ in range(rng.poisson(7)):
            one: dict[str, Any] = {
                "id": len(objects) + 1,
                "image_id": image,
                "category_id": int(rng.integers(1, classes + 1)),
            }
            one |= {"bbox": box(), "iscrowd": int(rng.random() < 0.01)}
            objects.append(one | {"area": one["bbox"][2] * one["bbox"][3] * 0.6})
            near = (np.array(one["bbox"]) + rng.normal(0, 2, 4)).clip(1).tolist()
            found.append({"image_id": image, "category_id": one["category_id"], "bbox": near, "score": rng.random()})
        for _ in range(20):
            category = int(rng.integers(1, classes + 1))
            found.append({"image_id": image, "category_id": category, "bbox": box(), "score": rng.random() ** 3})
    listed = [{"id": k, "width": 640, "height": 640, "file_name": f"{k}.jpg"} for k in range(1, images + 1)]
    categories = [{"id": k, "name": str(k)} for k in range(1, classes + 1)]
    (folder / TRUTH).write_text(json.dumps({"images": listed, "categories": categories, "annotations": objects}))
    (folder / FOUND).write_text(json.dumps(found))


def pycocotools_seconds(folder: Path) -> tuple[float, float, list[float]]:
    """Seconds of reading and indexing, seconds from there to the numbers, and the twelve numbers."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        truth = COCO(str(folder / TRUTH))
        found = truth.loadRes(str(folder / FOUND))
        read = time.perf_counter()
        evaluator = COCOeval(truth, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        done = time.perf_counter()
    return read - start, done - read, evaluator.stats.tolist()


def faster_coco_eval_numbers(folder: Path) -> list[float]:
    from faster_coco_eval import COCO, COCOeval_faster  # pyright: ignore[reportMissingImports]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / TRUTH))
        evaluator = COCOeval_faster(truth, truth.loadRes(str(folder / FOUND)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [float(value) for value in evaluator.stats[:12]]


def hotcoco_numbers(folder: Path) -> list[float]:
    import hotcoco  # pyright: ignore[reportMissingImports]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = hotcoco.COCO(str(folder / TRUTH))
        evaluator = hotcoco.COCOeval(truth, truth.load_res(str(folder / FOUND)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [float(value) for value in evaluator.stats[:12]]


def timed(call: Callable[[], Any], rounds: int) -> tuple[float, float, Any]:
    """Seconds of the first call, the median of those that follow (of it alone, where none do), and the last answer."""
    taken, answer = [], None
    for _ in range(rounds + 1):
        start = time.perf_counter()
        answer = call()
        taken.append(time.perf_counter() - start)
    return taken[0], statistics.median(taken[1:] or taken), answer


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and the answer: the median of three calls where the first takes less than `ONCE`."""
    first, _, answer = timed(call, 0)
    if first >= ONCE:
        return first, answer
    again = [timed(call, 0)[0] for _ in range(2)]
    return statistics.median([first, *again]), answer


_LAUNCHER = """import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Starts a command from a small process: a child's peak memory begins with that of the process that started it."""


def command(folder: Path, *options: str) -> tuple[float, list[float] | None]:
    """Peak gigabytes of ``yolojax eval`` in a process of its own, and its numbers where it writes them."""
    arguments = [sys.executable, "-m", "yolojax", "eval", str(folder / TRUTH), str(folder / FOUND), *options]
    done = subprocess.run([sys.executable, "-c", _LAUNCHER, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"yolojax eval {' '.join(options)} ended with exit code {done.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    numbers = None
    if "--out" in options:
        out = Path(options[options.index("--out") + 1])
        numbers = [json.loads((out / "metrics.json").read_text())[name] for name in METRICS]
        shutil.rmtree(out)
    return int(done.stdout) * unit / 1e9, numbers


def study(folder: Path, rounds: int, samples: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All measurements on one case."""
    truth, found = read_both(folder / TRUTH, folder / FOUND)
    rows: list[dict[str, Any]] = []

    def add(program: str, start: str, seconds: float, numbers: list[float] | None, **more: Any) -> None:
        apart = None if numbers is None else float(np.max(np.abs(np.array(numbers) - reference)))
        rows.append(
            {"program": program, "from": start, "seconds": round(seconds, 3), "largest difference": apart} | more
        )
        say(f"{program} from {start}: {seconds:.3f} s" + ("" if apart is None else f", {apart:.1g} from pycocotools"))

    def ours(columns: tuple) -> list[float]:
        got = coco_numbers(*columns)
        return [got[name] for name in METRICS]

    first, again, numbers = timed(lambda: ours((truth, found)), rounds)
    reading, evaluating, reference = pycocotools_seconds(folder)
    reference = np.array(reference)
    add("pycocotools", "memory", evaluating, reference.tolist())
    add("yolojax", "memory", again, numbers, first=round(first, 3), ratio=round(evaluating / again, 1))
    add("pycocotools", "files", reading + evaluating, reference.tolist())
    seconds, numbers = seconds_of(lambda: ours(read_both(folder / TRUTH, folder / FOUND)))
    add("yolojax", "files", seconds, numbers)
    for name, call in (("faster-coco-eval", faster_coco_eval_numbers), ("hotcoco", hotcoco_numbers)):
        try:
            seconds, numbers = seconds_of(partial(call, folder))
        except ImportError:
            say(f"{name} is not installed")
            continue
        add(name, "files", seconds, numbers)
        if name == "hotcoco":
            seconds, result = seconds_of(partial(evaluate_coco, folder / TRUTH, folder / FOUND, backend="hotcoco"))
            add(
                "yolojax, evaluate_coco with hotcoco (guards, classes, precision and recall besides)",
                "files",
                seconds,
                [getattr(result, name) for name in METRICS],
            )
    backends = ("hotcoco", "pycocotools") if find_spec("hotcoco") is not None else ("pycocotools",)
    for backend in backends:
        for what, options in (("table", ()), ("report", ("--out", str(folder / f"report_{backend}")))):
            seconds, (peak, numbers) = seconds_of(partial(command, folder, "--backend", backend, *options))
            add(f"yolojax eval, {what}, {backend}", "command", seconds, numbers, gigabytes=round(peak, 2))
    _, few, _ = timed(lambda: bootstrap(truth, found, samples=10), 0)
    _, many, _ = timed(lambda: bootstrap(truth, found, samples=10 + samples), 0)
    per_sample = (many - few) / samples
    say(f"bootstrap: {per_sample * 1e3:.0f} ms a resample")
    return {
        "images": len(truth.image_ids),
        "objects": len(truth.images),
        "detections": len(found.scores),
        "rows": rows,
        "ratio_in_memory": rows[1]["ratio"],
        "goal": GOAL,
        "bootstrap_ms_per_resample": round(per_sample * 1e3, 1),
    }


def markdown(record: dict[str, Any]) -> str:
    lines = [
        "# Seconds of a COCO evaluation",
        "",
        f"`{record['command']}`, {record['date']}; {record['versions']}; {record['cores']} processor cores.",
        f"{record['images']} images, {record['objects']} objects, {record['detections']} detections.",
        "",
        "| program | from | seconds | GB | largest difference to pycocotools |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {r['program']} | {r['from']} | {r['seconds']} | {r.get('gigabytes', '')} | "
            f"{'' if r['largest difference'] is None else format(r['largest difference'], '.1g')} |"
            for r in record["rows"]
        ),
        "",
        f"From memory ours is **{record['ratio_in_memory']} times** as fast as pycocotools (aim: {record['goal']:g}); "
        f"its first call took {record['rows'][1]['first']} s. A bootstrap costs "
        f"{record['bootstrap_ms_per_resample']} ms a resample, for all numbers together.",
    ]
    return "\n".join(lines) + "\n"


def conclude(record: dict[str, Any]) -> str:
    """The sentence of the table of studies."""
    told = "; ".join(
        f"{row['program'].partition(' (')[0]} {row['seconds']:.1f} s"
        + (f" and {row['gigabytes']:.2g} GB" if "gigabytes" in row else "")
        for row in record["rows"]
        if row["from"] != "memory"
    )
    return (
        f"{record['images']} images, {record['detections']} detections: from memory ours is "
        f"{record['ratio_in_memory']:.1f} times as fast as pycocotools; from files and as a command: {told}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=Path, help=f"folder with {TRUTH} and {FOUND} (default: a generated case)")
    parser.add_argument(
        "--quick", action="store_true", help="a small generated case and no record, unless --out is given"
    )
    parser.add_argument("--out", type=Path, help="folder of the record (default experiments/benchmarks/eval_speed)")
    args = parser.parse_args()
    if args.case is not None and not (args.case / FOUND).is_file():
        print(f"--case {args.case}: it does not hold {TRUTH} and {FOUND}", file=sys.stderr)
        return 2
    load = round(os.getloadavg()[0], 2)
    if load > BUSY and not args.quick and args.out is None:
        print(
            f"the load average is {load}, above {BUSY}: times would mean nothing; wait, or give --out", file=sys.stderr
        )
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.case or Path(scratch)
        if args.case is None:
            (write_small_case if args.quick else write_large_case)(folder)
        found = study(folder, 2 if args.quick else 3, 20 if args.quick else 30, lambda line: print(line, flush=True))
    versions = {"jax": jax.__version__}
    for name in ("pycocotools", "hotcoco", "faster-coco-eval"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    record = {
        "command": "python -m experiments.benchmarks.eval_speed" + (" --quick" if args.quick else ""),
        "load": load,
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].platform,
        "cores": available_cores(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    } | found
    if args.quick and args.out is None:
        return 0
    write_page(args.out or RESULTS, record, markdown(record))
    return 0
