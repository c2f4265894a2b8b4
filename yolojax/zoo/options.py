"""Options of the builders: checked before a network is made of them, where their names are still known."""

import math
import typing
from collections.abc import Callable, Iterable
from functools import partial
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal

from yolojax.errors import ConfigError


def check_counts(low: int, **options: Any) -> None:
    """Raises `ConfigError` naming the first option that is no whole number, or list of such, of at least ``low``."""
    for name, value in options.items():
        listed = _is_list(value)
        if not all(_fits(int, one) and one >= low for one in (value if listed else (value,))):
            wanted = "whole numbers" if listed else "a whole number"
            raise ConfigError(f"{name} = {value!r}: give {wanted} of at least {low}")


def check_momentum(momentum: Any) -> None:
    """Raises `ConfigError` unless it is a share of the old statistics."""
    if not _fits(float, momentum) or not 0 <= momentum < 1:
        raise ConfigError(f"momentum = {momentum!r}: give a number from 0 to below 1")


def check_width(width: Any) -> None:
    """Raises `ConfigError` unless it is a positive factor."""
    if not _fits(float, width) or width <= 0:
        raise ConfigError(f"width = {width!r}: give a positive number")


def check_types(builder: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raises `ConfigError` naming the first option whose value is not of the type that the builder states.

    Truth is taken literally: the text ``no`` would be true.
    """
    hints = typing.get_type_hints(builder.func if isinstance(builder, partial) else builder)
    for name, value in options.items():
        if not _fits(hints[name], value):
            raise ConfigError(f"{name} = {value!r}: give {_words(hints[name])}")


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | dict)


def _fits(hint: Any, value: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (typing.Union, UnionType):
        return any(_fits(one, value) for one in inner)
    if inner:
        return _is_list(value) and all(_fits(inner[0], one) for one in value)
    if hint in (bool, str, NoneType):
        return isinstance(value, hint)
    number = isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _words(hint: Any, plural: bool = False) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(inner)}"
    if origin in (typing.Union, UnionType):
        return " or ".join(_words(one, plural) for one in inner if one is not NoneType)
    if inner:
        return f"{'lists' if plural else 'a list'} of {_words(inner[0], True)}"
    one, many = {
        bool: ("true or false",) * 2,
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        str: ("text", "texts"),
    }[hint]
    return many if plural else one
