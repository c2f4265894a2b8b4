"""Trained small detectors that several studies share: trained once, kept in ``runs/members``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.shared.small_runs import QUICK, Scale, images, lesson_detector, train_trials
from yolojax.detector import Variables
from yolojax.training.sweep import Trial
from yolojax.weights.released import load_weights, save_released

KEPT = Path("runs/members")
PLAIN = Scale(train=400, epochs=20)
CROWDED = replace(PLAIN, epochs=40, objects=24, visible=0.4)
"""Up to 24 figures, of each of which .4 stay visible: one object in seven overlaps another of its class by .3."""

_members: dict[tuple[Scale, int], Variables] = {}


def members(scale: Scale, seeds: Sequence[int]) -> list[Variables]:
    """The lesson's detector trained on the images of ``scale``: the averaged variables of the runs of these seeds.

    Those that are neither in memory nor in ``runs/members`` are trained together, by one program.
    """
    name = hashlib.sha256(repr(scale).encode()).hexdigest()[:12]
    folders = {seed: KEPT / f"{name}-{seed}" for seed in seeds}
    for seed, folder in folders.items():
        if (scale, seed) not in _members and (folder / "weights.safetensors").is_file():
            _members[scale, seed] = load_weights(folder / "weights.safetensors")
    missing = [seed for seed in folders if (scale, seed) not in _members]
    learn = images(scale.train, scale.side, "train", scale.objects, scale.visible).dataset
    trained = train_trials(lesson_detector(scale), learn, scale, [Trial(seed) for seed in missing])
    for seed, variables in zip(missing, trained, strict=True):
        _members[scale, seed] = variables
        if replace(scale, objects=QUICK.objects, visible=QUICK.visible) != QUICK:
            save_released(folders[seed], variables, {"study": repr(scale), "seed": seed})
    return [_members[scale, seed] for seed in seeds]
