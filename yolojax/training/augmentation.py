"""The augmentations that a configuration asks for."""

from __future__ import annotations

from yolojax.augment import (
    Augmentation,
    compose,
    cutout,
    mixup,
    mosaic,
    mosaic9,
    random_affine,
    random_flip,
    random_hsv,
    random_perspective,
)
from yolojax.config import AugmentConfig


def make_augmentations(config: AugmentConfig) -> tuple[Augmentation, Augmentation]:
    """What most of the run trains with, and the same without mosaics and mixup; only what is turned on is compiled."""
    mixing, plain = _mixing(config), _plain(config)
    return compose([*mixing, *plain]), compose(plain)


def mixes_images(config: AugmentConfig) -> bool:
    """Whether several images become one, which `AugmentConfig.close_mosaic` ends."""
    return bool(_mixing(config))


def room_for_objects(config: AugmentConfig) -> int:
    """How many times the objects of the fullest image the padding should hold, so that mixing drops few."""
    return (2 if config.mosaic else 4 if config.mosaic9 else 1) * (2 if config.mixup else 1)


def _mixing(config: AugmentConfig) -> list[Augmentation]:
    mixing: list[Augmentation] = []
    if config.mosaic:
        mixing.append(mosaic(config.mosaic))
    if config.mosaic9:
        mixing.append(mosaic9(config.mosaic9))
    if config.mixup:
        mixing.append(mixup(config.mixup))
    return mixing


def _plain(config: AugmentConfig) -> list[Augmentation]:
    plain: list[Augmentation] = []
    if config.flip_horizontal:
        plain.append(random_flip(config.flip_horizontal))
    if config.flip_vertical:
        plain.append(random_flip(config.flip_vertical, vertical=True))
    moves = {
        "scale": (config.scale_min, config.scale_max),
        "translate": config.translate,
        "rotate": config.rotate,
        "shear": config.shear,
    }
    if config.perspective:
        plain.append(random_perspective(config.perspective, **moves))
    elif config.translate or config.rotate or config.shear or moves["scale"] != (1.0, 1.0):
        plain.append(random_affine(**moves))
    if config.hue or config.saturation or config.value:
        plain.append(random_hsv(config.hue, config.saturation, config.value))
    if config.cutout:
        plain.append(cutout(config.cutout))
    return plain
