"""Which images a run trains on and which it validates on."""

from __future__ import annotations

from yolojax.config import DataConfig
from yolojax.data import Dataset, list_splits, open_dataset


def open_splits(config: DataConfig) -> tuple[Dataset, Dataset | None]:
    """The training set and, where there is one, the validation set, with the training set's classes.

    A data set without splits is trained on as a whole. Validation images are never skipped: leaving out what cannot be
    read would flatter the result.
    """
    available = list_splits(config.path)
    train_split = config.train_split or split_named("train", available)
    val_split = config.val_split or split_named("val", available)
    train = open_dataset(config.path, train_split, skip_bad=config.skip_bad)
    if val_split is None or val_split == train_split:
        return train, None
    return train, open_dataset(config.path, val_split, class_names=train.class_names)


def split_named(name: str, available: tuple[str, ...]) -> str | None:
    """The split of this name, or the only one whose name begins with it (``val`` for ``val2017``), or None."""
    if name in available:
        return name
    candidates = [split for split in available if split.startswith(name)]
    return candidates[0] if len(candidates) == 1 else None
