"""How long does it take to match queries and objects one to one, beside the solvers that others use?

Question: detectors of the DETR family match the queries of every decoder layer with the objects in each training step.
How long does `yolojax.assign.least_cost_matching` take for all layers and images of a step, and how long do
`optax.assignment.hungarian_algorithm`, which is compiled too, and SciPy's, which PyTorch's trainers call for one image
after another?

Method: 112 cost matrices (16 images, 7 layers as RT-DETR R18 has with its denoising left out) of 300 queries and 128
rows, of which as many hold objects as a draw from a Poisson distribution says, and in one matrix as many as the
heading says; the rest is padding. Costs are DETR's on random boxes and scores. All programs get the same matrices in
memory, in turns; SciPy reads only the rows that hold objects, as the trainers do, and its time leaves out the way of
the costs from an accelerator to the host. All totals must be the least, to 1e-5. Milliseconds are medians of seven
calls after the first.

Command:   python -m experiments.benchmarks.matching_speed
Expected:  half a minute on two cores.
Quick:     python -m experiments.benchmarks.matching_speed --quick    (small matrices, one call)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import linear_sum_assignment

from experiments.shared.record import figure, run_study, table
from yolojax.assign import least_cost_matching, matching_cost
from yolojax.structures import Targets

OURS, OPTAX, SCIPY = "yolojax", "optax", "SciPy, one image after another"
MOST_OBJECTS, SIZE = (7, 30, 128), (640, 640)
Record = dict[str, Any]


def costs(rng: np.random.Generator, matrices: int, rows: int, queries: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """DETR's costs of random boxes, and how many rows of each matrix hold objects."""

    def boxes(n: int) -> np.ndarray:
        low = rng.uniform(0, 500, (matrices, n, 2))
        return np.concatenate([low, low + rng.uniform(10, 140, (matrices, n, 2))], -1).astype(np.float32)

    count = np.minimum(rng.poisson(most / 2, matrices), most).astype(np.int32)
    count[0] = most
    everywhere = np.ones((matrices, rows), bool)
    classes = rng.integers(0, 80, (matrices, rows)).astype(np.int32)
    columns = (boxes(rows), classes, everywhere, ~everywhere, np.zeros(matrices, np.int32))
    targets = Targets(*map(jnp.asarray, columns))
    scores = rng.beta(1, 8, (matrices, queries, 80)).astype(np.float32)
    cost = jax.jit(partial(matching_cost, input_size=SIZE))(boxes(queries), scores, targets)
    return np.asarray(cost), count


def by_scipy(cost: np.ndarray, count: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [linear_sum_assignment(one[:k]) for one, k in zip(cost, count, strict=True)]


def measure(args: argparse.Namespace) -> Record:
    matrices, rows, queries, calls = (4, 10, 20, 1) if args.quick else (112, 128, 300, 7)
    rng, runs = np.random.default_rng(0), []
    ours, theirs = jax.jit(least_cost_matching), jax.jit(jax.vmap(optax.assignment.hungarian_algorithm))
    for most in (3,) if args.quick else MOST_OBJECTS:
        cost, count = costs(rng, matrices, rows, queries, most)
        padded = np.where(np.arange(rows)[None, :, None] < count[:, None, None], cost, 0)  # padding costs nothing
        on_device = jax.device_put((cost, count, padded))
        programs: dict[str, Callable[[], Any]] = {
            OURS: lambda given=on_device: ours(given[0], given[1]),
            OPTAX: lambda given=on_device: theirs(given[2]),
            SCIPY: partial(by_scipy, cost, count),
        }
        taken: dict[str, list[float]] = {name: [] for name in programs}
        found = {}
        for _ in range(calls + 1):
            for name, call in programs.items():
                start = time.perf_counter()
                found[name] = jax.block_until_ready(call())
                taken[name].append(time.perf_counter() - start)
        totals = {name: totals_of(name, found[name], cost, count) for name in programs}
        for name, times in taken.items():
            apart = float(np.max(np.abs(totals[name] - totals[SCIPY])))
            if apart > 1e-5 * most:
                raise RuntimeError(f"{name} is {apart} from the least total")
            run = {"program": name, "most": most, "milliseconds": 1e3 * statistics.median(times[1:]), "apart": apart}
            print(run, flush=True)
            runs.append(run)
    return {"scale": {"matrices": matrices, "rows": rows, "queries": queries}, "runs": runs}


def totals_of(name: str, found: Any, cost: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The total cost of each matching that a program found."""
    totals = []
    for i, k in enumerate(count):
        if name == OURS:
            owner = np.asarray(found[i])
            columns = np.flatnonzero(owner >= 0)
            rows = owner[columns]
        else:
            rows, columns = (np.asarray(part) for part in (found[i] if name == SCIPY else (found[0][i], found[1][i])))
            rows, columns = rows[rows < k], columns[rows < k]
        totals.append(cost[i, rows, columns].astype(np.float64).sum())
    return np.array(totals)


def milliseconds(record: Record) -> dict[int, dict[str, float]]:
    """Of each program, by the most objects of a matrix."""
    found: dict[int, dict[str, float]] = {}
    for run in record["runs"]:
        found.setdefault(run["most"], {})[run["program"]] = run["milliseconds"]
    return found


def conclude(record: Record) -> str:
    scale = record["scale"]
    told = [
        f"up to {most} objects {ms[OURS]:.1f} ms (optax {ms[OPTAX]:.0f}, SciPy {ms[SCIPY]:.1f})"
        for most, ms in milliseconds(record).items()
    ]
    return f"{scale['matrices']} matchings of {scale['queries']} queries: {'; '.join(told)}."


def page(record: Record) -> str:
    rows = [[most, *(f"{ms[name]:.2f}" for name in (OURS, OPTAX, SCIPY))] for most, ms in milliseconds(record).items()]
    return table(["most objects", *(f"{name}, ms" for name in (OURS, OPTAX, SCIPY))], rows)


def draw(record: Record) -> Any:
    made, (axes,) = figure(6, 3)
    found = milliseconds(record)
    for name in (OURS, OPTAX, SCIPY):
        axes.plot([str(most) for most in found], [ms[name] for ms in found.values()], "o-", label=name)
    axes.set(xlabel="most objects", ylabel="milliseconds", yscale="log")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return made


main = partial(run_study, sys.modules[__name__])
