"""How long do suppression and whole post-processing take, and how does torchvision compare on the same machine?

Question: is a fixed-size suppression, compiled together with the network, as fast as torchvision's kernels, on a CPU
and on a GPU, for few and for many boxes, and does the choice of algorithm by platform hold?

Method: three tables. (1) Suppression at IoU .5 that keeps everything it may, alone and for 32 images; `clustered`
boxes jitter around n / 20 objects, `scattered` ones hardly overlap. (2) The two algorithms of `yolojax.nms` on this
device. (3) Post-processing of 8400 candidates x 80 classes, IoU .7, 300 detections: at confidence .001 and .25, best
class and multi-label; torchvision's part is the usual PyTorch code around `batched_nms`, one image after another.
Ours and theirs are timed in turns, in one process, on the same arrays, each until the device has finished; a figure is
the median of several rounds. What both keep is compared first.

Command:   python -m experiments.nms_speed
Expected:  about five minutes on two idle cores, one on a GPU; see experiments/results/nms_speed/*.md.
Quick:     python -m experiments.nms_speed --quick    (small sizes: the machinery only)

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
from yolojax.nms.greedy_blocks import keep_by_blocks
from yolojax.nms.greedy_tiles import keep_by_tiles
from yolojax.nms.order import ascending_order, score_keys
from yolojax.nms.rows import Rows
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates


def import_if_there(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


torch, torchvision = import_if_there("torch"), import_if_there("torchvision")
RESULTS = Path(__file__).parent / "results" / "nms_speed"
ROUNDS = 7
ROUND_SECONDS = 0.02
"""A round repeats a call until it lasts this long, so that the clock's own error is small."""

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


def seconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median seconds of each call, all taken in turns."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, min(200, int(ROUND_SECONDS / (time.perf_counter() - start))))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            taken[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(values) for name, values in taken.items()}


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


def time_nms(sizes: list[int], batches: list[int], rounds: int) -> list[Row]:
    rows = []
    for batch in batches:
        for n in sizes:
            f = jax.jit(jax.vmap(lambda b, s, k=n: nms(b, s, 0.5, k)))
            for layout in ("clustered", "scattered"):
                boxes, scores = make_boxes(layout, n, batch)
                ours = on_jax(f, jnp.asarray(boxes), jnp.asarray(scores))
                calls = {"yolojax": ours}
                kept = [np.asarray(i)[np.asarray(v)] for i, v in zip(*ours(), strict=True)]
                row: Row = {"batch": batch, "n": n, "layout": layout, "kept": len(kept[0])}
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


def time_algorithms(sizes: list[int], batches: list[int], rounds: int) -> list[Row]:
    """Suppression without the sort, by the algorithm for CPUs and by the one for accelerators."""

    def tiles(rows: Rows, count: jax.Array, threshold: jax.Array) -> jax.Array:
        one = partial(keep_by_tiles, limit=None, by_class=False)
        return lax.map(lambda image: one(*image), (rows, count, threshold))

    algorithms = {"tiles": jax.jit(tiles), "blocks": jax.jit(partial(keep_by_blocks, limit=None))}
    rows = []
    for batch in batches:
        for n in sizes:
            for layout in ("clustered", "scattered"):
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
            memory = f.lower(candidates, 0.001, 0.7).compile().memory_analysis()
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
                    "temporary_mb": None if memory is None else round(memory.temp_size_in_bytes / 2**20, 1),
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


def milliseconds(taken: dict[str, float]) -> Row:
    out: Row = {f"{name}_ms": round(value * 1e3, 4) for name, value in taken.items()}
    if len(taken) == 2:
        first, second = taken.values()
        out["ratio"] = round(first / second, 3)
    return out


def say(row: Row) -> None:
    print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


def markdown(record: Row) -> str:
    lines = [
        f"# Suppression and post-processing on {record['device']}",
        "",
        f"`{record['command']}`, {record['date']}; {record['versions']}; {record['cores']} processor cores"
        f"{record['note']}. Medians of {record['rounds']} rounds, in milliseconds; `ratio` is the first of the two"
        " times over the second. `same`: both keep the same boxes.",
    ]
    for title in ("nms", "algorithms", "postprocess"):
        rows: list[Row] = record[title]
        columns = list(rows[0])
        lines += ["", f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and no record, unless --out is given")
    parser.add_argument("--out", type=Path, help=f"folder of the record (default {RESULTS.relative_to(Path.cwd())})")
    parser.add_argument("--note", default="", help="a remark for the record, e.g. that the machine was busy")
    args = parser.parse_args()
    sizes, batches, rounds = [100, 300, 1000, 3000, 8400, 30000], [1, 32], ROUNDS
    if args.quick:
        sizes, batches, rounds = [100, 1000], [1, 2], 2
    device = jax.devices()[0]
    versions = [f"jax {jax.__version__}"]
    if torch is not None:
        versions += [f"torch {torch.__version__}", f"torchvision {torchvision.__version__}"]
    record: Row = {
        "device": device.device_kind if device.platform != "cpu" else "CPU",
        "cores": os.cpu_count(),
        "versions": ", ".join(versions),
        "command": "python -m experiments.nms_speed" + (" --quick" if args.quick else ""),
        "date": datetime.date.today().isoformat(),
        "note": f"; {args.note}" if args.note else "",
        "rounds": rounds,
        "nms": time_nms(sizes, batches, rounds),
        "algorithms": time_algorithms([n for n in sizes if n <= 8400], batches, rounds),
        "postprocess": time_postprocess(*((8400, 80) if not args.quick else (500, 5)), batches, rounds),
    }
    if args.quick and args.out is None:
        return
    folder = args.out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    name = "cpu" if device.platform == "cpu" else device.device_kind.lower().replace(" ", "_")
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown(record))


if __name__ == "__main__":
    main()
