"""How long do suppression and whole post-processing take, and how does torchvision compare on the same machine?

Question: is a fixed-size suppression, compiled together with the network, as fast as torchvision's kernels, on a CPU
and on a GPU, for few and for many boxes, and does the choice of algorithm by platform hold? Aimed at on a CPU: at most
torchvision's time from 1000 boxes on in every layout, and up to 300 boxes at most .1 ms (clustered) or .2 ms
(scattered); on a GPU: post-processing of 8400 candidates x 80 classes under .2 ms an image at batch 32.

Method: three tables. (1) `nms`: suppression at IoU .5 that keeps everything it may, for one and for 32 images;
`clustered` boxes jitter around n / 20 objects, `scattered` ones hardly overlap. (2) `algorithms`: the two algorithms of
`yolojax.nms` on this device, without the sort. (3) `postprocess`: 8400 candidates x 80 classes, IoU .7, 300 detections:
at confidence .001 and .25, best class and multi-label; torchvision's part is the usual PyTorch code around
`batched_nms`, one image after another. Ours and theirs are timed in turns, in one process, on the same arrays, each
until the device has finished; a figure is the median of several rounds. What both keep is compared first. Memory is
what the compiled program says that it needs for intermediate values.

Command:   python -m experiments.benchmarks.nms_speed
Expected:  twelve minutes on two idle cores, one on a GPU; see cpu.md beside this file.
Pieces:    python -m experiments.benchmarks.nms_speed --tables nms --batches 32 --sizes 30000
           (adds to the record that is there)
Quick:     python -m experiments.benchmarks.nms_speed --quick    (small sizes: the machinery only)

Without torch and torchvision their columns stay empty.
"""

from __future__ import annotations

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch shares the GPU

import argparse
import datetime
import importlib
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from yolojax.nms import nms
from yolojax.nms.greedy import Rows, keep_by_blocks, keep_by_tiles
from yolojax.nms.sorting import ascending_order, score_keys
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates


def import_if_there(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


torch, torchvision = import_if_there("torch"), import_if_there("torchvision")
RESULTS = Path(__file__).parent
ROUNDS, FEWEST_ROUNDS = 15, 2
ROUND_SECONDS = 0.02
"""A round repeats a call until it lasts this long, so that the clock's own error is small."""
ROW_SECONDS = 20.0
"""Where a round is long, there are only as many as take this long: one, if it takes longer by itself."""

LAYOUTS = ("clustered", "scattered")
TABLES = ("nms", "algorithms", "postprocess")

Row = dict[str, Any]


def make_boxes(layout: str, n: int, batch: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``[batch, n, 4]`` boxes and ``[batch, n]`` scores of a layout named above."""
    rng = np.random.default_rng((n, seed))
    if layout == "clustered":
        objects = max(1, n // 20)
        centres, sizes = rng.uniform(50, 590, (batch, objects, 2)), rng.uniform(20, 120, (batch, objects, 2))
        of = rng.integers(0, objects, (batch, n))[..., None]
        centre, size = np.take_along_axis(centres, of, 1), np.take_along_axis(sizes, of, 1)
        centre = centre + rng.normal(size=centre.shape) * size * 0.08
        size = size * np.exp(rng.normal(size=size.shape) * 0.08)
    else:
        centre, size = rng.uniform(0, 5120, (batch, n, 2)), rng.uniform(5, 40, (batch, n, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1).astype(np.float32)
    return boxes, rng.random((batch, n)).astype(np.float32)


def make_candidates(n: int, classes: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """What a trained detector gives: a twentieth of the boxes around objects, low scores elsewhere."""
    rng = np.random.default_rng(n)
    boxes, _ = make_boxes("clustered", n, batch)
    scores = (rng.random((batch, n, classes)) ** 100 * 0.01).astype(np.float32)
    near, label = rng.random((batch, n)) < 0.05, rng.integers(0, classes, (batch, n))
    image, row = np.nonzero(near)
    scores[image, row, label[near]] = rng.random(near.sum()) ** 2
    return boxes, scores


def seconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """The median seconds of each call, all taken in turns, and from how many rounds."""
    repeats: dict[str, int] = {}
    first: dict[str, float] = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        first[name] = time.perf_counter() - start
        repeats[name] = max(1, min(200, int(ROUND_SECONDS / first[name])))
    once = sum(first.values())
    if once > ROW_SECONDS:
        return first | {"rounds": 1}
    rounds = max(FEWEST_ROUNDS, min(rounds, int(ROW_SECONDS / once)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(values) for name, values in times.items()} | {"rounds": rounds}


def on_jax(f: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(f(*args))


def on_torch(f: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    if torch.cuda.is_available():
        args = tuple(x.cuda() for x in args)

    def call() -> Any:
        out = f(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return out

    return call


def torch_tensors(*arrays: np.ndarray) -> tuple[Any, ...]:
    return tuple(torch.from_numpy(x.copy()) for x in arrays)


def time_nms(sizes: list[int], batches: list[int], layouts: list[str], rounds: int) -> list[Row]:
    rows = []
    for batch in batches:
        for n in sizes:
            f = jax.jit(jax.vmap(lambda b, s, k=n: nms(b, s, 0.5, k)))
            shapes = jax.ShapeDtypeStruct((batch, n, 4), jnp.float32), jax.ShapeDtypeStruct((batch, n), jnp.float32)
            memory = temporary_mb(f, *shapes)
            for layout in layouts:
                boxes, scores = make_boxes(layout, n, batch)
                ours = on_jax(f, jnp.asarray(boxes), jnp.asarray(scores))
                calls = {"yolojax": ours}
                kept = [np.asarray(i)[np.asarray(v)] for i, v in zip(*ours(), strict=True)]
                row: Row = {"batch": batch, "n": n, "layout": layout, "kept": len(kept[0])}
                row["temporary_mb"] = memory
                if torch is not None:
                    theirs = on_torch(
                        lambda b, s: [torchvision.ops.nms(*image, 0.5) for image in zip(b, s, strict=True)],
                        *torch_tensors(boxes, scores),
                    )
                    calls["torchvision"] = theirs
                    row["same"] = all(set(a.tolist()) == set(b.tolist()) for a, b in zip(kept, theirs(), strict=True))
                rows.append(row | milliseconds(seconds(calls, rounds)))
                say(rows[-1])
    return rows


def time_algorithms(sizes: list[int], batches: list[int], layouts: list[str], rounds: int) -> list[Row]:
    """Suppression without the sort, by the algorithm for CPUs and by the one for accelerators."""

    def tiles(rows: Rows, count: jax.Array, threshold: jax.Array) -> jax.Array:
        one = partial(keep_by_tiles, limit=None, by_class=False)
        return lax.map(lambda image: one(*image), (rows, count, threshold))

    algorithms = {"tiles": jax.jit(tiles), "blocks": jax.jit(partial(keep_by_blocks, limit=None))}
    rows = []
    for batch in batches:
        for n in sizes:
            for layout in layouts:
                boxes, scores = (jnp.asarray(x) for x in make_boxes(layout, n, batch))
                order = ascending_order(score_keys(scores, jnp.ones(scores.shape, bool)))
                sorted_rows = Rows.of(jnp.take_along_axis(boxes, order[..., None], 1), None)
                args = sorted_rows, jnp.full(batch, n), jnp.full(batch, 0.5)
                calls = {name: on_jax(f, *args) for name, f in algorithms.items()}
                same = bool((calls["tiles"]() == calls["blocks"]()).all())
                row = {"batch": batch, "n": n, "layout": layout, "same": same}
                rows.append(row | milliseconds(seconds(calls, rounds)))
                say(rows[-1])
    return rows


def torch_postprocess(boxes: Any, scores: Any, confidence: float, multi_label: bool) -> list[Any]:
    """The usual PyTorch post-processing: threshold, `batched_nms`, the best 300; image after image."""
    out = []
    for b, s in zip(boxes, scores, strict=True):
        if multi_label:
            row, label = torch.nonzero(s >= confidence, as_tuple=True)
            best = s[row, label]
        else:
            best, label = s.max(1)
            row = torch.nonzero(best >= confidence)[:, 0]
            best, label = best[row], label[row]
        keep = torchvision.ops.batched_nms(b[row], best, label, 0.7)[:300]
        out.append((b[row[keep]], best[keep], label[keep]))
    return out


def time_postprocess(n: int, classes: int, batches: list[int], rounds: int) -> list[Row]:
    rows = []
    for batch in batches:
        boxes, scores = make_candidates(n, classes, batch)
        candidates = Candidates(jnp.asarray(boxes), jnp.asarray(scores))
        for multi_label in (False, True):
            f = jax.jit(partial(postprocess, multi_label=multi_label))
            memory = temporary_mb(f, candidates, 0.001, 0.7)
            for confidence in (0.001, 0.25):
                calls = {"yolojax": on_jax(f, candidates, confidence, 0.7)}
                found = calls["yolojax"]()
                over = scores >= np.float32(confidence)
                row: Row = {
                    "batch": batch,
                    "n": n,
                    "classes": classes,
                    "labels": "multi" if multi_label else "best",
                    "confidence": confidence,
                    "over": int(over[0].sum() if multi_label else over[0].any(-1).sum()),
                    "kept": int(found.valid[0].sum() + found.truncated[0]),
                    "temporary_mb": memory,
                }
                if torch is not None:
                    theirs = on_torch(
                        partial(torch_postprocess, confidence=confidence, multi_label=multi_label),
                        *torch_tensors(boxes, scores),
                    )
                    calls["torchvision"] = theirs
                    row["same"] = all(
                        np.array_equal(np.asarray(s)[np.asarray(v)], t[1].cpu().numpy())
                        for s, v, t in zip(found.scores, found.valid, theirs(), strict=True)
                    )
                timed = milliseconds(seconds(calls, rounds))
                rows.append(row | timed | {"yolojax_ms_per_image": round(timed["yolojax_ms"] / batch, 4)})
                say(rows[-1])
    return rows


def temporary_mb(f: Any, *args: Any) -> float | None:
    """What a compiled program needs besides its input and output, in MiB, where the backend tells."""
    memory = f.lower(*args).compile().memory_analysis()
    return None if memory is None else round(memory.temp_size_in_bytes / 2**20, 2)


def milliseconds(taken: dict[str, Any]) -> Row:
    rounds = taken.pop("rounds")
    out: Row = {f"{name}_ms": round(value * 1e3, 4) for name, value in taken.items()}
    if len(taken) == 2:
        first, second = taken.values()
        out["ratio"] = round(first / second, 3)
    return out | {"rounds": rounds}


def say(row: Row) -> None:
    print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


def judge(rows: list[Row]) -> list[str]:
    """What was aimed at on a CPU, and whether the rows of `nms` reach it."""
    if not rows or "ratio" not in rows[0]:
        return []

    def verdict(aim: str, over: list[Row], column: str, limit: float) -> str:
        if not over:
            return f"- {aim}: not measured."
        worst = max(over, key=lambda row: row[column])
        missed = [f"n = {r['n']}, {r['layout']}: {r[column]}" for r in over if r[column] > limit]
        said = f"missed ({'; '.join(missed)})" if missed else "reached"
        return f"- {aim}: {said}; the worst of {len(over)} rows is {worst[column]}."

    lines = []
    for batch in sorted({row["batch"] for row in rows}):
        large = [r for r in rows if r["batch"] == batch and r["n"] >= 1000]
        lines.append(verdict(f"at most torchvision's time from 1000 boxes on, batch {batch}", large, "ratio", 1.0))
    for layout, limit in (("clustered", 0.1), ("scattered", 0.2)):
        small = [r for r in rows if r["batch"] == 1 and r["n"] <= 300 and r["layout"] == layout]
        lines.append(verdict(f"at most {limit} ms up to 300 boxes, {layout}, batch 1", small, "yolojax_ms", limit))
    return lines


def markdown(record: Row) -> str:
    lines = [
        f"# Suppression and post-processing on {record['device']}",
        "",
        f"`{record['command']}`, {record['date']}; {record['versions']}; {record['cores']} processor cores"
        f"{record['note']}. Medians of the rounds given, in milliseconds for the whole batch; `ratio` is the first of"
        " the two times over the second. `same`: both keep the same boxes. `temporary_mb`: memory for intermediate"
        " values, in MiB.",
    ]
    if record["device"] == "CPU":
        lines += ["", *judge(record["nms"])]
    if record["nms"]:
        lines += ["", "![time over the number of boxes](" + record["plot"] + ")"]
    for title in TABLES:
        rows: list[Row] = record[title]
        if not rows:
            continue
        columns = list(rows[0])
        lines += ["", f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    """Milliseconds an image over the number of boxes, a panel for each layout and batch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = sorted({(row["batch"], row["layout"]) for row in rows})
    figure = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (batch, layout) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
    ):
        own = sorted((r for r in rows if (r["batch"], r["layout"]) == (batch, layout)), key=lambda r: r["n"])
        for name, colour in (("yolojax", "C0"), ("torchvision", "C1")):
            points = [(r["n"], r[f"{name}_ms"] / batch) for r in own if f"{name}_ms" in r]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=name)
        axes.set(xscale="log", yscale="log", xlabel="boxes", title=f"{layout}, batch {batch}")
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].set_ylabel("ms an image")
    figure.axes[0].legend()
    figure.savefig(path, dpi=100)


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """The rows of an earlier piece and those of this one, which replace what they measure again."""

    def key(row: Row) -> tuple[Any, ...]:
        return tuple(row.get(k, 0) for k in ("batch", "n", "layout", "labels", "confidence"))

    rows = {key(row): row for row in [*old, *new]}
    return [rows[k] for k in sorted(rows, key=lambda k: tuple((isinstance(v, str), v) for v in k))]


def conclude(record: dict[str, Any]) -> str:
    """The sentence of the table of studies."""
    rows = [row for row in record["nms"] if "ratio" in row]
    ratios = {
        "1000 boxes and more": [row["ratio"] for row in rows if row["n"] >= 1000],
        "300 and fewer, one image": [row["ratio"] for row in rows if row["n"] <= 300 and row["batch"] == 1],
        "300 and fewer, 32 images": [row["ratio"] for row in rows if row["n"] <= 300 and row["batch"] > 1],
        "whole post-processing": [row["ratio"] for row in record["postprocess"] if "ratio" in row],
    }
    told = "; ".join(f"{what} {min(found):.2f} to {max(found):.2f}" for what, found in ratios.items() if found)
    few = [row["yolojax_ms"] for row in record["nms"] if row["n"] <= 300 and row["batch"] == 1]
    ms = f" Up to 300 boxes of one image take at most {max(few):.2f} ms." if few else ""
    return f"{record['device']}, of torchvision's time: {told or 'not measured'}.{ms}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and no record, unless --out is given")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 300, 1000, 3000, 8400, 30000])
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--out", type=Path, help="folder of the record (default experiments/benchmarks/nms_speed)")
    parser.add_argument("--note", default="", help="a remark for the record, e.g. that the machine was busy")
    args = parser.parse_args()
    sizes, batches, rounds = args.sizes, args.batches, ROUNDS
    if args.quick:
        sizes, batches, rounds = [100, 1000], [1, 2], 2
    device = jax.devices()[0]
    versions = [f"jax {jax.__version__}"]
    if torch is not None:
        versions += [f"torch {torch.__version__}", f"torchvision {torchvision.__version__}"]
    name = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "_")
    folder = args.out or RESULTS
    record: Row = {
        "device": device.device_kind if device.platform != "cpu" else "CPU",
        "cores": os.cpu_count(),
        "versions": ", ".join(versions),
        "command": "python -m experiments.benchmarks.nms_speed" + (" --quick" if args.quick else ""),
        "date": datetime.date.today().isoformat(),
        "note": f"; {args.note}" if args.note else "",
        "plot": f"{name}.png",
    }
    file = folder / f"{name}.json"
    earlier: Row = json.loads(file.read_text()) if file.exists() else {table: [] for table in TABLES}
    for field in ("device", "cores", "versions"):
        if earlier.get(field, record[field]) != record[field]:
            parser.error(
                f"{file} was measured with {field} {earlier[field]}, this is {record[field]}: give another --out"
            )
    if "nms" in args.tables:
        record["nms"] = time_nms(sizes, batches, args.layouts, rounds)
    if "algorithms" in args.tables:
        record["algorithms"] = time_algorithms([n for n in sizes if n <= 8400], batches, args.layouts, rounds)
    if "postprocess" in args.tables:
        record["postprocess"] = time_postprocess(*((8400, 80) if not args.quick else (500, 5)), batches, rounds)
    if args.quick and args.out is None:
        return
    for table in TABLES:
        record[table] = merged(earlier[table], record.get(table, []))
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown(record))
    if record["nms"]:
        plot(record["nms"], folder / record["plot"])
