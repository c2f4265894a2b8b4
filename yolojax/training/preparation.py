"""From a configuration to what its steps need: data, detector and program, before there is any state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
from jaxtyping import PRNGKeyArray

from yolojax import zoo
from yolojax.config import TrainConfig, changed_settings
from yolojax.data import Dataset, InputImages, Sampler, box_sizes_on_input, choose_input_size
from yolojax.detector import Detector, check_parts, checked_detector
from yolojax.errors import ConfigError
from yolojax.inference.evaluate import DetectBatch, check_classes, make_detect_batch, validation_suppression
from yolojax.progress import Reporter
from yolojax.sharding.batches import on_split_batches
from yolojax.sharding.devices import Devices, all_devices, check_batch_size
from yolojax.structures import Hyper
from yolojax.training.augmentation import Resize, make_augmentations, make_resize, sizes_around
from yolojax.training.data import DataPair, GivenData, check_untouched, load_input_images, open_data, sampler_of
from yolojax.training.packing import Packing, packing_for
from yolojax.training.programs import Programs, find_batch_size
from yolojax.training.state import TrainState, make_state
from yolojax.training.step import (
    AugmentStep,
    HyperAt,
    TrainStep,
    make_augment,
    make_hyper,
    make_hyper_at,
    make_train_step,
)


class Preparation(NamedTuple):
    """What stays the same for the whole of a run.

    Attributes:
      config: as given, with a number in place of an ``auto`` batch size.
      batch_size: that number.
      data: annotations of the training and validation images.
      images: the training images at the input size.
      detector: what is trained.
      devices: all of them.
      step: the training step over all devices, compiled once for each input size.
      detect_batch: detection over all devices, with which the run is measured.
      hyper: the traced hyper-parameters, as the configuration has them.
      hyper_at: changes them with the step; None where nothing does.
      seed: of everything random; ``step_seed`` is what the step was made with.
      augment: the random changes that a step makes to its batch.
      sampler: which images a step sees.
      resize: to the input size of a step, where there are several.
      fresh: ``(total_steps=...)`` gives the state of a run that begins.
    """

    config: TrainConfig
    batch_size: int
    data: DataPair
    images: InputImages
    detector: Detector
    devices: Devices
    step: Programs
    detect_batch: DetectBatch
    hyper: Hyper
    hyper_at: HyperAt | None
    seed: PRNGKeyArray
    step_seed: PRNGKeyArray
    augment: AugmentStep
    sampler: Sampler
    resize: Resize | None
    fresh: Callable[..., TrainState]


def prepare(
    config: TrainConfig,
    reporter: Reporter,
    *,
    data: GivenData | None = None,
    detector: Detector | None = None,
    hyper_at: HyperAt | None = None,
    keep_states: bool = False,
) -> Preparation:
    """Reads the data, builds the detector and makes the program.

    Args:
      config: the run.
      reporter: where progress goes.
      data: data sets that take the place of ``config.data.path``.
      detector: takes the place of ``config.model``.
      hyper_at: changes the hyper-parameters with the step.
      keep_states: whether the state before a step stays whole after it.

    Raises `ConfigError` and `DataError`.
    """
    # Data are read and checked. The detector's input size and, where it has any, its anchors come from the training
    # images, which are then resized once.
    pair = open_data(config.data, config.seed, data, reporter)
    if pair.val is None:
        for name, value in changed_settings(config, ("select", "patience", "validate_raw")):
            raise ConfigError(f"{name} = {value!r}: there are no validation images; give some")
    detector = build(config, pair.train) if detector is None else take_detector(config, pair.train, detector)
    devices = all_devices()
    images = load_input_images(pair.train, detector.spec, config, devices, reporter, training=True)

    # One step over all devices, compiled once for each input size.
    seed, hyper, hyper_at = jax.random.key(config.seed), make_hyper(config, detector), make_hyper_at(config, hyper_at)
    step_seed = jax.random.fold_in(seed, 1)
    mixing, augmentation = make_augmentations(config.augment)
    fresh = partial(make_state, detector, config.optimiser, key=jax.random.fold_in(seed, 0))
    shapes = jax.eval_shape(lambda: fresh(total_steps=1))
    check_parts(shapes.variables["params"], config.freeze)
    step = make_programs(config, detector, devices, step_seed, hyper_at, keep_states=keep_states)
    sizes = sizes_of(config, detector)
    if config.batch_size == "auto":
        # The largest of several input sizes needs most memory.
        size = find_batch_size(step, shapes, images, hyper, devices, reporter, config.accumulate, sizes[-1])
        config = replace(config, batch_size=size)
    batch_size = config.batch_size
    assert batch_size != "auto"
    check_batch_size(batch_size, config.accumulate, devices)
    return Preparation(
        config=config,
        batch_size=batch_size,
        data=pair,
        images=images,
        detector=detector,
        devices=devices,
        step=step,
        detect_batch=make_detect_batch(
            detector,
            config.validation.max_detections,
            devices.split,
            suppress=validation_suppression(config.validation),
        ),
        hyper=hyper,
        hyper_at=hyper_at,
        seed=seed,
        step_seed=step_seed,
        augment=make_augment(augmentation, step_seed, mixing=mixing, close_mixing=config.augment.close_mosaic),
        sampler=sampler_of(config.data, images.dataset, batch_size),
        resize=_resize_of(config, sizes, detector, devices, reporter),
        fresh=fresh,
    )


def build(config: TrainConfig, train_set: Dataset) -> Detector:
    """Returns the detector of a configuration for these training images."""
    input_size = choose_input_size(train_set, config.model.size, rectangular=config.model.rectangular)
    return zoo.build(
        config.model.name,
        train_set.class_names,
        input_size,
        dtype=config.compute,
        box_sizes=box_sizes_on_input(train_set, input_size),
        **config.model.options,
    )


def take_detector(config: TrainConfig, train_set: Dataset, detector: Detector) -> Detector:
    """Returns the detector that was given.

    Raises `ConfigError` when it is no record, when its classes are not those of the data, or when a setting contradicts
    it.
    """
    if not isinstance(detector, Detector):
        raise ConfigError(
            f"detector: give a Detector, such as that of yolojax.zoo.build, not a {type(detector).__name__}; "
            "config.model names an architecture"
        )
    check_untouched(config.model, ("name", "size", "rectangular", "options"), "detector")
    for _, value in changed_settings(config, ("compute",)):
        raise ConfigError(
            f"compute = {value!r}, but detector= was given and decides this; leave compute out and build the "
            "detector with that dtype"
        )
    check_classes(detector, train_set)
    return detector


def make_programs(
    config: TrainConfig,
    detector: Detector,
    devices: Devices,
    step_seed: PRNGKeyArray,
    hyper_at: HyperAt | None = None,
    *,
    keep_states: bool = False,
) -> Programs:
    """Returns the training step of a run over these devices.

    Args:
      config: the run.
      detector: what is trained.
      devices: all of them; they need not be here.
      step_seed: of the step.
      hyper_at: changes the hyper-parameters with the step.
      keep_states: whether the state before a step stays whole after it. States are then not packed either.
    """
    packing = None if keep_states else packing_for(devices.platform, detector, config.optimiser, config.freeze)
    step_of = step_maker(config, on_split_batches(checked_detector(detector), devices.split), hyper_at, packing)
    return Programs(step_of(step_seed), devices, donate=not keep_states, packing=packing)


def step_maker(
    config: TrainConfig, detector: Detector, hyper_at: HyperAt | None = None, packing: Packing | None = None
) -> Callable[[PRNGKeyArray], TrainStep]:
    """Returns the training step of a configuration, as a function of its key."""
    mixing, augmentation = make_augmentations(config.augment)

    def step_of(key: PRNGKeyArray) -> TrainStep:
        return make_train_step(
            detector,
            config.optimiser,
            augmentation,
            key,
            mixing=mixing,
            close_mixing=config.augment.close_mosaic,
            accumulate=config.accumulate,
            remat=config.remat,
            freeze=config.freeze,
            hyper_at=hyper_at,
            packing=packing,
        )

    return step_of


def sizes_of(config: TrainConfig, detector: Detector) -> tuple[tuple[int, int], ...]:
    """Returns the input sizes that a run trains at, ``(height, width)`` in pixels, small ones first."""
    spec, model = detector.spec, config.model
    if model.multi_scale == 1:
        return (spec.input_size,)
    return sizes_around(spec.input_size, model.multi_scale, model.multi_scale_range, spec.strides[-1])


def _resize_of(
    config: TrainConfig,
    sizes: tuple[tuple[int, int], ...],
    detector: Detector,
    devices: Devices,
    reporter: Reporter,
) -> Resize | None:
    if config.model.multi_scale == 1:
        return None
    reporter.say(f"training at {', '.join(f'{w} x {h}' for h, w in sizes)}, one program each")
    return make_resize(config.seed, sizes, detector.spec.preprocess, devices.split)
