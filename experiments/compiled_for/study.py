"""What do the compilers of a TPU v5e and of an H100 say of a training step, before either is rented?

Question: does the training step of YOLOv8s and of YOLOX-s at 640 pixels fit one chip with 16 and with 64 images, how
far is it from the chip's peak by the compiler's own estimate, and which part of it limits it?

Method: `yolojax.planning.plan.make_plan` compiles the step that `yolojax train` runs, in bfloat16 with mosaic, affine
changes and HSV, 80 classes and 128 objects an image, for one chip. Nothing is run and nothing is measured: on the TPU
milliseconds are the compiler's cycles at the chip's clock, and operations that it gives no estimate for (gathers of
pixels) come on top; on the GPU, whose compiler estimates no time, they are what the bytes of all operations take at the
published bandwidth. Utilisation is three times the forward convolutions over that time and the published
peak. Compiled for one chip, a step has no collectives; `--target v5e:2x2` adds a slice.

Command:   python -m experiments.compiled_for
Expected:  an hour on two cores, nearly all for the TPU; needs `yolojax[plan-tpu]` and `yolojax[plan-gpu]`.
Pieces:    python -m experiments.compiled_for --target h100 --model yolov8s --batch 16
           (adds to the record that is there)
Quick:     python -m experiments.compiled_for --quick    (a tiny network for the compilers that are installed)
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from typing import Any, get_args

from experiments.shared.record import Runs, figure, run_study, table
from yolojax.cli.progress import make_reporter
from yolojax.config import AugmentConfig, ModelConfig, Remat, TrainConfig
from yolojax.planning.compilers import compile_on_processor, missing_compiler
from yolojax.planning.plan import make_plan
from yolojax.planning.targets import parse_target

TARGETS, MODELS, BATCHES, SIZE = ("v5e:1x1", "h100"), ("yolov8s", "yolox-s"), (16, 64), 640
TINY = {"widths": [8, 8, 16], "depths": [0, 0, 1], "head_width": 16, "reg_max": 8}
PARTS = ("augmentation", "forward", "loss", "backward", "optimiser")
Record = dict[str, Any]


def compiled(target: str, model: str, images: int, remat: Remat, size: int, options: Record) -> Record:
    """What the compiler says of one training step, with this many images on each chip."""
    chips = parse_target(target)
    config = TrainConfig(
        model=ModelConfig(name=model, size=size, options=options),
        augment=AugmentConfig(mosaic=1.0),
        batch_size=images * chips.chips,
        remat=remat,
        compute="bfloat16",
    )
    plan = make_plan(config, chips, make_reporter(), programs=["train"], largest=False)
    return {"compiler": plan.compiler, **dataclasses.asdict(plan.programs[0])}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", nargs="+", default=list(TARGETS), help=f"default {' '.join(TARGETS)}")
    parser.add_argument("--model", nargs="+", default=list(MODELS), help=f"default {' '.join(MODELS)}")
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES), help="images on each chip")
    parser.add_argument(
        "--remat", choices=get_args(Remat), default="none", help="what is computed again (`train --remat`)"
    )


def measure(args: argparse.Namespace) -> Record:
    compile_on_processor()
    scale = {"size": 64 if args.quick else SIZE, "options": TINY if args.quick else {}}
    runs = Runs(args, "compiled_for", scale)
    for target in args.target:
        if missing := missing_compiler(parse_target(target)):
            print(missing, flush=True)
            continue
        for model in ["compact"] if args.quick else args.model:
            for images in [2] if args.quick else args.batch:
                key = {"target": target, "model": model, "images": images, "remat": args.remat}
                runs(key, partial(compiled, target, model, images, args.remat, **scale))
    return {"scale": scale, "runs": sorted(runs.all, key=lambda run: (run["target"], name_of(run), run["images"]))}


def one_by_one(run: Record) -> str:
    """How many kernels, copies and CUDA graphs of kernels a GPU's host starts."""
    if run["launches"] is None or not run.get("graphs"):
        return ""
    return f"{sum(run['launches'].values()) - run['graphs']['kernels'] + run['graphs']['count']:,}"


def name_of(run: Record) -> str:
    """The model, and what of it is computed again."""
    return run["model"] + ("" if run["remat"] == "none" else f", remat of {run['remat']}")


def conclude(record: Record) -> str:
    if not record["runs"]:
        return "Nothing was compiled: no compiler is installed."
    told = []
    # Of each model and target one run: most images that fit, with nothing computed again if there is such a run.
    best = {(r["model"], r["target"]): r for r in sorted(record["runs"], key=_rank)}
    for run in best.values():
        name = f"{name_of(run)}, {run['images']} images on {run['target']}"
        if not run["fits"]:
            told.append(f"{name}: does not fit ({run['needs'] / 1e9:.1f} GB)")
        elif run["utilisation"] is not None:
            spent = f"{1e3 * run['time']['seconds']:.0f} ms, {run['utilisation']:.0%} of the peak"
            told.append(f"{name}: {run['needs'] / 1e9:.1f} GB, {spent}")
        else:
            started = sum(run["launches"].values())
            told.append(f"{name}: {run['needs'] / 1e9:.1f} GB, {started:,} launches")
    return f"Estimates of the compilers, not measurements. {'; '.join(told)}."


def _rank(run: Record) -> tuple[bool, bool, int]:
    return run["fits"], run["remat"] == "none", run["images"]


def _of_loops(run: Record) -> str:
    """What is said of a run whose loops take as many turns as the data want."""
    unknown = run["time"]["unknown_loops"]
    return f"; {unknown} operations in loops of a length that the data decide are counted once" if unknown else ""


def page(record: Record) -> str:
    rows, dear = [], []
    for run in record["runs"]:
        spent = run["time"] or {"seconds": float("inf"), "phases": {}, "without_estimate": {}, "operations": []}
        fits = bool(run["time"])
        missing = ", ".join(f"{count} {kind}" for kind, count in spent["without_estimate"].items())
        rows.append(
            [
                run["target"],
                name_of(run),
                run["images"],
                f"{run['needs'] / 1e9:.2f}" + ("" if run["fits"] else ", does not fit"),
                f"{1e3 * spent['seconds']:.1f}" if fits else "",
                f"{1e3 * run['floor_seconds']:.1f}",
                "" if run["utilisation"] is None else f"{run['utilisation']:.1%}",
                *(f"{spent['phases'].get(part, 0.0):.0%}" if fits else "" for part in PARTS),
                missing,
                "" if run["launches"] is None else f"{sum(run['launches'].values()):,}",
                one_by_one(run),
                f"{run['compile_seconds']:.0f}",
            ]
        )
        for operation in spent["operations"][:5]:
            place, share = operation["place"], f"{operation['share']:.1%}"
            dear.append([run["target"], name_of(run), run["images"], place, share, operation["count"]])
    head = ["target", "model", "images", "GB", "ms", "ms at the peak", "of the peak", *PARTS]
    head += ["without an estimate", "launches", "one by one", "compiled in s"]
    compilers = ", ".join(sorted({run["compiler"] for run in record["runs"]}))
    limits = [
        f"- {name_of(run)}, {run['images']} images on {run['target']}: {run['limits']}{_of_loops(run)}."
        for run in record["runs"]
    ]
    return "\n".join(
        [
            f"All figures are estimates, by {compilers or 'no compiler'}; none is measured. `ms`: on the TPU the sum "
            "of the compiler's cycles, to which operations without an estimate add; on the GPU what all bytes take at "
            "the published bandwidth. `ms at the peak`: three times the forward convolutions at the published peak. "
            "`launches`: kernels and copies of a call; `one by one`: how many times something is started for them, "
            "where XLA makes CUDA graphs of those that follow each other.",
            "",
            table(head, rows),
            "",
            "What limits each, in a sentence:",
            "",
            *limits,
            "",
            "The five most expensive places of each (on the TPU by cycles, on the GPU by bytes):",
            "",
            table(["target", "model", "images", "place", "share", "operations"], dear),
        ]
    )


def draw(record: Record) -> Any:
    made, (axes,) = figure(8, 2 + 0.5 * len(record["runs"]))
    labels = [f"{name_of(run)}, {run['images']}\n{run['target']}" for run in record["runs"]]
    left = [0.0] * len(labels)
    for part in (*PARTS, "unnamed", "other"):
        shares = [(run["time"] or {"phases": {}})["phases"].get(part, 0.0) for run in record["runs"]]
        axes.barh(labels, shares, left=left, label=part)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.set(xlabel="share of the estimated time (TPU: cycles, GPU: bytes)", xlim=(0, 1))
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.15))
    axes.tick_params(labelsize=7)
    return made


main = partial(run_study, sys.modules[__name__], add=add)
