"""An ensemble of detectors that differ by their seed, and how far its members disagree about each box.

Run: python docs/examples/ensemble_spread.py
Prints a line for each detection of one image: how many members found it, and the spread of its four sides in pixels.
"""

from functools import partial

import jax
import numpy as np

from yolojax.config import ModelConfig, OptimiserConfig, TrainConfig
from yolojax.data import build_cache, shapes_dataset
from yolojax.inference.ensemble import box_uncertainty, detect_ensemble, stack_members
from yolojax.training.sweep import grid, sweep

SIZE, OPTIONS = (96, 96), {"widths": (0, 16, 32, 64), "depths": (0, 1, 1, 1), "head_width": 32, "merge": True}


def main(members=3, images=192, epochs=20):
    config = TrainConfig(
        model=ModelConfig(size=SIZE[0], options=OPTIONS),
        epochs=epochs,
        optimiser=OptimiserConfig(learning_rate=4e-3, ema_decay=0.95),
    )
    data = shapes_dataset(images, size=SIZE), shapes_dataset(16, size=SIZE, split="val")
    found = sweep(config, grid(seed=range(members)), data=data)  # one compiled program trains all members
    print("AP50 of the members:", " ".join(f"{result.AP50:.3f}" for result in found.results))

    cache = build_cache(data[1], SIZE, found.detector.spec.preprocess)
    detect = jax.jit(partial(detect_ensemble, found.detector, max_detections=20))
    fused = jax.device_get(detect(stack_members(found.variables), cache.images, 0.1, 0.45))
    uncertainty = np.asarray(box_uncertainty(fused))
    image = int(fused.detections.valid.sum(1).argmax())
    for row in np.flatnonzero(fused.detections.valid[image]):
        name = data[1].class_names[fused.detections.classes[image, row]]
        box, spread = fused.detections.boxes[image, row].round(1), fused.spread[image, row].round(1)
        print(
            f"{name:9} {fused.detections.scores[image, row]:.2f}, {fused.agree[image, row]} of {members} members, "
            f"box {box} +- {spread}, {uncertainty[image, row]:.0%} of its size"
        )
    return fused


if __name__ == "__main__":
    main()
