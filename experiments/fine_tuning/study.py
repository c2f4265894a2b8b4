"""Does training from published weights beat training from scratch in the same time, on a small set of photographs?

Question: BCCD (blood cells, 205 training images, 640 x 480) looks like nothing in COCO. Do COCO's weights help all the
same, when there are a few minutes on two processor cores? And do they beat the compact detector from scratch, which
the study `experiments.bccd` gives more than three times as long?

Method: YOLOX-Nano at 320 pixels, from the published COCO weights (``init``: all but the last layer of the class scores,
BatchNorm statistics measured on the training images) and from random ones, otherwise the same: images, order,
augmentation, optimiser but for its learning rate. Both arms run one and the same program, so equal steps are equal
time. The seconds of a step are measured first; ``--part pace`` does nothing else, on a machine with nothing else to do.
The final averaged weights are evaluated on the 72 test images, once, by pycocotools (confidence .001, NMS .7, 300
detections). Differences are taken seed by seed. Nothing is chosen on the test images.

Command:   python -m experiments.fine_tuning --data PATH/TO/BCCD --init PATH/TO/yolox_nano.npz [--seeds 0 1 2]
Expected:  about four minutes a run, two runs a seed; see README.md beside this file.
Quick:     python -m experiments.fine_tuning --quick    (two steps from two steps: the machinery only)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.bccd.study import NAMES, quick_config
from experiments.shared.record import Runs, figure, folder_of, interval, paired, run_study, table
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.zoo.yolox import PREPROCESS

if TYPE_CHECKING:
    from yolojax.training.callbacks import Event

EPOCHS = 16
ARMS = {"published weights": 1e-3, "from scratch": 2e-3}
"""Top learning rates. From scratch it is the default, with which the compact detector was trained."""


def config_of(arm: str, seed: int, args: argparse.Namespace) -> TrainConfig:
    """The run of an arm; a quick one starts from the run that it is compared with."""
    init = None if arm == "from scratch" else str(args.init)
    if args.quick:
        return replace(quick_config(seed), init=init)
    return TrainConfig(
        data=DataConfig(path=args.data, train_split="train", val_split="val"),
        model=ModelConfig(name="yolox-nano", size=320),
        augment=AugmentConfig(flip_vertical=0.5),
        optimiser=OptimiserConfig(learning_rate=ARMS[arm], warmup_steps=20),
        epochs=EPOCHS,
        seed=seed,
        validation=ValidationConfig(confidence=0.001, iou=0.7, samples=0),
        validate_every=2,
        checkpoint_every=0,
        init=init,
    )


class StepTimes:
    """A callback that notes when each step ended. It reads no states, or the program would keep every one of them."""

    reads_state = False

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "step":
            self.at.append(time.perf_counter())


def seconds_of(config: TrainConfig, epochs: int) -> float:
    """Median seconds of a step of so many epochs without validation."""
    from yolojax.training.fit import fit

    times = StepTimes()
    config = replace(config, epochs=epochs, validate_every=0)
    with tempfile.TemporaryDirectory() as folder:
        fit(config, f"{folder}/run", callbacks=[times])
    return float(np.median(np.diff(times.at)))


def pace(args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a step, which is the same in both arms."""
    arm = "from scratch" if args.quick else "published weights"
    return {"seconds_per_step": seconds_of(config_of(arm, 0, args), epochs=3)}


def train_and_test(config: TrainConfig, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train a configuration and measure it on the test images."""
    from yolojax.inference.evaluate import evaluate
    from yolojax.progress import Quiet
    from yolojax.training.fit import fit

    class Lines(Quiet):
        def say(self, line: str) -> None:
            print(line, flush=True)

    run = fit(config, folder, reporter=Lines())
    path, split = ("shapes:test?count=4&size=32", None) if args.quick else (args.data, "test")
    tested = evaluate((run.detector, run.variables), path, split, validation=config.validation)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "steps": rows[-1]["step"],
        "test": {name: getattr(tested.result, name) for name in NAMES},
        "test_per_class": {c.name: {"AP": c.AP, "AP50": c.AP50} for c in tested.result.classes},
        "curve": [{k: row.get(k) for k in ("step", "train/loss", "val/AP", "val/AP50")} for row in rows],
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    scale = {"epochs": EPOCHS, "learning_rates": ARMS, "filter": PREPROCESS.filter}
    runs = Runs(args, "fine_tuning", scale)
    runs({"what": "pace"}, partial(pace, args))
    if args.part == "pace":
        sys.exit()
    with tempfile.TemporaryDirectory() as scratch:
        for arm in reversed(ARMS) if args.quick else ARMS:
            for seed in args.seeds[:1] if args.quick else args.seeds:
                folder = Path(args.keep or scratch) / f"{arm.replace(' ', '-')}-{seed}"
                runs(
                    {"what": "run", "arm": arm, "seed": seed},
                    partial(train_and_test, config_of(arm, seed, args), args, folder),
                )
                args.init = folder if args.quick else args.init
    config = asdict(config_of("published weights", 0, args))
    config |= {"init": "yolox_nano.npz", "data": {**config["data"], "path": "BCCD"}}
    compact = json.loads((folder_of("bccd") / "results.json").read_text())["runs"]
    compact = [{"test": r["test"], "val": r["val"]["AP"], "seconds": r["seconds_to_weights"]} for r in compact]
    return {"scale": scale, "runs": runs.all, "compact": compact, "config": config}


def runs_of(record: dict[str, Any], arm: str) -> list[dict[str, Any]]:
    return sorted((r for r in record["runs"] if r.get("arm") == arm), key=lambda r: r["seed"])


def values(record: dict[str, Any], arm: str, name: str) -> list[float]:
    return [r["test"][name] for r in runs_of(record, arm)]


def gain(record: dict[str, Any], name: str) -> str:
    """Of the published weights, over the seeds that both arms have."""
    tuned, scratch = ({r["seed"]: r["test"][name] for r in runs_of(record, arm)} for arm in ARMS)
    both = sorted(tuned.keys() & scratch.keys())
    found = paired([tuned[seed] for seed in both], [scratch[seed] for seed in both])
    return f"{found.mean:+.3f}" + (f" ({found.low:+.3f} to {found.high:+.3f})" if found.n > 1 else "")


def seconds(record: dict[str, Any]) -> float:
    """Of a step."""
    return next(r["seconds_per_step"] for r in record["runs"] if r["what"] == "pace")


def conclude(record: dict[str, Any]) -> str:
    ap, ap50 = (interval(values(record, "published weights", name)) for name in ("AP", "AP50"))
    scratch, compact = runs_of(record, "from scratch"), record["compact"]
    took, known = scratch[0]["steps"] * seconds(record), np.mean([r["test"]["AP"] for r in compact])
    return (
        f"After {took:.0f} s of steps test AP is {ap} from the published weights (AP50 {ap50}) and "
        f"{interval(values(record, 'from scratch', 'AP'))} from scratch; difference {gain(record, 'AP')}, "
        f"{'one seed' if len(scratch) == 1 else f'{len(scratch)} seeds'}. The compact detector from scratch has "
        f"{known:.3f} after up to {max(r['seconds'] for r in compact):.0f} s in all."
    )


def page(record: dict[str, Any]) -> str:
    rows, names = [], ("AP", "AP50", "AP75")
    for arm in ARMS:
        rows += [[arm, f"seed {r['seed']}", *(f"{r['test'][n]:.3f}" for n in names)] for r in runs_of(record, arm)]
        rows.append([f"**{arm}**", "**mean**", *(f"**{interval(values(record, arm, n))}**" for n in names)])
    rows.append(["difference", "seed by seed", *(gain(record, n) for n in names)])
    reference = (str(interval(r["test"][n] for r in record["compact"])) for n in names)
    rows.append(["compact from scratch, [its record](../bccd/README.md)", "mean", *reference])
    steps = f"{runs_of(record, 'from scratch')[0]['steps']} steps of {seconds(record):.2f} s alone on the machine"
    steps += f"; photos shrunk by the {record['scale']['filter']} filter"
    return f"Test split (72 images), final averaged weights after {steps}.\n\n{table(['arm', 'run', *names], rows)}"


def plot_runs(axes: Any, runs: list[dict[str, Any]], pace: float, colour: str, label: str) -> None:
    """AP on the validation images over seconds of steps, a line a run."""
    for i, r in enumerate(runs):
        curve = [c for c in r["curve"] if c["val/AP"] is not None]
        x = [c["step"] * pace for c in curve]
        axes.plot(x, [c["val/AP"] for c in curve], color=colour, marker=".", label=None if i else label)


def finish_plot(axes: Any) -> None:
    """Labels, grid and legend of such curves."""
    axes.set(xlabel="seconds of training steps", ylabel="AP on the 87 validation images", ylim=(0, 0.7))
    axes.grid(alpha=0.3)
    axes.legend()


def draw(record: dict[str, Any]) -> Any:
    """The curves of both arms."""
    made, (axes,) = figure(6.5, 3.8)
    for arm, colour in zip(ARMS, ("C0", "C1"), strict=True):
        plot_runs(axes, runs_of(record, arm), seconds(record), colour, arm)
    axes.axhline(np.mean([r["val"] for r in record["compact"]]), color="grey", ls=":", label="compact, its whole run")
    finish_plot(axes)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--init", type=Path, help="published YOLOX-Nano weights (.npz)")
    add_common(parser)


def add_common(parser: argparse.ArgumentParser) -> None:
    """What a study on BCCD that goes by seeds is told."""
    parser.add_argument("--data", help="folder of the BCCD data set (Pascal VOC layout)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", choices=["pace", "all"], default="all", help="pace: only the seconds of a step")
    parser.add_argument("--keep", type=Path, help="where the run directories stay (default: nowhere)")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.quick and (args.data is None or args.init is None):
        parser.error("give --data PATH/TO/BCCD and --init PATH/TO/yolox_nano.npz, or --quick")
    prepare()


def prepare() -> None:
    """What a processor needs for batches of 16 images."""
    from yolojax.processor.memory import prepare_processor

    prepare_processor(16)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    return run_study(sys.modules[__name__], argv, add=add, check=check)
