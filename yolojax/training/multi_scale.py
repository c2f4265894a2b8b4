"""Training at several sizes of the input image: each is one compiled program, and which comes when is f(seed, step)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Sharding

from yolojax.augment import resize_to
from yolojax.errors import ConfigError
from yolojax.geometry import Preprocess
from yolojax.structures import Batch

HOLD = 10
"""Steps for which a size stays, as in YOLO9000 (arXiv 1612.08242, section 2, "Multi-Scale Training")."""


def sizes_around(input_size: tuple[int, int], count: int, span: float, stride: int) -> tuple[tuple[int, int], ...]:
    """``count`` input images, ``1 - span`` to ``1 + span`` times this one, in multiples of ``stride``; small ones
    first.

    Raises `ConfigError` when some of them would be the same.
    """
    factors = np.linspace(1 - span, 1 + span, count) if count > 1 else np.ones(1)
    sides = [[max(stride, round(side * f / stride) * stride) for side in input_size] for f in factors]
    input_images = tuple((h, w) for h, w in sides)
    if len(set(input_images)) < count:
        raise ConfigError(
            f"model.multi_scale = {count}: between {input_images[0]} and {input_images[-1]} there are not as many "
            f"sizes in multiples of {stride}; give fewer sizes or a larger model.multi_scale_range"
        )
    return input_images


def input_size_at(seed: int, step: int, count: int) -> int:
    """Which of ``count`` input images a step trains at: drawn anew every `HOLD` steps, a pure function of seed and
    step."""
    # Raw words, whose course NumPy promises to keep; 64 bits against at most 5: no bias to speak of.
    return int(np.random.PCG64(np.random.SeedSequence([seed, step // HOLD, 2])).random_raw() % count)


Resize = Callable[[int, Batch], Batch]
"""``(step, batch) -> batch`` on the input image of that step."""


def make_resize(
    seed: int, input_images: tuple[tuple[int, int], ...], preprocess: Preprocess, split: Sharding | None = None
) -> Resize:
    """Resize batches on the devices, by one small program for each input image but the batch's own.

    ``split`` says how a batch lies on the devices. ``content`` keeps speaking of the input image that the batch came
    on.
    """

    def resized_by(input_size: tuple[int, int]) -> Callable[[Batch], Batch]:
        augmentation = resize_to(input_size, preprocess)

        def resize(batch: Batch) -> Batch:
            images, targets = augmentation(jax.random.key(0), batch.images, batch.targets)
            return batch._replace(images=images, targets=targets)

        return jax.jit(resize, in_shardings=split, out_shardings=split)

    programs = [resized_by(input_size) for input_size in input_images]

    def at_step(step: int, batch: Batch) -> Batch:
        index = input_size_at(seed, step, len(input_images))
        if tuple(batch.images.shape[1:3]) == input_images[index]:
            return batch
        return programs[index](batch)

    return at_step
