"""How many seconds does a run of a sweep take by each of its strategies, beside runs made one by one?

Question: a sweep trains many runs by mapping every operation over them (`vmap`), by a program that holds several
(`unroll`), or with runs of its own on every device (`devices`). Which is fastest on this machine, and do all give the
losses of separate runs?

Method: the network is the demo's kind, small, on generated images; every strategy trains the same runs, and the losses
of the first ten steps are compared with those of separate runs, at each learning rate by itself. Where programs differ,
so does rounding, and training magnifies it: how much is seen on separate runs that begin with every parameter moved to
the next number of float32, up or down at random. Compilation is counted apart: it is paid once a sweep.

Command:   python -m experiments.sweep_speed
Expected:  about 4 minutes on two cores.
Quick:     python -m experiments.sweep_speed --runs 2 --steps 2 --size 32 --strategies unroll --out FOLDER    (a minute)
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import yolojax
from experiments.record import table
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig
from yolojax.data import shapes_dataset, uniform_sampler, write_yolo
from yolojax.training.hyper import make_hyper
from yolojax.training.inputs import lay_out_images
from yolojax.training.preparation import build, step_maker
from yolojax.training.processor import prepare_processor
from yolojax.training.progress import Quiet
from yolojax.training.splits import open_splits
from yolojax.training.state import make_state
from yolojax.training.sweep import Trial, grid, sweep

RESULTS = Path(__file__).parent / "results" / "sweep_speed"


def settings(folder: Path, size: int, batch_size: int, steps: int) -> TrainConfig:
    """A run of ``steps`` steps of a small detector on generated images."""
    write_yolo({"train": shapes_dataset(batch_size * steps, size=(size, size))}, folder)
    return TrainConfig(
        data=DataConfig(path=str(folder)),
        model=ModelConfig(
            name="compact",
            size=size,
            options={"widths": [16, 24, 48, 96], "depths": [0, 1, 1, 1], "head_width": 32},
        ),
        augment=AugmentConfig(),
        optimiser=OptimiserConfig(),
        epochs=1,
        batch_size=batch_size,
    )


def one_by_one(
    config: TrainConfig, trials: list[Trial], steps: int, batch_size: int, *, moved: bool = False
) -> tuple[np.ndarray, dict[str, float]]:
    """Losses ``[R, T]`` of separate runs through one compiled training step, and the seconds that they took.

    All initial parameters are ``moved`` to the next number, up or down at random.
    """
    train_set, _ = open_splits(config.data, config.seed)
    detector = build(config, train_set)
    images = lay_out_images(train_set, detector.spec, Quiet(), cache="memory")
    sampler = uniform_sampler(len(images), batch_size)
    make = step_maker(config, detector)
    step = jax.jit(lambda key, *rest: make(key)(*rest), donate_argnums=1)
    compiled, seconds, losses = None, {"compile": 0.0, "train": 0.0}, []
    for trial in trials:
        key = jax.random.key(trial.seed)
        hyper = make_hyper(replace(config, hyper=dict(trial.hyper)), detector)
        state = make_state(detector, config.optimiser, steps, jax.random.fold_in(key, 0))
        if moved:
            params = _moved(state.variables["params"], trial.seed)
            variables, ema = (jax.tree.map(jnp.array, {**v, "params": params}) for v in (state.variables, state.ema))
            state = state._replace(variables=variables, ema=ema)
        own: list[float] = []
        pending: Any = None
        clock = time.monotonic()
        for t in range(steps):
            arguments = (jax.random.fold_in(key, 1), state, images.batch(sampler(trial.seed, t)), hyper)
            if compiled is None:
                mark = time.monotonic()
                compiled = step.lower(*arguments).compile()
                seconds["compile"] = time.monotonic() - mark
                clock += seconds["compile"]
            state, report = compiled(*arguments)
            if pending is not None:
                own.append(float(pending))
            pending = report.loss
        own.append(float(pending))
        seconds["train"] += time.monotonic() - clock
        losses.append(own)
    return np.array(losses), seconds


def _moved(params: Any, seed: int) -> Any:
    """Every parameter at the next number of float32, up or down at random."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.nextafter(x, x + rng.choice([-1, 1], x.shape).astype(np.float32)), params)


def main() -> None:
    """Measure, print a table, and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=["unroll", "devices", "vmap"])
    parser.add_argument("--widths", nargs="+", type=int, default=[1, 4], help="of unroll: runs in one program")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    prepare_processor(arguments.batch_size)

    rates = np.geomspace(5e-4, 4e-3, max(arguments.runs // 2, 1)).tolist()
    trials = grid(seed=range(2), learning_rate=rates)[: arguments.runs]
    with tempfile.TemporaryDirectory() as folder:
        config = settings(Path(folder), arguments.size, arguments.batch_size, arguments.steps)
        reference, seconds = one_by_one(config, trials, arguments.steps, arguments.batch_size)
        speeds = np.array([trial.hyper["learning_rate"] for trial in trials])

        def apart(losses: np.ndarray) -> dict[str, float]:
            error = np.max(np.abs(losses / reference - 1)[:, :10], axis=1)
            return {f"{rate:g}": float(f"{np.max(error[speeds == rate]):.2g}") for rate in sorted(set(speeds))}

        rows = [row("one by one", 1, seconds, len(trials), apart(reference), np.inf)]
        print(rows[-1], flush=True)
        losses, _ = one_by_one(config, trials, arguments.steps, arguments.batch_size, moved=True)
        rows.append(
            {"strategy": "one by one, parameters moved to the next number", "together": 1, "difference": apart(losses)}
        )
        for strategy in arguments.strategies:
            widths = arguments.widths if strategy == "unroll" else [None]
            for width in widths:
                found = sweep(config, trials, strategy=strategy, width=width, measure=False)
                used = width or {"vmap": len(trials), "devices": jax.device_count()}[strategy]
                rows.append(
                    row(strategy, used, found.seconds, len(trials), apart(found.losses), rows[0]["seconds_per_run"])
                )
                print(rows[-1], flush=True)
    record(arguments.out, rows, arguments, reference.shape)


def row(
    name: str, width: int, seconds: dict[str, float], runs: int, difference: dict[str, float], alone: float
) -> dict[str, Any]:
    """A line of the table; ``speed`` is how many times faster than one by one."""
    each = seconds["train"] / runs
    return {
        "strategy": name,
        "together": width,
        "seconds_per_run": round(each, 3),
        "speed": round(alone / each, 3) if np.isfinite(alone) else 1.0,
        "compile_seconds": round(seconds["compile"], 1),
        "difference": difference,
    }


def record(out: Path, rows: list[dict[str, Any]], arguments: argparse.Namespace, shape: tuple[int, ...]) -> None:
    """``results.json`` and a README beside it."""
    out.mkdir(parents=True, exist_ok=True)
    device = jax.devices()[0]
    facts = {
        "runs": shape[0],
        "steps": shape[1],
        "size": arguments.size,
        "batch_size": arguments.batch_size,
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "processor": _processor(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "yolojax": yolojax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    (out / "results.json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=2) + "\n")
    lines = [
        "# Strategies of a sweep",
        "",
        f"{facts['runs']} runs of {facts['steps']} steps, {facts['size']} pixels, batch {facts['batch_size']}, on "
        f"{facts['devices']} ({facts['processor']}), jax {facts['jax']}, {facts['date']}; "
        "`python -m experiments.sweep_speed`.",
        "",
        "The largest relative difference of the first ten losses from those of runs made one by one, by learning rate:",
        "",
    ]
    rates = list(rows[0]["difference"])
    names = ["strategy", "together", "s a run", "speed", "compilation, s", *(f"at {rate}" for rate in rates)]
    keys = ("strategy", "together", "seconds_per_run", "speed", "compile_seconds")
    cells = [[*(r.get(key, "") for key in keys), *(f"{r['difference'][rate]:.1e}" for rate in rates)] for r in rows]
    lines.append(table(names, cells))
    (out / "README.md").write_text("\n".join(lines) + "\n")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{len(names)} cores, {names[0]}" if names else platform.machine()


if __name__ == "__main__":
    main()
