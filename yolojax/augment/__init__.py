"""Augmentation inside `jit`: pure functions of a key, uint8 images and padded targets, all of fixed shape.

An augmentation is ``(key, images, targets) -> (images, targets)``; `compose` chains any list of them, a user's own
function included. Boxes that leave the canvas are clipped; `keep_visible` documents when one is dropped.
"""

from yolojax.augment.boxes import keep_visible, transform_boxes
from yolojax.augment.colour import hsv_to_rgb, random_hsv, rgb_to_hsv
from yolojax.augment.compose import Augmentation, compose
from yolojax.augment.geometric import random_affine, random_flip
from yolojax.augment.mosaic import mosaic
from yolojax.augment.warp import warp_affine

__all__ = [
    "Augmentation",
    "compose",
    "hsv_to_rgb",
    "keep_visible",
    "mosaic",
    "random_affine",
    "random_flip",
    "random_hsv",
    "rgb_to_hsv",
    "transform_boxes",
    "warp_affine",
]
