"""Kinds of suppression by name, as the command line and the configuration choose them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from yolojax.errors import ConfigError
from yolojax.nms._fusion import wbf
from yolojax.nms._matrix import fast_nms, matrix_nms_gaussian
from yolojax.nms._soft import soft_nms_gaussian, soft_nms_linear
from yolojax.nms.greedy import diou_nms
from yolojax.nms.protocol import Suppression

SuppressionName = Literal["nms", "soft-linear", "soft-gaussian", "diou", "matrix", "fast", "wbf", "none"]
BuiltIn = Literal["nms", "none"]
"""Greedy suppression at the IoU threshold of the call, or no suppression: `postprocess` has programs of its own."""


class Kind(NamedTuple):
    """A kind of suppression: its function, the name of its parameter, the default, and the range of the parameter."""

    function: Callable[..., Any]
    parameter: str
    default: float
    largest: float


KINDS: dict[str, Kind] = {
    "soft-linear": Kind(soft_nms_linear, "iou_threshold", 0.3, 1.0),
    "soft-gaussian": Kind(soft_nms_gaussian, "sigma", 0.5, math.inf),
    "diou": Kind(diou_nms, "diou_threshold", 0.5, 1.0),
    "matrix": Kind(matrix_nms_gaussian, "sigma", 0.5, math.inf),
    "fast": Kind(fast_nms, "iou_threshold", 0.5, 1.0),
    "wbf": Kind(wbf, "iou_threshold", 0.55, 1.0),
}
"""The kinds that have one parameter of their own. Parameters are above 0."""


def named_suppression(name: SuppressionName, parameter: float | None = None) -> Suppression | BuiltIn:
    """The suppression of this name, ready to be passed as ``suppress``.

    Args:
      name: ``nms`` and ``none`` are returned as they are; the others are functions of `KINDS`.
      parameter: the value of the kind's own parameter, None for its default: the IoU from which ``soft-linear`` lowers
        scores (.3), ``sigma`` of ``soft-gaussian`` and ``matrix`` (.5), the DIoU above which ``diou`` suppresses (.5),
        the IoU above which ``fast`` suppresses (.5), the IoU above which ``wbf`` averages (.55).

    Raises:
      ConfigError: for an unknown name, a parameter out of range, or a parameter for a kind that has none.
    """
    if name not in get_args(SuppressionName):
        raise ConfigError(f"suppress = {name!r}: choose one of {', '.join(get_args(SuppressionName))}")
    if name == "nms" or name == "none":
        if parameter is not None:
            hint = "the threshold of nms is iou" if name == "nms" else "none has no parameter"
            raise ConfigError(f"suppress_parameter = {parameter:g} for {name}: {hint}; leave the parameter out")
        return name
    kind = KINDS[name]
    value = kind.default if parameter is None else parameter
    if not 0 < value <= kind.largest or not math.isfinite(value):
        limit = "" if math.isinf(kind.largest) else f", at most {kind.largest:g}"
        raise ConfigError(f"suppress_parameter = {value:g} for {name}: give its {kind.parameter}, above 0{limit}")
    return partial(kind.function, **{kind.parameter: value})
