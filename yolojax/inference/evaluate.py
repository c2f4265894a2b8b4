"""Evaluation of a detector on a data set: detection in batches, boxes in original pixels, pycocotools' numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat, cast

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Float, Int, UInt8

from yolojax.config import TrainConfig, ValidationConfig, check
from yolojax.data import (
    Dataset,
    InputImages,
    local_rows,
    onto_devices,
    open_dataset,
    open_input_images,
    validation_split,
)
from yolojax.data.dataset import ImageRecord
from yolojax.detect import check_confidence, choose_iou, detect
from yolojax.detector import Detector, DetectorSpec, Variables
from yolojax.errors import ConfigError, DataError
from yolojax.eval.coco import CocoResult, evaluate_coco
from yolojax.eval.files import detections_to_coco
from yolojax.geometry import batch_to_original
from yolojax.image_wise import by_image
from yolojax.inference.loading import ModelPath, load_detector
from yolojax.inference.predict import Predictor
from yolojax.inference.tiled import TiledPredictor
from yolojax.inference.tta import TTA, describe_tta, detect_augmented, union_suppression, with_tta
from yolojax.nms import Suppression, named_suppression
from yolojax.nms.named import BuiltIn
from yolojax.processor.inference import jit_for_inference
from yolojax.progress import Quiet, Reporter
from yolojax.sharding.batches import on_all_devices, split_over_devices
from yolojax.structures import Detections
from yolojax.tiling import Tiling


class DetectBatch:
    """A compiled program from variables and input images to detections; see `make_detect_batch`.

    Confidence and IoU threshold are traced; None takes the detector's own (`DetectorSpec.postprocess`).
    """

    def __init__(self, program: Any, spec: DetectorSpec, suppress: Suppression | BuiltIn) -> None:
        self.program = program
        self.spec = spec
        self.suppress: Suppression | BuiltIn = suppress

    def __call__(
        self,
        variables: Variables,
        images: UInt8[Array, "B H W 3"] | UInt8[np.ndarray, "B H W 3"],
        confidence: SupportsFloat | None = None,
        iou: SupportsFloat | None = None,
    ) -> Detections:
        """Detections in input pixels; raises `ConfigError` for an ``iou`` that the suppression does not read."""
        return self.program(variables, images, *self.thresholds(confidence, iou))

    def trace(self, variables: Variables, batch_size: int) -> None:
        """Traces the program for a batch, so that a detector that cannot detect is found before any work.

        ``variables`` may be shapes. The trace is kept for calls with the same shapes. Raises `ConfigError` with what a
        layer, the decoding or the suppression says.
        """
        images = jax.ShapeDtypeStruct((batch_size, *self.spec.input_size, 3), np.uint8)
        try:
            self.program.eval_shape(variables, images, *self.thresholds(None, None))
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{self.spec.name} cannot detect: {reason}; mend its forward or its decode") from error

    def thresholds(
        self, confidence: SupportsFloat | None, iou: SupportsFloat | None
    ) -> tuple[np.float32, np.float32 | None]:
        """The two thresholds as the program takes them."""
        own = self.spec.postprocess.validation
        iou = choose_iou(self.spec, self.suppress, None if iou is None else float(iou), own.iou)
        confidence = own.confidence if confidence is None else confidence
        check_confidence(self.spec, float(confidence))
        return np.float32(float(confidence)), None if iou is None else np.float32(iou)


class Evaluation(NamedTuple):
    """The numbers of an evaluation, and the detections as a COCO result list.

    ``truncated`` counts detections beyond the largest number an image, ``truncated_candidates`` those that did not
    enter suppression.
    """

    result: CocoResult
    detections: list[dict[str, Any]]
    truncated: int
    truncated_candidates: int


def make_detect_batch(
    detector: Detector,
    max_detections: int | None = None,
    split: NamedSharding | None = None,
    tta: TTA | None = None,
    suppress: Suppression | BuiltIn | None = None,
    platform: str | None = None,
) -> DetectBatch:
    """The compiled function with which an evaluation detects; BatchNorm is folded inside it.

    Args:
      detector: any record; what was replaced in it holds.
      max_detections: rows an image; None takes the detector's own (`DetectorSpec.postprocess`).
      split: how a batch lies on the devices. Each device then detects on its part, which must be equally large on all,
        and the detections are collected on all.
      tta: test-time augmentation; the images must then have the input size of `yolojax.inference.tta.with_tta`.
      suppress: see `yolojax.postprocess.postprocess`; None takes what ``detector.spec`` names.
      platform: what it is compiled for, as JAX names it; None is the platform of this process.
    """
    found = detect if tta is None else partial(detect_augmented, tta=tta)
    if max_detections is None:
        max_detections = detector.spec.postprocess.validation.max_detections
    settings: dict[str, Any] = {"max_detections": max_detections, "suppress": suppress}

    def detect_batch(
        variables: Variables,
        images: UInt8[Array, "B H W 3"],
        confidence: Float[Array, ""],
        iou: Float[Array, ""] | None,
    ) -> Detections:
        def detect_images(images: Array, variables: Variables, confidence: Array, iou: Array | None) -> Detections:
            return found(detector, variables, images, confidence, iou, **settings)

        own = detect_images if split is None else by_image(detect_images, split, shared=3)
        return own(images, detector.fold(variables), confidence, iou)

    if split is None:
        program = jit_for_inference(detect_batch, platform)
    else:
        everywhere = NamedSharding(split.mesh, PartitionSpec())
        shardings = (everywhere, split, everywhere, everywhere)
        program = jit_for_inference(detect_batch, platform, in_shardings=shardings, out_shardings=everywhere)
    return DetectBatch(program, detector.spec, union_suppression(detector.spec, tta, suppress))


def evaluate_images(
    detect_batch: DetectBatch,
    detector: Detector,
    variables: Variables,
    input_images: InputImages,
    validation: ValidationConfig,
    reporter: Reporter,
    split: NamedSharding | None = None,
) -> Evaluation:
    """Evaluates on images that already have the input size; the ground truth is in original pixels.

    ``detect_batch`` comes from `make_detect_batch`, which was given the same ``split``. With ``split`` each process
    reads only the images of its own devices; every process gets all detections and the same numbers.
    """
    rows: list[dict[str, Any]] = []
    truncated = truncated_candidates = done = 0
    with reporter.task("evaluating", len(input_images)) as advance:
        for images, places in _evaluation_images(input_images, validation.batch_size, split):
            found = jax.device_get(detect_batch(variables, images, validation.confidence, validation.iou))
            known = np.minimum(places, len(input_images) - 1)
            boxes = batch_to_original(found.boxes, input_images.content[known], input_images.sizes[known])
            for row in np.flatnonzero(places < len(input_images)):
                keep = found.valid[row]
                rows += detections_to_coco(
                    input_images.dataset.records[done].image_id,
                    boxes[row][keep],
                    found.scores[row][keep],
                    found.classes[row][keep],
                    input_images.dataset.category_ids,
                )
                truncated += int(found.truncated[row])
                truncated_candidates += int(found.truncated_candidates[row])
                done += 1
            advance(done)
    return Evaluation(evaluate_coco(input_images.dataset.to_coco(), rows), rows, truncated, truncated_candidates)


def images_a_batch(batch_size: int, split: NamedSharding | None) -> int:
    """Returns the number of images of an evaluation's batches: ``batch_size``, equally many on every device."""
    return batch_size if split is None else -(-batch_size // split.mesh.size) * split.mesh.size


def _evaluation_images(
    input_images: InputImages, batch_size: int, split: NamedSharding | None
) -> Iterator[tuple[Any, Int[np.ndarray, " B"]]]:
    """The images of every batch of an evaluation, and their indices; indices beyond the last image are padding."""
    size = images_a_batch(batch_size, split)
    mine = np.arange(size) if split is None else local_rows(split, size)
    for start in range(0, len(input_images), size):
        places = np.arange(start, start + size)
        images, _ = input_images.load(np.minimum(places, len(input_images) - 1)[mine])
        yield images if split is None else onto_devices(images, split, size), places


def evaluate(
    model: str | Path | Sequence[str | Path] | tuple[Detector, Variables],
    data: str | Path | Dataset,
    split: str | None = None,
    *,
    validation: ValidationConfig | None = None,
    reporter: Reporter | None = None,
    tta: TTA | None = None,
    suppress: Suppression | BuiltIn | None = None,
    tiling: Tiling | None = None,
    dtype: DTypeLike | None = None,
    parts: Mapping[str, Callable[..., Any]] | None = None,
    detector: Detector | None = None,
) -> Evaluation:
    """COCO-style evaluation of a detector on a data set.

    Args:
      model: a run directory, a released detector, published files (several as a list or tuple of paths), or a pair of
        a detector and its variables. What was replaced in the detector (``detector._replace(decode=mine)``) holds.
      data: a data set, or the path of one.
      split: which part of it; None takes all of it.
      validation: confidence, IoU threshold, number of detections and suppression. None of a setting takes the
        detector's own: confidence .001, IoU .7 and 300 detections unless it was published with others.
      reporter: told how far the evaluation is.
      tta: test-time augmentation.
      suppress: ``nms``, ``none`` or a function with the interface `yolojax.nms.Suppression`; None takes the one that
        ``validation`` names, or else what the detector's ``spec`` names.
      tiling: cuts every image into tiles, see `yolojax.inference.tiled`.
      dtype: in which the network of a loaded model computes, ``float32`` (the default) or ``bfloat16``. A detector that
        is given as a record computes in the type that it was built with.
      parts, detector: of a model that is loaded, its own functions or its whole record, as for `yolojax.load`.

    Raises:
      ConfigError: when a setting is wrong or would not be read, or the data set's classes are not the detector's (they
        are joined by name).
      DataError, CheckpointError: when data set or model cannot be read.
    """
    validation, reporter = (
        check(TrainConfig(validation=validation or ValidationConfig())).validation,
        reporter or Quiet(),
    )
    detector, variables = _as_detector(model, dtype, parts, detector)
    if suppress is None:
        suppress = validation_suppression(validation)
    elif validation.suppress is not None:
        raise ConfigError(f"suppress is given twice: suppress= and validation.suppress = {validation.suppress!r}")
    if isinstance(data, Dataset):
        if split is not None:
            raise ConfigError("split belongs to a path; a data set that is given is measured as it is")
    else:
        split = split or validation_split(data)
        data = open_dataset(data, split, class_names=detector.spec.class_names)
    if data.skip_bad:
        raise ConfigError("a data set opened with skip_bad cannot be measured on: leaving out images would flatter")
    if data.summary.findings:
        reporter.say(data.summary.text(limit=3))
    check_classes(detector, data)
    if tta is not None:
        reporter.say(describe_tta(detector.spec, tta))
    if tiling is not None:
        return _evaluate_tiled(detector, variables, data, validation, reporter, tiling, tta=tta, suppress=suppress)
    spec = with_tta(detector.spec, tta)
    input_images = open_input_images(data, spec.input_size, spec.preprocess, reporter)
    devices = split_over_devices(validation.batch_size) if jax.process_count() == 1 else None
    variables = variables if devices is None else on_all_devices(variables, devices)
    detect_batch = make_detect_batch(detector, validation.max_detections, devices, tta, suppress)
    return evaluate_images(detect_batch, detector, variables, input_images, validation, reporter, devices)


def _evaluate_tiled(
    detector: Detector,
    variables: Variables,
    dataset: Dataset,
    validation: ValidationConfig,
    reporter: Reporter,
    tiling: Tiling,
    *,
    tta: TTA | None,
    suppress: Suppression | BuiltIn | None,
) -> Evaluation:
    """Evaluates on images that are cut into tiles; they are decoded as they are needed."""
    own = detector.spec.postprocess.validation
    most = validation.max_detections or own.max_detections
    options: dict[str, Any] = {"max_detections": most, "batch_size": validation.batch_size}
    predictor = TiledPredictor(Predictor(detector, variables, tta=tta, suppress=suppress, **options), tiling)
    thresholds = {
        "confidence": own.confidence if validation.confidence is None else validation.confidence,
        "iou": choose_iou(detector.spec, predictor.suppress, validation.iou, own.iou),
    }
    rows: list[dict[str, Any]] = []
    truncated = 0
    with reporter.task("evaluating", len(dataset)) as advance:
        found = predictor.each(dataset.records, ImageRecord.pixels, **thresholds)
        for done, (record, result) in enumerate(found, 1):
            if isinstance(result, DataError):
                raise result
            rows += detections_to_coco(
                record.image_id, result.boxes, result.scores, result.classes, dataset.category_ids
            )
            truncated += result.truncated
            advance(done)
    return Evaluation(evaluate_coco(dataset.to_coco(), rows), rows, truncated, 0)


def _as_detector(
    model: str | Path | Sequence[str | Path] | tuple[Detector, Variables],
    dtype: DTypeLike | None,
    parts: Mapping[str, Callable[..., Any]] | None,
    detector: Detector | None,
) -> tuple[Detector, Variables]:
    """A pair of a detector and its variables as it is, or the one that paths lead to."""
    if isinstance(model, Detector):  # a tuple itself
        raise ConfigError("a model that is a record is a pair: give (detector, variables)")
    if isinstance(model, tuple | list) and any(isinstance(part, Detector) for part in model):
        if len(model) != 2 or not isinstance(model[0], Detector) or not isinstance(model, tuple):
            raise ConfigError("a model that is a record is a pair: give (detector, variables)")
        if dtype is not None:
            raise ConfigError("dtype belongs to a model that is loaded; build the detector with dtype instead")
        if parts is not None or detector is not None:
            raise ConfigError("parts and detector belong to a model that is loaded; a record is measured as it is")
        return model[0], cast(Variables, model[1])
    dtype = "float32" if dtype is None else dtype
    return load_detector(cast(ModelPath, model), dtype=dtype, parts=parts, detector=detector)


def validation_suppression(validation: ValidationConfig) -> Suppression | BuiltIn | None:
    """The suppression that a configuration which was checked (`yolojax.config.check`) names; None where it names none.

    Raises `ConfigError` for a parameter out of range.
    """
    if validation.suppress is None:
        return None
    return named_suppression(validation.suppress, validation.suppress_parameter)


def check_classes(detector: Detector, dataset: Dataset) -> None:
    """Raises `ConfigError` naming the difference unless data set and detector have the same classes in order."""
    ours, theirs = detector.spec.class_names, dataset.class_names
    if ours == theirs:
        return
    missing = [name for name in theirs if name not in ours]
    if missing:
        raise ConfigError(
            f"the data set has classes the detector does not know: {', '.join(missing)}; it knows {', '.join(ours)}"
        )
    raise ConfigError(
        f"classes differ: the detector has {', '.join(ours)}, the data set {', '.join(theirs)}; "
        "open the data set with class_names in the detector's order"
    )
