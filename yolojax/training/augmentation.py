"""The augmentations that a configuration asks for."""

from __future__ import annotations

from yolojax.augment import Augmentation, compose, mosaic, random_affine, random_flip, random_hsv
from yolojax.config import AugmentConfig


def make_augmentations(config: AugmentConfig) -> tuple[Augmentation, Augmentation]:
    """What most of the run trains with, and the same without mosaic; only what is turned on is compiled."""
    plain: list[Augmentation] = []
    if config.flip_horizontal:
        plain.append(random_flip(config.flip_horizontal))
    if config.flip_vertical:
        plain.append(random_flip(config.flip_vertical, vertical=True))
    if config.translate or (config.scale_min, config.scale_max) != (1.0, 1.0):
        plain.append(random_affine(scale=(config.scale_min, config.scale_max), translate=config.translate))
    if config.hue or config.saturation or config.value:
        plain.append(random_hsv(config.hue, config.saturation, config.value))
    full = [mosaic(config.mosaic), *plain] if config.mosaic else plain
    return compose(full), compose(plain)
