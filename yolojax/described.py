"""What a description of a detector states of its images and thresholds, read with checks.

Descriptions lie beside a run's weights and in exported files. This module imports no network, so that whatever reads
one starts without Flax.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from yolojax.config import MOST, MOST_DETECTIONS
from yolojax.detector import Postprocess
from yolojax.errors import ConfigError, shown
from yolojax.geometry import Preprocess
from yolojax.settings import build

_LARGEST_SIDE = MOST["model.size"]


def check_stated_size(input_size: tuple[Any, ...]) -> None:
    """Raises `TypeError` unless it is two whole numbers that an image can have."""
    if len(input_size) != 2 or not all(type(side) is int and 0 < side <= _LARGEST_SIDE for side in input_size):
        raise TypeError(f"input_size is {shown(input_size)}, not two whole numbers up to {_LARGEST_SIDE:,}")


def read_postprocess(stated: Any) -> Postprocess:
    """The thresholds that a description states."""
    found: Postprocess = build(Postprocess, stated, "postprocess")
    for name, one in (("validation", found.validation), ("prediction", found.prediction)):
        if not (0 <= one.confidence <= 1 and 0 <= one.iou <= 1 and 0 < one.max_detections <= MOST_DETECTIONS):
            raise ConfigError(f"postprocess.{name} = {shown(stated[name])}: its values are out of range")
    return found


def read_preprocess(stated: Any) -> Preprocess:
    """The preprocessing that a description states; raises `ConfigError` for a value that this version does not know."""
    if not isinstance(stated, Mapping):
        raise ConfigError(f"preprocess = {shown(stated)}: it is no object")
    for name, hint in get_type_hints(Preprocess).items():
        if get_origin(hint) is Literal and stated.get(name, get_args(hint)[0]) not in get_args(hint):
            raise ConfigError(f"preprocess.{name} = {shown(stated[name])}: known are {', '.join(get_args(hint))}")
    # Descriptions written before there was a choice of filters say none, and meant the antialiased one.
    found: Preprocess = build(Preprocess, {"filter": Preprocess().filter, **stated}, "preprocess")
    if not (0 <= found.pad <= 255 and 0 < found.scale <= 1e6 and 0 <= found.border < _LARGEST_SIDE):
        raise ConfigError(f"preprocess = {shown(dict(stated))}: its values are out of range")
    return found
