"""Writes boxes_torchvision.npz: the IoU family of torchvision on seeded boxes, and the gradients of PyTorch.

Run with an environment that holds torch and torchvision: ``python tests/goldens/make_boxes_golden.py``. Areas and
overlaps are computed from float32 boxes in float32, as torchvision does; gradients in float64.
"""

import pathlib

import numpy as np
import torch
import torchvision
from torchvision import ops

METRICS = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")


def random_boxes(rng: np.random.Generator, n: int, low: float, high: float) -> np.ndarray:
    corners = np.sort(rng.uniform(low, high, (n, 2, 2)), axis=1)
    return corners.reshape(n, 4).astype(np.float32)


def layouts(rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    a = random_boxes(rng, 40, 0.0, 640.0)
    touching = a.copy()
    touching[:, [0, 2]] += (a[:, 2] - a[:, 0])[:, None]  # shares the right edge
    inside = np.concatenate([a[:, :2] * 0.75 + a[:, 2:] * 0.25, a[:, :2] * 0.5 + a[:, 2:] * 0.5], axis=1)
    return {
        "random": (a, random_boxes(rng, 25, 0.0, 640.0)),
        "touching": (a, touching),
        "nested": (a, inside),
        "identical": (a, a),
        "negative": (random_boxes(rng, 20, -1000.0, 10.0), random_boxes(rng, 30, -500.0, 500.0)),
        "large": (random_boxes(rng, 20, -1e9, 1e9), random_boxes(rng, 20, -1e9, 1e9)),
        "left_empty": (a[:0], a[:3]),
        "right_empty": (a[:3], a[:0]),
    }


def main() -> None:
    rng = np.random.default_rng(0)
    out: dict[str, np.ndarray] = {"versions": np.array([torch.__version__, torchvision.__version__])}
    for name, (a, b) in layouts(rng).items():
        out[f"{name}/a"], out[f"{name}/b"] = a, b
        for metric in METRICS:
            out[f"{name}/{metric}"] = getattr(ops, metric)(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    a, b = random_boxes(rng, 12, 0.0, 100.0), random_boxes(rng, 9, 0.0, 100.0)
    weights = rng.normal(size=(12, 9)).astype(np.float32)
    out |= {"gradient/a": a, "gradient/b": b, "gradient/weights": weights}
    for metric in METRICS:
        ta, tb = (torch.from_numpy(x).double().requires_grad_() for x in (a, b))
        (getattr(ops, metric)(ta, tb) * torch.from_numpy(weights)).sum().backward()
        out[f"gradient/{metric}/a"], out[f"gradient/{metric}/b"] = ta.grad.numpy(), tb.grad.numpy()
    np.savez_compressed(pathlib.Path(__file__).with_name("boxes_torchvision.npz"), **out)


if __name__ == "__main__":
    main()
