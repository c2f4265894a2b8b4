"""Does the gradient of the validation loss with respect to the loss weights, through training itself, point uphill?

Question: the four weights of the loss are set by hand or swept. A training run is a differentiable function of them:
can `jax.grad` through the steps of optax say which way each should move, is that gradient right, and does following it
help the AP?

Method: a network below 32 channels (so that every convolution has a second derivative on a processor), 32 x 32 pixels,
eight unrolled steps of SGD with momentum on one batch of 16 images, batch statistics as in training. The validation
loss is that of 16 other images at the weights of YOLOv1, whatever the run was trained with, so that no weight can cheat
by shrinking the loss it multiplies. The gradient is of the logarithms of the four weights. It is checked by
central differences in each of them (step .02); then ten steps of gradient descent on the log weights are taken from the
defaults, and the validation loss before and after is compared, five seeds. What this cannot show: what a weight does
over a whole run; eight steps are a myopic horizon (Wu et al., arXiv 1803.02021).

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
import optax

from experiments.record import figure, interval, paired, run_study, table
from experiments.small import QUICK, images, lesson_detector, take
from yolojax.detector import prepare_images
from yolojax.structures import Hyper

WEIGHTS = ("lambda_coord", "lambda_obj", "lambda_noobj", "lambda_cls")
SMALL = dataclasses.replace(QUICK, train=64, widths=(8, 12, 16, 24, 24), neck_width=16, seeds=5)
DIFFERENCE = 0.02
Record = dict[str, Any]


def make_outer(scale: Any, steps: int) -> Any:
    """``(log weights, variables, learn, test) -> validation loss`` after so many steps; pure, differentiable twice."""
    detector = lesson_detector(scale)
    optimiser = optax.sgd(0.02, momentum=0.9)
    start = jnp.log(jnp.array([getattr(Hyper(), name) for name in WEIGHTS]))

    def loss_of(params: Any, state: Any, batch: Any, hyper: Hyper) -> tuple[jax.Array, Any]:
        pixels = prepare_images(batch.images, detector.spec.preprocess)
        variables = {**state, "params": params}
        outputs, new = detector.forward_train(variables, pixels, batch.targets, jax.random.key(0))
        return detector.loss(outputs, batch.targets, hyper).reduce()[0], new

    def outer(log_weights: jax.Array, variables: Any, learn: Any, test: Any) -> jax.Array:
        hyper = Hyper()._replace(**dict(zip(WEIGHTS, jnp.exp(log_weights), strict=True)))
        params, state = variables["params"], variables
        momentum = optimiser.init(params)
        for _ in range(steps):
            gradient, state = jax.grad(loss_of, has_aux=True)(params, state, learn, hyper)
            updates, momentum = optimiser.update(gradient, momentum)
            params = optax.apply_updates(params, updates)
        return loss_of(params, state, test, Hyper())[0]

    return detector, outer, start


def measure(args: argparse.Namespace) -> Record:
    scale = dataclasses.replace(QUICK, train=16) if args.quick else SMALL
    steps, descents, rate = (2, 2, 0.3) if args.quick else (8, 10, 0.3)
    detector, outer, start = make_outer(scale, steps)
    value_and_grad, value = jax.jit(jax.value_and_grad(outer)), jax.jit(outer)
    canvases = images(scale.train, scale.side)
    pixels, targets = jnp.asarray(canvases.images), jax.tree.map(jnp.asarray, canvases.targets)
    runs = []
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
        log_weights = start
        for _ in range(descents):
            log_weights = log_weights - rate * value_and_grad(log_weights, *of)[1]
        last = value(log_weights, *of)
        runs.append(
            {
                "seed": seed,
                "gradient": np.asarray(gradient).tolist(),
                "differences": differences,
                "before": float(first),
                "after": float(last),
                "weights": np.exp(log_weights).tolist(),
            }
        )
        print(runs[-1], flush=True)
    return {"scale": {"seeds": scale.seeds, "side": scale.side, "steps": steps, "descents": descents}, "runs": runs}


def column(record: Record, key: str, i: int) -> list[float]:
    return [r[key][i] for r in record["runs"]]


def worst(record: Record) -> float:
    """The largest error of a gradient against differences, relative to the largest component of that run."""
    return max(
        float(np.abs(np.subtract(r["gradient"], r["differences"])).max() / np.abs(r["differences"]).max())
        for r in record["runs"]
    )


def conclude(record: Record) -> str:
    change = paired([r["after"] for r in record["runs"]], [r["before"] for r in record["runs"]])
    signs = []
    for i, name in enumerate(WEIGHTS):
        span = interval(column(record, "gradient", i))
        if not span.low <= 0 <= span.high:
            signs.append(f"{name} {'down' if span.low > 0 else 'up'}")
    return (
        f"The gradient through {record['scale']['steps']} steps agrees with central differences to "
        f"{worst(record):.1%} of its largest component. Following it {record['scale']['descents']} times changes the "
        "validation loss by "
        f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f}, {change.n} seeds); over the seeds it says: "
        f"{', '.join(signs) or 'nothing that holds for all of them'}."
    )


def page(record: Record) -> str:
    rows = []
    for i, name in enumerate(WEIGHTS):
        spans = [interval(column(record, key, i)) for key in ("gradient", "differences", "weights")]
        rows.append([name, f"{getattr(Hyper(), name):g}", *spans])
    losses = [[r["seed"], f"{r['before']:.3f}", f"{r['after']:.3f}"] for r in record["runs"]]
    return (
        table(["weight", "default", "gradient of log", "central difference", "after descent"], rows)
        + "\n\nValidation loss, at the default weights:\n\n"
        + table(["seed", "trained with the defaults", "with the weights found"], losses)
    )


def draw(record: Record) -> Any:
    made, (axes,) = figure(5, 3.6)
    for i, name in enumerate(WEIGHTS):
        axes.plot(column(record, "differences", i), column(record, "gradient", i), "o", label=name, alpha=0.8)
    reach = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
    axes.plot(reach, reach, color="grey", linewidth=0.8)
    axes.set(xlabel="central difference", ylabel="gradient", title="d validation loss / d log weight")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return made


main = partial(run_study, sys.modules[__name__])

if __name__ == "__main__":
    main()
