"""Resizing a photo without a filter against aliasing, as OpenCV does and as detectors trained with it expect."""

import numpy as np
from jaxtyping import Int32, UInt8

_ONE = 2048
"""OpenCV's fixed point: weights of two neighbours sum to this."""


def resize_bilinear(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """The photo at ``size = (height, width)``: the values of ``cv2.resize``, ``INTER_LINEAR``, bit for bit.

    Each value mixes the two by two pixels around its place, however much the photo shrinks, so that small things may
    be lost or stand out; scores of a detector change by some hundredths with the filter. Pixel centres lie at halves.
    """
    top, bottom, above, below = _neighbours(image.shape[0], size[0])
    left, right, before, after = _neighbours(image.shape[1], size[1])

    def across(rows: Int32[np.ndarray, " H"]) -> Int32[np.ndarray, "H W 3"]:
        lines = image[rows].astype(np.int32)
        return (lines[:, left] * before[None, :, None] + lines[:, right] * after[None, :, None]) >> 4

    mixed = ((above[:, None, None] * across(top)) >> 16) + ((below[:, None, None] * across(bottom)) >> 16)
    return np.clip((mixed + 2) >> 2, 0, 255).astype(np.uint8)


def _neighbours(n: int, m: int) -> tuple[Int32[np.ndarray, " m"], ...]:
    """For each of ``m`` places among ``n`` pixels: the pixel before, the one after, and the weight of each.

    Beyond the centre of a border pixel both are that pixel.
    """
    place = ((np.arange(m) + 0.5) * (1 / (m / n)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    share = place - first.astype(np.float32)
    weights = [np.rint(part * np.float32(_ONE)).astype(np.int32) for part in (np.float32(1) - share, share)]
    return np.clip(first, 0, n - 1), np.clip(first + 1, 0, n - 1), weights[0], weights[1]
