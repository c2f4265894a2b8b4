"""The checker of argument and result types in tests: beartype, without making the same check twice.

jaxtyping decorates functions within functions each time the outer one is called. Their checks come from their names and
annotations alone, so those that were made before serve again; making them anew took a tenth of the time of all tests.
"""

import inspect
from collections.abc import Callable
from typing import Any

from beartype import beartype

_made: dict[tuple[str, ...], Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns ``function`` with checks of its annotations. It only holds the signature of what is checked."""
    if not inspect.isfunction(function) or "<locals>" not in function.__qualname__:
        return beartype(function)
    key = (function.__module__, function.__qualname__, str(inspect.signature(function)))
    if key not in _made:
        _made[key] = beartype(function)
    return _made[key]
