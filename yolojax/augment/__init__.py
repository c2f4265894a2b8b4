"""Augmentation inside `jit`: pure functions of a key, uint8 images and padded targets, all of fixed shape.

An augmentation is ``(key, images, targets) -> (images, targets)``; `compose` chains any list of them, a user's own
function included. Boxes that leave the input image are clipped; `keep_visible` documents when one is dropped.
"""

from yolojax.augment.boxes import fit_into_rows, keep_visible, project_boxes, transform_boxes
from yolojax.augment.colour import hsv_to_rgb, random_hsv, rgb_to_hsv
from yolojax.augment.compose import Augmentation, compose
from yolojax.augment.cutout import cutout
from yolojax.augment.geometric import random_affine, random_flip, random_perspective
from yolojax.augment.letterbox import letterbox, resize_to
from yolojax.augment.mixup import mixup
from yolojax.augment.mosaic import mosaic, mosaic9
from yolojax.augment.warp import warp_affine, warp_perspective

__all__ = [
    "Augmentation",
    "compose",
    "cutout",
    "fit_into_rows",
    "hsv_to_rgb",
    "keep_visible",
    "letterbox",
    "mixup",
    "mosaic",
    "mosaic9",
    "project_boxes",
    "random_affine",
    "random_flip",
    "random_hsv",
    "random_perspective",
    "resize_to",
    "rgb_to_hsv",
    "transform_boxes",
    "warp_affine",
    "warp_perspective",
]
