"""The programs of a training run, compiled for devices that need not be there: training step, evaluation, prediction.

They are the ones that `yolojax.training.fit.fit` and `yolojax.inference.predict.Predictor` run: what differs is that
shapes stand in the place of arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from yolojax import zoo
from yolojax.config import TrainConfig
from yolojax.data import Dataset, padded_objects
from yolojax.detect import choose_iou
from yolojax.detector import Detector, variable_shapes
from yolojax.errors import ConfigError
from yolojax.inference.evaluate import images_a_batch, make_detect_batch, validation_suppression
from yolojax.inference.predict import prediction_program
from yolojax.processor.inference import inference_options
from yolojax.sharding.devices import Devices, check_batch_size
from yolojax.structures import Batch, Targets
from yolojax.training.augmentation import images_per_sample
from yolojax.training.preparation import build, make_programs, sizes_of
from yolojax.training.state import make_state
from yolojax.training.step import make_hyper, make_hyper_at

ProgramName = Literal["train", "evaluate", "predict"]

WITHOUT_DEVICE: dict[str, dict[str, Any]] = {"gpu": {"xla_gpu_enable_triton_gemm": False}}
"""How programs are compiled for devices that are not there, by platform as JAX names it.

XLA finds the tiles of its own matrix products (Triton's) by running them. Without the device it takes the first, which
some shapes cannot have, such as those of RT-DETR: it then refuses the program. Here all matrix products are therefore
those of cuBLAS.
"""

WORDS: dict[str, str] = {"train": "training step", "evaluate": "evaluation", "predict": "prediction"}


class Workload(NamedTuple):
    """What is to be computed.

    Attributes:
      config: the run; its batch size is a number.
      detector: what is trained.
      max_objects: padded objects of an image, those of mosaics included.
      input_size: ``(height, width)`` of the largest training batches in pixels.
    """

    config: TrainConfig
    detector: Detector
    max_objects: int
    input_size: tuple[int, int]


class Sizes(NamedTuple):
    """Bytes on every chip of what a program is given, as the arrays are on the host."""

    parameters: int
    average: int
    optimiser: int
    batch: int


class Program(NamedTuple):
    """One program of a run.

    Attributes:
      name: of `WORDS`.
      batch_size: images of a call, on all chips together.
      passes: how many times the work of a forward pass it does, as is usual to count: 3 for a training step.
      sizes: of its arguments.
      compile: compiles it.
    """

    name: ProgramName
    batch_size: int
    passes: int
    sizes: Sizes
    compile: Callable[[], Any]


def workload(config: TrainConfig, data: Dataset | None, *, classes: int = 80, objects: int = 128) -> Workload:
    """Returns the work of a run.

    Args:
      config: the run.
      data: its training images. Where there are none, images are square and have ``classes`` and ``objects``.
      classes: number of classes.
      objects: padded objects of an image before mosaics.

    Raises `ConfigError` for a batch size that is no number, or a detector that cannot be built.
    """
    if config.batch_size == "auto":
        raise ConfigError("batch_size = 'auto' is chosen on the device; a plan needs a number (it tells the largest)")
    if data is not None:
        detector, objects = build(config, data), padded_objects(data)
    else:
        names = zoo.COCO_CLASSES if classes == len(zoo.COCO_CLASSES) else tuple(f"class{i}" for i in range(classes))
        side = config.model.size
        detector = zoo.build(config.model.name, names, (side, side), dtype=config.compute, **config.model.options)
    padded = objects * images_per_sample(config.augment)
    padded = padded if config.data.max_objects is None else min(config.data.max_objects, padded)
    return Workload(config, detector, padded, sizes_of(config, detector)[-1])


def train_program(work: Workload, devices: Devices, batch_size: int) -> Program:
    """Returns the training step over all devices; raises `ConfigError` where they cannot share the batch equally."""
    config, detector = work.config, work.detector
    check_batch_size(batch_size, config.accumulate, devices)
    seed, hyper = jax.random.key(config.seed), jax.eval_shape(lambda: make_hyper(config, detector))
    hyper_at = make_hyper_at(config)
    state = jax.eval_shape(partial(make_state, detector, config.optimiser, total_steps=1), key=seed)
    programs = make_programs(config, detector, devices, jax.random.fold_in(seed, 1), hyper_at)
    batch = batch_shapes(batch_size, work.input_size, work.max_objects)
    sizes = Sizes(
        size_of(state.variables), size_of(state.ema), size_of(state.optimiser), size_of(batch) // devices.number
    )

    def compile_step() -> Any:
        packed = jax.eval_shape(programs.pack, state)
        programs.compile(packed, batch, hyper, WITHOUT_DEVICE.get(devices.platform))
        return programs.compiled(batch)

    return Program("train", batch_size, 3, sizes, compile_step)


def evaluation(work: Workload, devices: Devices) -> Program:
    """Returns the program with which a run measures its detector on validation images."""
    validation, detector = work.config.validation, work.detector
    batch_size = images_a_batch(validation.batch_size, devices.split)
    variables, images = variable_shapes(detector), _images(batch_size, detector.spec.input_size)

    def compile_evaluation() -> Any:
        detect_batch = make_detect_batch(
            detector,
            validation.max_detections,
            devices.split,
            suppress=validation_suppression(validation),
            platform=devices.platform,
        )
        thresholds = detect_batch.thresholds(validation.confidence, validation.iou)
        lowered = detect_batch.program.lower(variables, images, *thresholds)
        return lowered.compile(WITHOUT_DEVICE.get(devices.platform))

    return Program("evaluate", batch_size, 1, _detection_sizes(variables, images, devices), compile_evaluation)


def prediction(work: Workload, devices: Devices) -> Program:
    """Returns the program with which the detector predicts, with its own thresholds."""
    detector, own = work.detector, work.detector.spec.postprocess.prediction
    batch_size = images_a_batch(work.config.validation.batch_size, devices.split)
    variables = jax.eval_shape(detector.fold, variable_shapes(detector))
    images, split, whole = _images(batch_size, detector.spec.input_size), devices.split, devices.replicated
    suppress = detector.spec.suppression
    iou = choose_iou(detector.spec, None, None, own.iou)

    def compile_prediction() -> Any:
        limits: dict[str, Any] = {} if suppress in ("nms", "none") else {"capacity": None}
        program = prediction_program(
            detector,
            max_detections=own.max_detections,
            suppress=suppress,
            split=split if devices.number > 1 else None,
            platform=devices.platform,
            **limits,
        )
        placed = jax.jit(
            program,
            in_shardings=(split, whole, whole, whole, whole),
            out_shardings=split,
            compiler_options=inference_options(devices.platform) or WITHOUT_DEVICE.get(devices.platform),
        )
        confidence, overlap = np.float32(own.confidence), None if iou is None else np.float32(iou)
        return placed.lower(images, variables, confidence, overlap, None).compile()

    return Program("predict", batch_size, 1, _detection_sizes(variables, images, devices), compile_prediction)


def batch_shapes(batch_size: int, input_size: tuple[int, int], objects: int) -> Any:
    """Returns the shapes and types of a training batch, as `yolojax.data` makes them."""

    def shape(*sides: int, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((batch_size, *sides), dtype)

    targets = Targets(
        boxes=shape(objects, 4, dtype=np.float32),
        classes=shape(objects, dtype=np.int32),
        valid=shape(objects, dtype=np.bool_),
        crowd=shape(objects, dtype=np.bool_),
        dropped=shape(dtype=np.int32),
    )
    return Batch(shape(*input_size, 3, dtype=np.uint8), targets)


def size_of(tree: Any) -> int:
    """Returns the bytes of all arrays or shapes of a tree."""
    return sum(int(np.prod(x.shape, dtype=np.int64)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _images(batch_size: int, input_size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch_size, *input_size, 3), np.uint8)


def _detection_sizes(variables: Any, images: jax.ShapeDtypeStruct, devices: Devices) -> Sizes:
    return Sizes(size_of(variables), 0, 0, size_of(images) // devices.number)
