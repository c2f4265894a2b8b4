"""Moved to `yolojax.data.splits`; here with a configuration as argument."""

from __future__ import annotations

from yolojax.config import DataConfig
from yolojax.data import Dataset, splits
from yolojax.data.splits import split_named, take_fraction, validation_split

__all__ = ["open_splits", "split_named", "take_fraction", "validation_split"]


def open_splits(config: DataConfig, seed: int = 0) -> tuple[Dataset, Dataset | None]:
    """`yolojax.data.splits.open_splits` of a configuration."""
    return splits.open_splits(
        config.path,
        train_split=config.train_split,
        val_split=config.val_split,
        fraction=config.fraction,
        skip_bad=config.skip_bad,
        seed=seed,
    )
