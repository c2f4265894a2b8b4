"""Small batches with objects whose pixels tell which object they are."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from yolojax.structures import Targets

BATCH, HEIGHT, WIDTH, OBJECTS = 4, 48, 64, 5


class Scene(NamedTuple):
    """Images and targets; the pixels of object ``m`` of image ``b`` have the colour ``colour(class)``."""

    images: jnp.ndarray
    targets: Targets


def colour(label: int) -> tuple[int, int, int]:
    """A colour of its own for every label, and none that is grey."""
    return 20 + 9 * label, 240, 10


def make_scene(seed: int = 0, *, objects: int = 3, crowd: bool = False) -> Scene:
    """A batch of rectangles that do not overlap: one object in each of the first cells of a 3 x 2 grid."""
    rng = np.random.default_rng(seed)
    images = np.full((BATCH, HEIGHT, WIDTH, 3), 60, np.uint8)
    boxes = np.full((BATCH, OBJECTS, 4), np.nan, np.float32)  # padding rows hold what no function may read
    classes = np.full((BATCH, OBJECTS), -7, np.int32)
    valid = np.zeros((BATCH, OBJECTS), bool)
    for b in range(BATCH):
        for m in range(objects):
            x1, y1 = 1 + 21 * (m % 3) + rng.integers(0, 6), 1 + 23 * (m // 3) + rng.integers(0, 8)
            x2, y2 = x1 + rng.integers(6, 15), y1 + rng.integers(6, 15)
            label = OBJECTS * b + m
            images[b, y1:y2, x1:x2] = colour(label)
            boxes[b, m], classes[b, m], valid[b, m] = (x1, y1, x2, y2), label, True
    targets = Targets(
        jnp.asarray(boxes),
        jnp.asarray(classes),
        jnp.asarray(valid),
        jnp.full((BATCH, OBJECTS), crowd),
        jnp.arange(BATCH, dtype=jnp.int32),
    )
    return Scene(jnp.asarray(images), targets)


def extent_of(image: np.ndarray, label: int) -> tuple[int, int, int, int] | None:
    """The box ``(x1, y1, x2, y2)`` around the pixels of an object's colour, None where there is none."""
    ys, xs = np.nonzero((np.abs(image.astype(int) - colour(label)) <= 2).all(-1))
    return None if not len(xs) else (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
