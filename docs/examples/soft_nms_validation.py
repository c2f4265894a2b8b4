"""Soft-NMS in place of greedy suppression when a detector is measured, and a suppression of your own.

Run: python docs/examples/soft_nms_validation.py
Trains briefly on crowded images, then prints the AP of the same weights with four kinds of suppression.
"""

from functools import partial

import jax.numpy as jnp

import yolojax
from yolojax import zoo
from yolojax.boxes import box_iou
from yolojax.config import OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.nms import Kept, named_suppression, soft_nms_gaussian

SIZE, OPTIONS = (96, 96), {"widths": (0, 16, 32, 64), "depths": (0, 1, 1, 1), "head_width": 32, "merge": True}


def keep_local_maxima(boxes, scores, classes, max_detections, *, valid=None, iou=0.6):
    """Keeps a box unless a box of the same class with a higher score overlaps it, itself suppressed or not."""
    valid = jnp.ones(scores.shape, bool) if valid is None else valid
    scores = jnp.where(valid, scores, -jnp.inf)
    same = True if classes is None else classes[:, None] == classes[None, :]
    beaten = same & (box_iou(boxes, boxes) > iou) & (scores[None, :] > scores[:, None])
    keep = valid & ~beaten.any(axis=1)
    order = jnp.argsort(jnp.where(keep, -scores, jnp.inf))[:max_detections]
    order = jnp.pad(order, (0, max_detections - len(order)))  # there may be fewer candidates than rows
    real = jnp.arange(max_detections) < keep.sum()
    return Kept(jnp.where(real, order, 0).astype(jnp.int32), real)


def main(out="runs/soft_nms", images=256, epochs=20):
    crowded = {"size": SIZE, "objects": 10, "visible": 0.5}
    train, val = shapes_dataset(images, **crowded), shapes_dataset(48, split="val", **crowded)
    detector = zoo.build("compact", train.class_names, SIZE, **OPTIONS)
    # `--suppress soft-gaussian` and this setting choose a kind by name for the measurements within a run.
    config = TrainConfig(
        epochs=epochs,
        optimiser=OptimiserConfig(learning_rate=4e-3, ema_decay=0.95),
        validation=ValidationConfig(suppress="soft-gaussian", suppress_parameter=0.3, samples=0),
    )
    run = yolojax.fit(config, out, data=(train, val), detector=detector)
    print(f"{'in fit':12} AP {run.result.AP:.4f}")
    kinds = {
        "nms": None,
        "soft-nms": partial(soft_nms_gaussian, sigma=0.3),
        "diou": named_suppression("diou", 0.6),
        "own": keep_local_maxima,
    }
    found = {name: yolojax.evaluate((detector, run.variables), val, suppress=how) for name, how in kinds.items()}
    for name, evaluation in found.items():
        print(f"{name:12} AP {evaluation.result.AP:.4f}, {len(evaluation.detections)} detections")
    return run, found


if __name__ == "__main__":
    main()
