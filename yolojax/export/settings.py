"""What an exported file computes, and what it says about itself."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from yolojax import __version__
from yolojax.config import MOST_DETECTIONS
from yolojax.described import check_stated_size, read_postprocess, read_preprocess
from yolojax.detector import Detector, DetectorSpec, Postprocess, Variables
from yolojax.errors import CheckpointError, ConfigError, shortened, shown
from yolojax.export.network_type import network_type
from yolojax.geometry import Preprocess
from yolojax.settings import build, converted
from yolojax.weights.released import flatten

FORMAT = 1
"""Of the description in a file; a reader refuses newer ones."""

ENTRY = "yolojax"
"""The metadata entry of an ONNX file that holds the description as JSON."""

IMAGES, PHOTOS = "images", "photos"
"""Names of the input: images of the input size, or with ``letterbox`` photos of any size."""

DETECTIONS = ("boxes", "scores", "classes", "count")
CANDIDATES = ("boxes", "scores")
"""Names of the outputs, in order: detections, and with ``raw`` all candidates."""


@dataclass(frozen=True)
class ExportSettings:
    """What an exported file computes. None of a threshold takes the detector's own for prediction.

    Attributes:
      batch: images that the file takes at once; None leaves the number open.
      confidence: the least score of a detection.
      iou: overlap above which greedy suppression removes the lower score; None for a detector that needs none.
      max_detections: rows of an image.
      raw: give all candidates, before any threshold and suppression.
      letterbox: take photos of any size, resize them inside, and give boxes in pixels of the photo.
      half: keep and compute the network in 16 bits; boxes and scores are float32 all the same.
    """

    batch: int | None = 1
    confidence: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    raw: bool = False
    letterbox: bool = False
    half: bool = False


@dataclass(frozen=True)
class FileThresholds:
    """The thresholds inside a file, as in `yolojax.detector.Thresholds`; an ``iou`` of None suppresses nothing."""

    confidence: float
    iou: float | None
    max_detections: int


class Description(NamedTuple):
    """What a file that `yolojax.export` wrote says about itself.

    Attributes:
      name: of the architecture.
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels.
      strides: of the prediction levels.
      preprocess: how a photo becomes an input image; channel order and scale are inside the file.
      batch: images that the file takes at once; None for any number.
      raw: whether the outputs are all candidates (`CANDIDATES`) instead of detections (`DETECTIONS`).
      letterbox: whether the file takes photos of any size.
      thresholds: of the detections, inside the file; None with ``raw``.
      suppression, multi_label, postprocess: those of the detector, which a reader of ``raw`` files applies.
      dtype: in which the network computes.
      facts: versions, the SHA-256 of the weights, and what else is told for people.
    """

    name: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    strides: tuple[int, ...]
    preprocess: Preprocess
    batch: int | None
    raw: bool
    letterbox: bool
    thresholds: FileThresholds | None
    suppression: str
    multi_label: bool
    postprocess: Postprocess
    dtype: str
    facts: dict[str, Any]

    @property
    def input_name(self) -> str:
        """`PHOTOS` or `IMAGES`."""
        return PHOTOS if self.letterbox else IMAGES

    @property
    def output_names(self) -> tuple[str, ...]:
        """`CANDIDATES` or `DETECTIONS`."""
        return CANDIDATES if self.raw else DETECTIONS


def describe_export(
    detector: Detector, variables: Variables, settings: ExportSettings, dtype: str | None = None
) -> Description:
    """Checks the settings for a detector, and describes the file that they make.

    ``dtype`` is in which the network computes; None is found out.

    Raises `ConfigError` for a setting that is out of range, or that the file could not honour.
    """
    if not isinstance(settings, ExportSettings):
        raise ConfigError(f"settings = {shown(settings)}: give ExportSettings(...)")
    settings = build(ExportSettings, dataclasses.asdict(settings))
    spec, own = detector.spec, detector.spec.postprocess.prediction
    if settings.batch is not None and settings.batch < 1:
        raise ConfigError(f"batch = {settings.batch}: give at least 1, or dynamic for any number")
    thresholds = None
    if settings.raw:
        given = {name: getattr(settings, name) for name in ("confidence", "iou", "max_detections")}
        for name, value in given.items():
            if value is not None:
                raise ConfigError(
                    f"{name} = {value:g}: raw candidates come before all thresholds; leave one of both out"
                )
        if settings.letterbox:
            raise ConfigError(
                "letterbox gives boxes in pixels of the photo, raw those of the input; choose one of both"
            )
    else:
        thresholds = FileThresholds(
            own.confidence if settings.confidence is None else settings.confidence,
            _iou(spec, settings.iou, own.iou),
            own.max_detections if settings.max_detections is None else settings.max_detections,
        )
        if not 0 <= thresholds.confidence < 1:
            raise ConfigError(f"confidence = {thresholds.confidence:g}: give a number from 0 to below 1")
        if not 1 <= thresholds.max_detections <= MOST_DETECTIONS:
            raise ConfigError(f"max_detections = {thresholds.max_detections}: give 1 to {MOST_DETECTIONS}")
    if settings.letterbox and spec.preprocess.filter != "antialiased":
        raise ConfigError(
            f"letterbox: {spec.name} resizes by the filter {spec.preprocess.filter}, which is not exported; "
            "resize outside"
        )
    dtype = network_type(detector, variables, dtype)
    if settings.half and dtype == "float32":
        raise ConfigError(
            "half: the network computes in float32; build or load the detector with dtype float16 (ONNX) or bfloat16 "
            "(StableHLO)"
        )
    facts = {
        "yolojax": __version__,
        "jax": jax.__version__,
        "weights_sha256": hash_variables(variables),
    }
    return Description(
        name=spec.name,
        class_names=spec.class_names,
        input_size=spec.input_size,
        strides=spec.strides,
        preprocess=spec.preprocess,
        batch=settings.batch,
        raw=settings.raw,
        letterbox=settings.letterbox,
        thresholds=thresholds,
        suppression=spec.suppression,
        multi_label=spec.multi_label,
        postprocess=spec.postprocess,
        dtype=dtype,
        facts=facts,
    )


def _iou(spec: DetectorSpec, given: float | None, default: float) -> float | None:
    if spec.suppression == "none":
        if given is not None:
            raise ConfigError(f"iou = {given:g}: {spec.name} needs no suppression; leave iou out")
        return None
    value = default if given is None else given
    if not 0 < value <= 1:
        raise ConfigError(f"iou = {value:g}: give a number above 0, at most 1")
    return value


def hash_variables(variables: Variables) -> str:
    """The SHA-256 of all arrays with their names, types and shapes, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(flatten(variables).items()):
        array = np.asarray(value)
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def to_json(description: Description) -> dict[str, Any]:
    """The description in plain JSON values."""
    plain = {
        name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        for name, value in description._asdict().items()
    }
    return {
        "format": FORMAT,
        **plain,
        "input": {
            "name": description.input_name,
            "type": "uint8",
            "layout": "[batch, height, width, RGB]",
        },
        "outputs": list(description.output_names),
    }


def from_json(plain: Any, source: str) -> Description:
    """The inverse of `to_json`; raises `CheckpointError` for what no version of this program wrote, or a newer one."""
    if not isinstance(plain, dict) or "format" not in plain:
        raise CheckpointError(f"{source}: its description is none of yolojax; export it again")
    if plain["format"] != FORMAT:
        raise CheckpointError(f"{source}: format {shown(plain['format'])}, this version reads {FORMAT}; update yolojax")
    try:
        thresholds = plain["thresholds"]
        values = {name: plain[name] for name in Description._fields}
        check_stated_size(tuple(plain["input_size"]))
        values |= {
            "class_names": converted(tuple[str, ...], plain["class_names"], "class_names"),
            "input_size": tuple(plain["input_size"]),
            "strides": converted(tuple[int, ...], plain["strides"], "strides"),
            "preprocess": read_preprocess(plain["preprocess"]),
            "thresholds": None if thresholds is None else build(FileThresholds, thresholds, "thresholds"),
            "postprocess": read_postprocess(plain["postprocess"]),
        }
        for name, hint in (("name", str), ("dtype", str), ("batch", int | None), ("raw", bool), ("letterbox", bool)):
            converted(hint, plain[name], name)
        for name, hint in (("suppression", Literal["nms", "none"]), ("multi_label", bool), ("facts", dict)):
            converted(hint, plain[name], name)
        return Description(**values)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ConfigError) as error:
        reason = shortened(f"{type(error).__name__}: {error}")
        raise CheckpointError(f"{source}: its description is damaged ({reason}); export it again") from error


def package_version(name: str) -> str:
    """The installed version of a package, for the facts of a description."""
    return version(name)
