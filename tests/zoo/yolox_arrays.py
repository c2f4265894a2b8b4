"""The small YOLOX of `tests/goldens/make_yolox_golden.py`, by Megvii's names."""

from pathlib import Path

import numpy as np

GOLDEN: dict[str, np.ndarray] = dict(np.load(Path(__file__).parents[1] / "goldens" / "yolox_torch.npz"))


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of one of the two networks, ``plain`` or ``depthwise``."""
    return {key.removeprefix(f"{name}/"): value for key, value in GOLDEN.items() if key.startswith(f"{name}/")}


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """The arrays as an ``.npz``, and its path."""
    np.savez(path, **arrays)
    return path
