"""Trained small detectors that several studies share: trained once, kept in ``runs/members``."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from experiments.shared.small_runs import CIOU, QUICK, Scale, images, lesson_trainer
from yolojax.detector import Variables
from yolojax.weights.released import load_weights, save_released

KEPT = Path("runs/members")
PLAIN = Scale(train=400, epochs=20)
CROWDED = replace(PLAIN, epochs=40, objects=24, visible=0.4)
"""Up to 24 figures, of each of which .4 stay visible: one object in seven overlaps another of its class by .3."""


def member(scale: Scale, seed: int) -> Variables:
    """The lesson's detector trained on the images of ``scale``: the averaged variables of the run of this seed."""
    name = hashlib.sha256(repr(scale).encode()).hexdigest()[:12]
    folder = KEPT / f"{name}-{seed}"
    if (folder / "weights.safetensors").is_file():
        return load_weights(folder / "weights.safetensors")
    learn = images(scale.train, scale.side, "train", scale.objects, scale.visible)
    variables = lesson_trainer(scale).train(seed, learn, choice=CIOU)
    if replace(scale, objects=QUICK.objects, visible=QUICK.visible) != QUICK:
        save_released(folder, variables, {"study": repr(scale), "seed": seed})
    return variables
