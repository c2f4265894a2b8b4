"""How long does one wait for the boxes of one photo, the first time and every time after?

Question: a network has to be compiled before it runs. How long does the command `yolojax predict` take from its start
to its end on one photo, in an empty cache folder and in the one that it left, and how long does a script of PyTorch
take, which compiles nothing?

Method: YOLOX-Nano at 416 pixels from its published weights, one generated image of 640 x 480. In every round, in turns:
the command in a new cache folder, the same command again, and a script of PyTorch with the same network and weights
(`torch_predict.py` beside this file, eager), each a process of its own from the interpreter's start to its end. All
modules have been imported once before, so that Python has compiled them. Figures are seconds of the clock, medians over
rounds.

Command:   python -m experiments.benchmarks.first_call --weights FOLDER [--peers PYTHON]
           FOLDER holds yolox-nano/; PYTHON is an interpreter with torch and torchvision (by default this one)
Expected:  two minutes on two idle cores.
Quick:     python -m experiments.benchmarks.first_call --quick    (a tiny network, one round, no peer)
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from experiments.shared.record import Runs, environment, figure, run_study, table
from yolojax import zoo
from yolojax.data import shapes_dataset, write_yolo
from yolojax.weights.released import save_released

ROUNDS = 7
FIRST, AGAIN, PEER = "yolojax predict, first call", "yolojax predict, later calls", "a script of PyTorch"
Record = dict[str, Any]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, help="folder with the published weights")
    parser.add_argument("--peers", default=sys.executable, help="Python with torch and torchvision")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.weights is None and not args.quick:
        parser.error("--weights FOLDER is needed; it holds yolox-nano/")


def seconds_of(command: list[str], **variables: str) -> float:
    """Seconds from the start of a process to its end; raises where it fails."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), **variables}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def timed(call: Callable[[], float]) -> Record:
    return {"seconds": call()}


def version_of_torch(python: str) -> str:
    asked = [python, "-c", "import torch; print(torch.__version__)"]
    return f"torch {subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()}"


def measure(args: argparse.Namespace) -> Record:
    scale = {"rounds": 1 if args.quick else ROUNDS, "network": "tiny" if args.quick else "YOLOX-Nano 416"}
    runs = Runs(args, "benchmarks.first_call", scale, environment=environment())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_yolo({"train": shapes_dataset(1, size=(480, 640))}, folder / "data")
        (photo,) = (folder / "data").rglob("*.png")
        model = folder / "tiny" if args.quick else args.weights / "yolox-nano" / "yolox_nano_fused.npz"
        if args.quick:
            detector = zoo.build("compact", ("a",), (32, 32), widths=[4, 4, 8], depths=[0, 0, 0], head_width=8)
            variables = jax.device_get(detector.init(jax.random.key(0)))
            save_released(model, variables, {"detector": zoo.describe(detector)})

        def predict(cache: Path, out: Path) -> float:
            command = [sys.executable, "-m", "yolojax", "predict", photo, "--model", model, "--out", out]
            return seconds_of([str(part) for part in command], XDG_CACHE_HOME=str(cache))

        if not args.quick:
            predict(folder / "cache", folder / "out")
        for number in range(scale["rounds"]):
            cache, out = folder / f"cache{number}", folder / f"out{number}"
            commands = {FIRST: partial(predict, cache, out / "first"), AGAIN: partial(predict, cache, out / "again")}
            if not args.quick:
                script = [args.peers, "-m", "experiments.benchmarks.first_call.torch_predict", args.weights, photo]
                commands[PEER] = partial(seconds_of, [str(part) for part in script])
            for command, call in commands.items():
                runs({"command": command, "round": number}, partial(timed, call))
    peer = "" if args.quick else version_of_torch(args.peers)
    return {"scale": scale, "peer": peer, "runs": runs.all}


def medians(record: Record) -> dict[str, tuple[float, float, float]]:
    """Median, smallest and largest seconds of each command."""
    found: dict[str, tuple[float, float, float]] = {}
    for command in (FIRST, AGAIN, PEER):
        if taken := [run["seconds"] for run in record["runs"] if run["command"] == command]:
            found[command] = statistics.median(taken), min(taken), max(taken)
    return found


def conclude(record: Record) -> str:
    told = [f"{command}: {middle:.1f} s" for command, (middle, _, _) in medians(record).items()]
    return f"{record['scale']['network']}, from the start of the process to its end: {'; '.join(told)}."


def page(record: Record) -> str:
    rows = [[name, *(f"{value:.2f}" for value in values)] for name, values in medians(record).items()]
    return "\n".join([record["peer"], "", table(["command", "seconds (median)", "shortest", "longest"], rows)])


def draw(record: Record) -> Any:
    made, (axes,) = figure(6, 2)
    found = medians(record)
    axes.barh(list(found), [values[0] for values in found.values()])
    axes.set(xlabel="seconds, median")
    axes.invert_yaxis()
    return made


main = partial(run_study, sys.modules[__name__], add=add, check=check)
