"""How many images a second does training take in, and how near is that to what the machine can do?

Question: for the demo's detector, a published one (YOLOv8n) and one of nearly its work whose convolutions suit XLA on a
processor, at two sizes, several batches and both number formats: images a second, share of the time spent waiting for
data, compilation, memory, utilisation; and what do a PyTorch network of YOLOv8n's size and the Ultralytics trainer
reach on the same machine?

Method: `yolojax bench train` in a fresh process for each case: the ordinary step with augmentation, assignment, loss,
optimiser and running average on generated images. PyTorch (`torch_yolov8n.py` beside this file, in the Python that
--torch names): network, sum of squares, AdamW and nothing else, on noise, channels-last, so it does less; on a GPU in
three ways: eagerly, captured as one CUDA graph, and by ``torch.compile``. Ultralytics: its command `yolo`, where the
user has installed it, YOLOv8n on generated images, with its own augmentation and defaults (its optimiser takes a step
for 64 images at least), in float32; on a processor again with all cores, since as installed it leaves some to its
loader; neither is imported. On a processor 640 pixels in batches of 16 and more, 320 in batches of 64, and most of
bfloat16, which it only emulates, are left out unless --all: minutes each. On an accelerator it is YOLOv8n and YOLOv8s
in a few cases, unless --all, and the record goes into a folder named after the device.

Command:   python -m experiments.benchmarks.throughput --torch PYTHON
           (a second call goes on where the first was stopped; --so-far records what there is)
Expected:  about half an hour on two cores, the peers included; not yet run on a GPU.
Quick:     python -m experiments.benchmarks.throughput --quick           (one small case, half a minute)
"""

from __future__ import annotations

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # what is measured runs in other processes

import argparse
import json
import shutil
import sys
from functools import partial
from itertools import product
from typing import Any

import jax

from experiments.benchmarks.throughput.other_trainers import pytorch, ultralytics
from experiments.shared.bench_command import TINY, bench_train
from experiments.shared.record import Runs, device_name, environment, figure, folder_of, run_study, table

Record = dict[str, Any]
COMPACT = {"widths": [0, 32, 64, 128, 256], "depths": [0, 0, 1, 1, 1], "csp": False, "merge": True}
DEMO = {"widths": [0, 32, 64, 128], "depths": [0, 1, 1, 1], "head_width": 64, "csp": False, "merge": True}
NETWORKS = {"demo": ("compact", DEMO), "YOLOv8n": ("yolov8", {}), "processor": ("compact", COMPACT)}
LARGER = {"YOLOv8s": ("yolov8", {"scale": "s"})}
CASES = [*product((320, 640), (1, 4, 16, 64), ("float32", "bfloat16"))]
ON_A_PROCESSOR = [(320, batch, "float32") for batch in (16, 4, 1)] + [(640, 4, "float32")]
EMULATED = (320, 4, "bfloat16")
ON_AN_ACCELERATOR = [(640, 64, "bfloat16"), (640, 16, "bfloat16"), (320, 16, "float32"), (640, 64, "float32")]
PYTORCH = {"PyTorch": "eager", "PyTorch, CUDA graph": "graph", "PyTorch, compiled": "compiled"}
THEIRS = ("Ultralytics as installed", "Ultralytics on all cores")
KEPT = ("images_per_second", "waiting_share", "compile_seconds", "memory", "utilisation", "peak_flops", "forward_flops")
KEPT += ("traffic", "bandwidth_share")


def ours(network: str, size: int, batch: int, dtype: str, seconds: float) -> Record:
    model, options = ("compact", TINY) if size == 32 else (NETWORKS | LARGER)[network]
    settings = {"model": model, "size": size, "batch": batch, "dtype": dtype, "seconds": seconds}
    found = bench_train(["-m", "yolojax"], settings, options)
    return {name: found[name] for name in (*KEPT, "parameters", "steps")}


def measure(args: argparse.Namespace) -> Record:
    quick, processor = args.quick, jax.default_backend() == "cpu"
    cases = CASES if args.all else ON_A_PROCESSOR if processor else ON_AN_ACCELERATOR
    cases = [(32, 2, "float32")] if quick else cases
    networks = ["demo"] if quick else list(NETWORKS) if processor or args.all else ["YOLOv8n"]
    seconds = 0.2 if quick else args.seconds
    if args.out is None and not (processor or quick):
        args.out = folder_of("benchmarks.throughput") / device_name()
    runs = Runs(args, "benchmarks.throughput", {"seconds": seconds}, environment=environment())
    for size, batch, dtype in () if args.so_far else cases:
        key = {"size": size, "batch": batch, "dtype": dtype}
        for name in networks:
            runs({"what": name, **key}, partial(ours, name, size, batch, dtype, seconds))
        for what, mode in PYTORCH.items() if args.torch and not quick else ():
            if mode == "eager" or not processor:
                runs({"what": what, **key}, partial(pytorch, args.torch, size, batch, dtype, seconds, mode))
        if shutil.which("yolo") and not quick and dtype == "float32":
            for what in THEIRS if processor else THEIRS[:1]:
                runs({"what": what, **key}, partial(ultralytics, size, batch, all_cores=what == THEIRS[1]))
    if not (quick or args.all or args.so_far):  # on a processor what emulation costs, once; else a larger network
        name, case = ("demo", EMULATED) if processor else ("YOLOv8s", ON_AN_ACCELERATOR[0])
        key = dict(zip(("size", "batch", "dtype"), case, strict=True))
        runs({"what": name, **key}, partial(ours, name, *case, seconds))
    known = [run for run in runs.all if run["what"] in (*NETWORKS, *LARGER, *PYTORCH, *THEIRS)]
    return {"scale": {"seconds": seconds}, "processor": processor, "runs": known}


def conclude(record: Record) -> str:
    size, batch, dtype = ON_A_PROCESSOR[0] if record["processor"] else ON_AN_ACCELERATOR[0]
    rates = {r["what"]: r for r in record["runs"] if (r["size"], r["batch"], r["dtype"]) == (size, batch, dtype)}
    said = "; ".join(
        f"{name} {r['images_per_second']:.1f}" + (f" ({r['utilisation']:.0%} of the peak)" if "memory" in r else "")
        for name, r in rates.items()
    )
    absent = [name for name in ("PyTorch", THEIRS[0]) if name not in rates]
    note = f" Not measured: {', '.join(absent)}." if absent else ""
    where = "" if record["processor"] else f" on {record['environment']['hardware']}"
    return f"Images a second{where} at {size} pixels, batch {batch}, {dtype}: {said}.{note}"


def page(record: Record) -> str:
    rows = []
    for r in sorted(record["runs"], key=lambda r: (r["size"], r["batch"], r["dtype"] != "float32", r["what"])):
        cells = [r["what"], r["size"], r["batch"], r["dtype"], f"{r['images_per_second']:.1f}"]
        if "memory" in r:
            cells += [f"{r['waiting_share']:.1%}", f"{r['compile_seconds']:.0f}", f"{(r['memory'] or 0) / 1e9:.2f}"]
            share = "" if r["utilisation"] is None else f"{r['utilisation']:.0%}"
            moved = r.get("bandwidth_share")
            cells += [f"{r['forward_flops'] / 1e9:.2f}", share, "" if moved is None else f"{moved:.0%}"]
        elif "compile_seconds" in r:
            cells += ["", f"{r['compile_seconds']:.0f}", f"{r['device_memory'] / 1e9:.2f}"]
        rows.append(cells + [""] * (11 - len(cells)))
    head = ["what", "pixels", "batch", "numbers", "images/s", "waiting", "compilation, s", "GB", "GFLOP", "of the peak"]
    head += ["bandwidth"]
    notes = "GFLOP: forward, an image; three times that over the peak is the utilisation. PyTorch trains a bare step."
    versions = {r["version"] for r in record["runs"] if r["what"] in THEIRS}
    if versions:
        notes += f" Ultralytics {', '.join(sorted(versions))}: its trainer with its defaults, but in float32, with "
        notes += "mosaic to the end and without checkpoints; as installed it leaves some cores to its loader."
    notes += " Bandwidth: what a step moves by XLA's cost analysis, an upper bound, for it counts what caches serve."
    if record["processor"]:
        notes += (
            " On a processor the peak is that of a float32 matrix product measured in the same run. What is not "
            "listed was left out: minutes each."
        )
    return table(head, rows) + f"\n\n{notes} `processor` is `compact` with {json.dumps(COMPACT)}."


def draw(record: Record) -> Any:
    made, (axes,) = figure(8, 4)
    names = list(dict.fromkeys(r["what"] for r in record["runs"]))
    for what, size in dict.fromkeys((r["what"], r["size"]) for r in record["runs"]):
        of = [r for r in record["runs"] if (r["what"], r["size"], r["dtype"]) == (what, size, "float32")]
        of.sort(key=lambda r: r["batch"])
        line = {"color": f"C{names.index(what)}", "marker": "o" if size <= 320 else "x"}
        batches, rates = ([r[key] for r in of] for key in ("batch", "images_per_second"))
        axes.plot(batches, rates, label=f"{what}, {size} pixels", **line)
    ticks = sorted({r["batch"] for r in record["runs"]})
    axes.set(xlabel="batch", ylabel="images a second", xscale="log", title="training, float32", ylim=(0, None))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=7, bbox_to_anchor=(1.01, 1), loc="upper left")
    axes.grid(alpha=0.3)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--torch", help="a Python that has PyTorch, for the comparison")
    parser.add_argument("--so-far", action="store_true", help="measure no more: record what there is")
    parser.add_argument("--all", action="store_true", help="all cases, whatever the device")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each case is timed, at least")


main = partial(run_study, sys.modules[__name__], add=add)
