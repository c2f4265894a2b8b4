"""Does a training run that is killed at any moment, and resumed, end in the bytes of one that nobody disturbed?

Question: parameters, average, optimiser, schedule, random changes, order of the images, which parameters were best: is
any of it lost when a process dies between steps, inside a checkpoint, or inside an evaluation?

Method: the run is ``yolojax train`` on generated figures: 4 epochs of 4 steps, a measurement of averaged and raw
parameters and a checkpoint after each, the best of both released. It runs in a process of its own that says on its
standard output what it begins (a step, a checkpoint, an evaluation, a release); the study waits for the moment it has
drawn and sends the signal, one in seven of them SIGTERM, after a further random delay. ``anywhere`` counts from the
start of the process instead, so that importing, reading, compiling and restoring are hit as well. Then the same command
continues with ``--resume``. Compared in bytes: released weights (best average, best raw), every array of the last
checkpoint (parameters, average, optimiser, step), its bookkeeping, detections, report, pictures of input and
predictions, and the rows of ``metrics.jsonl`` and ``results.csv``, of which only columns of time are left out.

Command:   python -m experiments.kill_resume
Expected:  about 10 minutes on two cores, for 42 stops.
Quick:     python -m experiments.kill_resume --quick    (one stop of each kind, as in the tests; not recorded)
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent
TIMES = ("seconds", "images_per_second", "waiting_share", "device_memory")
ARGUMENTS = [
    *("shapes:?count=32&size=64", "--size", "64", "--batch-size", "8", "--epochs", "4"),
    *("--validate-every", "1", "--checkpoint-every", "1", "--select", "best", "--validate-raw"),
    *("--option", "widths=[4,4,8]", "depths=[0,0,0]", "head_width=8", "reg_max=4", "shared_head=true"),
    *("--augment.scale-min", "1", "--augment.scale-max", "1", "--augment.translate", "0"),
    *("--augment.hue", "0", "--augment.saturation", "0", "--augment.value", "0"),
]

Moment = Literal["step", "checkpoint", "evaluation", "release", "anywhere"]


@dataclass(frozen=True)
class Stop:
    """A signal sent ``delay`` seconds after a process began its ``count``-th ``moment``, from 1."""

    moment: Moment
    count: int
    delay: float
    signal: Literal["SIGKILL", "SIGTERM"] = "SIGKILL"


@dataclass(frozen=True)
class Stopped:
    """What became of a `Stop`: what the process had begun last, its exit code, and the newest checkpoint then."""

    stop: Stop
    during: str
    code: int
    checkpoint: int


def child(arguments: list[str]) -> int:
    """``yolojax train`` in this process, which says what it begins."""
    from yolojax.cli import main as command
    from yolojax.training import trainer

    def telling(name: str, function: Any) -> Any:
        def told(*args: Any, **kwargs: Any) -> Any:
            print(f"begin {name}", flush=True)
            result = function(*args, **kwargs)
            print(f"end {name}", flush=True)
            return result

        return told

    for name, attribute in (
        ("step", "checked"),
        ("checkpoint", "save_checkpoint"),
        ("evaluation", "evaluate_images"),
        ("release", "release"),
    ):
        setattr(trainer, attribute, telling(name, getattr(trainer, attribute)))
    return command(["train", *arguments])


def run_process(folder: Path, cache: Path, stop: Stop | None) -> tuple[int, str, str]:
    """Start or continue the run in ``folder``; gives exit code, what was under way at the end, and standard error."""
    begun = (folder / "config.json").exists()
    arguments = ["--resume", str(folder)] if begun else [*ARGUMENTS, "--out", str(folder)]
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-m", "experiments.kill_resume", "--child", *arguments]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        under_way, counts = ["start"], Counter()
        if stop is not None and stop.moment == "anywhere":
            time.sleep(stop.delay)
            process.send_signal(signal.Signals[stop.signal])
        for line in process.stdout:
            word, _, name = line.strip().partition(" ")
            if word == "begin":
                under_way.append(name)
                counts[name] += 1
                if stop is not None and (name, counts[name]) == (stop.moment, stop.count):
                    time.sleep(stop.delay)
                    process.send_signal(signal.Signals[stop.signal])
            elif word == "end":
                under_way = [*under_way[:1], f"after {name}"]
        code = process.wait()
        errors.seek(0)
        return code, under_way[-1], errors.read()


def newest_checkpoint(folder: Path) -> int:
    """Its step, 0 when there is none."""
    names = [p.name for p in (folder / "checkpoints").glob("*") if p.name.isdecimal()]
    return max(map(int, names), default=0)


def run_with_stops(folder: Path, cache: Path, stops: Iterator[Stop]) -> list[Stopped]:
    """One run, stopped as often as ``stops`` says, then left to finish; raises when it ends in any other way."""
    happened: list[Stopped] = []
    while True:
        stop = next(stops, None)
        code, during, errors = run_process(folder, cache, stop)
        wanted = {"SIGKILL": (-signal.SIGKILL,), "SIGTERM": (143, -signal.SIGTERM)}  # 143: saved; else before training
        if stop is not None and code in wanted[stop.signal]:
            happened.append(Stopped(stop, during, code, newest_checkpoint(folder)))
            print(json.dumps(asdict(happened[-1])), flush=True)
        elif code == 0:
            return happened
        else:
            raise RuntimeError(f"the run ended with code {code} at {during!r}:\n{errors}")


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of everything that has to come out the same, by name."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    files = ("best/weights.safetensors", "best/detector.json", "best_raw/weights.safetensors", "detections.json")
    files += ("report/metrics.json", "config.json", "labels.png", "train_batch0.png", "val_predictions.png")
    found = {name: (folder / name).read_bytes() for name in files}
    place = max((folder / "checkpoints").iterdir(), key=lambda p: int(p.name))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata((place / "state").absolute()).item_metadata.tree
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved)
        state = checkpointer.restore((place / "state").absolute(), like)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        found[f"checkpoint {jax.tree_util.keystr(path, simple=True, separator='/')}"] = np.asarray(leaf).tobytes()
    facts = json.loads((place / "facts.json").read_text())
    facts = {k: v for k, v in facts.items() if not k.endswith("_seconds")}
    found["checkpoint facts"] = json.dumps({**facts, "log": facts["log"]["sums"]}).encode()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found["metrics.jsonl"] = json.dumps([{k: v for k, v in r.items() if k not in TIMES} for r in rows]).encode()
    with (folder / "results.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    found["results.csv"] = json.dumps([{k: v for k, v in r.items() if k not in TIMES} for r in rows]).encode()
    found["names of files"] = json.dumps(
        sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if "checkpoints" not in p.parts)
    ).encode()
    return {name: hashlib.sha256(value).hexdigest() for name, value in found.items()}


def drawn_stops(seed: int, longest: float) -> Iterator[Stop]:
    """Endless random stops; about one in seven is a SIGTERM."""
    draw = random.Random(seed)
    while True:
        moment: Moment = draw.choices(("step", "checkpoint", "evaluation", "release", "anywhere"), (3, 3, 2, 1, 2))[0]
        count = draw.randint(1, {"step": 7, "checkpoint": 2, "evaluation": 3, "release": 2, "anywhere": 1}[moment])
        delay = draw.uniform(0, longest if moment == "anywhere" else {"step": 0.02, "release": 0.02}.get(moment, 0.3))
        yield Stop(moment, count, round(delay, 4), "SIGTERM" if draw.random() < 1 / 7 else "SIGKILL")


QUICK = (
    Stop("step", 6, 0.0),
    Stop("checkpoint", 1, 0.02),
    Stop("evaluation", 1, 0.0),
    Stop("step", 1, 0.0, "SIGTERM"),
)


def write_results(happened: list[Stopped], differing: list[str], rounds: int, compared: int, folder: Path) -> None:
    """The record as JSON and Markdown."""
    import jax

    during = Counter(s.during for s in happened)
    kills = sum(s.code == -signal.SIGKILL for s in happened)
    saved = sum(s.code == 143 for s in happened)
    summary = {
        "command": "python -m experiments.kill_resume",
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{os.cpu_count()} processor cores",
        "jax": jax.__version__,
        "runs": rounds,
        "stops": len(happened),
        "kills": kills,
        "terminated_and_saved": saved,
        "things_compared_in_each_run": compared,
        "differing": differing,
        "stopped_during": dict(during.most_common()),
        "stopped": [asdict(s) for s in happened],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(summary, indent=1) + "\n")
    lines = [
        "# Killed and resumed",
        "",
        f"`{summary['command']}`, {summary['date']}, {summary['hardware']}, jax {summary['jax']}.",
        "",
        f"{rounds} training runs were stopped {len(happened)} times: {kills} by SIGKILL, {saved} by SIGTERM with "
        f"a checkpoint saved, {len(happened) - kills - saved} by SIGTERM before training had begun. Each was continued "
        f"with `yolojax train --resume` and compared with an undisturbed run in {compared} things (arrays of the last "
        "checkpoint, released weights, log, report, pictures), byte for byte.",
        "",
        f"**{'Nothing differed.' if not differing else 'Differing: ' + ', '.join(differing)}**",
        "",
        "| the process had last said | stops |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in during.most_common()),
        "",
        "`start` is importing, reading, restoring and compiling; a bare name is inside that work, `after` follows it.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines))


def conclude(record: dict[str, Any]) -> str:
    """The sentence of the table of studies."""
    differing = f"in all {len(record['differing'])} differed" if record["differing"] else "nothing differed"
    return (
        f"{record['runs']} runs stopped {record['stops']} times, {record['kills']} of them by SIGKILL, and resumed: of "
        f"{record['things_compared_in_each_run']} things compared in each, byte for byte, {differing}."
    )


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--child"]:
        return child(argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=42, help="how many in all")
    parser.add_argument("--per-run", type=int, default=5, help="most stops of one run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--quick", action="store_true", help="three kills and a SIGTERM; writes no recorded result")
    parser.add_argument("--out", type=Path, help="where results go; by default experiments/kill_resume")
    args = parser.parse_args(argv)
    happened: list[Stopped] = []
    differing: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), Path(name) / "cache"
        reference, rounds = folder / "reference" / "run", 0
        run_with_stops(reference, cache, iter(()))
        wanted, longest = content(reference), 0.0
        if not args.quick:  # how long a process takes once everything is compiled
            began = time.monotonic()
            run_with_stops(folder / "again" / "run", cache, iter(()))
            longest = time.monotonic() - began
        drawn = drawn_stops(args.seed, longest)
        while len(happened) < (1 if args.quick else args.stops):
            rounds += 1
            limit = min(args.per_run, args.stops - len(happened))
            stops = iter(QUICK) if args.quick else iter([next(drawn) for _ in range(limit)])
            run = folder / f"{rounds}" / "run"
            happened += run_with_stops(run, cache, stops)
            found = content(run)
            different = [k for k in sorted({*wanted, *found}) if wanted.get(k) != found.get(k)]
            differing += [f"{name} in run {rounds}" for name in different]
            print(f"run {rounds}: {len(wanted)} things compared, {len(different)} differ {different}", flush=True)
    if args.out is not None or not args.quick:
        write_results(happened, differing, rounds, len(wanted), args.out or RESULTS)
    return 1 if differing else 0
