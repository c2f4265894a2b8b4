"""Does the same command give the same run on 1, 2 and 8 devices, and on two processes, one of which may be killed?

Question: training is one program over all devices. Are losses and final AP the same whatever their number, and does a
job of two processes notice that one of them is lost, say so, and go on from its checkpoint to the same end?

Method: devices are emulated on the processor, so nothing here says how fast a job over several devices is. Every run is
a fresh process of the ordinary program (`yolojax.fit`) on generated images with the same settings. Compared are the
losses of the first ten steps (aimed at: within 1e-4 of each other, relatively) and the final AP on held-out images.
Rounding differs with the number of devices, and 1,200 steps magnify it, so AP can only be held against the spread of
seeds: one device trains with five. Whether programs are equal is told by the losses.
Then two processes on this machine train together; and once more, and one of them is killed after its first checkpoint:
the other must say so and stop, and two new processes must go on and end where the uninterrupted job ended.

Command:   python -m experiments.scale_out
Expected:  15 to 35 minutes on two cores, with nothing beside it: a process that is held up for half a minute counts
           as lost.
Quick:     python -m experiments.scale_out --quick    (one device and two, two epochs)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.scale_out.jobs import EPOCHS, started, together, worker
from experiments.shared.record import figure, run_study, table

IMAGES, SEEDS = {"train": 384, "val": 96}, 5
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    from yolojax.data import shapes_dataset, write_yolo

    runs: list[Record] = []
    killed: list[Record] = []
    epochs = 2 if args.quick else EPOCHS
    cases = [(1, 0), (2, 0)] if args.quick else [(1, 0), (2, 0), (8, 0), *((1, seed) for seed in range(1, SEEDS))]
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        data = base / "data"
        write_yolo({p: shapes_dataset(n, size=(64, 64), split=p) for p, n in IMAGES.items()}, data)

        def note(out: Path, **what: Any) -> None:
            found = json.loads(out.with_suffix(".json").read_text())
            runs.append({**what, "AP": found["AP"], "losses": [float(f"{x:.9g}") for x in found["losses"][:10]]})
            print({**what, "AP": found["AP"]}, flush=True)

        for devices, seed in cases:
            out = base / f"devices{devices}-{seed}"
            with started(data, out, devices, seed=seed, epochs=epochs) as child:
                code, text = child.end()
            if code:
                raise SystemExit(text)
            note(out, processes=1, devices=devices, seed=seed)
        if not args.quick:
            _both(together(data, base / "two"))
            note(base / "two", processes=2, devices=2, seed=0)
            other = json.loads((base / "two.1.json").read_text())
            runs[-1]["both_say_the_same"] = other == json.loads((base / "two.json").read_text())
        for victim in () if args.quick else (1, 0):
            out = base / f"killed{victim}"
            code, said = together(data, out, kill=victim)[1 - victim]
            _both(together(data, out, resume=True))
            ap = json.loads(out.with_suffix(".json").read_text())["AP"]
            killed.append({"killed": victim, "code": code, "said": said.replace(temporary, ""), "AP": ap})
            print(killed[-1], flush=True)
    return {"scale": {**IMAGES, "epochs": epochs, "seeds": 1 if args.quick else SEEDS}, "runs": runs, "killed": killed}


def _both(ends: list[tuple[int, str]]) -> None:
    if any(code for code, _ in ends):
        raise SystemExit(f"a job of two processes ended with {ends}")


def difference(run: Record, record: Record) -> float:
    """The largest relative one of the first ten losses, from one device with the same seed."""
    pairs = zip(run["losses"], record["runs"][0]["losses"], strict=True)
    return max(abs(ours / reference - 1) for ours, reference in pairs)


def same_seed(record: Record) -> list[Record]:
    """The runs that should agree with the first."""
    return [run for run in record["runs"][1:] if run["seed"] == 0]


def seeds(record: Record) -> list[float]:
    return [run["AP"] for run in record["runs"] if (run["processes"], run["devices"]) == (1, 1)]


def conclude(record: Record) -> str:
    others, spread = same_seed(record), seeds(record)
    said = (
        f"The first ten losses differ by at most {max(difference(r, record) for r in others):.1e} (relatively) from "
        f"one device's; final AP {min(r['AP'] for r in others):.3f} to {max(r['AP'] for r in others):.3f}, where one "
        f"device with {len(spread)} seeds reaches {min(spread):.3f} to {max(spread):.3f}."
    )
    if "both_say_the_same" in record["runs"][-1]:
        told = "say the same of them" if record["runs"][-1]["both_say_the_same"] else "do not say the same of them"
        said += f" Two processes {told}."
    if not record["killed"]:
        return said
    whole = record["runs"][-1]["AP"]
    same = sum(k["AP"] == whole for k in record["killed"])
    noticed = sum(k["code"] == 2 and "lost another" in k["said"] for k in record["killed"])
    return (
        f"{said} One of two processes was killed in {len(record['killed'])} jobs: in {noticed} the other said so and "
        f"stopped, and {same}, resumed, went on to the AP of the uninterrupted job."
    )


def page(record: Record) -> str:
    rows = []
    for run in record["runs"]:
        what = f"{run['processes']} processes" if run["processes"] > 1 else f"{run['devices']} devices"
        what = "1 device" if (run["processes"], run["devices"]) == (1, 1) else what
        apart = f"{difference(run, record):.1e}" if run["seed"] == 0 and run is not record["runs"][0] else ""
        rows.append([what, run["seed"], apart, f"{run['AP']:.4f}"])
    head = ["what", "seed", "largest relative difference of the first 10 losses", "final AP"]
    text = table(head, rows) + "\n\nDevices are emulated on a processor.\n"
    for k in record["killed"]:
        text += (
            f"\n- Process {k['killed']} killed: the other ended with {k['code']} and said: `{k['said']}`; resumed, the "
            f"job reached {k['AP']:.4f}."
        )
    return text


def draw(record: Record) -> Any:
    made, (losses, aps) = figure(9, 3, 2)
    for run in same_seed(record):
        apart = [abs(a / b - 1) for a, b in zip(run["losses"], record["runs"][0]["losses"], strict=True)]
        name = "2 processes" if run["processes"] > 1 else f"{run['devices']} devices"
        losses.semilogy(range(1, len(apart) + 1), [max(x, 1e-9) for x in apart], "o-", label=name)
        aps.plot([run["AP"]], [name], "o")
    losses.axhline(1e-4, color="0.6", linewidth=0.8)
    losses.set(xlabel="step", title="relative difference of the loss from one device's")
    losses.legend(fontsize=7)
    aps.plot(seeds(record), ["1 device"] * len(seeds(record)), "o", color="0.4")
    aps.set(title="final AP (1 device: all seeds)")
    for axes in (losses, aps):
        axes.grid(alpha=0.3)
    return made


def main(argv: Sequence[str] | None = None) -> Record | None:
    """The study; or one of its processes, which it starts by ``--worker``."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--worker", nargs=5)
    parser.add_argument("--resume", action="store_true")
    args, rest = parser.parse_known_args(argv)
    if args.worker:
        folder, out, devices, seed, epochs = args.worker
        return worker(Path(folder), Path(out), int(devices), int(seed), int(epochs), args.resume)
    return run_study(sys.modules[__name__], rest)
