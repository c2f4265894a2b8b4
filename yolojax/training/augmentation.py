"""What a configuration does to a batch before the network sees it: random changes, and several input sizes."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Sharding

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
    resize_to,
)
from yolojax.config import AugmentConfig
from yolojax.errors import ConfigError
from yolojax.geometry import Preprocess
from yolojax.structures import Batch


def make_augmentations(config: AugmentConfig) -> tuple[Augmentation | None, Augmentation]:
    """Returns what makes one image of several, None where nothing does, and the augmentation that comes after it.

    `AugmentConfig.close_mosaic` ends the first before the run does. Only what is turned on is compiled.
    """
    mixing = _mixing(config)
    return compose(mixing) if mixing else None, compose(_plain(config))


def images_per_sample(config: AugmentConfig) -> int:
    """Returns how many images mosaics and mixup combine into one; the padding of objects grows with it."""
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


HOLD = 10
"""Steps for which a size stays, as in YOLO9000 (arXiv 1612.08242, section 2, "Multi-Scale Training")."""

Resize = Callable[[int, Batch], Batch]
"""``(step, batch) -> batch`` at the input size of that step."""


def sizes_around(input_size: tuple[int, int], count: int, span: float, stride: int) -> tuple[tuple[int, int], ...]:
    """Returns ``count`` input sizes from ``1 - span`` to ``1 + span`` times this one, small ones first.

    All are multiples of ``stride``. Raises `ConfigError` when some of them would be the same.
    """
    factors = np.linspace(1 - span, 1 + span, count) if count > 1 else np.ones(1)
    sides = [[max(stride, round(side * f / stride) * stride) for side in input_size] for f in factors]
    sizes = tuple((h, w) for h, w in sides)
    if len(set(sizes)) < count:
        raise ConfigError(
            f"model.multi_scale = {count}: between {sizes[0]} and {sizes[-1]} there are not as many "
            f"sizes in multiples of {stride}; give fewer sizes or a larger model.multi_scale_range"
        )
    return sizes


def size_index_at(seed: int, step: int, count: int) -> int:
    """Returns which of ``count`` input sizes a step trains at, a pure function of seed and step.

    It is drawn anew every `HOLD` steps.
    """
    # NumPy promises to keep the sequence of raw words. The bias of 64 bits against at most 5 sizes is negligible.
    return int(np.random.PCG64(np.random.SeedSequence([seed, step // HOLD, 2])).random_raw() % count)


def make_resize(
    seed: int, sizes: tuple[tuple[int, int], ...], preprocess: Preprocess, split: Sharding | None = None
) -> Resize:
    """Returns a function that resizes batches on the devices, with one small program for each input size.

    ``split`` says how a batch lies on the devices. A batch that has the size already is returned as it is.
    """

    def resized_by(input_size: tuple[int, int]) -> Callable[[Batch], Batch]:
        augmentation = resize_to(input_size, preprocess)

        def resize(batch: Batch) -> Batch:
            images, targets = augmentation(jax.random.key(0), batch.images, batch.targets)
            return batch._replace(images=images, targets=targets)

        return jax.jit(resize, in_shardings=split, out_shardings=split)

    programs = [resized_by(input_size) for input_size in sizes]

    def at_step(step: int, batch: Batch) -> Batch:
        index = size_index_at(seed, step, len(sizes))
        if tuple(batch.images.shape[1:3]) == sizes[index]:
            return batch
        return programs[index](batch)

    return at_step
