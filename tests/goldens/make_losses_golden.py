"""Golden losses and gradients from PyTorch and torchvision. Run: python tests/goldens/make_losses_golden.py

Written with torch 2.14.1 and torchvision 0.29.1 on a CPU, in float64, so that the file holds no rounding of its own.
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops as ops

rng = np.random.default_rng(20240607)
out = {}


def record(name, values, *inputs):
    """The values, and the gradient of their sum."""
    gradients = torch.autograd.grad(values.sum(), inputs)
    out[name] = values.detach().numpy()
    for i, g in enumerate(gradients):
        out[f"{name}_gradient{i}"] = g.numpy()


logits = rng.normal(0, 3, 60)
logits[:4] = [40, -40, 0, 80]
hard, soft = rng.integers(0, 2, 60).astype(float), rng.uniform(0, 1, 60)
out |= {"logits": logits, "hard": hard, "soft": soft}
x = torch.tensor(logits, requires_grad=True)
for kind, y in (("hard", hard), ("soft", soft)):
    y = torch.tensor(y)
    record(f"bce_{kind}", F.binary_cross_entropy_with_logits(x, y, reduction="none"), x)
    record(f"focal_{kind}", ops.sigmoid_focal_loss(x, y, alpha=0.25, gamma=2, reduction="none"), x)
record("smoothed", F.binary_cross_entropy_with_logits(x, torch.tensor(hard) * 0.9 + 0.05, reduction="none"), x)

low = rng.uniform(0, 60, (80, 2))
a = np.concatenate([low, low + rng.uniform(1, 50, (80, 2))], -1)
move = rng.normal(0, 8, (80, 4))
b = a + move
b[:, 2:] = np.maximum(b[:, 2:], b[:, :2] + 1)
b[:3] = [[200, 200, 230, 260], [0, 0, 500, 500], [10, 10, 11, 400]]
out |= {"predicted": a, "target": b}
p, t = torch.tensor(a, requires_grad=True), torch.tensor(b)
for name in ("generalized", "distance", "complete"):
    record(f"{name}_box_iou_loss", getattr(ops, f"{name}_box_iou_loss")(p, t, reduction="none"), p)

bins, distance = rng.normal(0, 2, (40, 16)), rng.uniform(0, 15, 40)
distance[:3] = [0, 15, 7]
out |= {"bins": bins, "distance": distance}
z, d = torch.tensor(bins, requires_grad=True), torch.tensor(distance)
left = d.floor().clamp(max=14).long()
dfl = F.cross_entropy(z, left, reduction="none") * (left + 1 - d)
dfl = dfl + F.cross_entropy(z, left + 1, reduction="none") * (d - left)
record("distribution_focal_loss", dfl, z)
record("expectation", (z.softmax(-1) * torch.arange(16.0, dtype=torch.float64)).sum(-1), z)

# The formulas of the papers, written in PyTorch, whose automatic differentiation is the second opinion.
quality = torch.tensor(np.where(np.arange(60) % 3 == 0, 0.0, soft))
out["quality"] = quality.numpy()
for name, factor in (
    ("quality_focal", (quality - x.sigmoid()).abs() ** 2),
    ("varifocal", torch.where(quality > 0, quality, 0.75 * x.sigmoid() ** 2)),
):
    record(name, factor * F.binary_cross_entropy_with_logits(x, quality, reduction="none"), x)
weights = torch.tensor([1.0, 0.25, 3.0], dtype=torch.float64)
table, labels = x.reshape(20, 3), torch.tensor(hard).reshape(20, 3)
out["class_weights"] = weights.numpy()
record("weighted", F.binary_cross_entropy_with_logits(table, labels, weight=weights, reduction="none"), x)


def scylla(a, b):
    """SIoU's equations (arXiv 2205.12740), with the angle as an arc sine, as printed."""
    (w, h), (wg, hg) = ((c[:, 2] - c[:, 0], c[:, 3] - c[:, 1]) for c in (a, b))
    move = (b[:, :2] + b[:, 2:] - a[:, :2] - a[:, 2:]) / 2
    sigma = (move**2).sum(1).sqrt()
    angle = 1 - 2 * torch.sin(torch.asin(move[:, 1].abs() / sigma) - torch.pi / 4) ** 2
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    distance = (1 - torch.exp(-(2 - angle)[:, None] * (move / hull) ** 2)).sum(1)
    shape = sum((1 - torch.exp(-(s - t).abs() / torch.maximum(s, t))) ** 4 for s, t in ((w, wg), (h, hg)))
    inter = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    return 1 - inter / (w * h + wg * hg - inter) + (distance + shape) / 2


record("scylla_box_iou_loss", scylla(p, t), p)

np.savez_compressed(pathlib.Path(__file__).with_name("losses_torch.npz"), **out)
print({k: v.shape for k, v in out.items()})
