"""Published and own detectors, one file each, composed from the parts; `build` makes one by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import DTypeLike, Float

from yolojax.anchors import deal_to_levels, kmeans_anchors
from yolojax.catalogue import architecture, known_names, nearest
from yolojax.detector import Detector, variable_shapes
from yolojax.errors import ConfigError
from yolojax.models.network import parameter_count
from yolojax.zoo.coco import COCO_CLASSES, COCO_CLASSES_90
from yolojax.zoo.compact import compact
from yolojax.zoo.darknet import darknet, from_darknet, load_darknet, save_darknet, to_darknet
from yolojax.zoo.deimv2 import deimv2
from yolojax.zoo.description import check_record, custom_parts, describe, restore
from yolojax.zoo.dfine import dfine
from yolojax.zoo.fasterrcnn import fasterrcnn
from yolojax.zoo.flax_detector import flax_detector, forward_flops, measure_statistics
from yolojax.zoo.lesson import lesson
from yolojax.zoo.options import check_types
from yolojax.zoo.parts import PART_OPTIONS
from yolojax.zoo.pytorch import (
    FAMILIES,
    backbone_variables,
    from_pytorch,
    identify,
    identity,
    read_family,
    to_state_dict,
)
from yolojax.zoo.retinanet import retinanet
from yolojax.zoo.rtdetr import rtdetr, rtdetrv2
from yolojax.zoo.yolo11 import yolo11
from yolojax.zoo.yolo12 import yolo12
from yolojax.zoo.yolo26 import yolo26
from yolojax.zoo.yolonas import yolonas
from yolojax.zoo.yolov1 import yolov1, yolov1_tiny
from yolojax.zoo.yolov2 import yolov2
from yolojax.zoo.yolov3 import yolov3, yolov3_tiny
from yolojax.zoo.yolov4 import yolov4, yolov4_tiny
from yolojax.zoo.yolov5 import yolov5
from yolojax.zoo.yolov5u import yolov5u
from yolojax.zoo.yolov8 import yolov8
from yolojax.zoo.yolov9 import yolov9
from yolojax.zoo.yolov10 import yolov10
from yolojax.zoo.yolox import from_yolox, yolox, yolox_l, yolox_m, yolox_nano, yolox_s, yolox_tiny, yolox_x

__all__ = [
    "ANCHORED",
    "ARCHITECTURES",
    "COCO_CLASSES",
    "COCO_CLASSES_90",
    "FAMILIES",
    "backbone_variables",
    "build",
    "check_record",
    "compact",
    "custom_parts",
    "darknet",
    "deimv2",
    "describe",
    "dfine",
    "fasterrcnn",
    "flax_detector",
    "forward_flops",
    "from_darknet",
    "from_description",
    "from_pytorch",
    "from_yolox",
    "identify",
    "identity",
    "lesson",
    "load_darknet",
    "measure_statistics",
    "parameter_count",
    "read_family",
    "retinanet",
    "rtdetr",
    "rtdetrv2",
    "save_darknet",
    "to_darknet",
    "to_state_dict",
    "yolo11",
    "yolo12",
    "yolo26",
    "yolonas",
    "yolov1",
    "yolov1_tiny",
    "yolov2",
    "yolov3",
    "yolov3_tiny",
    "yolov4",
    "yolov4_tiny",
    "yolov5",
    "yolov5u",
    "yolov8",
    "yolov9",
    "yolov10",
    "yolox",
    "yolox_l",
    "yolox_m",
    "yolox_nano",
    "yolox_s",
    "yolox_tiny",
    "yolox_x",
]

ARCHITECTURES: dict[str, Callable[..., Detector]] = {
    "compact": compact,
    "darknet": darknet,
    "fasterrcnn": fasterrcnn,
    "lesson": lesson,
    "retinanet": retinanet,
    "deimv2": deimv2,
    "dfine": dfine,
    "rtdetr": rtdetr,
    "rtdetrv2": rtdetrv2,
    "yolo11": yolo11,
    "yolo26": yolo26,
    "yolo12": yolo12,
    "yolonas": yolonas,
    "yolov1": yolov1,
    "yolov1-tiny": yolov1_tiny,
    "yolov2": yolov2,
    "yolov3": yolov3,
    "yolov3-tiny": yolov3_tiny,
    "yolov4": yolov4,
    "yolov4-tiny": yolov4_tiny,
    "yolov5": yolov5,
    "yolov5u": yolov5u,
    "yolov8": yolov8,
    "yolov9": yolov9,
    "yolov10": yolov10,
    "yolox": yolox,
    "yolox-nano": yolox_nano,
    "yolox-tiny": yolox_tiny,
    "yolox-s": yolox_s,
    "yolox-m": yolox_m,
    "yolox-l": yolox_l,
    "yolox-x": yolox_x,
}
"""Builders by name: ``builder(class_names, input_size, *, dtype, **options) -> Detector``."""

ANCHORED = {"lesson": (2, 3)}
"""Architectures whose anchor boxes are found on the data, with their default levels and anchors per level."""


def build(
    name: str,
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    dtype: DTypeLike = "float32",
    box_sizes: Float[np.ndarray, "n 2"] | None = None,
    **options: Any,
) -> Detector:
    """Builds a detector by name.

    Args:
      name: a key of `ARCHITECTURES`, or one with its scale, such as ``yolov8s``.
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels.
      dtype: of the network's computation; parameters are float32 whatever it is.
      box_sizes: widths and heights of training objects in input pixels, from which an anchored architecture takes its
        anchors (k-means on 1 - IoU) unless ``anchors`` is among the options.
      options: the builder's own arguments. Those that are parts (``assign``, ``box_loss``, ``class_loss``) are names of
        `yolojax.zoo.parts`, or functions.

    Raises:
      ConfigError: unknown name or option, a value of a wrong type or out of range, or an input size that the strides
        do not divide.
    """
    name, options = architecture(name, options)
    if name not in ARCHITECTURES:
        near = nearest(name, {*known_names(), *ARCHITECTURES})
        hint = f"did you mean {near}?" if near else f"known: {', '.join(sorted(ARCHITECTURES))}"
        raise ConfigError(f"unknown architecture {name!r}: {hint}")
    if isinstance(class_names, str) or not all(isinstance(n, str) for n in class_names):
        raise ConfigError(f"class_names = {class_names!r}: give a list of texts")
    if not class_names:
        raise ConfigError("a detector needs at least one class; the data set names none")
    if name in ANCHORED and "anchors" not in options:
        if box_sizes is None or not len(box_sizes):
            raise ConfigError(f"{name} needs anchors: train it on data with objects, or give the option anchors")
        levels, per_level = ANCHORED[name]
        anchors = deal_to_levels(kmeans_anchors(box_sizes, levels * per_level), levels)
        options = {**options, "anchors": np.round(anchors, 2).tolist()}
    builder = ARCHITECTURES[name]
    parameters = dict(inspect.signature(builder).parameters)
    known = set(parameters) - {"class_names", "input_size", "dtype"}
    if unknown := sorted(set(options) - known):
        near = nearest(unknown[0], known)
        hint = f"did you mean {near}?" if near else f"it has {', '.join(sorted(known))}"
        raise ConfigError(f"{name} has no option {unknown[0]}; {hint}")
    if missing := [n for n in known - set(options) if parameters[n].default is inspect.Parameter.empty]:
        raise ConfigError(f"{name} needs the option {missing[0]}")
    check_types(builder, {key: value for key, value in options.items() if key not in PART_OPTIONS})
    for key in PART_OPTIONS:
        if key in options and not isinstance(options[key], str) and not callable(options[key]):
            raise ConfigError(f"{key} = {options[key]!r}: give a name or a function")
    try:
        detector = builder(tuple(class_names), tuple(input_size), dtype=dtype, **options)
        variable_shapes(detector)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        given = ", ".join(f"{key} = {value!r}" for key, value in options.items())
        raise ConfigError(f"{name} cannot be built with {given}: {type(error).__name__}: {error}") from error
    return detector


def from_description(
    description: Mapping[str, Any],
    *,
    dtype: DTypeLike = "float32",
    parts: Mapping[str, Callable[..., Any]] | None = None,
) -> Detector:
    """Builds the detector that `describe` described.

    Args:
      description: plain JSON values.
      dtype: of the network's computation.
      parts: the functions that the description names but cannot hold, such as ``{"assign": my_assign}`` or
        ``{"decode": my_decode}``; see `custom_parts`.

    Raises:
      CheckpointError: the description makes no detector, or asks for a part that is not given.
      ConfigError: a part is given that the description does not ask for.
    """

    def built(
        name: str, class_names: tuple[str, ...], input_size: tuple[int, int], options: dict[str, Any]
    ) -> Detector:
        return build(name, class_names, input_size, dtype=dtype, **options)

    return restore(description, parts, built, ARCHITECTURES.__contains__)
