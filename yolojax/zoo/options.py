"""Options of the builders: checked before a network is made of them, where their names are still known."""

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from yolojax.errors import ConfigError
from yolojax.settings import converted, is_number, shown
from yolojax.zoo.parts import PART_OPTIONS

Scale = TypeVar("Scale")

MOST = 65_536
"""The largest count, width or depth that an option can have."""


def check_counts(low: int, **options: Any) -> None:
    """Raises `ConfigError` naming the first option that is no whole number, or list of such, from ``low`` to `MOST`."""
    for name, value in options.items():
        listed = isinstance(value, Iterable) and not isinstance(value, str)
        wanted = "whole numbers" if listed else "a whole number"
        each: tuple[Any, ...] = tuple(value) if listed else (value,)
        if not all(is_number(int, one) and one >= low for one in each):
            raise ConfigError(f"{name} = {shown(value)}: give {wanted} of at least {low}")
        if any(one > MOST for one in each):
            raise ConfigError(f"{name} = {shown(value)}: give {wanted} of at most {MOST:,}")


def check_momentum(momentum: Any) -> None:
    """Raises `ConfigError` unless it is a share of the old statistics."""
    if not is_number(float, momentum) or not 0 <= momentum < 1:
        raise ConfigError(f"momentum = {shown(momentum)}: give a number from 0 to below 1")


def check_width(width: Any) -> None:
    """Raises `ConfigError` unless it is a positive factor."""
    if not is_number(float, width) or width <= 0:
        raise ConfigError(f"width = {shown(width)}: give a positive number")


def check_types(builder: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raises `ConfigError` naming the first option whose value is not of the type that the builder states.

    Truth is taken literally: the text ``no`` would be true.
    """
    hints = typing.get_type_hints(builder.func if isinstance(builder, partial) else builder)
    for name, value in options.items():
        converted(hints[name], value, name)


def options_of_file(
    title: str, builder: Callable[..., Any], decided: Mapping[str, Any], chosen: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The options of a detector that is read from a file: those that the file decides and those that a user chose.

    Raises `ConfigError` naming the first chosen option that ``builder`` does not have or that the file decides, and
    where a value is not of the option's type. ``title`` is how the family is called.
    """
    chosen = dict(chosen or {})
    known = set(inspect.signature(builder).parameters) - {"class_names", "input_size", "dtype", *decided}
    if wrong := sorted(set(chosen) - known):
        raise ConfigError(f"options: {title} from a file has no option {wrong[0]}; it has {sorted(known)}")
    check_types(builder, {name: value for name, value in chosen.items() if name not in PART_OPTIONS})
    return {**decided, **chosen}


def find_scale(name: str, scale: str, scales: Mapping[str, Scale]) -> Scale:
    """What the table of an architecture holds for a scale; raises `ConfigError` for a scale that it does not have."""
    if scale not in scales:
        raise ConfigError(f"{name} has no scale {scale!r}; it has {', '.join(scales)}")
    return scales[scale]
