"""The weights and the scene of the networks in regions_torchvision.npz, made alike by its script and by the tests."""

import zlib

import numpy as np

SIZE = (96, 128)
"""Height and width of the images in pixels."""

BOXES = [[[4, 6, 50, 40], [60, 20, 120, 90], [30, 50, 45, 70]], [[0, 0, 127, 95]]]
LABELS = [[1, 2, 3], [1]]
"""Of the objects of both images, counted from 1 as in torchvision."""

GAINS = {
    "faster": {"roi_heads.box_predictor": 0.02, "rpn.head.bbox_pred": 0.01, "rpn.head.cls_logits": 0.01},
    "retina1": {"_head.": 0.3},
    "retina2": {"cls_logits": 0.1},
}
"""Factors of the kernels whose names contain these, so that scores and boxes are of a common size."""


def seeded(name: str, shape: tuple[int, ...], network: str) -> np.ndarray:
    """A tensor of this name: kernels keep the size of activations, statistics and gains vary."""
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    if len(shape) >= 2:
        values = draw.standard_normal(shape) * (2.0 / np.prod(shape[1:])) ** 0.5
        values *= next((gain for part, gain in GAINS[network].items() if part in name), 1.0)
    elif name.endswith(("weight", "running_var")):
        values = draw.uniform(0.5, 1.0, shape)
    else:
        values = 0.1 * draw.standard_normal(shape)
    return values.astype(np.float32)


def images() -> np.ndarray:
    """Two images ``[2, 3, h, w]`` in the range 0 to 1."""
    draw = np.random.RandomState(5)
    return np.stack([draw.uniform(0, 1, (3, *SIZE)).astype(np.float32) for _ in range(2)])
