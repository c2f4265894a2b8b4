"""Prediction: a detector with its variables, an image or many in, boxes in original pixels out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from yolojax import zoo
from yolojax.data.feed import place_on_canvas
from yolojax.data.images import read_image
from yolojax.detector import Detector, Variables, prepare_images
from yolojax.errors import CheckpointError, ConfigError
from yolojax.geometry import to_original
from yolojax.postprocess import postprocess
from yolojax.structures import Detections
from yolojax.weights.released import fit_tree, load_description, load_weights


class Result(NamedTuple):
    """Detections of one image in pixels of the original photo, strongest first. ``n`` rows, no padding.

    ``truncated`` counts detections beyond ``max_detections`` and candidates that never reached suppression.
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    classes: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    size: tuple[int, int]
    truncated: int

    @property
    def names(self) -> list[str]:
        """The class name of each row."""
        return [self.class_names[c] for c in self.classes]


class Predictor:
    """A detector ready to use: ``predictor(image)`` gives a `Result`, ``predictor.many(images)`` one after another.

    Compiled once for the batch size given; thresholds are traced and can change from call to call.
    """

    def __init__(
        self, detector: Detector, variables: Variables, *, max_detections: int = 100, batch_size: int = 1
    ) -> None:
        self.spec = detector.spec
        self.batch_size = batch_size
        self.detector, self.variables = detector.fold(variables)
        folded = self.detector

        def run(
            variables: Variables, images: UInt8[jax.Array, "B H W 3"], confidence: jax.Array, iou: jax.Array
        ) -> Detections:
            outputs = folded.forward(variables, prepare_images(images, folded.spec.preprocess))
            return postprocess(
                folded.decode(outputs),
                confidence,
                iou,
                max_detections=max_detections,
                suppression=folded.spec.suppression,
                multi_label=folded.spec.multi_label,
            )

        self._run = jax.jit(run)

    def __call__(
        self, image: str | Path | UInt8[np.ndarray, "h w 3"], *, confidence: float = 0.25, iou: float = 0.45
    ) -> Result:
        """Detect on one image: a file, or an RGB uint8 array. Raises `DataError` for what cannot be read."""
        return next(self.many([image], confidence=confidence, iou=iou))

    def many(
        self,
        images: Sequence[str | Path | UInt8[np.ndarray, "h w 3"]],
        *,
        confidence: float = 0.25,
        iou: float = 0.45,
    ) -> Iterator[Result]:
        """Detect on many images, ``batch_size`` at a time; a `Result` for each, in order."""
        if not 0 <= confidence < 1:
            raise ConfigError(f"confidence = {confidence}: give a number from 0 to below 1")
        if not 0 < iou <= 1:
            raise ConfigError(f"iou = {iou}: give a number above 0, at most 1")
        height, width = self.spec.canvas
        for start in range(0, len(images), self.batch_size):
            chunk = [as_rgb(image) for image in images[start : start + self.batch_size]]
            canvas = np.full((self.batch_size, height, width, 3), self.spec.preprocess.pad, np.uint8)
            placements = []
            for row, image in enumerate(chunk):
                canvas[row], placement = place_on_canvas(image, self.spec.canvas, self.spec.preprocess)
                placements.append(placement)
            found = jax.device_get(self._run(self.variables, canvas, jnp.float32(confidence), jnp.float32(iou)))
            for row, (image, placement) in enumerate(zip(chunk, placements, strict=True)):
                keep = found.valid[row]
                size = (image.shape[0], image.shape[1])
                yield Result(
                    boxes=to_original(found.boxes[row][keep], size, placement),
                    scores=found.scores[row][keep],
                    classes=found.classes[row][keep],
                    class_names=self.spec.class_names,
                    size=size,
                    truncated=int(found.truncated[row] + found.truncated_candidates[row]),
                )


def as_rgb(image: str | Path | np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """An RGB uint8 array from a file or an array; raises `ConfigError` for an array of another form."""
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ConfigError(
            f"image array of shape {image.shape} and type {image.dtype}: give uint8 RGB of shape (height, width, 3)"
        )
    return image


def load_detector(path: str | Path) -> tuple[Detector, Variables]:
    """A released detector and its variables, checked against each other.

    Args:
      path: a run directory (its ``best/`` is taken) or a folder that holds ``detector.json``.

    Raises:
      CheckpointError: nothing there, damaged, or weights that do not fit the description.
    """
    folder = Path(path)
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder; give a run directory such as runs/demo")
    if (folder / "best" / "detector.json").is_file():
        folder = folder / "best"
    if not (folder / "detector.json").is_file():
        raise CheckpointError(f"{folder}: holds no detector.json; give a run directory whose training has ended")
    detector = zoo.from_description(load_description(folder)["detector"])
    weights = folder / "weights.safetensors"
    variables = fit_tree(load_weights(weights), jax.eval_shape(detector.init, jax.random.key(0)), str(weights))
    return detector, jax.tree.map(jnp.asarray, variables)


def load(path: str | Path, *, max_detections: int = 100, batch_size: int = 1) -> Predictor:
    """A ready `Predictor` from a run directory or a released detector; see `load_detector` for what raises."""
    detector, variables = load_detector(path)
    return Predictor(detector, variables, max_detections=max_detections, batch_size=batch_size)
