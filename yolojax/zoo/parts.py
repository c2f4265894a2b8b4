"""The parts that a zoo function takes as arguments: assigners and losses, by name or as functions of the user's own.

    yolov8(names, size, assign="simota")                # a part of the library, by name
    yolov8(names, size, assign=simota_assign)           # the same
    yolov8(names, size, class_loss=my_class_loss)       # a function of one's own, with the same signature

A description stores names. In the place of a function of the user's own it has ``custom:`` and the function's name, and
`yolojax.zoo.from_description` asks for that function again.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from yolojax.assign import (
    ANCHOR_FREE_ASSIGNERS,
    ANCHORED_ASSIGNERS,
    AnchorFreeAssign,
    simota_assign,
    task_aligned_assign,
)
from yolojax.errors import ConfigError
from yolojax.losses import (
    BoxLoss,
    ClassLoss,
    binary_cross_entropy,
    box_iou_loss,
    complete_box_iou_loss,
    distance_box_iou_loss,
    focal_loss,
    generalized_box_iou_loss,
    quality_focal_loss,
    scylla_box_iou_loss,
    squared_box_iou_loss,
    varifocal_loss,
)

BOX_LOSSES: dict[str, BoxLoss] = {
    "iou": box_iou_loss,
    "squared-iou": squared_box_iou_loss,
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
    "siou": scylla_box_iou_loss,
}
"""Losses of decoded boxes, for the option ``box_loss``. Anchor-based detectors also know ``mse``."""

CLASS_LOSSES: dict[str, ClassLoss] = {
    "bce": binary_cross_entropy,
    "focal": focal_loss,
    "quality-focal": quality_focal_loss,
    "varifocal": varifocal_loss,
}
"""Losses of class logits, for the option ``class_loss``."""

PART_OPTIONS = ("assign", "box_loss", "class_loss")
"""The options of zoo functions that are parts."""

CUSTOM = "custom:"
"""Begins the entry of a function of the user's own in a description."""


def qualified_name(function: Any) -> str:
    """The module and the name of a function, for messages and descriptions."""
    if isinstance(function, partial):
        return f"{qualified_name(function.func)} (partial)"
    if not hasattr(function, "__qualname__"):
        function = type(function)
    return f"{function.__module__}.{function.__qualname__}"


def find_part(option: str, value: Any, known: Mapping[str, Any]) -> tuple[Any, str]:
    """Finds the function that an option means, and how the description calls it.

    Args:
      option: the name of the option, for messages.
      value: a key of ``known``, or a function.
      known: functions by name.

    Returns:
      The function, and its name in ``known``, or the mark of a function of the user's own.

    Raises:
      ConfigError: a name that is not known, or a value that is neither name nor function.
    """
    if isinstance(value, str) and value in known:
        return known[value], value
    if isinstance(value, str) and value.startswith(CUSTOM):
        raise ConfigError(needs_part(option, value.removeprefix(CUSTOM)))
    if isinstance(value, str) or not callable(value):
        near = difflib.get_close_matches(str(value), known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{option} = {value!r}: {hint}give {', '.join(known)}, or a function")
    name = next((name for name, function in known.items() if function is value), None)
    return value, name or CUSTOM + qualified_name(value)


def needs_part(option: str, name: str) -> str:
    """The message that asks for a function that a description cannot hold."""
    return f"this detector was built with its own {option} ({name}); pass parts={{{option!r}: ...}}"


def find_assigner(value: Any, k: int) -> tuple[AnchorFreeAssign, str]:
    """The assigner that the option ``assign`` means, with at most ``k`` points to an object where it has such a number.

    ``k`` belongs to task-aligned assignment and to SimOTA; other assigners have their own numbers. Raises `ConfigError`
    as `find_part` and `check_anchor_free` do.
    """
    check_anchor_free(value, ANCHOR_FREE_ASSIGNERS)
    function: AnchorFreeAssign
    function, name = find_part("assign", value, ANCHOR_FREE_ASSIGNERS)
    limited: dict[str, AnchorFreeAssign] = {
        "task-aligned": partial(task_aligned_assign, k=k),
        "simota": partial(simota_assign, largest_k=k),
    }
    return limited.get(name, function), name


def check_anchor_free(assign: Any, known: Mapping[str, AnchorFreeAssign]) -> None:
    """Raises `ConfigError` for an assigner that takes anchors in the place of predictions."""
    function = assign
    while isinstance(function, partial):
        function = function.func
    rule = next((rule for rule, own in ANCHORED_ASSIGNERS.items() if function is own or function == rule), None)
    if rule is not None:
        raise ConfigError(
            f"assign = {rule if assign == rule else qualified_name(assign)}: this rule assigns objects to anchors, and "
            f"this detector has none; give {', '.join(known)}, or a function of targets, levels and "
            "predictions"
        )


class LossParts(NamedTuple):
    """The parts of an anchor-free loss: an assigner, a box loss and a class loss."""

    assign: AnchorFreeAssign
    box_loss: BoxLoss
    class_loss: ClassLoss
    names: dict[str, str]
    """How the description calls them, by option."""


def find_loss_parts(
    assign: str | AnchorFreeAssign, k: int, box_loss: str | BoxLoss, class_loss: str | ClassLoss
) -> LossParts:
    """The parts that the options ``assign``, ``k``, ``box_loss`` and ``class_loss`` mean.

    Raises `ConfigError` as `find_part` and `find_assigner` do.
    """
    assigner, assign_name = find_assigner(assign, k)
    box, box_name = find_part("box_loss", box_loss, BOX_LOSSES)
    cls, class_name = find_part("class_loss", class_loss, CLASS_LOSSES)
    return LossParts(assigner, box, cls, {"assign": assign_name, "box_loss": box_name, "class_loss": class_name})
