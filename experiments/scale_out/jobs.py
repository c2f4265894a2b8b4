"""Training runs as processes of their own, alone or two that make one job. Used by `experiments.scale_out`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"widths": [8, 16, 24, 32], "depths": [0, 1, 1, 1], "head_width": 24}
EPOCHS = 25
PATIENCE = 900  # seconds for a job, or for its first checkpoint


def worker(folder: Path, out: Path, devices: int, seed: int, epochs: int, resume: bool) -> None:
    """One process: the losses of its steps and its measurement go to ``OUT.json``, or ``OUT.1.json`` and so on."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig
    from yolojax.errors import YolojaxError
    from yolojax.sharding.processes import join, noticing_lost_processes
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


class Child(NamedTuple):
    """A process, and the file that its messages go to."""

    process: subprocess.Popen[bytes]
    errors: IO[str]

    def end(self, timeout: float = PATIENCE) -> tuple[int, str]:
        """Its exit code and its messages; it is killed after so many seconds, and the messages say so."""
        hung = ""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            hung = f"\nhung for {timeout:.0f} s"
        self.errors.seek(0)
        return self.process.returncode, self.errors.read() + hung


@contextmanager
def started(
    folder: Path,
    out: Path,
    devices: int = 1,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    process: int = 0,
    port: int = 0,
    resume: bool = False,
) -> Iterator[Child]:
    """A worker as a child, one of two processes of a job where a port is given; it does not outlive the context."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    if port:
        names = ("YOLOJAX_COORDINATOR", "YOLOJAX_PROCESSES", "YOLOJAX_PROCESS")
        environment |= dict(zip(names, (f"127.0.0.1:{port}", "2", str(process)), strict=True))
    values = [str(value) for value in (folder, out, devices, seed, epochs)]
    command = [sys.executable, "-m", "experiments.scale_out", "--worker", *values]
    command += ["--resume"] if resume else []
    # To a file: a pipe that nobody reads while the other process is waited for would hold up a child that says much.
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process_ = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=errors)
        try:
            yield Child(process_, errors)
        finally:
            process_.kill()
            process_.wait()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(
    folder: Path, out: Path, *, epochs: int = EPOCHS, resume: bool = False, kill: int | None = None
) -> list[tuple[int, str]]:
    """Exit code and last line of both processes of a job; ``kill`` names one to kill after its first checkpoint.

    Raises `SystemExit` where the job ended before that.
    """
    port = free_port()
    with ExitStack() as stack:
        children = [
            stack.enter_context(started(folder, out, epochs=epochs, process=i, port=port, resume=resume))
            for i in range(2)
        ]
        if kill is not None:
            until = time.monotonic() + PATIENCE
            while not list((out / "checkpoints").glob("[0-9]*/manifest.json")):
                if any(child.process.poll() is not None for child in children):
                    raise SystemExit(f"a job to kill ended by itself: {[child.end(10) for child in children]}")
                if time.monotonic() > until:
                    raise SystemExit(f"a job to kill has no checkpoint after {PATIENCE} s")
                time.sleep(0.1)
            if children[kill].process.poll() is not None:
                raise SystemExit(f"process {kill}, to be killed, had ended: {children[kill].end()}")
            children[kill].process.send_signal(signal.SIGKILL)
        ends = []
        for code, text in [child.end() for child in children]:
            lines = [line for line in text.splitlines() if line.strip()]
            chosen = [line for line in lines if line.startswith("error:")] or lines[-1:] or [""]
            ends.append((code, chosen[-1]))
    return ends
