"""Scenes for losses of heads that predict distances as distributions, and the loss of one head in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from yolojax.coding import cell_centres
from yolojax.structures import Level, Targets

LEVELS = (Level(8, 8, 8), Level(4, 4, 16))
B, M, C, BINS = 3, 5, 4, 8
POINTS, STRIDES = (np.asarray(a, np.float64) for a in cell_centres(LEVELS))


def scene(seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (B, M, 2))
    boxes = np.concatenate([low, low + rng.uniform(6, 30, (B, M, 2))], -1).astype(np.float32)
    valid = np.arange(M)[None] < np.array([[5], [3], [0]])
    crowd = np.zeros((B, M), bool)
    crowd[0, 2] = True
    boxes[0, 2] = [0, 0, 50, 50]
    targets = Targets(boxes, rng.integers(0, C, (B, M)).astype(np.int32), valid, crowd, np.zeros(B, np.int32))
    maps = tuple(
        tuple(jnp.asarray(rng.normal(0, 1.5, (B, v.h, v.w, d)), jnp.float32) for v in LEVELS) for d in (4 * BINS, C)
    )
    return maps, targets


def ciou_loss(p, g, alphas, key):
    """``alphas`` keeps the trade-off of the first call: a constant to the gradient (arXiv 1911.08287)."""
    w, h = min(p[2], g[2]) - max(p[0], g[0]), min(p[3], g[3]) - max(p[1], g[1])
    inter = max(w, 0) * max(h, 0)
    size = lambda b: (b[2] - b[0], b[3] - b[1])  # noqa: E731
    (pw, ph), (gw, gh) = size(p), size(g)
    iou = inter / (pw * ph + gw * gh - inter)
    hull = (max(p[2], g[2]) - min(p[0], g[0])) ** 2 + (max(p[3], g[3]) - min(p[1], g[1])) ** 2
    rho = ((p[0] + p[2] - g[0] - g[2]) ** 2 + (p[1] + p[3] - g[1] - g[3]) ** 2) / 4
    v = 4 / np.pi**2 * (np.arctan(gw / gh) - np.arctan(pw / ph)) ** 2
    return 1 - iou + rho / hull + alphas.setdefault(key, v / (1 - iou + v)) * v


def oracle(maps, targets, assigned, alphas=None):
    """Per-image sums, normalisers and ignored negatives of the definition, given who owns which point."""
    logits = [np.concatenate([np.asarray(m, np.float64).reshape(B, -1, m.shape[-1]) for m in kind], 1) for kind in maps]
    assigned, alphas = jax.tree.map(np.asarray, assigned), {} if alphas is None else alphas
    sums, normaliser, ignored = {k: np.zeros(B) for k in ("box", "cls", "dfl")}, np.zeros(B), np.zeros(B)
    for b in range(B):
        for i, (point, stride) in enumerate(zip(POINTS, STRIDES, strict=True)):
            sides = logits[0][b, i].reshape(4, BINS)
            p = np.exp(sides) / np.exp(sides).sum(-1, keepdims=True)
            far = (p * np.arange(BINS)).sum(-1) * stride
            box = np.concatenate([point - far[:2], point + far[2:]])
            wanted = np.zeros(C)
            if assigned.positive[b, i]:
                m, weight = int(assigned.objects[b, i]), float(assigned.scores[b, i])
                wanted[targets.classes[b, m]] = weight
                normaliser[b] += weight
                truth = targets.boxes[b, m].astype(np.float64)
                sums["box"][b] += 7.5 * weight * ciou_loss(box, truth, alphas, (b, i))
                y = np.concatenate([point - truth[:2], truth[2:] - point]) / stride
                for side in range(4):
                    t = min(max(y[side], 0), BINS - 1)
                    low = min(int(t), BINS - 2)
                    dfl = -((low + 1 - t) * np.log(p[side, low]) + (t - low) * np.log(p[side, low + 1]))
                    sums["dfl"][b] += 1.5 * weight * dfl / 4
            elif any(
                share(box, targets.boxes[b, m]) >= 0.5 for m in np.flatnonzero(targets.crowd[b] & targets.valid[b])
            ):
                ignored[b] += 1
                continue
            x = logits[1][b, i]
            sums["cls"][b] += 0.5 * (np.maximum(x, 0) - x * wanted + np.log1p(np.exp(-np.abs(x)))).sum()
    return sums, normaliser, ignored


def share(box, crowd):
    w, h = min(box[2], crowd[2]) - max(box[0], crowd[0]), min(box[3], crowd[3]) - max(box[1], crowd[1])
    return max(w, 0) * max(h, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0.0) * max(h, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union > 0 else 0.0
