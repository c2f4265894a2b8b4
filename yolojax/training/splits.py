"""Which images a run trains on and which it validates on."""

from __future__ import annotations

from yolojax.config import DataConfig
from yolojax.data import Dataset, list_splits, open_dataset, sample_indices
from yolojax.errors import ConfigError


def open_splits(config: DataConfig, seed: int = 0) -> tuple[Dataset, Dataset | None]:
    """The training set and, where there is one, the validation set, with the training set's classes.

    A data set without splits is trained on as a whole. Validation images are never skipped: leaving out what cannot be
    read would flatter the result. Of the training images only ``config.fraction`` is taken, drawn by ``seed``.

    Raises:
      ConfigError: when no split is clearly the training split, or when the two are the same images.
      DataError: when one of them cannot be read.
    """
    available = list_splits(config.path)
    train_split = config.train_split or split_named("train", available)
    val_split = config.val_split or split_named("val", available)
    if train_split is None and available:
        raise ConfigError(
            f"{config.path}: none of its splits ({', '.join(available)}) is clearly the one to train on; "
            "give --train-split"
        )
    if config.val_split is not None and val_split == train_split:
        raise ConfigError(
            f"{config.path}: training and validation would both be on {train_split!r}; give another --val-split"
        )
    train = take_fraction(open_dataset(config.path, train_split, skip_bad=config.skip_bad), config.fraction, seed)
    if val_split is None or val_split == train_split:
        return train, None
    return train, open_dataset(config.path, val_split, class_names=train.class_names)


def take_fraction(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """A random share of the images, at least one, in their own order; the same for the same seed."""
    count = max(1, round(len(dataset) * fraction))
    if count >= len(dataset):
        return dataset
    drawn = sample_indices(seed, 0, count, len(dataset))
    return dataset.take(sorted(drawn.tolist()))


def split_named(name: str, available: tuple[str, ...]) -> str | None:
    """The split of this name, or the only one whose name begins with it (``val`` for ``val2017``), or None."""
    if name in available:
        return name
    candidates = [split for split in available if split.startswith(name)]
    return candidates[0] if len(candidates) == 1 else None


def validation_split(path: str) -> str | None:
    """The part of a data set to measure on when none is named: its validation part, or None where it has no parts.

    Raises `ConfigError` when it has parts and none of them is clearly the one: measured as a whole, a data set would
    flatter a detector that was trained on most of it.
    """
    available = list_splits(path)
    split = split_named("val", available)
    if split is None and len(available) > 1:
        raise ConfigError(f"{path}: which of its parts ({', '.join(available)}) is to be measured on? give --split")
    return split
