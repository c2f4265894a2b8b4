"""Training runs as processes of their own, alone or two that make one job. Used by `experiments.scale_out`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = {"widths": [8, 16, 24, 32], "depths": [0, 1, 1, 1], "head_width": 24}
EPOCHS = 25


def worker(folder: Path, out: Path, devices: int, seed: int, epochs: int, resume: bool) -> None:
    """One process: the losses of its steps and its measurement go to ``OUT.json``, or ``OUT.1.json`` and so on."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig
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
        augment=AugmentConfig(mosaic=0.0),
        optimiser=OptimiserConfig(learning_rate=4e-3),
        epochs=epochs,
        batch_size=8,
        seed=seed,
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


def start(
    folder: Path,
    out: Path,
    devices: int = 1,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    process: int = 0,
    port: int = 0,
    resume: bool = False,
) -> Any:
    """A worker as a child; one of two processes of a job where a port is given."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    if port:
        names = ("YOLOJAX_COORDINATOR", "YOLOJAX_PROCESSES", "YOLOJAX_PROCESS")
        environment |= dict(zip(names, (f"127.0.0.1:{port}", "2", str(process)), strict=True))
    values = [str(value) for value in (folder, out, devices, seed, epochs)]
    command = [sys.executable, "-m", "experiments.scale_out", "--worker", *values]
    command += ["--resume"] if resume else []
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(
    folder: Path, out: Path, *, epochs: int = EPOCHS, resume: bool = False, kill: int | None = None
) -> list[tuple[int, str]]:
    """Exit code and last line of both processes of a job; ``kill`` names one to kill after its first checkpoint."""
    port = free_port()
    children = [start(folder, out, epochs=epochs, process=i, port=port, resume=resume) for i in range(2)]
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
