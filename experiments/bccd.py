"""How good a detector does training from scratch give on a small set of real photographs, in a quarter of an hour?

Question: BCCD (364 photographs of blood cells, 640 x 480, MIT) is split into 205 training, 87 validation and 72 test
images. A PyTorch YOLOv8n trained from scratch on the 205 for 60 epochs at 320 pixels, 853 s on two processor cores,
reaches AP .513 and AP50 .823 on the 72 (one seed). Does the compact detector reach that in the same time?

Method: three seeds, each in a process of its own. The clock runs from the start of the process to the final weights on
disk, imports, decoding, compilation and the validations during training included. The final averaged weights are
evaluated on the test images once, by pycocotools, at confidence .001, NMS .7 and at most 300 detections. Nothing is
chosen on the test images.

Command:   python -m experiments.bccd --data PATH/TO/BCCD [--seeds 0 1 2]
Expected:  about 7 minutes a seed on two cores; see experiments/results/bccd/README.md for what was recorded.
Quick:     python -m experiments.bccd --quick    (one epoch on generated images: the machinery only)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig

RESULTS = Path(__file__).parent / "results" / "bccd"
BUDGET = 853.0
PEER = {"AP": 0.513, "AP50": 0.823, "AP75": 0.579, "seconds": 853.0}


def bccd_config(data: str, seed: int) -> TrainConfig:
    """The recipe: the defaults of `TrainConfig`, and flips in both directions, since cells have no upright."""
    return TrainConfig(
        data=DataConfig(path=data, train_split="train", val_split="val"),
        model=ModelConfig(name="compact", size=320),
        augment=AugmentConfig(flip_vertical=0.5),
        optimiser=OptimiserConfig(),
        epochs=40,
        seed=seed,
        validate_every=10,
        checkpoint_every=0,
    )


def quick_config(seed: int) -> TrainConfig:
    """A run of seconds that exercises every step of the study and means nothing."""
    options = {"widths": (8, 8, 16, 16, 16), "depths": (0, 0, 0, 0, 0), "head_width": 16}
    return TrainConfig(
        data=DataConfig(path="shapes:?count=32"),
        model=ModelConfig(name="compact", size=64, options=options),
        epochs=1,
        batch_size=16,
        seed=seed,
        validate_every=0,
        checkpoint_every=0,
    )


def run_one(seed: int, data: str | None, spawned: float, folder: Path) -> None:
    """Train and test one seed; writes ``outcome.json`` into ``folder``. Runs in a process of its own."""
    from yolojax.training.processor import prepare_processor

    config = quick_config(seed) if data is None else bccd_config(data, seed)
    prepare_processor(config.batch_size)
    from yolojax.training.evaluation import evaluate
    from yolojax.training.fit import fit
    from yolojax.training.progress import Quiet

    class Lines(Quiet):
        def say(self, line: str) -> None:
            print(line, flush=True)

    start_up = time.time() - spawned
    run = fit(config, folder / "run", reporter=Lines())
    test_path, test_split = ("shapes:test?count=16", None) if data is None else (data, "test")
    tested = evaluate((run.detector, run.variables), test_path, test_split, validation=config.validation)
    from yolojax.models.network import parameter_count

    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
    outcome = {
        "seed": seed,
        "seconds_to_weights": start_up + run.seconds["until_weights"],
        "seconds": {"start_up": start_up, **run.seconds},
        "test": {name: getattr(tested.result, name) for name in names},
        "test_per_class": {c.name: {"AP": c.AP, "AP50": c.AP50} for c in tested.result.classes},
        "val": {name: getattr(run.result, name) for name in names} if run.result else None,
        "programs": run.programs,
        "parameters": parameter_count(run.variables),
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
        "curve": [
            {k: row[k] for k in ("epoch", "seconds", "train/loss", "val/AP", "val/AP50") if k in row} for row in rows
        ],
    }
    (folder / "outcome.json").write_text(json.dumps(outcome))


def write_results(outcomes: list[dict[str, Any]], config: TrainConfig, quick: bool, folder: Path) -> dict[str, Any]:
    """Summary as JSON, Markdown and a plot; returns the summary."""
    import jax

    platform = jax.devices()[0].platform
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(config, data=replace(config.data, path="BCCD"), seed=0)
    summary = {
        "command": "python -m experiments.bccd " + ("--quick" if quick else "--data PATH/TO/BCCD"),
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{os.cpu_count()} processor cores" if platform == "cpu" else platform,
        "jax": jax.__version__,
        "budget_seconds": BUDGET,
        "peer": PEER,
        "mean": {n: float(np.mean([o["test"][n] for o in outcomes])) for n in ("AP", "AP50", "AP75")},
        "spread": {n: float(np.ptp([o["test"][n] for o in outcomes])) for n in ("AP", "AP50", "AP75")},
        "longest_seconds": max(o["seconds_to_weights"] for o in outcomes),
        "runs": outcomes,
        "config": asdict(config),
    }
    (folder / "results.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / "README.md").write_text(markdown(summary))
    plot(summary, folder / "curve.png")
    return summary


def markdown(summary: dict[str, Any]) -> str:
    """The recorded result as a page."""
    mean, spread, peer = summary["mean"], summary["spread"], summary["peer"]
    lines = [
        "# BCCD from scratch",
        "",
        f"`{summary['command']}`, {summary['date']}, {summary['hardware']}, jax {summary['jax']}.",
        "",
        "Test split (72 images), final averaged weights, pycocotools; seconds from process start to weights on disk.",
        "",
        "| run | AP | AP50 | AP75 | seconds | images/s |",
        "|---|---|---|---|---|---|",
    ]
    for o in summary["runs"]:
        t = o["test"]
        lines.append(
            f"| seed {o['seed']} | {t['AP']:.3f} | {t['AP50']:.3f} | {t['AP75']:.3f} "
            f"| {o['seconds_to_weights']:.0f} | {o['images_per_second']:.1f} |"
        )
    lines += [
        f"| **mean** | **{mean['AP']:.3f}** | **{mean['AP50']:.3f}** | **{mean['AP75']:.3f}** | | |",
        f"| spread (max - min) | {spread['AP']:.3f} | {spread['AP50']:.3f} | {spread['AP75']:.3f} | | |",
        f"| PyTorch YOLOv8n, one seed | {peer['AP']:.3f} | {peer['AP50']:.3f} | {peer['AP75']:.3f} "
        f"| {peer['seconds']:.0f} | |",
        "",
    ]
    reached = mean["AP"] >= peer["AP"] and mean["AP50"] >= peer["AP50"]
    in_time = summary["longest_seconds"] <= summary["budget_seconds"]
    lines += [
        f"The mean {'reaches' if reached else 'does not reach'} the peer's AP and AP50, and every run "
        f"{'stays' if in_time else 'does not stay'} within {summary['budget_seconds']:.0f} s.",
        "",
        "![loss and validation AP over epochs](curve.png)",
        "",
    ]
    return "\n".join(lines)


def plot(summary: dict[str, Any], path: Path) -> None:
    """Training loss and validation AP over epochs, one line a seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2))
    FigureCanvasAgg(figure)
    loss, ap = figure.subplots(1, 2)
    for o in summary["runs"]:
        loss.plot([r["epoch"] for r in o["curve"]], [r["train/loss"] for r in o["curve"]], label=f"seed {o['seed']}")
        validated = [r for r in o["curve"] if r.get("val/AP") is not None]
        ap.plot([r["epoch"] for r in validated], [r["val/AP"] for r in validated], marker="o")
    loss.set(title="training loss", xlabel="epoch", yscale="log")
    ap.set(title="AP on the 87 validation images", xlabel="epoch", ylim=(0, 0.7))
    loss.legend()
    for axis in (loss, ap):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the BCCD data set (Pascal VOC layout)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="one epoch on generated images; writes no recorded result")
    parser.add_argument("--out", type=Path, help="where results go; by default experiments/results/bccd")
    parser.add_argument("--one", nargs=3, metavar=("SEED", "SPAWNED", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.quick and args.data is None:
        parser.error("give --data PATH/TO/BCCD, or --quick")
    data = None if args.quick else args.data
    if args.one:
        run_one(int(args.one[0]), data, float(args.one[1]), Path(args.one[2]))
        return
    outcomes = []
    for seed in args.seeds[:1] if args.quick else args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            which = ["--quick"] if args.quick else ["--data", args.data]
            one = ["--one", str(seed), str(time.time()), folder]
            subprocess.run([sys.executable, "-m", "experiments.bccd", *which, *one], check=True)
            outcomes.append(json.loads((Path(folder) / "outcome.json").read_text()))
        print(json.dumps({k: outcomes[-1][k] for k in ("seed", "test", "val", "seconds_to_weights")}), flush=True)
    out = args.out or (Path(tempfile.mkdtemp()) if args.quick else RESULTS)
    summary = write_results(outcomes, quick_config(0) if args.quick else bccd_config("", 0), args.quick, out)
    print(f"mean {summary['mean']}, longest {summary['longest_seconds']:.0f} s; written to {out}")


if __name__ == "__main__":
    main()
