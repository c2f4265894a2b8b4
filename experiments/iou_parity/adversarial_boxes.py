"""Pairs of boxes on which a float32 IoU might go wrong, and the IoU in float64. Used by `experiments.iou_parity`."""

import numpy as np

BLOCK = 100
FAMILIES = ["equal", "ulp", "nested", "touching", "sliver", "whole", "negative", "far", "small", "large", "empty"]


def random_boxes(rng: np.random.Generator, n: int, low: float, high: float) -> np.ndarray:
    """Ordered float32 xyxy boxes, corners uniform."""
    return np.sort(rng.uniform(low, high, (n, 2, 2)), axis=1).reshape(n, 4).astype(np.float32)


def adversarial(family: str, block: int) -> tuple[np.ndarray, np.ndarray]:
    """One block of a family: ``[100, 4]`` and ``[100, 4]`` ordered boxes, most of which overlap."""
    rng = np.random.default_rng([FAMILIES.index(family), block])
    core = np.array([200, 200, 400, 400]) + rng.uniform(-150, 150, (2 * BLOCK, 4))
    boxes = core.astype(np.float32)
    a, b = boxes[:BLOCK], boxes[BLOCK:]
    if family == "equal":
        b = a[rng.permutation(BLOCK)]
    elif family == "ulp":
        b = np.nextafter(a, np.where(rng.random((BLOCK, 4)) < 0.5, -np.inf, np.inf).astype(np.float32))
    elif family == "nested":
        share = rng.uniform(1e-4, 0.5, (BLOCK, 1)).astype(np.float32)
        b = np.concatenate([a[:, :2] * (1 - share) + a[:, 2:] * share, a[:, 2:]], axis=1)
    elif family == "touching":
        b = a + np.concatenate([a[:, 2:] - a[:, :2]] * 2, axis=1) * np.array([1, 0, 1, 0], np.float32)
    elif family == "sliver":
        boxes[:, 2] = boxes[:, 0] + np.float32(1e-3) * rng.uniform(1, 9, 2 * BLOCK).astype(np.float32)
        boxes[:, [0, 2]] += np.float32(200) - boxes[:, :1]
    elif family == "whole":
        a, b = np.round(a / 16), np.round(b / 16)
    elif family == "negative":
        a, b = a - 500, b - 500
    elif family == "far":
        a, b = a + np.float32(1e6), b + np.float32(1e6)
    elif family in ("small", "large"):
        a, b = (x * np.float32(5e-9 if family == "small" else 2.5e6) for x in (a, b))
    elif family == "empty":
        boxes[::2, 2] = boxes[::2, 0]
        boxes[::3, 3] = boxes[::3, 1]
    return a.astype(np.float32), b.astype(np.float32)


def exact_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The IoU matrix in float64; NaN where both boxes are empty."""
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / union
