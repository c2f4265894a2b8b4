"""Which images a run trains on and which it validates on."""

from __future__ import annotations

from pathlib import Path

from yolojax.data.dataset import Dataset
from yolojax.data.index import looking_once
from yolojax.data.opening import list_splits, open_dataset
from yolojax.data.paths import split_named
from yolojax.data.sampling import sample_indices
from yolojax.errors import ConfigError


def open_splits(
    path: str | Path,
    *,
    train_split: str | None = None,
    val_split: str | None = None,
    images: str | Path | None = None,
    fraction: float = 1.0,
    skip_bad: bool = False,
    seed: int = 0,
) -> tuple[Dataset, Dataset | None]:
    """The training set and, where there is one, the validation set, which gets the training set's classes.

    A data set without splits is trained on as a whole. Validation images are never skipped, because leaving out what
    cannot be read would flatter the result.

    Args:
      path: as `open_dataset` takes it.
      train_split: the part to train on; by default the one called ``train`` or the only one that begins so.
      val_split: the part to validate on; by default the same with ``val``.
      images: the folder of the images, where they do not lie at their format's usual place.
      fraction: share of the training images to use (`take_fraction`).
      skip_bad: whether unusable training images are left out and named instead of raising.
      seed: of the draw of ``fraction``.

    Raises:
      ConfigError: when no split is clearly the training split, or when the two are the same images.
      DataError: when one of them cannot be read.
    """
    available = list_splits(path)
    train_name = train_split or split_named("train", available)
    if train_name is None and tuple(available) == ("default",):  # CVAT's name for the only part
        train_name = "default"
    val_name = val_split or split_named("val", available)
    if train_name is None and available:
        raise ConfigError(
            f"{path}: none of its splits ({', '.join(available)}) is clearly the one to train on; give --train-split"
        )
    if val_split is not None and val_name == train_name:
        raise ConfigError(f"{path}: training and validation would both be on {train_name!r}; give another --val-split")
    with looking_once():
        train = take_fraction(open_dataset(path, train_name, images=images, skip_bad=skip_bad), fraction, seed)
        if val_name is None or val_name == train_name:
            return train, None
        return train, open_dataset(path, val_name, class_names=train.class_names, images=images)


def take_fraction(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """A random share of the images, at least one, in their own order; a pure function of ``seed``."""
    count = max(1, round(len(dataset) * fraction))
    if count >= len(dataset):
        return dataset
    drawn = sample_indices(seed, 0, count, len(dataset))
    return dataset.take(sorted(drawn.tolist()))


def training_split(path: str | Path) -> str | None:
    """The split to look at when none is named: the training split, or None where none is clearly that."""
    return split_named("train", list_splits(path))


def validation_split(path: str | Path) -> str | None:
    """The split to measure on when none is named: the validation split, or None where the data set has no splits.

    Raises `ConfigError` when it has splits and none of them is clearly the one: measured as a whole, a data set would
    flatter a detector that was trained on most of it.
    """
    available = list_splits(path)
    split = split_named("val", available)
    if split is None and len(available) > 1:
        raise ConfigError(f"{path}: which of its parts ({', '.join(available)}) is to be measured on? give --split")
    return split
