"""The checker of argument and result types in tests: beartype, making each check once, when it is first needed.

jaxtyping decorates functions within functions each time the outer one is called. Their checks come from their names and
annotations alone, so those that were made before serve again; making them anew took a tenth of the time of all tests.
Checks of all functions of the package would take seconds at its import, in every process of the tests.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from beartype import beartype

_made: dict[tuple[str, ...], Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns ``function`` with checks of its annotations. It only holds the signature of what is checked."""
    if not inspect.isfunction(function) or "<locals>" not in function.__qualname__:
        return _checked_when_called(function)
    key = (function.__module__, function.__qualname__, str(inspect.signature(function)))
    if key not in _made:
        _made[key] = _checked_when_called(function)
    return _made[key]


def _checked_when_called(function: Callable[..., Any]) -> Callable[..., Any]:
    made = functools.cache(lambda: beartype(function))
    return lambda *args, **kwargs: made()(*args, **kwargs)
