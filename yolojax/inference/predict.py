"""Prediction: from a detector with its variables and photos to boxes in pixels of the photos."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, UInt8

from yolojax.config import MOST_DETECTIONS
from yolojax.data.images import read_image, to_rgb
from yolojax.data.input_images import make_input_image
from yolojax.detect import check_confidence, choose_iou, detect
from yolojax.detector import Detector, Variables
from yolojax.errors import ConfigError, DataError
from yolojax.export.running import Runtime
from yolojax.geometry import batch_to_original
from yolojax.inference.loading import ModelPath, Size, load_detector, released_folder
from yolojax.inference.results import Result
from yolojax.inference.tta import TTA, detect_augmented, union_suppression, with_tta
from yolojax.nms import Suppression
from yolojax.nms.named import BuiltIn
from yolojax.paths import user_path
from yolojax.processor.platform import for_platform
from yolojax.sharding.by_image import by_image, on_all_devices, split_over_devices
from yolojax.structures import Detections

__all__ = ["Predictor", "Result", "as_rgb", "load", "load_detector", "read_photo", "released_folder"]

Photo = Any
"""A file, an RGB uint8 array ``[h, w, 3]``, or a Pillow image."""

Classes = str | SupportsIndex | Sequence[str | SupportsIndex]
"""Names or indices of classes; one alone, too."""


class Predictor:
    """A detector ready to use: ``predictor(image)`` gives a `Result`, ``predictor(images)`` a list of them.

    One program is compiled, for the batch size given, whatever the sizes of the photos (and a second one when classes
    are first selected); thresholds are traced and can change from call to call. What an image gives does not depend on
    the images beside it. Several devices share a batch where they can do so equally.

    Args:
      detector: any record; what was replaced in it (``detector._replace(decode=mine)``) holds. The network computes in
        the type that the detector was built with (``zoo.build(..., dtype="bfloat16")``, ``load(..., dtype=...)``);
        boxes are computed in float32.
      variables: those of the detector, as trained.
      max_detections: most detections of a photo; None takes the detector's own (`DetectorSpec.postprocess`).
      batch_size: photos that the network takes at once.
      tta: test-time augmentation, see `yolojax.inference.tta.TTA`.
      suppress: ``nms``, ``none`` or a function with the interface `yolojax.nms.Suppression`, such as
        ``partial(soft_nms_gaussian, sigma=0.3)``; None takes what the detector's ``spec`` names.

    Raises:
      ConfigError: for an argument out of range.
    """

    def __init__(
        self,
        detector: Detector,
        variables: Variables,
        *,
        max_detections: SupportsIndex | None = None,
        batch_size: SupportsIndex = 1,
        tta: TTA | None = None,
        suppress: Suppression | BuiltIn | None = None,
    ) -> None:
        self._defaults = detector.spec.postprocess.prediction
        max_detections = self._defaults.max_detections if max_detections is None else max_detections
        max_detections = _count("max_detections", max_detections, MOST_DETECTIONS)
        batch_size = _count("batch_size", batch_size)
        self.spec = detector.spec
        self.layout = with_tta(detector.spec, tta)
        self.batch_size = batch_size
        self.detector = detector
        suppress = union_suppression(detector.spec, tta, suppress)
        self.suppress: Suppression | BuiltIn = suppress
        # As one program: run operation by operation, it would compile something for the shape of every layer.
        self.variables = jax.jit(detector.fold)(variables)

        def run(
            images: UInt8[Array, "B H W 3"],
            variables: Variables,
            confidence: Float[Array, ""],
            iou: Float[Array, ""] | None,
            wanted: Bool[Array, " C"] | None,
        ) -> Detections:
            found = detect if tta is None else partial(detect_augmented, tta=tta)
            settings = {"max_detections": max_detections, "suppress": suppress}
            return found(detector, variables, images, confidence, iou, wanted, **settings)

        split = split_over_devices(batch_size)
        if split is not None:
            self.variables = on_all_devices(self.variables, split)
        run = run if split is None else by_image(run, split, shared=4)
        self._run = jax.jit(for_platform(jax.default_backend(), run))

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload] (a Photo is no list, but may be an array)
        self,
        images: list[Any] | tuple[Any, ...],
        *,
        confidence: SupportsFloat | None = ...,
        iou: SupportsFloat | None = ...,
        classes: Any = ...,
    ) -> list[Result]: ...

    @overload
    def __call__(
        self,
        images: Photo,
        *,
        confidence: SupportsFloat | None = ...,
        iou: SupportsFloat | None = ...,
        classes: Any = ...,
    ) -> Result: ...

    def __call__(
        self,
        images: Photo,
        *,
        confidence: SupportsFloat | None = None,
        iou: SupportsFloat | None = None,
        classes: Classes | None = None,
    ) -> Result | list[Result]:
        """Detect on one image, or on a list of them; see `many` for the arguments and what raises."""
        options = {"confidence": confidence, "iou": iou, "classes": classes}
        if isinstance(images, list | tuple):
            return list(self.many(images, **options))
        return next(self.many([images], **options))

    def many(
        self,
        images: Iterable[Photo],
        *,
        confidence: SupportsFloat | None = None,
        iou: SupportsFloat | None = None,
        classes: Classes | None = None,
    ) -> Iterator[Result]:
        """Detect on many images, ``batch_size`` at a time; a `Result` for each, in order.

        Args:
          images: files, RGB uint8 arrays (of NumPy, JAX or PyTorch) or Pillow images, of any sizes; read as they are
            needed.
          confidence: the least score of a detection; None takes the detector's own (.25 unless it says otherwise).
          iou: of two boxes of a class that overlap by more than this, greedy suppression removes the one of lower
            score; None takes the detector's own (.45 unless it says otherwise). Other kinds of suppression have
            thresholds of their own and take no ``iou``.
          classes: names or indices of the classes to report; None reports all. A box of another class does not come
            back under its second best.

        Raises:
          ConfigError: a threshold out of range, an unknown class, or an array that is no RGB image.
          DataError: a file that cannot be read.
        """
        confidence = self._defaults.confidence if confidence is None else confidence
        if not 0 <= _number(confidence) < 1:
            raise ConfigError(f"confidence = {confidence!r}: give a number from 0 to below 1")
        check_confidence(self.spec, float(confidence))
        if iou is not None and not 0 < _number(iou) <= 1:
            raise ConfigError(f"iou = {iou!r}: give a number above 0, at most 1")
        threshold = choose_iou(self.spec, self.suppress, None if iou is None else float(iou), self._defaults.iou)
        if isinstance(images, str | Path) or not isinstance(images, Iterable):
            raise ConfigError(f"many({images!r}): give a list of images")
        wanted = None if classes is None else class_mask(classes, self.spec.class_names)
        iou_array = None if threshold is None else jnp.float32(threshold)
        return self._many(iter(images), jnp.float32(float(confidence)), iou_array, wanted)

    def _many(
        self, images: Iterator[Photo], confidence: jax.Array, iou: jax.Array | None, wanted: np.ndarray | None
    ) -> Iterator[Result]:
        while chunk := list(islice(images, self.batch_size)):
            # Rows without a photo hold the padding of the input image; their detections are not read.
            inputs = np.full((self.batch_size, *self.layout.input_size, 3), self.spec.preprocess.pad, np.uint8)
            content = np.tile(np.array([0, 0, 1, 1], np.int64), (self.batch_size, 1))
            sizes = np.ones((self.batch_size, 2), np.int64)
            pixels = [as_rgb(photo) for photo in chunk]
            for row, image in enumerate(pixels):
                inputs[row], placement = make_input_image(image, self.layout.input_size, self.spec.preprocess)
                content[row], sizes[row] = placement.content, image.shape[:2]
            found = jax.device_get(self._run(inputs, self.variables, confidence, iou, wanted))
            boxes = batch_to_original(found.boxes, content, sizes)
            for row, (photo, image) in enumerate(zip(chunk, pixels, strict=True)):
                keep = found.valid[row]
                yield Result(
                    boxes=boxes[row][keep],
                    scores=found.scores[row][keep],
                    classes=found.classes[row][keep],
                    class_names=self.spec.class_names,
                    image=image,
                    truncated=int(found.truncated[row] + found.truncated_candidates[row]),
                    path=str(photo) if isinstance(photo, str | Path) else None,
                )


def as_rgb(image: Photo) -> UInt8[np.ndarray, "h w 3"]:
    """An RGB uint8 array from a file, an array or a Pillow image.

    Raises:
      ConfigError: for an array of another form, or what is none of the three.
      DataError: for a file that cannot be read, or a Pillow image of unknown range.
    """
    if isinstance(image, str | Path):
        return read_photo(image)
    if isinstance(image, bytes):
        raise ConfigError("image of bytes: give a file name, a uint8 RGB array or a Pillow image")
    from PIL.Image import Image

    if isinstance(image, Image):
        return to_rgb(image, "Pillow image")
    if hasattr(image, "__array__"):
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ConfigError(
                f"image array of shape {image.shape} and type {image.dtype}: give uint8 RGB of shape (height, width, 3)"
                + ("; several images as a list" if image.ndim == 4 else "")
            )
        return image
    raise ConfigError(f"{type(image).__name__} is no image: give a file name, a uint8 RGB array or a Pillow image")


def read_photo(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """`yolojax.data.images.read_image` of a file that somebody named; raises `DataError` when there is none."""
    path = user_path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise DataError(f"{path}: {'a folder' if path.is_dir() else 'no ordinary file'}; give a file")
    return read_image(path)


def _number(value: Any) -> float:
    """Also of a 0-dimensional array; NaN for what is no number, text included."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _index(value: Any) -> int | None:
    """A whole number, also of NumPy or JAX; None for what is none, True and False included."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _count(name: str, value: Any, most: int | None = None) -> int:
    number = _index(value)
    if number is None or number < 1 or (most is not None and number > most):
        limit = "of at least 1" if most is None else f"from 1 to {most}"
        raise ConfigError(f"{name} = {value!r}: give a whole number {limit}")
    return number


def class_mask(classes: Classes, class_names: Sequence[str]) -> Bool[np.ndarray, " C"]:
    """A mask of the classes with these names or indices; raises `ConfigError` for an unknown one, or for none."""
    mask = np.zeros(len(class_names), bool)
    alone = isinstance(classes, str) or _index(classes) is not None
    wanted: Iterable[Any] = classes if isinstance(classes, Iterable) and not alone else [classes]
    for one in wanted:
        number = class_names.index(one) if isinstance(one, str) and one in class_names else _index(one)
        if number is not None and 0 <= number < len(class_names):
            mask[number] = True
        else:
            shown = ", ".join(class_names[:12]) + (", ..." if len(class_names) > 12 else "")
            raise ConfigError(f"classes: {one!r} is none of the {len(class_names)} classes, which are {shown}")
    if not mask.any():
        raise ConfigError("classes: none given; leave it out to report all")
    return mask


def load(
    *paths: ModelPath,
    size: Size | None = None,
    dtype: DTypeLike = "float32",
    max_detections: SupportsIndex | None = None,
    batch_size: SupportsIndex = 1,
    tta: TTA | None = None,
    suppress: Suppression | BuiltIn | None = None,
    parts: Mapping[str, Callable[..., Any]] | None = None,
    detector: Detector | None = None,
    runtime: Runtime | None = None,
) -> Predictor:
    """A ready `Predictor` from a run directory, a released detector, published files or an exported file.

    ``paths``, ``size``, ``dtype``, ``parts``, ``detector`` and ``runtime`` are those of `load_detector`, which also
    says what raises; the others are those of `Predictor`.
    """
    detector, variables = load_detector(*paths, size=size, dtype=dtype, parts=parts, detector=detector, runtime=runtime)
    return Predictor(
        detector, variables, max_detections=max_detections, batch_size=batch_size, tta=tta, suppress=suppress
    )
