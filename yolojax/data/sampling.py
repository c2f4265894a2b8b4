"""Which images make up which batch: pure functions of seed and step.

The order of the images is decided here and nowhere else. It is therefore the same for any number of threads, devices
and processes, and a run is resumed from its step alone.
"""

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from yolojax.data.dataset import Dataset
from yolojax.errors import ConfigError, DataError

Sampler = Callable[[int, int], Int[np.ndarray, " B"]]
"""``(seed, step) -> indices``: the images of the batch of a training step."""


def uniform_sampler(n: int, batch_size: int) -> Sampler:
    """Every one of ``n`` images once in an epoch, in an order of the epoch's own (`sample_indices`)."""
    _check(0, 0, batch_size, n)
    return lambda seed, step: sample_indices(seed, step, batch_size, n)


def weighted_sampler(weights: Float[np.ndarray, " n"], batch_size: int) -> Sampler:
    """Images as often as their weights say, in epochs of as many places as there are images.

    With weights scaled to a mean of 1, an image of weight ``w`` comes ``floor(w)`` or ``ceil(w)`` times in an epoch,
    ``w`` times on average (systematic sampling, with one random offset an epoch), in an order of the epoch's own. Equal
    weights give `uniform_sampler`, index for index. Raises `ConfigError` unless all weights are finite, none is
    negative, and one is positive.
    """
    weights = np.asarray(weights, np.float64)
    if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise ConfigError("sampling weights: give finite numbers, none negative, at least one positive")
    n = len(weights)
    _check(0, 0, batch_size, n)
    bounds = np.cumsum(weights / weights.sum() * n)
    if np.ptp(weights) == 0:
        bounds = np.arange(1, n + 1, dtype=np.float64)  # exactly, where the quotient would round
    bounds[-1] = n

    @functools.lru_cache(maxsize=4)
    def epoch(seed: int, number: int) -> Int[np.ndarray, " n"]:
        # 53 random bits, as in `Generator.random`, from the raw words whose course NumPy promises to keep.
        word = np.random.PCG64(np.random.SeedSequence([seed, number, 1])).random_raw()
        offset = (word >> 11) * 2.0**-53
        upto = np.floor(bounds + offset).astype(np.int64)
        images = np.repeat(np.arange(n), np.diff(upto, prepend=0))[:n]
        order = images[_epoch_order(seed, number, n)]
        order.setflags(write=False)
        return order

    def sample(seed: int, step: int) -> Int[np.ndarray, " B"]:
        _check(seed, step, batch_size, n)
        return _from_stream(lambda number: epoch(seed, number), step, batch_size, n)

    return sample


def make_sampler(
    dataset: Dataset,
    batch_size: int,
    sampling: Literal["uniform", "class-balanced", "repeat-factor"] = "uniform",
    *,
    repeat_threshold: float = 0.001,
) -> Sampler:
    """The sampler of this name: `uniform_sampler`, or `weighted_sampler` with the weights that the name says.

    ``repeat_threshold`` is that of `repeat_factor_weights`.
    """
    if sampling == "class-balanced":
        return weighted_sampler(class_balanced_weights(dataset), batch_size)
    if sampling == "repeat-factor":
        return weighted_sampler(repeat_factor_weights(dataset, repeat_threshold), batch_size)
    return uniform_sampler(len(dataset), batch_size)


def class_balanced_weights(dataset: Dataset) -> Float[np.ndarray, " n"]:
    """Weights under which every class is drawn equally often.

    An image weighs the sum, over the classes on it, of one over the number of images with that class: as if a class
    were drawn first and then one of its images. Images without an object keep the share of an epoch that they have
    without weights. Crowd regions do not count.

    Reference: class-aware sampling, Shen et al. 2016, arXiv 1512.05830, section 3.2 (there for classification).
    """
    present = _classes_present(dataset)
    images_of = present.sum(0)
    with np.errstate(divide="ignore"):
        share = np.where(images_of > 0, 1.0 / np.maximum(images_of, 1), 0.0)
    weights = present @ share
    labelled = present.any(1)
    if not labelled.any():
        raise DataError("class-balanced sampling: no image holds an object; there is no class to balance")
    return np.where(labelled, weights / weights.sum() * labelled.sum(), 1.0)


def repeat_factor_weights(dataset: Dataset, threshold: float) -> Float[np.ndarray, " n"]:
    """Weights that repeat images of rare classes: those on less than a share ``threshold`` of the images.

    A class on the share ``f`` of the images has the factor ``max(1, sqrt(threshold / f))``, an image the largest factor
    of its classes, an image without an object 1. Crowd regions do not count.

    Reference: LVIS, Gupta et al. 2019, arXiv 1908.03195, section 5.2 (``threshold`` there: .001).
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"repeat-factor threshold = {threshold}: give a share above 0, at most 1")
    present = _classes_present(dataset)
    frequency = present.mean(0)
    factor = np.maximum(1.0, np.sqrt(threshold / np.where(frequency > 0, frequency, 1.0)))
    return np.where(present, factor[None, :], 1.0).max(1)


def _classes_present(dataset: Dataset) -> np.ndarray:
    present = np.zeros((len(dataset), len(dataset.class_names)), bool)
    columns = dataset.columns
    present[columns.image_of[~columns.crowd], columns.classes[~columns.crowd]] = True
    return present


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, n: int) -> Int[np.ndarray, " n"]:
    # Sorting the generator's raw words, unlike Generator.permutation, is promised to stay the same across NumPy
    # versions: a run can be resumed after an upgrade.
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(n)
    order = np.argsort(words, kind="stable")
    order.setflags(write=False)
    return order


def sample_indices(seed: int, step: int, batch_size: int, n: int) -> Int[np.ndarray, " B"]:
    """Which of ``n`` images make up the batch of a training step: a pure function of ``(seed, step)``.

    The permutations of one epoch after the other form an endless stream, and step ``t`` takes its places
    ``t * batch_size`` to ``(t + 1) * batch_size - 1``. So batches are always full, every image comes once in an epoch,
    and to resume needs only the step. Raises `ConfigError` on a negative seed or step, or an empty batch or data set.
    """
    _check(seed, step, batch_size, n)
    return _from_stream(lambda epoch: _epoch_order(seed, epoch, n), step, batch_size, n)


def _from_stream(
    epoch_order: Callable[[int], Int[np.ndarray, " n"]], step: int, batch_size: int, n: int
) -> Int[np.ndarray, " B"]:
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // n
    return np.concatenate([epoch_order(int(e))[places[epochs == e] % n] for e in range(epochs[0], epochs[-1] + 1)])


def _check(seed: int, step: int, batch_size: int, n: int) -> None:
    if seed < 0 or step < 0 or batch_size < 1 or n < 1:
        raise ConfigError(
            f"seed {seed}, step {step}, batch size {batch_size}, {n} images: the first two must be at least 0, the "
            "others at least 1"
        )
