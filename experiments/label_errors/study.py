"""Does the loss of a single image, or of a single object, find wrong labels?

Question: of the labels of 100 training images one in ten is spoilt (moved, missing, wrong class, or invented, equally
often), and the detector is trained on them. Ranked by what `yolojax.training.per_example` computes, how many of the
first k suspects are indeed wrong?

Method: *shapes* of 96 x 96 pixels, the lesson's detector with CIoU, as in `ciou_vs_mse`; five seeds, each with its own
spoilt labels, given to `fit` as arrays, and its own training run; at a third of the epochs and at the end (20 and 60),
since a network might learn the wrong labels by heart. The scores come from the library's functions of single images and
objects, called directly, since no training computes them. Objects are ranked by `per_object_loss`; a missing label has
no row, so the k of an object's ranking is the number of spoilt labels that are there. Images are ranked by
`per_example_loss` and by `per_example_gradient_norm`, of all parameters and of the head alone; k is the number of
images with a spoilt label. Chance is the share of what is spoilt.

Command:   python -m experiments.label_errors
Expected:  10 minutes on two cores.
Quick:     python -m experiments.label_errors --quick    (runs of four steps: the machinery only)
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.label_errors.spoilt_labels import KINDS, spoil
from experiments.shared.record import Runs, figure, interval, run_study, table
from experiments.shared.small_runs import CLASSES, hyper_of, images, lesson_detector, scale_of, train
from yolojax.data import Dataset
from yolojax.detector import prepare_images
from yolojax.training.per_example import per_example_gradient_norm, per_example_loss, per_object_loss

RANKINGS = {
    "object": "objects by `per_object_loss`",
    "loss": "images by `per_example_loss`",
    "gradient": "images by `per_example_gradient_norm`",
    "head": "images by the same of the head alone",
}
Record = dict[str, Any]


def precision_at(scores: np.ndarray, wrong: np.ndarray, k: int) -> float:
    return float(wrong[np.argsort(-scores, kind="stable")[:k]].mean())


def measure(args: argparse.Namespace) -> Record:
    scale = scale_of(args)
    learn, detector = images(scale.train, scale.side), lesson_detector(scale)
    hyper = hyper_of(detector)

    @jax.jit
    def score(variables: Any, pixels: Any, targets: Any) -> dict[str, Any]:
        of = (detector, variables, pixels, targets, hyper)
        outputs = detector.forward(variables, prepare_images(pixels, detector.spec.preprocess))
        return {
            "object": per_object_loss(detector, outputs, targets, hyper),
            "loss": per_example_loss(*of),
            "gradient": per_example_gradient_norm(*of),
            "head": per_example_gradient_norm(*of, parts=("head",)),
        }

    def compute(epochs: int, seed: int) -> Record:
        spoilt, kinds, missing = spoil(learn.targets, len(CLASSES), scale.side, seed)
        boxes, classes = ([rows[valid] for rows, valid in zip(a, spoilt.valid, strict=True)] for a in spoilt[:2])
        data = Dataset.from_arrays(learn.images, boxes, classes, CLASSES)
        variables = train(detector, data, scale, seed, epochs=epochs)
        found = jax.device_get(score(variables, jnp.asarray(learn.images), jax.tree.map(jnp.asarray, spoilt)))
        rows, wrong = found["object"][spoilt.valid], kinds[spoilt.valid]
        order = np.argsort(-rows, kind="stable")
        suspicious = (kinds >= 0).any(axis=1) | (missing > 0)
        k, of_images = int((wrong >= 0).sum()), int(suspicious.sum())
        there = {n: i for i, n in enumerate(KINDS) if n != "missing"}
        at_k = {"object": precision_at(rows, wrong >= 0, k)}
        return {
            "chance": {"object": k / len(rows), "image": of_images / len(suspicious)},
            "at_10": precision_at(rows, wrong >= 0, 10),
            "at_k": at_k | {n: precision_at(found[n], suspicious, of_images) for n in RANKINGS if n != "object"},
            "recall": {n: float((wrong[order][:k] == i).sum() / (wrong == i).sum()) for n, i in there.items()},
            "curve": (np.cumsum(wrong[order] >= 0) / np.arange(1, len(rows) + 1))[:100].round(4).tolist(),
        }

    runs = Runs(args, "label_errors", scale.facts())
    lengths = (scale.epochs,) if args.quick else (scale.epochs // 3, scale.epochs)
    seeds = 1 if args.quick else scale.seeds
    settings = [{"epochs": epochs, "seed": seed} for epochs in lengths for seed in range(seeds)]
    for one in settings:
        runs(one, partial(compute, **one))
    return {"scale": scale.facts(), "runs": runs.all}


def of(record: Record, epochs: int) -> list[Record]:
    return [r for r in record["runs"] if r["epochs"] == epochs]


def all_epochs(record: Record) -> list[int]:
    return sorted({r["epochs"] for r in record["runs"]})


def conclude(record: Record) -> str:
    best = max(all_epochs(record), key=lambda e: np.mean([r["at_k"]["object"] for r in of(record, e)]))
    runs = of(record, best)
    at = {name: interval(r["at_k"][name] for r in runs) for name in RANKINGS}
    chance = {key: np.mean([r["chance"][key] for r in runs]) for key in ("object", "image")}
    return (
        f"After {best} epochs, the better of {', '.join(map(str, all_epochs(record)))}, {at['object']} of the first k "
        f"objects by `per_object_loss` are wrong labels (chance {chance['object']:.2f}), and of the first 10 "
        f"{interval(r['at_10'] for r in runs)}; "
        f"of the first k images {at['loss']} by loss, {at['gradient']} by gradient norm (chance {chance['image']:.2f})."
    )


def page(record: Record) -> str:
    rows = []
    for epochs in all_epochs(record):
        runs = of(record, epochs)
        for name, title in RANKINGS.items():
            chance = np.mean([r["chance"]["object" if name == "object" else "image"] for r in runs])
            rows.append([epochs, title, interval(r["at_k"][name] for r in runs), f"{chance:.3f}"])
    recall = [
        [e, *(interval(r["recall"][n] for r in of(record, e)) for n in KINDS if n != "missing")]
        for e in all_epochs(record)
    ]
    return (
        f"{record['scale']['train']} images, {record['scale']['seeds']} seeds, precision among the first k, k being "
        "the "
        "number of wrong ones:\n\n"
        + table(["epochs", "ranking", "precision at k", "chance"], rows)
        + "\n\nShare of each kind among the first k objects:\n\n"
        + table(["epochs", "moved", "wrong class", "invented"], recall)
    )


def draw(record: Record) -> Any:
    made, (axes,) = figure(6, 3.4)
    for epochs in all_epochs(record):
        curves = [r["curve"] for r in of(record, epochs)]
        length = min(map(len, curves))
        axes.plot(range(1, length + 1), np.mean([c[:length] for c in curves], axis=0), label=f"{epochs} epochs")
    axes.axhline(np.mean([r["chance"]["object"] for r in record["runs"]]), color="grey", linestyle="--", label="chance")
    axes.set(title="objects by per_object_loss", xlabel="k", ylabel="share of wrong labels", ylim=(0, 1.03))
    axes.grid(alpha=0.3)
    axes.legend()
    return made


main = partial(run_study, sys.modules[__name__])
