"""Labels with known mistakes in them. Used by `experiments.label_errors`."""

import numpy as np

from yolojax.structures import Targets

KINDS = ("moved", "missing", "class", "extra")
SHARE = 0.1


def spoil(targets: Targets, classes: int, side: int, seed: int) -> tuple[Targets, np.ndarray, np.ndarray]:
    """Targets with a tenth of the labels spoilt, the kind of each row (-1: right), and the kinds an image lost."""
    rng = np.random.default_rng([seed, 17])
    boxes, labels, valid = (np.array(a) for a in (targets.boxes, targets.classes, targets.valid))
    kinds, missing = np.full(valid.shape, -1), np.zeros(len(valid), int)
    where = np.argwhere(valid)
    chosen = where[rng.permutation(len(where))[: max(4, round(SHARE * len(where)))]]
    for number, (image, row) in enumerate(chosen):
        kind = number % len(KINDS)
        size = boxes[image, row, 2:] - boxes[image, row, :2]
        if KINDS[kind] == "missing":
            valid[image, row] = False
            missing[image] += 1
            continue
        if KINDS[kind] == "moved":  # by .35 to .7 of its size: an IoU of .1 to .4 is left
            angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.7)
            boxes[image, row] += np.tile(size * far * [np.cos(angle), np.sin(angle)], 2).astype(np.float32)
        elif KINDS[kind] == "class":
            labels[image, row] = (labels[image, row] + rng.integers(1, classes)) % classes
        else:  # a box of this object's size somewhere, of any class, in the next free row
            row = int(np.flatnonzero(~valid[image])[-1])
            corner = rng.uniform(0, np.maximum(side - size, 1))
            boxes[image, row] = np.concatenate([corner, corner + size])
            labels[image, row], valid[image, row] = rng.integers(classes), True
        kinds[image, row] = kind
    return targets._replace(boxes=boxes, classes=labels, valid=valid), kinds, missing
