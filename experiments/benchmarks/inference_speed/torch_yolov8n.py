"""PyTorch's side for YOLOv8n: the network with our parameters, its normalisation folded, and the usual post-processing.

It imports PyTorch and nothing of this project but the network of `experiments.benchmarks.throughput.torch_yolov8n`.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from experiments.benchmarks.throughput.torch_yolov8n import Block, Network

BINS, STRIDES = 16, (8, 16, 32)

ORDER = ("weight", "bias", "running_mean", "running_var")
"""How a layer's own tensors follow each other in a ``state_dict``."""


class Predictions(nn.Module):
    """``[B, N, 64 + C]``: distances' logits and scores' logits of all levels, as one tensor that can be exported."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.network(x)
        levels = [torch.cat(pair, 1).flatten(2) for pair in zip(outputs[:3], outputs[3:], strict=True)]
        return torch.cat(levels, 2).permute(0, 2, 1)


def load(tensors: Mapping[str, np.ndarray], classes: int) -> nn.Module:
    """The network with tensors by the published names, whose layers come in the same order as its own modules."""

    def place(name: str) -> list[Any]:
        *module, last = name.split(".")
        numbers = [(0, int(part)) if part.isdigit() else (1, part) for part in module]
        return [*numbers, (2, ORDER.index(last))]

    wanted = [name for name in tensors if not re.search(r"num_batches_tracked|dfl", name)]
    given = [tensors[name] for name in sorted(wanted, key=lambda name: place(_in_order(name)))]
    network = Network(classes)
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    if [tuple(x.shape) for x in state.values()] != [x.shape for x in given]:
        raise ValueError("the tensors given are not those of a YOLOv8n in its own order")
    network.load_state_dict(
        {name: torch.from_numpy(np.array(x)) for name, x in zip(state, given, strict=True)}, strict=False
    )
    network.eval()
    for block in [module for module in network.modules() if isinstance(module, Block)]:
        block[0] = nn.utils.fusion.fuse_conv_bn_eval(block[0], block[1])
        block[1] = nn.Identity()
    return Predictions(network).eval()


def _in_order(name: str) -> str:
    """The published name with a convolution before its normalisation, as they lie in a `Block`."""
    return name.replace(".conv.", ".0.").replace(".bn.", ".1.")


def detections(raw: torch.Tensor, side: int) -> list[Any]:
    """Distributions to boxes, the best class of each, and torchvision's NMS."""
    cells, strides = [], []
    for stride in STRIDES:
        n = side // stride
        y, x = torch.meshgrid(torch.arange(n) + 0.5, torch.arange(n) + 0.5, indexing="ij")
        cells.append(torch.stack([x, y], -1).reshape(-1, 2))
        strides.append(torch.full((n * n, 1), float(stride)))
    cell, stride = torch.cat(cells), torch.cat(strides)
    bins, out = torch.arange(BINS, dtype=torch.float32), []
    for one in raw:
        distances = one[:, : 4 * BINS].reshape(-1, 4, BINS).softmax(-1) @ bins
        boxes = torch.cat([cell - distances[:, :2], cell + distances[:, 2:]], 1) * stride
        score, label = one[:, 4 * BINS :].sigmoid().max(1)
        row = torch.nonzero(score >= 0.25)[:, 0]
        keep = torchvision.ops.batched_nms(boxes[row], score[row], label[row], 0.45)[:100]
        out.append((boxes[row][keep], score[row][keep], label[row][keep]))
    return out
