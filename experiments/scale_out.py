"""Does the same command give the same run on 1, 2 and 8 devices, and on two processes, one of which may be killed?

Question: training is one program over all devices. Are losses and final AP the same whatever their number, and does a
job of two processes notice that one of them is lost, say so, and go on from its checkpoint to the same end?

Method: devices are emulated on the processor, so nothing here says how fast a job over several devices is. Every run is
a fresh process of the ordinary program (`yolojax.fit`) on generated images with the same settings. Compared are the
losses of the first ten steps (aimed at: within 1e-4 of each other, relatively) and the final AP on held-out images.
Then two processes on this machine train together; and once more, and one of them is killed after its first checkpoint:
the other must say so and stop, and two new processes must go on and end where the uninterrupted job ended.

Command:   python -m experiments.scale_out
Expected:  about 5 minutes on two cores.
Quick:     python -m experiments.scale_out --devices 1 2 --no-processes --out FOLDER    (a minute)
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "scale_out"
ROOT = Path(__file__).resolve().parent.parent
OPTIONS = {"widths": [8, 16, 24, 32], "depths": [0, 1, 1, 1], "head_width": 24}


def worker(folder: Path, out: Path, devices: int, resume: bool) -> None:
    """One process: the losses of its steps and its measurement go to ``OUT.json``, or ``OUT.1.json`` and so on."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    from yolojax.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig
    from yolojax.errors import YolojaxError
    from yolojax.training.distributed import join, noticing_lost_processes
    from yolojax.training.fit import fit

    join(distributed=False)
    losses: list[float] = []

    def note(event: Any) -> None:
        if event.kind == "step":
            losses.append(event.row["train/loss"])

    config = TrainConfig(
        data=DataConfig(path=str(folder)),
        model=ModelConfig(name="compact", size=64, options=OPTIONS),
        augment=AugmentConfig(),
        epochs=4,
        batch_size=8,
        validate_every=0,
        checkpoint_every=1,
    )
    try:
        with noticing_lost_processes(f"resume {out}"):
            run = fit(config, out, resume=resume, callbacks=[note])
    except YolojaxError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    assert run.result is not None
    me = jax.process_index()
    found = {"losses": losses, "AP": run.result.AP, "devices": jax.device_count(), "processes": jax.process_count()}
    out.with_suffix(f".{me}.json" if me else ".json").write_text(json.dumps(found))


def start(folder: Path, out: Path, devices: int, *, process: int = 0, port: int = 0, resume: bool = False) -> Any:
    """A worker as a child; one of two processes of a job where a port is given."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if port:
        names = ("YOLOJAX_COORDINATOR", "YOLOJAX_PROCESSES", "YOLOJAX_PROCESS")
        environment |= dict(zip(names, (f"127.0.0.1:{port}", "2", str(process)), strict=True))
    command = [sys.executable, "-m", "experiments.scale_out", "--worker", str(folder), str(out), str(devices)]
    command += ["--resume"] if resume else []
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(folder: Path, out: Path, *, resume: bool = False, kill: int | None = None) -> list[tuple[int, str]]:
    """Exit code and last line of both processes of a job; ``kill`` names one to kill after its first checkpoint."""
    port = free_port()
    children = [start(folder, out, 1, process=i, port=port, resume=resume) for i in range(2)]
    if kill is not None:
        while not list((out / "checkpoints").glob("[0-9]*/manifest.json")):
            if any(child.poll() is not None for child in children):
                break
            time.sleep(0.1)
        children[kill].send_signal(signal.SIGKILL)
    ends = []
    for child in children:
        try:
            _, text = child.communicate(timeout=900)
        except subprocess.TimeoutExpired:
            child.kill()
            _, text = child.communicate()
            text += "\nhung for a quarter of an hour"
        lines = [line for line in text.splitlines() if line.strip()]
        chosen = [line for line in lines if line.startswith("error:")] or lines[-1:] or [""]
        ends.append((child.returncode, chosen[-1]))
    return ends


def main() -> None:
    """Run all of it, print a table, and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2, 8])
    parser.add_argument("--processes", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        folder, out, devices = arguments.worker
        worker(Path(folder), Path(out), int(devices), arguments.resume)
        return

    from yolojax.data import shapes_dataset, write_yolo

    rows: list[dict[str, Any]] = []
    remarks: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        data = base / "data"
        write_yolo({p: shapes_dataset(n, size=(64, 64), split=p) for p, n in (("train", 96), ("val", 24))}, data)
        for devices in arguments.devices:
            child = start(data, base / f"devices{devices}", devices)
            _, text = child.communicate()
            if child.returncode:
                raise SystemExit(text)
            rows.append({"what": f"{devices} devices", **json.loads((base / f"devices{devices}.json").read_text())})
            print(rows[-1]["what"], rows[-1]["AP"], flush=True)
        if arguments.processes:
            ends = together(data, base / "two")
            remarks.append(f"two processes: exit codes {[code for code, _ in ends]}")
            if all(code == 0 for code, _ in ends):
                rows.append({"what": "2 processes", **json.loads((base / "two.json").read_text())})
                other = json.loads((base / "two.1.json").read_text())
                same = all(other[name] == rows[-1][name] for name in ("losses", "AP"))
                remarks.append(f"both processes report the same losses and AP: {same}")
            for victim in (1, 0):
                out = base / f"killed{victim}"
                ends = together(data, out, kill=victim)
                code, said = ends[1 - victim]
                remarks.append(
                    f"process {victim} killed: the other ends with {code} and says: {said.replace(temporary, '')}"
                )
                ends = together(data, out, resume=True)
                row = {"what": f"2 processes, {victim} killed, resumed", "losses": [], "AP": None}
                if all(code == 0 for code, _ in ends):
                    row |= {"AP": json.loads(out.with_suffix(".json").read_text())["AP"]}
                else:
                    remarks.append(f"resuming failed: {ends}")
                rows.append(row)
                print(row, remarks[-1], flush=True)
    record(arguments.out, rows, remarks)


def record(out: Path, rows: list[dict[str, Any]], remarks: list[str]) -> None:
    """``results.json`` and a README beside it."""
    import jax
    import numpy as np

    out.mkdir(parents=True, exist_ok=True)
    reference = np.array(rows[0]["losses"])
    lines = [
        "# The same run on more devices and processes",
        "",
        f"Emulated on a processor, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}; "
        "`python -m experiments.scale_out`.",
        "",
        "| what | largest relative difference of the first 10 losses | final AP |",
        "|---|---|---|",
    ]
    for row in rows:
        losses = np.array(row.pop("losses"))
        if len(losses):
            row["first_losses"] = [round(x, 6) for x in losses[:10].tolist()]
            row["difference"] = float(f"{np.max(np.abs(losses[:10] / reference[:10] - 1)):.2g}")
        lines.append(f"| {row['what']} | {row.get('difference', '')} | {row['AP']} |")
    lines += ["", *(f"- {remark}" for remark in remarks)]
    (out / "results.json").write_text(json.dumps({"rows": rows, "remarks": remarks}, indent=2) + "\n")
    (out / "README.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
