"""Does `box_iou` give what `torchvision.ops.box_iou` gives, to 1e-6, on the worst boxes that one can think of?

Question: the lesson's first exercise asks for a largest difference under 1e-6 on 1,000 random pairs. A million
adversarial pairs are added, and both are held against the exact value, since two float32 programs may well agree on a
wrong number.

Method: random pairs, and matrices of 100 x 100 pairs from eleven families: equal boxes, one unit in the last place
apart, nested, touching, slivers of 1 : 1e5, whole pixels, negative, 1e6 pixels from the origin, sides of 1e-6, of 1e9,
and empty boxes. Boxes are ordered. Pairs where torchvision is not finite (two empty boxes: 0 / 0; here 0) are counted
and left out. The exact value is the IoU of the same float32 corners in float64. Without torchvision the recorded
answers of `tests/goldens/iou_torchvision.npz` stand in for it: all random pairs and 17,600 of the adversarial ones.

Command:   python -m experiments.iou_parity    (with torch and torchvision; --write-golden FILE records their answers)
Expected:  half a minute; no difference above 1e-6.
Quick:     python -m experiments.iou_parity --quick    (against the recorded answers: seconds)
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.iou_parity.adversarial_boxes import BLOCK, FAMILIES, adversarial, exact_iou, random_boxes
from experiments.shared.record import figure, run_study, table
from yolojax.boxes import box_iou

GOLDEN = Path(__file__).parents[2] / "tests" / "goldens" / "iou_torchvision.npz"
LIMIT = 1e-6
RECORDED = 40


def torchvision_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    torch, ops = importlib.import_module("torch"), importlib.import_module("torchvision.ops")
    return ops.box_iou(torch.from_numpy(a.copy()), torch.from_numpy(b.copy())).numpy()


def cases(blocks: int) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Inputs by family; the 1,000 random pairs are the diagonals of ten matrices."""
    rng = np.random.default_rng(0)
    random = [(random_boxes(rng, BLOCK, 0, 640), random_boxes(rng, BLOCK, 0, 640)) for _ in range(10)]
    return {"random": random} | {f: [adversarial(f, i) for i in range(blocks)] for f in FAMILIES}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.write_golden:
        inputs = cases(1)
        answers = {"random": np.stack([np.diag(torchvision_iou(a, b)) for a, b in inputs["random"]])}
        answers |= {f: torchvision_iou(*(x[:RECORDED] for x in inputs[f][0])) for f in FAMILIES}
        answers["version"] = np.array(importlib.import_module("torchvision").__version__)
        np.savez_compressed(args.write_golden, **answers)  # pyright: ignore[reportArgumentType]
    peer = importlib.util.find_spec("torchvision") is not None and not args.quick
    golden, ours = np.load(GOLDEN), jax.jit(box_iou)
    rows = {}
    for family, inputs in cases(10 if peer else 1).items():
        if peer:
            theirs = [torchvision_iou(a, b) for a, b in inputs]
        else:
            theirs = list(golden[family]) if family == "random" else [golden[family]]
            inputs = inputs if family == "random" else [tuple(x[:RECORDED] for x in inputs[0])]
        found, exact = [np.asarray(ours(a, b)) for a, b in inputs], [exact_iou(a, b) for a, b in inputs]
        if family == "random":
            found, exact = [np.diag(x) for x in found], [np.diag(x) for x in exact]
            theirs = [np.diag(x) for x in theirs] if peer else theirs
        mine, other, true = (np.concatenate([x.ravel() for x in part]) for part in (found, theirs, exact))
        finite = np.isfinite(other)
        rows[family] = {
            "pairs": len(mine),
            "overlapping": int((true > 0).sum()),
            "not_finite_there": int((~finite).sum()),
            "finite_here": bool(np.isfinite(mine).all()),
            "from_torchvision": float(np.abs(mine - other)[finite].max()),
            "from_exact": float(np.abs(mine - true)[finite].max()),
            "torchvision_from_exact": float(np.abs(other - true)[finite].max()),
        }
    version = importlib.import_module("torchvision").__version__ if peer else str(golden["version"])
    return {"peer": f"torchvision {version}" + ("" if peer else ", as recorded"), "families": rows}


def conclude(record: dict[str, Any]) -> str:
    rows = record["families"]
    worst = max(rows, key=lambda f: rows[f]["from_torchvision"])
    largest, pairs = rows[worst]["from_torchvision"], sum(r["pairs"] for f, r in rows.items() if f != "random")
    off = max(rows, key=lambda f: rows[f]["from_exact"])
    found = f"the largest difference is {largest:.1e} ({worst})" if largest else "no value differs in a single bit"
    return (
        f"Against {record['peer']}, on 1,000 random and {pairs:,} adversarial pairs, {found}: "
        f"{'under' if largest < LIMIT else 'not under'} 1e-6. Both are up to {rows[off]['from_exact']:.1e} away from "
        f"the exact IoU of the same corners ({off})."
    )


def page(record: dict[str, Any]) -> str:
    header = ("family", "pairs", "that overlap", "not finite there", "from torchvision", "from exact", "it from exact")
    rows = [
        [f, f"{r['pairs']:,}", f"{r['overlapping']:,}", r["not_finite_there"]]
        + [f"{r[k]:.1e}" for k in ("from_torchvision", "from_exact", "torchvision_from_exact")]
        for f, r in record["families"].items()
    ]
    return f"""{table(header, rows)}

Largest absolute differences; the corners are float32 in all three. Both programs take the same differences, products
and sums in the same order, so what rounds in one rounds in the other: their agreement says little about truth, the last
two columns do. Each step rounds by up to 6e-8 of its value, and nothing cancels, since the union is never smaller than
either area: wherever the boxes lie and however large they are, the IoU *of the corners given* is right to a few 1e-7.
The corners themselves are the weaker point: at a million pixels from the origin float32 knows them to 1/16 of a pixel,
before any arithmetic begins. Where both boxes are empty torchvision divides 0 by 0; here the IoU is 0. Not covered,
because torchvision is not finite there or means something else: inverted boxes and areas beyond 3e38 (sides beyond
1e19). Not covered either: areas under 1e-36, where this library takes the union for 0."""


def draw(record: dict[str, Any]) -> Any:
    rows = record["families"]
    made, (axes,) = figure(8, 3.4)
    place = np.arange(len(rows))
    for shift, key in enumerate(("from_torchvision", "from_exact", "torchvision_from_exact")):
        values = [max(r[key], 1e-9) for r in rows.values()]
        axes.bar(place + 0.27 * (shift - 1), values, 0.25, label=key.replace("_", " "), bottom=1e-10)
    axes.axhline(LIMIT, color="black", linewidth=1, linestyle="--")
    axes.set(yscale="log", ylim=(1e-9, 1e-5), ylabel="largest difference", title="IoU, by family of boxes")
    axes.set_xticks(place, list(rows))
    axes.legend(fontsize=8)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write-golden", type=Path, metavar="FILE", help="record torchvision's answers")


main = partial(run_study, sys.modules[__name__], add=add)
