"""How good a detector does training from scratch give on a small set of real photographs, in a quarter of an hour?

Question: BCCD (364 photographs of blood cells, 640 x 480, MIT) is split into 205 training, 87 validation and 72 test
images. A PyTorch YOLOv8n trained from scratch on the 205 for 60 epochs at 320 pixels, 853 s on two processor cores of
another machine (23 November 2026), reaches AP .513 and AP50 .823 on the 72 (one seed). Does the compact detector reach
that in the same time?

Method: three seeds, each in a process of its own. The clock runs from the start of the process to the final weights on
disk, imports, decoding, compilation and the validations during training included. The final averaged weights are
evaluated on the test images once, by pycocotools, at confidence .001, NMS .7 and at most 300 detections. Nothing is
chosen on the test images.

Command:   python -m experiments.bccd --data PATH/TO/BCCD [--seeds 0 1 2]
Expected:  seven to nine minutes a seed on two cores.
Quick:     python -m experiments.bccd --quick    (two steps on generated images: the machinery only)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shared.record import figure, run_study, table
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig

BUDGET = 853.0
PEER = {"AP": 0.513, "AP50": 0.823, "AP75": 0.579, "seconds": 853.0}
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def bccd_config(data: str, seed: int) -> TrainConfig:
    """The recipe: the defaults of `TrainConfig`, and flips in both directions, since cells have no upright."""
    return TrainConfig(
        data=DataConfig(path=data, train_split="train", val_split="val"),
        model=ModelConfig(name="compact", size=320),
        augment=AugmentConfig(flip_vertical=0.5),
        epochs=40,
        seed=seed,
        validate_every=10,
        checkpoint_every=0,
    )


def quick_config(seed: int) -> TrainConfig:
    """A run of seconds that exercises every step of the study and means nothing."""
    options = {"widths": (0, 4, 8), "depths": (0, 0, 0), "head_width": 8, "merge": True, "neck_depth": 0, "reg_max": 4}
    return TrainConfig(
        data=DataConfig(path="shapes:?count=4&size=32"),
        model=ModelConfig(name="compact", size=32, options=options),
        augment=AugmentConfig(scale_min=1.0, scale_max=1.0, translate=0.0, hue=0.0, saturation=0.0, value=0.0),
        epochs=1,
        batch_size=2,
        seed=seed,
        validate_every=0,
        checkpoint_every=0,
    )


def run_one(seed: int, data: str | None, spawned: float, folder: Path) -> dict[str, Any]:
    """Train and test one seed, in a process of its own unless it is a quick one."""
    from yolojax.processor.memory import prepare_processor

    config = quick_config(seed) if data is None else bccd_config(data, seed)
    prepare_processor(config.batch_size)
    from yolojax.inference.evaluate import evaluate
    from yolojax.models.network import parameter_count
    from yolojax.progress import Quiet
    from yolojax.training.fit import fit

    class Lines(Quiet):
        def say(self, line: str) -> None:
            print(line, flush=True)

    start_up = time.time() - spawned
    run = fit(config, folder / "run", reporter=Lines())
    test_path, test_split = ("shapes:test?count=4&size=32", None) if data is None else (data, "test")
    tested = evaluate((run.detector, run.variables), test_path, test_split, validation=config.validation)
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return {
        "seed": seed,
        "seconds_to_weights": start_up + run.seconds["until_weights"],
        "seconds": {"start_up": start_up, **run.seconds},
        "test": {name: getattr(tested.result, name) for name in NAMES},
        "test_per_class": {c.name: {"AP": c.AP, "AP50": c.AP50} for c in tested.result.classes},
        "val": {name: getattr(run.result, name) for name in NAMES} if run.result else None,
        "programs": run.programs,
        "parameters": parameter_count(run.variables),
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
        "curve": [
            {k: row[k] for k in ("epoch", "seconds", "train/loss", "val/AP", "val/AP50") if k in row} for row in rows
        ],
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    outcomes = []
    for seed in args.seeds[:1] if args.quick else args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            if args.quick:
                outcomes.append(run_one(seed, None, time.time(), Path(folder)))
                continue
            one = ["--data", args.data, "--one", str(seed), str(time.time()), folder]
            subprocess.run([sys.executable, "-m", "experiments.bccd", *one], check=True)
            outcomes.append(json.loads((Path(folder) / "outcome.json").read_text()))
    config = quick_config(0) if args.quick else bccd_config("", 0)
    config = asdict(replace(config, data=replace(config.data, path="BCCD")))
    return {"budget_seconds": BUDGET, "peer": PEER, "runs": outcomes, "config": config}


def values(record: dict[str, Any], name: str) -> list[float]:
    return [o["test"][name] for o in record["runs"]]


def conclude(record: dict[str, Any]) -> str:
    mean, peer = {n: np.mean(values(record, n)) for n in ("AP", "AP50")}, record["peer"]
    longest = max(o["seconds_to_weights"] for o in record["runs"])
    reached = mean["AP"] >= peer["AP"] and mean["AP50"] >= peer["AP50"]
    return (
        f"Test AP {mean['AP']:.3f}, AP50 {mean['AP50']:.3f} (mean of {len(record['runs'])} seeds), which "
        f"{'reaches' if reached else 'does not reach'} the peer's {peer['AP']} and {peer['AP50']}; the longest run "
        "took "
        f"{longest:.0f} s, {'within' if longest <= record['budget_seconds'] else 'beyond'} the "
        f"{record['budget_seconds']:.0f} s."
    )


def page(record: dict[str, Any]) -> str:
    names = ("AP", "AP50", "AP75")
    rows = []
    for o in record["runs"]:
        speed = f"{o['seconds_to_weights']:.0f}", f"{o['images_per_second']:.1f}"
        rows.append([f"seed {o['seed']}", *(f"{o['test'][n]:.3f}" for n in names), *speed])
    rows.append(["**mean**", *(f"**{np.mean(values(record, n)):.3f}**" for n in names), "", ""])
    rows.append(["spread (max - min)", *(f"{np.ptp(values(record, n)):.3f}" for n in names), "", ""])
    peer = record["peer"]
    name = "PyTorch YOLOv8n, one seed, 23 November 2026 on another machine"
    rows.append([name, *(f"{peer[n]:.3f}" for n in names), f"{peer['seconds']:.0f}", ""])
    text = "Test split (72 images), final averaged weights; seconds from the start of the process to weights on disk."
    return text + "\n\n" + table(["run", *names, "seconds", "images/s"], rows)


def draw(record: dict[str, Any]) -> Any:
    """Training loss and validation AP over epochs, one line a seed."""
    made, (loss, ap) = figure(9, 3.2, 2)
    for o in record["runs"]:
        loss.plot([r["epoch"] for r in o["curve"]], [r["train/loss"] for r in o["curve"]], label=f"seed {o['seed']}")
        validated = [r for r in o["curve"] if r.get("val/AP") is not None]
        ap.plot([r["epoch"] for r in validated], [r["val/AP"] for r in validated], marker="o")
    loss.set(title="training loss", xlabel="epoch", yscale="log")
    ap.set(title="AP on the 87 validation images", xlabel="epoch", ylim=(0, 0.7))
    loss.legend()
    for axes in (loss, ap):
        axes.grid(alpha=0.3)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="folder of the BCCD data set (Pascal VOC layout)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--one", nargs=3, metavar=("SEED", "SPAWNED", "FOLDER"), help=argparse.SUPPRESS)


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.quick and args.data is None:
        parser.error("give --data PATH/TO/BCCD, or --quick")
    if args.one:
        seed, spawned, folder = args.one
        outcome = run_one(int(seed), args.data, float(spawned), Path(folder))
        (Path(folder) / "outcome.json").write_text(json.dumps(outcome))
        sys.exit()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    return run_study(sys.modules[__name__], argv, add=add, check=check)
