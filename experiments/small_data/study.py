"""On a small set of photographs and two processor cores, which detector from which weights after how many minutes?

Question: BCCD (blood cells, 205 training images) is to be learnt in a few minutes. Does a small transformer
(DEIMv2-Atto, one-to-one matching, no suppression) from its published COCO weights learn as quickly as YOLOX-Nano from
its own, and what do random weights give?

Method: DEIMv2-Atto at 320 pixels, which is its published size, from the authors' COCO weights (``init``: all but the
scores of the classes), trained by RECIPE for EPOCHS, which takes about the time of the runs of
`experiments.fine_tuning` (YOLOX-Nano, 208 steps of 16 images, both arms of that study). The seconds of a step of both
networks are measured first (``--part pace`` does nothing else, on a machine with nothing else to do). Data, batch size,
augmentation and measurement are those of that study: the final averaged weights on the 72 test images, once, by
pycocotools. Shorter runs are compared by the curves, AP of the averaged weights on the 87 validation images; they are
measured while the learning rate is still high, so that a run of that length would end above its curve. Nothing is
chosen on the test images. The compact detector from scratch is `experiments.bccd`'s.

Command:   python -m experiments.small_data --data PATH/TO/BCCD --init PATH/TO/deimv2-atto
           --yolox PATH/TO/yolox_nano.npz [--seeds 0 1 2]
Expected:  about eight minutes a run, one run a seed.
Quick:     python -m experiments.small_data --quick    (two steps of a tiny one: the machinery only)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.fine_tuning import study as fine_tuning
from experiments.shared.record import Runs, figure, folder_of, interval, run_study, table
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig, ValidationConfig

OURS = "DEIMv2-Atto"
EPOCHS = 12
RECIPE: dict[str, Any] = {"learning_rate": 5e-4, "warmup_steps": 20, "clip_norm": 0.1, "weight_decay": 1e-4}
OTHERS = {
    "YOLOX-Nano": ("published weights", "C1"),
    "YOLOX-Nano from scratch": ("from scratch", "C2"),
}
"""Rows of `experiments.fine_tuning`, and their colours."""


def config_of(seed: int, args: argparse.Namespace) -> TrainConfig:
    """The run of a seed; a quick one starts from nothing."""
    if args.quick:
        return TrainConfig(
            data=DataConfig(path="shapes:?count=4&size=32"),
            model=ModelConfig("deimv2", 32, options={"queries": 4, "denoising": 2}),
            augment=AugmentConfig(scale_min=1.0, scale_max=1.0, translate=0.0, hue=0.0, saturation=0.0, value=0.0),
            epochs=1,
            batch_size=2,
            seed=seed,
            validation=ValidationConfig(confidence=0.001, samples=0),
            checkpoint_every=0,
        )
    return TrainConfig(
        data=DataConfig(path=args.data, train_split="train", val_split="val"),
        model=ModelConfig("deimv2", 320),
        augment=AugmentConfig(flip_vertical=0.5),
        optimiser=OptimiserConfig(**RECIPE),
        epochs=EPOCHS,
        seed=seed,
        validation=ValidationConfig(confidence=0.001, samples=0),
        validate_every=1,
        checkpoint_every=0,
        init=str(args.init),
    )


def pace(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step of both networks, one after the other."""
    theirs = argparse.Namespace(quick=args.quick, data=args.data, init=args.yolox)
    arm = "from scratch" if args.quick else "published weights"
    configs = {OURS: config_of(0, args), "YOLOX-Nano": fine_tuning.config_of(arm, 0, theirs)}
    return {"seconds_per_step": {name: fine_tuning.seconds_of(config, epochs=2) for name, config in configs.items()}}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    scale = {"epochs": EPOCHS, "recipe": RECIPE}
    runs = Runs(args, "small_data", scale)
    runs({"what": "pace"}, partial(pace, args))
    if args.part == "pace":
        sys.exit()
    with tempfile.TemporaryDirectory() as scratch:
        for seed in args.seeds[:1] if args.quick else args.seeds:
            folder = Path(args.keep or scratch) / f"deimv2-{seed}"
            runs(
                {"what": "run", "arm": OURS, "seed": seed},
                partial(fine_tuning.train_and_test, config_of(seed, args), args, folder),
            )
    config = asdict(config_of(0, args))
    config |= {"init": "deimv2-atto", "data": {**config["data"], "path": "BCCD"}}
    return {"scale": scale, "runs": runs.all, **recorded(), "config": config}


def recorded() -> dict[str, Any]:
    """What the two earlier studies hold: runs of YOLOX-Nano, and tests of the compact detector."""
    yolox = json.loads((folder_of("fine_tuning") / "results.json").read_text())["runs"]
    compact = json.loads((folder_of("bccd") / "results.json").read_text())["runs"]
    return {
        "yolox": [r for r in yolox if r["what"] == "run"],
        "compact": [{"test": r["test"], "seconds": r["seconds_to_weights"]} for r in compact],
    }


def rows_of(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The runs of every row of the page, by its name."""
    ours = [r for r in record["runs"] if r["what"] == "run"]
    theirs = {name: [r for r in record["yolox"] if r["arm"] == arm] for name, (arm, _) in OTHERS.items()}
    return {OURS: sorted(ours, key=lambda r: r["seed"]), **theirs}


def seconds(record: dict[str, Any]) -> dict[str, float]:
    """Of a step of each network."""
    found = next(r["seconds_per_step"] for r in record["runs"] if r["what"] == "pace")
    return {name: found[OURS if name == OURS else "YOLOX-Nano"] for name in (OURS, *OTHERS)}


def spread(runs: list[dict[str, Any]], name: str) -> str:
    return str(interval(r["test"][name] for r in runs))


def conclude(record: dict[str, Any]) -> str:
    pace, rows = seconds(record), rows_of(record)
    said = [
        f"{name} {spread(runs, 'AP')} (AP50 {spread(runs, 'AP50')}) after {runs[0]['steps'] * pace[name]:.0f} s"
        for name, runs in rows.items()
    ]
    took = max(r["seconds"] for r in record["compact"])
    said.append(f"the compact detector from scratch {spread(record['compact'], 'AP')} after up to {took:.0f} s in all")
    count = len(rows[OURS])
    return f"AP on the 72 test images of BCCD: {'; '.join(said)}. {'One seed' if count == 1 else f'{count} seeds'}."


def page(record: dict[str, Any]) -> str:
    pace, rows = seconds(record), []
    names = ("AP", "AP50", "AP75")
    for name, runs in rows_of(record).items():
        took = [f"{runs[0]['steps']}", f"{pace[name]:.2f}", f"{runs[0]['steps'] * pace[name]:.0f}"]
        rows += [[name, f"seed {r['seed']}", *took, *(f"{r['test'][n]:.3f}" for n in names)] for r in runs]
        rows.append([f"**{name}**", "**mean**", *took, *(f"**{spread(runs, n)}**" for n in names)])
    longest = max(r["seconds"] for r in record["compact"])
    means = (spread(record["compact"], n) for n in names)
    rows.append(["compact from scratch", "mean", "", "", f"up to {longest:.0f} in all", *means])
    text = table(["detector", "run", "steps", "s a step", "s of steps", *names], rows)
    over = [["share of the run", *(name for name in rows_of(record))]]
    for share in (0.25, 0.5, 0.75, 1.0):
        at = [(runs, pace[name], share * runs[-1]["steps"]) for name, runs in rows_of(record).items()]
        cells = [f"{reached(runs, step)} ({step * each:.0f} s)" for runs, each, step in at]
        over.append([f"{share:.0%}", *cells])
    curves = table(over[0], over[1:])
    return (
        "Final averaged weights on the test images; 16 images a step, 320 pixels. YOLOX-Nano's rows are those of "
        "[its study](../fine_tuning/README.md), the compact detector's those of [its own](../bccd/README.md). Seconds "
        "of a step were measured in one call for both networks; they compare on this page alone.\n\n"
        f"{text}\n\nAP on the 87 validation images while training, mean of the seeds:\n\n{curves}"
    )


def reached(runs: list[dict[str, Any]], step: float) -> str:
    """The mean AP of the last validations until this step."""
    found = [[c["val/AP"] for c in r["curve"] if c["val/AP"] is not None and c["step"] <= step] for r in runs]
    return f"{np.mean([values[-1] for values in found]):.3f}" if all(found) else "not measured"


def draw(record: dict[str, Any]) -> Any:
    """AP on the validation images over seconds of steps, a line a run."""
    made, (axes,) = figure(6.5, 3.8)
    pace, colours = seconds(record), {OURS: "C0", **{name: colour for name, (_, colour) in OTHERS.items()}}
    for name, runs in rows_of(record).items():
        fine_tuning.plot_runs(axes, runs, pace[name], colours[name], name)
    fine_tuning.finish_plot(axes)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--init", type=Path, help="folder of the published DEIMv2-Atto (model.safetensors)")
    parser.add_argument("--yolox", type=Path, help="published YOLOX-Nano weights (.npz), to measure seconds of a step")
    fine_tuning.add_common(parser)


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.quick and None in (args.data, args.init, args.yolox):
        parser.error(
            "give --data PATH/TO/BCCD, --init PATH/TO/deimv2-atto and --yolox PATH/TO/yolox_nano.npz, or --quick"
        )
    fine_tuning.prepare()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    return run_study(sys.modules[__name__], argv, add=add, check=check)
