"""Prediction: a detector with its variables, an image or many in, boxes in original pixels out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from yolojax import zoo
from yolojax.data.feed import place_on_canvas
from yolojax.data.images import read_image
from yolojax.detector import Detector, Variables, prepare_images
from yolojax.draw import Objects, draw_boxes, enlarge
from yolojax.errors import CheckpointError, ConfigError
from yolojax.geometry import to_original
from yolojax.postprocess import postprocess
from yolojax.structures import Detections
from yolojax.weights.released import fit_tree, load_description, load_weights


class Result(NamedTuple):
    """Detections of one image in pixels of the original photo, strongest first. ``n`` rows, no padding.

    ``size`` is the photo's ``(height, width)``. ``truncated`` counts detections beyond ``max_detections`` and
    candidates that never reached suppression.
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

    def as_dict(self) -> dict[str, Any]:
        """JSON values only: the photo's size, and a class, score and box ``[x1, y1, x2, y2]`` for each detection."""
        rows = zip(self.names, self.classes.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        return {
            "height": self.size[0],
            "width": self.size[1],
            "detections": [{"class": n, "class_index": c, "score": s, "box": b} for n, c, s, b in rows],
            "truncated": self.truncated,
        }

    def draw(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The detections drawn on a copy of the photo; a small photo is enlarged first, so that labels can be read."""
        pixels, objects = enlarge(image, Objects(self.boxes, self.classes, self.scores), _SMALLEST_DRAWING)
        return draw_boxes(pixels, objects, self.class_names)


_SMALLEST_DRAWING = 240


class Predictor:
    """A detector ready to use: ``predictor(image)`` gives a `Result`, ``predictor.many(images)`` one after another.

    Compiled once for the batch size given; thresholds are traced and can change from call to call. What an image gives
    does not depend on the images beside it.
    """

    def __init__(
        self, detector: Detector, variables: Variables, *, max_detections: int = 100, batch_size: int = 1
    ) -> None:
        if max_detections < 1 or batch_size < 1:
            raise ConfigError(f"max_detections = {max_detections}, batch_size = {batch_size}: give at least 1 of each")
        self.spec = detector.spec
        self.batch_size = batch_size
        folded = detector

        def fold(variables: Variables) -> Variables:
            nonlocal folded
            folded, folded_variables = detector.fold(variables)
            return folded_variables

        # As one program: run operation by operation, it would compile something for the shape of every layer.
        self.variables = jax.jit(fold)(variables)
        self.detector = folded

        def run(
            variables: Variables, images: UInt8[Array, "B H W 3"], confidence: Float[Array, ""], iou: Float[Array, ""]
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
        images: Sequence[str | Path | UInt8[np.ndarray, "_ _ 3"]],
        *,
        confidence: float = 0.25,
        iou: float = 0.45,
    ) -> Iterator[Result]:
        """Detect on many images, ``batch_size`` at a time; a `Result` for each, in order.

        Args:
          images: files or RGB uint8 arrays, of any sizes.
          confidence: detections must score at least this.
          iou: of two boxes of a class that overlap more than this, the weaker is left out.

        Raises:
          ConfigError: a threshold out of range, or an array that is no RGB image.
          DataError: a file that cannot be read.
        """
        if not 0 <= confidence < 1:
            raise ConfigError(f"confidence = {confidence}: give a number from 0 to below 1")
        if not 0 < iou <= 1:
            raise ConfigError(f"iou = {iou}: give a number above 0, at most 1")
        return self._many(images, jnp.float32(confidence), jnp.float32(iou))

    def _many(
        self, images: Sequence[str | Path | UInt8[np.ndarray, "_ _ 3"]], confidence: jax.Array, iou: jax.Array
    ) -> Iterator[Result]:
        canvas = np.full((self.batch_size, *self.spec.canvas, 3), self.spec.preprocess.pad, np.uint8)
        for start in range(0, len(images), self.batch_size):
            chunk = [as_rgb(image) for image in images[start : start + self.batch_size]]
            placements = []
            for row, image in enumerate(chunk):
                canvas[row], placement = place_on_canvas(image, self.spec.canvas, self.spec.preprocess)
                placements.append(placement)
            found = jax.device_get(self._run(self.variables, jnp.array(canvas), confidence, iou))
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
        return read_image(Path(image).expanduser())
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ConfigError(
            f"image array of shape {image.shape} and type {image.dtype}: give uint8 RGB of shape (height, width, 3)"
        )
    return image


def released_folder(path: str | Path) -> Path:
    """The folder that holds a released detector: the path itself, or ``best/`` of a run directory.

    Raises `CheckpointError` when there is none.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder; give a run directory such as runs/demo")
    for candidate in (folder / "best", folder):
        if (candidate / "weights.safetensors").is_file() or (candidate / "detector.json").is_file():
            return candidate
    if (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: this run has no detector yet; finish it with yolojax train --resume {folder}")
    raise CheckpointError(f"{folder}: holds no detector.json; give a run directory such as runs/demo")


def load_detector(path: str | Path) -> tuple[Detector, Variables]:
    """A released detector and its variables, checked against each other.

    Args:
      path: a run directory (its ``best/`` is taken) or a folder that holds ``detector.json``.

    Raises:
      CheckpointError: nothing there, damaged, or weights that do not fit the description.
    """
    folder = released_folder(path)
    detector = zoo.from_description(load_description(folder)["detector"])
    weights = folder / "weights.safetensors"
    variables = fit_tree(load_weights(weights), jax.eval_shape(detector.init, jax.random.key(0)), str(weights))
    return detector, jax.tree.map(jnp.asarray, variables)


def load(path: str | Path, *, max_detections: int = 100, batch_size: int = 1) -> Predictor:
    """A ready `Predictor` from a run directory or a released detector; see `load_detector` for what raises."""
    detector, variables = load_detector(path)
    return Predictor(detector, variables, max_detections=max_detections, batch_size=batch_size)
