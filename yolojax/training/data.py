"""The images of a run: which it trains on, which it validates on, and how they are read and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from yolojax.config import DataConfig, ModelConfig, TrainConfig, changed_settings
from yolojax.data import Dataset, InputImages, Sampler, make_sampler, open_input_images, open_splits, take_fraction
from yolojax.data.dataset import say_findings
from yolojax.data.index import states_of_sources
from yolojax.data.paths import lie_apart, real_paths
from yolojax.detector import DetectorSpec
from yolojax.errors import ConfigError, DataError
from yolojax.eval import inputs
from yolojax.eval.inputs import read_ground_truth
from yolojax.progress import Reporter
from yolojax.sharding.devices import Devices
from yolojax.training.augmentation import images_per_sample

GivenData = Dataset | tuple[Dataset, Dataset | None]
"""What `fit` takes as ``data``: a training set, or a pair of a training set and a validation set or None."""


class DataPair(NamedTuple):
    """The annotations of a run; ``val`` is None where nothing is to be measured."""

    train: Dataset
    val: Dataset | None


def open_data(config: DataConfig, seed: int, given: GivenData | None, reporter: Reporter) -> DataPair:
    """Opens the data sets of a run, or takes those that were given, and says what was repaired on reading.

    Of the training images only ``config.fraction`` is kept, drawn by ``seed``. The ground truth of the validation set
    passes the reader of the evaluation here, so that a run cannot die at its first validation.

    Raises:
      ConfigError: a setting contradicts the data that were given, or the data set has no clear training split.
      DataError: a data set cannot be read, holds no object to train on, or its ground truth cannot be evaluated.
    """
    if given is None:
        train, val = open_splits(
            config.path,
            train_split=config.train_split,
            val_split=config.val_split,
            images=config.images,
            fraction=config.fraction,
            skip_bad=config.skip_bad,
            seed=seed,
        )
    else:
        check_untouched(config, ("path", "train_split", "val_split", "images", "skip_bad"), "data")
        given = given if isinstance(given, tuple) else (given, None)
        if len(given) != 2 or not isinstance(given[0], Dataset) or not isinstance(given[1], Dataset | None):
            raise ConfigError("data: give a Dataset, or a pair (train, val) of them, whose second may be None")
        train, val = given
        train = take_fraction(train, config.fraction, seed)
        if val is not None and val.class_names != train.class_names:
            raise ConfigError(
                f"the validation set has the classes {', '.join(val.class_names)}, the training set "
                f"{', '.join(train.class_names)}; give both the same classes in the same order"
            )
        if val is not None and val.skip_bad:
            raise ConfigError(
                "the validation set was opened with skip_bad: leaving out images would flatter the result"
            )
    for dataset in (train, val):
        if dataset is not None:
            say_findings(dataset, reporter, dataset.split or "data")
    if val is not None and (shared := _shared_images(train, val)):
        reporter.say(
            f"{shared} of {len(val)} validation images are trained on as well: what is measured on them flatters"
        )
    crowd = int(train.columns.crowd.sum())
    if not train.object_count:
        raise DataError("the training images hold no object at all; there is nothing to learn from")
    if crowd == train.object_count:
        raise DataError(
            f"all {crowd} objects of the training images are crowd regions or difficult ones (iscrowd, ignore, "
            "difficult), which training leaves out; there is nothing to learn from. Exports of masks mark every object "
            "so: set iscrowd to 0"
        )
    if val is not None:
        _check_ground_truth(val)
    return DataPair(train, val)


def _check_ground_truth(val: Dataset) -> None:
    """Raises `DataError` where the evaluation cannot use the ground truth; once for the same files and evaluation."""

    def check() -> bool:
        read_ground_truth(val.to_coco())
        return True

    val.known("evaluated", states_of_sources(Path(inputs.__file__).parent), check)


def _shared_images(train: Dataset, val: Dataset) -> int:
    """How many files of the validation set belong to the training set too."""
    trained, measured = ([s for s in dataset.columns.sources if isinstance(s, str | Path)] for dataset in (train, val))
    if lie_apart(trained, measured):
        return 0
    known = set(real_paths(trained))
    return sum(path in known for path in real_paths(measured))


def check_untouched(config: DataConfig | ModelConfig, names: tuple[str, ...], argument: str) -> None:
    """Raises `ConfigError` for a setting other than its default that ``argument`` of `fit` takes the place of."""
    section = "data" if isinstance(config, DataConfig) else "model"
    for name, value in changed_settings(config, names):
        raise ConfigError(
            f"{section}.{name} = {value!r}, but {argument}= was given and decides this; leave {section}.{name} out"
        )


def load_input_images(
    dataset: Dataset, spec: DetectorSpec, config: TrainConfig, devices: Devices, reporter: Reporter, *, training: bool
) -> InputImages:
    """Reads the images of a data set onto the detector's input size and keeps them as ``config.data.cache`` says.

    Training images are padded to ``config.data.max_objects`` and with room for what mosaics and mixup combine.
    """
    padding = (
        {"max_objects": config.data.max_objects, "images_per_sample": images_per_sample(config.augment)}
        if training
        else {}
    )
    return open_input_images(
        dataset,
        spec.input_size,
        spec.preprocess,
        reporter,
        cache=config.data.cache,
        cache_folder=config.data.cache_folder,
        shardings=(devices.replicated, devices.split),
        **padding,
    )


def sampler_of(config: DataConfig, dataset: Dataset, batch_size: int) -> Sampler:
    """Returns the order of training images that a configuration asks for."""
    return make_sampler(dataset, batch_size, config.sampling, repeat_threshold=config.repeat_threshold)
