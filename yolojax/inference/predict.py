"""Prediction: from a detector with its variables and photos to boxes in pixels of the photos."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex, TypeVar, overload

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, DTypeLike, Float, UInt8

from yolojax.config import MOST_DETECTIONS
from yolojax.data.images import read_image, to_rgb
from yolojax.data.input_images import make_input_image
from yolojax.detect import check_confidence, choose_iou, detect
from yolojax.detector import Detector, DetectorSpec, Variables, fold_on_host
from yolojax.errors import ConfigError, DataError
from yolojax.export.running import Runtime
from yolojax.geometry import Placement, batch_to_original
from yolojax.image_wise import by_image
from yolojax.inference.loading import ModelPath, Size, is_exported, load_detector, model_files, released_folder
from yolojax.inference.pipeline import batches_ahead
from yolojax.inference.results import Result
from yolojax.inference.tta import TTA, detect_augmented, union_suppression, with_tta
from yolojax.nms import Suppression
from yolojax.nms.named import BuiltIn
from yolojax.paths import user_path
from yolojax.processor.inference import inference_options, traced_for_detection
from yolojax.settings import shown
from yolojax.sharding.batches import on_all_devices, split_over_devices
from yolojax.structures import Detections
from yolojax.tiling import Tiling

__all__ = ["Predictor", "Result", "as_rgb", "load", "load_detector", "read_photo", "released_folder"]

T = TypeVar("T")

Photo = Any
"""A file, an RGB uint8 array ``[h, w, 3]``, or a Pillow image."""

Classes = str | SupportsIndex | Sequence[str | SupportsIndex]
"""Names or indices of classes; one alone, too."""


CAPACITY = 1024
"""Scores of a photo that reach the threshold, for which the first program is compiled: a trained detector has some
hundred. The program for any number takes four times as long to compile; it is made where a photo has more, and then
takes the place of the first."""

Program = Callable[..., Detections]
"""``(images, variables, confidence, iou, wanted)`` to detections."""


class Prepared(NamedTuple):
    """A photo, its input image, and where the photo lies on it."""

    image: UInt8[np.ndarray, "h w 3"]
    input_image: UInt8[np.ndarray, "H W 3"]
    placement: Placement


def prediction_program(
    detector: Detector,
    *,
    max_detections: int,
    suppress: Suppression | BuiltIn,
    capacity: int | None = CAPACITY,
    split: NamedSharding | None = None,
    tta: TTA | None = None,
    platform: str | None = None,
) -> Program:
    """Returns what a `Predictor` compiles: input images and folded variables to detections in input pixels.

    Args:
      detector: any record.
      max_detections: most detections of an image.
      suppress: the suppression, see `Predictor`.
      capacity: scores of an image that may reach the threshold; None is any number. Augmentations have no capacity.
      split: how a batch lies on the devices; None for one device.
      tta: test-time augmentation.
      platform: what it is compiled for, as JAX names it; None is the platform of this process.
    """
    found = partial(detect, capacity=capacity) if tta is None else partial(detect_augmented, tta=tta)

    def run(
        images: UInt8[Array, "B H W 3"],
        variables: Variables,
        confidence: Float[Array, ""],
        iou: Float[Array, ""] | None,
        wanted: Bool[Array, " C"] | None,
    ) -> Detections:
        settings: dict[str, Any] = {"max_detections": max_detections, "suppress": suppress}
        return found(detector, variables, images, confidence, iou, wanted, **settings)

    return traced_for_detection(run if split is None else by_image(run, split, shared=4), platform)


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
        self.max_detections: int = _count("max_detections", max_detections, MOST_DETECTIONS)
        batch_size = _count("batch_size", batch_size)
        self.spec: DetectorSpec = detector.spec
        self.layout: DetectorSpec = with_tta(detector.spec, tta)
        self.batch_size: int = batch_size
        self.detector: Detector = detector
        suppress = union_suppression(detector.spec, tta, suppress)
        self.suppress: Suppression | BuiltIn = suppress
        folded, split = fold_on_host(detector, variables), split_over_devices(batch_size)
        self.variables: Variables = jax.device_put(folded) if split is None else on_all_devices(folded, split)
        most = self.max_detections
        settings: dict[str, Any] = {"max_detections": most, "suppress": suppress, "split": split, "tta": tta}
        # Other kinds of suppression take the best candidates only, and so count more than what exceeds a capacity.
        limited = tta is None and suppress in ("nms", "none")
        self._traced = prediction_program(detector, capacity=CAPACITY if limited else None, **settings)
        self._run: Program = jax.jit(self._traced, compiler_options=inference_options())
        again = prediction_program(detector, capacity=None, **settings) if limited else None
        self._traced_again = again
        self._run_again: Program | None = again and jax.jit(again, compiler_options=inference_options())

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
          images: files, RGB uint8 arrays (of NumPy, JAX or PyTorch) or Pillow images, of any sizes. They are read in
            threads, at most two batches ahead of the one that the network computes.
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
        return self._many(images, self._settings(confidence, iou, classes, images))

    def each(
        self,
        items: Iterable[T],
        read: Callable[[T], UInt8[np.ndarray, "_ _ 3"]],
        *,
        confidence: SupportsFloat | None = None,
        iou: SupportsFloat | None = None,
        classes: Classes | None = None,
    ) -> Iterator[tuple[T, Result | DataError]]:
        """Detect on what ``read`` makes of each item; one that cannot be read does not stop the others.

        Args:
          items: anything, such as file names.
          read: gives the RGB uint8 array of an item; called in threads.
          confidence, iou, classes: see `many`.

        Returns:
          every item in order with its result, or with the `DataError` that ``read`` raised.

        Raises:
          ConfigError: as `many` does.
        """
        return self._each(items, read, self._settings(confidence, iou, classes, items))

    def _settings(
        self, confidence: SupportsFloat | None, iou: SupportsFloat | None, classes: Classes | None, images: Any
    ) -> tuple[np.float32, np.float32 | None, np.ndarray | None]:
        """The thresholds and the mask of classes as the program takes them; raises as `many` does."""
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
        return np.float32(float(confidence)), None if threshold is None else np.float32(threshold), wanted

    def _many(self, images: Iterable[Photo], settings: tuple[Any, ...]) -> Iterator[Result]:
        for photo, result in self._each(images, as_rgb, settings):
            if isinstance(result, DataError):
                raise result
            yield replace(result, path=str(photo)) if isinstance(photo, str | Path) else result

    def _each(
        self, items: Iterable[T], read: Callable[[T], UInt8[np.ndarray, "_ _ 3"]], settings: tuple[Any, ...]
    ) -> Iterator[tuple[T, Result | DataError]]:
        """Reading runs ahead of the network in threads, and the next batch is computed while results are made."""

        def prepare(item: T) -> Prepared | DataError:
            try:
                image = read(item)
            except DataError as error:
                return error
            return Prepared(image, *make_input_image(image, self.layout.input_size, self.spec.preprocess))

        started: tuple[list[tuple[T, Prepared | DataError]], Callable[[], Detections] | None] | None = None
        with closing(batches_ahead(prepare, items, self.batch_size)) as batches:
            for chunk, next_is_ready in batches:
                photos = [image for _, image in chunk if isinstance(image, Prepared)]
                following = chunk, self._start(photos, settings) if photos else None
                if started is not None:
                    yield from self._finish(*started)
                started = following
                if not next_is_ready():
                    yield from self._finish(*started)
                    started = None
            if started is not None:
                yield from self._finish(*started)

    def _start(self, photos: list[Prepared], settings: tuple[Any, ...]) -> Callable[[], Detections]:
        """Starts the network on at most ``batch_size`` photos; returns a function that waits for the detections."""
        # Rows without a photo hold the padding of the input image; their detections are not read.
        inputs = np.full((self.batch_size, *self.layout.input_size, 3), self.spec.preprocess.pad, np.uint8)
        for row, photo in enumerate(photos):
            inputs[row] = photo.input_image
        running = self._run(inputs, self.variables, *settings)

        def wait() -> Detections:
            found = jax.device_get(running)
            if self._run_again is not None and found.truncated_candidates.any():
                self._run = self._run_again
                return jax.device_get(self._run(inputs, self.variables, *settings))
            return found

        return wait

    def _finish(
        self, chunk: list[tuple[T, Prepared | DataError]], wait: Callable[[], Detections] | None
    ) -> Iterator[tuple[T, Result | DataError]]:
        """Waits for the detections of a batch, and gives them in pixels of the photos."""
        found = None if wait is None else wait()
        row = 0
        for item, photo in chunk:
            if isinstance(photo, DataError):
                yield item, photo
                continue
            assert found is not None
            keep = np.asarray(found.valid[row])
            content, size = np.array([photo.placement.content]), np.array([photo.image.shape[:2]])
            yield (
                item,
                Result(
                    boxes=batch_to_original(np.asarray(found.boxes[row])[None, keep], content, size)[0],
                    scores=np.asarray(found.scores[row])[keep],
                    classes=np.asarray(found.classes[row])[keep],
                    class_names=self.spec.class_names,
                    image=photo.image,
                    truncated=int(found.truncated[row] + found.truncated_candidates[row]),
                ),
            )
            row += 1


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
        raise ConfigError(f"{name} = {shown(value)}: give a whole number {limit}")
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
            known = ", ".join(class_names[:12]) + (", ..." if len(class_names) > 12 else "")
            raise ConfigError(f"classes: {one!r} is none of the {len(class_names)} classes, which are {known}")
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
    tiling: Tiling | None = None,
    parts: Mapping[str, Callable[..., Any]] | None = None,
    detector: Detector | None = None,
    runtime: Runtime | None = None,
) -> Predictor:
    """A ready `Predictor` from a run directory, a released detector, published files or an exported file.

    ``paths``, ``size``, ``dtype``, ``parts``, ``detector`` and ``runtime`` are those of `load_detector`, which also
    says what raises; with ``tiling`` large photos are cut into tiles (`yolojax.inference.tiled.TiledPredictor`); the
    others are those of `Predictor`.
    """
    from yolojax.inference.kept import find_kept, open_kept  # they build on this module

    settings: dict[str, Any] = {"max_detections": max_detections, "batch_size": batch_size, "suppress": suppress}

    def build() -> Predictor:
        own, variables = load_detector(*paths, size=size, dtype=dtype, parts=parts, detector=detector, runtime=runtime)
        return Predictor(own, variables, tta=tta, **settings)

    kept = None
    if parts is None and detector is None and tta is None and runtime is None and not is_exported(model_files(paths)):
        kept = find_kept(paths, {**settings, "size": size, "dtype": str(dtype)})
    predictor = build() if kept is None else open_kept(kept, build, suppress)
    if tiling is None:
        return predictor
    from yolojax.inference.tiled import TiledPredictor

    return TiledPredictor(predictor, tiling)
