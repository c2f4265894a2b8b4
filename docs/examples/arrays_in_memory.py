"""Training on arrays in memory: images, boxes and classes in, a detector out; nothing is read from files.

Run: python docs/examples/arrays_in_memory.py
Prints the AP50 after a short training and writes arrays.png (labels) and found.png (detections) beside the run.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import yolojax
from yolojax.config import ModelConfig, OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import Dataset
from yolojax.draw import Objects, contact_sheet, draw_boxes

NAMES = ("dark", "light")
OPTIONS = {"widths": (0, 16, 32, 64), "depths": (0, 1, 1, 1), "head_width": 32, "merge": True}


def make_arrays(count, seed):
    """Grey noise with one to three dark or light rectangles; an array and two lists with an entry for each image."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 160, (count, 64, 64, 3)).astype(np.uint8)
    boxes, classes = [], []
    for image in images:
        corner, side = rng.integers(0, 40, (3, 2)), rng.integers(10, 24, (3, 2))
        number = rng.integers(1, 4)
        boxes.append(np.concatenate([corner, corner + side], axis=1)[:number])
        classes.append(rng.integers(0, 2, number))
        for (x1, y1, x2, y2), kind in zip(boxes[-1], classes[-1], strict=True):
            image[y1:y2, x1:x2] = 220 if NAMES[kind] == "light" else 30
    return images, boxes, classes


def main(out="runs/arrays", images=128, epochs=15):
    train = Dataset.from_arrays(*make_arrays(images, seed=0), NAMES)
    val = Dataset.from_arrays(*make_arrays(16, seed=1), NAMES)
    config = TrainConfig(
        model=ModelConfig(size=64, options=OPTIONS),
        epochs=epochs,
        optimiser=OptimiserConfig(learning_rate=4e-3, ema_decay=0.95),
        validation=ValidationConfig(samples=0),
    )
    run = yolojax.fit(config, out, data=(train, val))
    print(f"AP50 {run.result.AP50:.3f}")

    labelled = [draw_boxes(r.pixels(), Objects(r.boxes, r.classes), NAMES) for r in train.records[:8]]
    Image.fromarray(contact_sheet(labelled, columns=4)).save(Path(out) / "arrays.png")
    results = yolojax.load(out, batch_size=8)([r.pixels() for r in val.records[:8]])
    Image.fromarray(contact_sheet([result.plot() for result in results], columns=4)).save(Path(out) / "found.png")
    print(results[0])


if __name__ == "__main__":
    main()
