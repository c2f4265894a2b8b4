"""From a configuration to what its steps need: data, detector and program, before there is any state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
from jaxtyping import PRNGKeyArray

from yolojax import zoo
from yolojax.augment.compose import Augmentation
from yolojax.config import TrainConfig
from yolojax.data import Dataset, InputImages, Sampler
from yolojax.detector import Detector
from yolojax.errors import DataError
from yolojax.sharding.by_image import with_loss_by_image
from yolojax.structures import Hyper
from yolojax.training.augmentation import make_augmentations, mixes_images, room_for_objects
from yolojax.training.batch_size import with_chosen_batch_size
from yolojax.training.freeze import check_parts
from yolojax.training.hyper import make_hyper
from yolojax.training.inputs import box_sizes_on_input, choose_input_size, lay_out_images, make_sampler
from yolojax.training.multi_scale import Resize, make_resize, sizes_around
from yolojax.training.programs import Devices, Programs, all_devices, check_batch_size
from yolojax.training.progress import Reporter
from yolojax.training.splits import open_splits
from yolojax.training.state import TrainState, make_state
from yolojax.training.step import TrainStep, make_train_step


class Preparation(NamedTuple):
    """What stays the same for the whole of a run.

    Attributes:
      config: as given, with a number in place of an ``auto`` batch size.
      batch_size: that number.
      train_set, val_set: annotations; ``val_set`` is None where there is no validation split.
      images: the training images on their input images.
      detector: what is trained.
      devices: all of them.
      step: the training step over all devices, compiled once for each size of input image.
      hyper: the traced hyper-parameters.
      seed: of everything random; ``step_seed`` is what the step was made with.
      augmentation, plain: what most of the run trains with, and the same without mosaics and mixup.
      sampler: which images a step sees.
      resize: to the input image of a step, where there are several.
      fresh: ``(total_steps=...)`` gives the state of a run that begins.
    """

    config: TrainConfig
    batch_size: int
    train_set: Dataset
    val_set: Dataset | None
    images: InputImages
    detector: Detector
    devices: Devices
    step: Programs
    hyper: Hyper
    seed: PRNGKeyArray
    step_seed: PRNGKeyArray
    augmentation: Augmentation
    plain: Augmentation
    sampler: Sampler
    resize: Resize | None
    fresh: Callable[..., TrainState]


def prepare(config: TrainConfig, reporter: Reporter) -> Preparation:
    """Read the data, build the detector, make the program; raises `ConfigError` and `DataError`."""
    # Data: read and checked.
    train_set, val_set = open_splits(config.data, config.seed)
    for dataset in (train_set, val_set):
        if dataset is not None and dataset.summary.findings:
            reporter.say(f"{dataset.split or 'data'}: {dataset.summary.text(limit=3)}")

    # Detector: input image and, where there are anchors, their sizes come from the training images, which are then
    # letterboxed once into memory.
    detector = build(config, train_set)
    devices = all_devices()
    images = lay_out_images(
        train_set,
        detector.spec,
        reporter,
        cap=config.data.max_objects,
        room=room_for_objects(config.augment),
        cache=config.data.cache,
        cache_folder=config.data.cache_folder,
        shardings=(devices.replicated, devices.split),
    )

    # Program: one step, over all devices, compiled once for each size of input image.
    seed, hyper = jax.random.key(config.seed), make_hyper(config, detector)
    step_seed = jax.random.fold_in(seed, 1)
    augmentation, plain = make_augmentations(config.augment)
    fresh = partial(make_state, detector, config.optimiser, key=jax.random.fold_in(seed, 0))
    shapes = jax.eval_shape(lambda: fresh(total_steps=1))
    check_parts(shapes.variables["params"], config.freeze)
    train_step = Programs(
        step_maker(config, with_loss_by_image(detector, devices.split))(step_seed),
        devices,
    )
    if config.batch_size == "auto":
        config = with_chosen_batch_size(config, train_step, shapes, images, hyper, devices, reporter)
    batch_size = config.batch_size
    assert batch_size != "auto"
    check_batch_size(batch_size, config.accumulate, devices)
    resize = None
    if config.model.multi_scale > 1:
        stride = detector.spec.strides[-1]
        sizes = sizes_around(detector.spec.input_size, config.model.multi_scale, config.model.multi_scale_range, stride)
        resize = make_resize(config.seed, sizes, detector.spec.preprocess, devices.split)
        reporter.say(f"training at {', '.join(f'{w} x {h}' for h, w in sizes)}, one program each")
    return Preparation(
        config=config,
        batch_size=batch_size,
        train_set=train_set,
        val_set=val_set,
        images=images,
        detector=detector,
        devices=devices,
        step=train_step,
        hyper=hyper,
        seed=seed,
        step_seed=step_seed,
        augmentation=augmentation,
        plain=plain,
        sampler=make_sampler(config, images.dataset, batch_size),
        resize=resize,
        fresh=fresh,
    )


def build(config: TrainConfig, train_set: Dataset) -> Detector:
    """The detector of these settings for these images; raises `DataError` when they hold no object."""
    if not train_set.object_count:
        raise DataError("the training images hold no object at all; there is nothing to learn from")
    input_size = choose_input_size(config, train_set)
    return zoo.build(
        config.model.name,
        train_set.class_names,
        input_size,
        dtype=config.compute,
        box_sizes=box_sizes_on_input(train_set, input_size),
        **config.model.options,
    )


def step_maker(config: TrainConfig, detector: Detector) -> Callable[[PRNGKeyArray], TrainStep]:
    """The training step of these settings, as a function of its key."""
    augmentation, plain = make_augmentations(config.augment)

    def step_of(key: PRNGKeyArray) -> TrainStep:
        return make_train_step(
            detector,
            config.optimiser,
            augmentation,
            key,
            plain_augmentation=plain if mixes_images(config.augment) else None,
            plain_share=config.augment.close_mosaic,
            accumulate=config.accumulate,
            freeze=config.freeze,
        )

    return step_of
