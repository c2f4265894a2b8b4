"""How a program that only detects is compiled: on a CPU in another way than a program with gradients.

XLA on CPU hands convolutions and matrix products to kernels of YNNPACK, and plain convolutions then take 1.3 times as
long as by Eigen. With these kernels turned off, plain convolutions are as fast as the lowerings of
`yolojax.processor.convolution`, and the program is compiled in a tenth of the time. LLVM's first level of optimisation
takes another fifth off that time, and YOLOv8n and YOLOX-Nano run as fast as with the highest.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from yolojax.processor.convolution import traced_for_inference
from yolojax.processor.platform import compiler_options, for_platform

WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""The option is experimental: another version of XLA may not know it."""


def jit_for_inference(function: Callable[..., Any], platform: str | None = None, **settings: Any) -> Any:
    """Compiles a function that only detects for a platform as JAX names it; None is that of this process.

    ``settings`` are further arguments of `jax.jit`. The result cannot be called inside another compiled function.
    """
    function = traced_for_detection(function, platform)
    return jax.jit(function, compiler_options=inference_options(platform), **settings)


def traced_for_detection(function: Callable[..., Any], platform: str | None = None) -> Callable[..., Any]:
    """The function as `jit_for_inference` traces it; it is to be compiled with `inference_options`."""
    function = for_platform(platform or jax.default_backend(), function)
    if inference_options(platform) is None:
        return function

    @functools.wraps(function)
    def traced(*args: Any, **named: Any) -> Any:
        with traced_for_inference():
            return function(*args, **named)

    return traced


def inference_options(platform: str | None = None) -> dict[str, Any] | None:
    """Compiler options for a program that only detects; None for an accelerator, and where XLA does not know them.

    In the latter case convolutions keep the lowerings of a program with gradients. ``platform`` is as
    `jit_for_inference` takes it.
    """
    on_cpu = (platform or jax.default_backend()) == "cpu"
    return {**WITHOUT_YNNPACK, **compiler_options("cpu")} if on_cpu and _is_known() else None


@functools.cache
def _is_known() -> bool:
    """Whether this version of XLA takes the options `WITHOUT_YNNPACK`."""
    try:
        jax.jit(lambda: 0, compiler_options=WITHOUT_YNNPACK).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
