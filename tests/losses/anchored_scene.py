"""The scene on which losses of anchor-based detectors are tested, and the float64 arithmetic of their oracles."""

import jax.numpy as jnp
import numpy as np

from yolojax.structures import Level, Targets

LEVELS = (Level(4, 5, 8), Level(2, 3, 16))
ANCHORS = np.array([[[6, 6], [10, 14]], [[24, 20], [40, 44]]], np.float32)
B, M, C = 3, 5, 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bce(x, y):
    return np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))


def sides(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return inter, area_a, area_b


def ciou(p, g, alphas, key):
    """The CIoU. ``alphas`` keeps the trade-off of the first call: a constant to the gradient (arXiv 1911.08287)."""
    inter, area_p, area_g = sides(p, g)
    iou = inter / (area_p + area_g - inter)
    hull = (max(p[2], g[2]) - min(p[0], g[0])) ** 2 + (max(p[3], g[3]) - min(p[1], g[1])) ** 2
    rho = ((p[0] + p[2] - g[0] - g[2]) ** 2 + (p[1] + p[3] - g[1] - g[3]) ** 2) / 4
    v = 4 / np.pi**2 * (np.arctan((g[2] - g[0]) / (g[3] - g[1])) - np.arctan((p[2] - p[0]) / (p[3] - p[1]))) ** 2
    return iou - rho / hull - alphas.setdefault(key, v / (1 - iou + v)) * v


def scene(seed=0):
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0, [40, 32], (B, M, 2)), rng.uniform(4, 30, (B, M, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1).astype(np.float32)
    boxes[0, 1] = boxes[0, 0]  # collides
    boxes[0, 3] = [0, 0, 20, 20]
    valid = np.arange(M)[None] < np.array([[5], [3], [0]])
    crowd = np.zeros((B, M), bool)
    crowd[0, 3] = True
    targets = Targets(boxes, rng.integers(0, C, (B, M)).astype(np.int32), valid, crowd, np.zeros(B, np.int32))
    maps = tuple(jnp.asarray(rng.normal(0, 1, (B, v.h, v.w, 2, 5 + C)), jnp.float32) for v in LEVELS)
    return maps, targets
