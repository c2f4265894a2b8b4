"""Measuring a detector on a data set: batched detection, back to original pixels, pycocotools' numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from yolojax.config import ValidationConfig
from yolojax.data import Dataset, InputImages, open_dataset
from yolojax.detect import detect
from yolojax.detector import Detector, Variables
from yolojax.errors import ConfigError
from yolojax.eval.coco import CocoResult, evaluate_coco
from yolojax.eval.files import detections_to_coco
from yolojax.geometry import batch_to_original
from yolojax.inference.tta import TTA, describe_views, detect_views, with_tta
from yolojax.sharding.by_image import by_image, on_all_devices, split_over_devices
from yolojax.structures import Detections
from yolojax.training.feeding import local_rows, onto_devices
from yolojax.training.inputs import lay_out_images
from yolojax.training.progress import Quiet, Reporter

DetectBatch = Callable[
    [Variables, UInt8[Array, "B H W 3"], float | np.float32, float | np.float32],
    Detections,
]


class Evaluation(NamedTuple):
    """What an evaluation found. ``truncated`` counts detections that `ValidationConfig` had no room for."""

    result: CocoResult
    detections: list[dict[str, Any]]
    truncated: int
    truncated_candidates: int


def make_detect_batch(
    detector: Detector, max_detections: int, split: NamedSharding | None = None, tta: TTA | None = None
) -> DetectBatch:
    """A compiled function of variables, a uint8 input image batch, confidence and IoU; BatchNorm is folded inside it.

    With ``split`` every device detects on its part of the batch, of which there must then be equally many images for
    each; the detections are collected on all. With ``tta`` it detects on several views
    (`yolojax.inference.tta.detect_views`), and the input images must be laid out by `yolojax.inference.tta.with_tta`.
    """
    found = detect if tta is None else partial(detect_views, tta=tta)

    def detect_batch(
        variables: Variables, images: UInt8[Array, "B H W 3"], confidence: Float[Array, ""], iou: Float[Array, ""]
    ) -> Detections:
        folded, folded_variables = detector.fold(variables)

        def detect_images(images: Array, variables: Variables, confidence: Array, iou: Array) -> Detections:
            return found(folded, variables, images, confidence, iou, max_detections=max_detections)

        own = detect_images if split is None else by_image(detect_images, split, shared=3)
        return own(images, folded_variables, confidence, iou)

    if split is None:
        return jax.jit(detect_batch)
    everywhere = NamedSharding(split.mesh, PartitionSpec())
    return jax.jit(detect_batch, in_shardings=(everywhere, split, everywhere, everywhere), out_shardings=everywhere)


def evaluate_images(
    detect_batch: DetectBatch,
    detector: Detector,
    variables: Variables,
    input_images: InputImages,
    validation: ValidationConfig,
    reporter: Reporter,
    split: NamedSharding | None = None,
) -> Evaluation:
    """Evaluate on images that are already on their input images; the ground truth is in original pixels.

    ``split`` is that of `make_detect_batch`. Each process then reads only the images that its own devices look at;
    every process gets all detections, and the same numbers.
    """
    rows: list[dict[str, Any]] = []
    truncated = truncated_candidates = done = 0
    confidence, iou = np.float32(validation.confidence), np.float32(validation.iou)
    with reporter.task("evaluating", len(input_images)) as advance:
        for images, places in _evaluation_images(input_images, validation.batch_size, split):
            found = jax.device_get(detect_batch(variables, images, confidence, iou))
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


def _evaluation_images(
    input_images: InputImages, batch_size: int, split: NamedSharding | None
) -> Iterator[tuple[Any, Int[np.ndarray, " B"]]]:
    """The images of every batch of an evaluation, and their places; places beyond the last image only fill up."""
    size = batch_size if split is None else -(-batch_size // split.mesh.size) * split.mesh.size
    mine = np.arange(size) if split is None else local_rows(split, size)
    for start in range(0, len(input_images), size):
        places = np.arange(start, start + size)
        images, _ = input_images.load(np.minimum(places, len(input_images) - 1)[mine])
        yield images if split is None else onto_devices(images, split, size), places


def evaluate(
    model: str | Path | tuple[Detector, Variables],
    data: str | Path | Dataset,
    split: str | None = None,
    *,
    validation: ValidationConfig | None = None,
    reporter: Reporter | None = None,
    tta: TTA | None = None,
) -> Evaluation:
    """COCO-style evaluation of a detector on a data set.

    Args:
      model: a run directory or released detector, or a detector with its variables.
      data: a data set, or the path of one.
      split: which part of it; None takes all of it.
      validation: confidence, NMS threshold and number of detections; the COCO protocol's by default.
      reporter: where progress goes.
      tta: the views to detect on, where an image is to be looked at several times.

    Raises:
      ConfigError: when the views are wrong, or the data set's classes are not the detector's (they are joined by name).
      DataError, CheckpointError: when data set or model cannot be read.
    """
    from yolojax.inference.predict import load_detector

    validation, reporter = validation or ValidationConfig(), reporter or Quiet()
    detector, variables = model if isinstance(model, tuple) else load_detector(model)
    if not isinstance(data, Dataset):
        data = open_dataset(data, split, class_names=detector.spec.class_names)
    if data.skip_bad:
        raise ConfigError("a data set opened with skip_bad cannot be measured on: leaving out images would flatter")
    if data.summary.findings:
        reporter.say(data.summary.text(limit=3))
    check_classes(detector, data)
    spec = with_tta(detector.spec, tta)
    if tta is not None:
        reporter.say(describe_views(detector.spec, tta))
    input_images = lay_out_images(data, spec, reporter)
    devices = split_over_devices(validation.batch_size) if jax.process_count() == 1 else None
    variables = variables if devices is None else on_all_devices(variables, devices)
    detect_batch = make_detect_batch(detector, validation.max_detections, devices, tta)
    return evaluate_images(detect_batch, detector, variables, input_images, validation, reporter, devices)


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
