"""Augmentation inside `jit`: pure functions of a key, uint8 images and padded targets, all of fixed shape.

An augmentation is ``(key, images, targets) -> (images, targets)``. `compose` chains any list of them, a function of
your own included. Boxes that leave the input image are clipped, and dropped by the rule of `keep_visible`.
"""

from yolojax.augment._common import (
    Augmentation,
    compose,
    fit_into_rows,
    keep_visible,
    project_boxes,
    transform_boxes,
)
from yolojax.augment._geometric import random_affine, random_flip, random_perspective
from yolojax.augment._mixing import mixup, mosaic, mosaic9
from yolojax.augment._pixels import cutout, hsv_to_rgb, random_hsv, rgb_to_hsv
from yolojax.augment._resample import letterbox, resize_to, warp_affine, warp_perspective

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
