"""Values from outside the program (files, command line, keyword options) against the types that the program states.

One checker serves the configuration of a run and the options of the zoo's builders. Of the maintained validators,
msgspec passes over unknown fields of a dataclass and refuses NumPy's numbers, and pydantic either refuses lists for
tuples and settings by name for dataclasses (strict) or reads text and booleans as numbers (lax).
"""

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Literal

from yolojax.errors import ConfigError

LONGEST_SHOWN = 200
"""Characters of a foreign value that a message quotes."""


def shown(value: object) -> str:
    """The value as a message quotes it: its `repr`, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of more than 4300 digits; brackets within brackets
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def build(cls: type, values: object, where: str = "") -> Any:
    """An instance of a dataclass from settings by name, those of inner dataclasses included.

    Args:
      cls: a dataclass whose annotations can be resolved.
      values: a dict of plain values; settings that it leaves out take their defaults.
      where: the dotted path of ``cls`` inside the whole, for messages.

    Raises:
      ConfigError: naming the first setting that is unknown, with the nearest known name, or of a wrong type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where or 'configuration'}: expected settings by name, got {shown(values)}")
    prefix = f"{where}." if where else ""
    hints = typing.get_type_hints(cls)
    if unknown := sorted((name for name in values if name not in hints), key=str):
        first = unknown[0] if isinstance(unknown[0], str) else shown(unknown[0])
        near = difflib.get_close_matches(first[:LONGEST_SHOWN], hints, 1)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(sorted(hints))}"
        raise ConfigError(f"unknown setting {prefix}{first[:LONGEST_SHOWN]}: {hint}")
    return cls(**{name: converted(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def converted(hint: Any, value: Any, name: str) -> Any:
    """The value as the type wants it: lists as tuples, whole numbers as floats, paths as text. Nothing else changes.

    Text and booleans are no numbers, and numbers no booleans. NumPy's numbers are numbers. Floats must be finite. A
    setting of type ``str | Path`` becomes text.

    Raises:
      ConfigError: ``name = value: give ...``, where the value is of none of the types.
    """
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, name)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(inner, value, name)
    if not _fits(hint, value):
        raise ConfigError(f"{name} = {shown(value)}: give {described(hint)}")
    if hint is int:
        return int(value)
    if hint is float:
        if not _is_finite(value):
            raise ConfigError(f"{name} = {shown(value)}: give a finite number")
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if origin is dict:
        return {converted(inner[0], k, name): converted(inner[1], v, f"{name}.{k}") for k, v in value.items()}
    if inner and _is_list(value) and origin not in (Literal, Callable):
        return tuple(converted(inner[0], one, f"{name}[{i}]") for i, one in enumerate(value))
    return value


def described(hint: Any, plural: bool = False) -> str:
    """The type in words that finish the sentence "give ..."."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return str(inner[0]) if len(inner) == 1 else f"one of {', '.join(map(str, inner))}"
    if origin in (typing.Union, types.UnionType):
        words = [described(one, plural) for one in inner if one is not types.NoneType and not _is_path(one)]
        return " or ".join(words)
    if origin is dict:
        return "values by name"
    if origin is Callable or hint is Callable:
        return "functions" if plural else "a function"
    if inner:
        return f"{'lists' if plural else 'a list'} of {described(inner[0], True)}"
    one, many = {
        bool: ("true or false",) * 2,
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        str: ("text", "texts"),
    }.get(hint, (f"a {getattr(hint, '__name__', hint)}",) * 2)
    return many if plural else one


def is_number(kind: type, value: object) -> bool:
    """Whether the value is a finite number, for ``int`` a whole one; booleans are none."""
    wanted = Integral if kind is int else Real
    return isinstance(value, wanted) and not isinstance(value, bool) and _is_finite(value)


def _one_of(hints: tuple[Any, ...], value: Any, name: str) -> Any:
    """The value by the first type that it fits; else the error of a lone type, or one that lists all of them."""
    if any(_is_path(hint) for hint in hints) and isinstance(value, os.PathLike):
        return os.fspath(value)
    for hint in hints:
        if _fits(hint, value):
            return converted(hint, value, name)
    wanted = [hint for hint in hints if hint is not types.NoneType and not _is_path(hint)]
    if len(wanted) == 1 and value is not None:
        return converted(wanted[0], value, name)
    raise ConfigError(f"{name} = {shown(value)}: give {described(typing.Union[hints])}")  # noqa: UP007


def _fits(hint: Any, value: Any) -> bool:
    """Whether the value is of the type, without looking into lists and dicts."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is Callable or hint is Callable:
        return callable(value)
    if origin is dict:
        return isinstance(value, dict)
    if inner:
        return _is_list(value)
    if hint is int or hint is float:
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return isinstance(value, hint)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the floats
        return False


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | dict)


def _is_path(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, PurePath)
