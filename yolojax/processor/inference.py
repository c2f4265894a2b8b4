"""How a program that only detects is compiled: on a CPU in another way than a program with gradients.

XLA on CPU hands convolutions and matrix products to kernels of YNNPACK, and plain convolutions then take 1.3 times as
long as by Eigen. With these kernels turned off, plain convolutions are as fast as the lowerings of
`yolojax.processor.convolution`, and the program is compiled in a tenth of the time.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from yolojax.processor.convolution import traced_for_inference
from yolojax.processor.platform import for_platform

CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""Turns YNNPACK off. The option is experimental: another version of XLA may not know it."""


def jit_for_inference(function: Callable[..., Any], **settings: Any) -> Any:
    """Compiles a function that only detects for the platform of this process.

    ``settings`` are further arguments of `jax.jit`. The result cannot be called inside another compiled function.
    """
    return jax.jit(traced_for_detection(function), compiler_options=inference_options(), **settings)


def traced_for_detection(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as `jit_for_inference` traces it; it is to be compiled with `inference_options`."""
    platform = jax.default_backend()
    function = for_platform(platform, function)
    if inference_options() is None:
        return function

    @functools.wraps(function)
    def traced(*args: Any, **named: Any) -> Any:
        with traced_for_inference():
            return function(*args, **named)

    return traced


@functools.cache
def inference_options() -> dict[str, Any] | None:
    """Compiler options for a program that only detects; None on an accelerator, and where XLA does not know them.

    In the latter case convolutions keep the lowerings of a program with gradients.
    """
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return CPU_OPTIONS
