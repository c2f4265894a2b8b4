"""Writes nms_torchvision.npz: the indices that torchvision keeps, on seeded boxes.

Run with an environment that holds torch and torchvision: ``python tests/goldens/make_nms_golden.py``. The tests make
the inputs again from the same seeds, so only the outcome is stored. torchvision runs in float64: in float32 it compares
a rounded IoU with a double threshold, which suppresses pairs that lie exactly at .3, .4, .6 or .8.
"""

import pathlib

import numpy as np

SIZES = (0, 1, 10, 1000, 8400)
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SEEDS = 10


def case(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clusters of jittered boxes, some at negative coordinates; about a tenth of the scores tie with another.

    Odd seeds have integer coordinates: thousands of pairs then lie exactly at a threshold.
    """
    rng = np.random.default_rng((n, seed))
    objects = max(1, n // 15)
    centres, sizes = rng.uniform(-100, 600, (objects, 2)), rng.uniform(15, 150, (objects, 2))
    of = rng.integers(0, objects, n)
    centre = centres[of] + rng.normal(size=(n, 2)) * sizes[of] * 0.1
    size = sizes[of] * np.exp(rng.normal(size=(n, 2)) * 0.15)
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    scores = rng.random(n).astype(np.float32)
    tied = rng.integers(0, max(n, 1), n // 10)
    scores[tied] = scores[rng.integers(0, max(n, 1), n // 10)]
    return np.round(boxes) if seed % 2 else boxes, scores, rng.integers(0, 3, n).astype(np.int32)


def thresholds(n: int, seed: int) -> tuple[float, ...]:
    return THRESHOLDS if n <= 1000 else (THRESHOLDS[seed % len(THRESHOLDS)],)


def main() -> None:
    import torch
    import torchvision

    def kept(boxes: np.ndarray, rows: np.ndarray, threshold: float) -> np.ndarray:
        # The rows come sorted, because torchvision's own sort is not stable on equal scores.
        falling = torch.arange(len(rows), 0, -1).double()
        sorted_boxes = torch.from_numpy(boxes[rows]).double().reshape(-1, 4)
        return rows[torchvision.ops.nms(sorted_boxes, falling, threshold).numpy()]

    out: dict[str, np.ndarray] = {"versions": np.array([torch.__version__, torchvision.__version__])}
    for n in SIZES:
        for seed in range(SEEDS):
            boxes, scores, classes = case(n, seed)
            order = np.argsort(-scores, kind="stable")
            rank = np.argsort(order)
            for threshold in thresholds(n, seed):
                key = f"{n}/{seed}/{threshold}"
                out[f"{key}/nms"] = kept(boxes, order, threshold).astype(np.int16)
                per_class = np.concatenate([kept(boxes, order[classes[order] == c], threshold) for c in range(3)])
                out[f"{key}/batched_nms"] = per_class[np.argsort(rank[per_class])].astype(np.int16)
    np.savez_compressed(pathlib.Path(__file__).with_name("nms_torchvision.npz"), **out)


if __name__ == "__main__":
    main()
