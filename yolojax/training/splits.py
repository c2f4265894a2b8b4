"""Which images a run trains on and which it validates on."""

from __future__ import annotations

from yolojax.config import DataConfig
from yolojax.data import Dataset, open_dataset
from yolojax.data.shapes import shapes_dataset
from yolojax.errors import DataError

SHAPES_TRAIN, SHAPES_VAL = 600, 150


def open_splits(config: DataConfig) -> tuple[Dataset, Dataset | None]:
    """The training set and, where there is one, the validation set, with the training set's classes.

    Validation images are never skipped: leaving out what cannot be read would flatter the result.
    """
    if config.path == "shapes":
        return shapes_dataset(SHAPES_TRAIN, seed=0), shapes_dataset(SHAPES_VAL, seed=1)
    train = open_dataset(config.path, config.train_split or "train", skip_bad=config.skip_bad)
    if config.val_split is not None:
        return train, open_dataset(config.path, config.val_split, class_names=train.class_names)
    try:
        return train, open_dataset(config.path, "val", class_names=train.class_names)
    except DataError as error:
        if "split" in str(error):
            return train, None
        raise
