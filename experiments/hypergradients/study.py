"""Does the gradient of the validation loss with respect to the loss weights, through training itself, point uphill?

Question: the four weights of the loss are set by hand or swept. A training run is a differentiable function of them:
can `jax.grad` through the steps of optax say which way each should move, is that gradient right, and does following it
help the AP?

Method: the steps are written out with the detector's own functions `forward_train` and `loss` and not run by `fit`,
because the study differentiates through them. Four unrolled steps of SGD with momentum on one batch of 16 images of 32
x 32 pixels, batch statistics as in training. The validation loss is that of 16 other images at the weights of YOLOv1,
whatever the run was trained with, so that no weight can win by shrinking the loss that it multiplies. The gradient is
of the logarithms of the four weights, and is checked by central differences (step .005) on two detectors below 32
channels (above, a processor's convolution has no second derivative): *usual* is the lesson's, whose leaky ReLU and
max-pooling have kinks, whose CIoU holds its alpha constant and which ignores negatives by a threshold; *smooth* has
SiLU, no pooling, squared error, and ignores nothing. On the smooth one ten steps of descent on the log weights follow,
from the defaults, and the validation loss before and after is compared; five seeds. What this cannot show is what a
weight does over a whole run: few steps are a myopic horizon (Wu et al., arXiv 1803.02021).

Command:   python -m experiments.hypergradients
Expected:  10 minutes on two cores, most of it compilation.
Quick:     python -m experiments.hypergradients --quick    (two steps, two seeds)
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hypergradients.unrolled_training import KINDS, WEIGHTS, make_outer
from experiments.shared.record import figure, interval, paired, run_study, table
from experiments.shared.small_runs import QUICK, images, take
from yolojax.structures import Hyper

SMALL = dataclasses.replace(QUICK, train=64, widths=(8, 12, 16, 24, 24), neck_width=16, seeds=5)
DIFFERENCE = 0.005
Record = dict[str, Any]


def measure(args: argparse.Namespace) -> Record:
    scale = dataclasses.replace(QUICK, train=16) if args.quick else SMALL
    steps, descents, rate = (1, 1, 0.3) if args.quick else (4, 10, 0.3)
    input_images = images(scale.train, scale.side)
    pixels, targets = jnp.asarray(input_images.images), jax.tree.map(jnp.asarray, input_images.targets)
    runs = []
    for kind in KINDS[1:] if args.quick else KINDS:
        detector, outer, start = make_outer(kind, scale, steps)
        value_and_grad, value = jax.jit(jax.value_and_grad(outer)), jax.jit(outer)
        for seed in range(scale.seeds):
            order = np.random.default_rng(seed).permutation(scale.train)
            half = min(16, scale.train // 2)
            learn, test = (take(pixels, targets, jnp.asarray(part)) for part in (order[:half], order[half : 2 * half]))
            of = (detector.init(jax.random.key(seed)), learn, test)
            first, gradient = value_and_grad(start, *of)
            differences = []
            for i in range(len(WEIGHTS)):
                up, down = (value(start.at[i].add(sign * DIFFERENCE), *of) for sign in (1, -1))
                differences.append(float(up - down) / (2 * DIFFERENCE))
            run = {"kind": kind, "seed": seed, "gradient": gradient.tolist(), "differences": differences}
            if kind == "smooth":
                log_weights = start
                for _ in range(descents):
                    log_weights = log_weights - rate * value_and_grad(log_weights, *of)[1]
                run |= {"before": float(first), "after": float(value(log_weights, *of))}
                run["weights"] = np.exp(log_weights).tolist()
            runs.append(run)
            print(run, flush=True)
    return {"scale": {"seeds": scale.seeds, "side": scale.side, "steps": steps, "descents": descents}, "runs": runs}


def of_kind(record: Record, kind: str) -> list[Record]:
    return [r for r in record["runs"] if r["kind"] == kind]


def error(runs: list[Record]) -> float:
    """The largest error of a gradient against differences, relative to the largest component of that run."""
    apart = [np.abs(np.subtract(r["gradient"], r["differences"])).max() / np.abs(r["differences"]).max() for r in runs]
    return float(max(apart))


def conclude(record: Record) -> str:
    smooth, usual = of_kind(record, "smooth"), of_kind(record, "usual")
    change = paired([r["after"] for r in smooth], [r["before"] for r in smooth])
    spans = {name: interval([r["gradient"][i] for r in smooth]) for i, name in enumerate(WEIGHTS)}
    signs = [f"{name} {'down' if s.low > 0 else 'up'}" for name, s in spans.items() if not s.low <= 0 <= s.high]
    wrong = f" (on the usual detector it is off by up to {error(usual):.0%})" if usual else ""
    return (
        f"On the smooth detector the gradient through {record['scale']['steps']} steps agrees with central differences "
        f"to {error(smooth):.1%} of its largest component{wrong}. Following it {record['scale']['descents']} times "
        f"changes the validation loss by {change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f}, {change.n} "
        "seeds). "
        f"Where all seeds agree it says: {', '.join(signs) or 'nothing'}."
    )


def page(record: Record) -> str:
    rows = []
    for kind in dict.fromkeys(r["kind"] for r in record["runs"]):
        runs = of_kind(record, kind)
        for i, name in enumerate(WEIGHTS):
            spans = [interval([r[key][i] for r in runs]) for key in ("gradient", "differences")]
            found = interval([r["weights"][i] for r in runs]) if kind == "smooth" else ""
            rows.append([kind, name, f"{getattr(Hyper(), name):g}", *spans, found])
    losses = [[r["seed"], f"{r['before']:.3f}", f"{r['after']:.3f}"] for r in of_kind(record, "smooth")]
    return (
        table(["detector", "weight", "default", "gradient of its log", "central difference", "after descent"], rows)
        + "\n\nWhat may account for the usual detector's gradient, not separated here: a training step is a gradient "
        "itself. That of a leaky ReLU jumps where its input changes sign, that of a pooled or ignored value jumps too, "
        "and CIoU's alpha moves though it is declared constant; the derivative of a step sees none of it, the "
        "difference of two trainings sees all.\n\nValidation loss, at the default weights:\n\n"
        + table(["seed", "trained with the defaults", "with the weights found"], losses)
    )


def draw(record: Record) -> Any:
    kinds = list(dict.fromkeys(r["kind"] for r in record["runs"]))
    made, panels = figure(4.2 * len(kinds), 3.6, len(kinds))
    for axes, kind in zip(panels, kinds, strict=True):
        runs = of_kind(record, kind)
        for i, name in enumerate(WEIGHTS):
            pairs = [(r["differences"][i], r["gradient"][i]) for r in runs]
            axes.plot(*zip(*pairs, strict=True), "o", label=name, alpha=0.8)
        reach = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
        axes.plot(reach, reach, color="grey", linewidth=0.8)
        axes.set(xlabel="central difference", ylabel="gradient", title=f"{kind}: d validation loss / d log weight")
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    return made


main = partial(run_study, sys.modules[__name__])
