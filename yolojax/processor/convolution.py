"""One convolution, several lowerings: same kernel ``[kh, kw, cin, cout]``, same values, chosen by what runs fastest.

On an accelerator a convolution is left to the compiler. XLA on CPU has a good matrix product and a poor convolution,
above all its gradients, so for a CPU `convolve` rewrites a convolution as matrix products where that was measured to
be faster. The choice is made when a program is lowered for a platform (`yolojax.processor.platform`), not when it is
traced, so a program that is exported for a GPU or a TPU from a machine without one holds convolutions only.

Padding is symmetric, ``k // 2`` on every side, as in Darknet and PyTorch; ``SAME`` would pad a stride-2 convolution on
one side only and shift published weights by a pixel.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from yolojax.processor.platform import by_platform

# Below, gathering the windows of a strided convolution costs more than its matrix product saves: with both gradients,
# 16 images of 160x160x16 to 32 channels take 41 ms as columns and 36 as they are, 80x80x32 to 64 take 24.5 and 21.
COLUMNS_CHANNELS = 64


def plain(
    x: Float[Array, "B H W I"],
    kernel: Float[Array, "kh kw i O"],
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
) -> Float[Array, "B h w O"]:
    """The reference lowering: one ``lax.conv_general_dilated``. ``padding`` other than ``k // 2`` is in pixels."""
    kh, kw = kernel.shape[:2]
    rows, columns = (kh // 2, kw // 2) if padding is None else (padding, padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((rows, rows), (columns, columns)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def pointwise(x: Float[Array, "B H W I"], kernel: Float[Array, "1 1 I O"]) -> Float[Array, "B H W O"]:
    """A 1x1 convolution as one matrix product."""
    return _product(x, kernel[0, 0])


def by_columns(
    x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw I O"], stride: int = 1
) -> Float[Array, "B h w O"]:
    """A convolution as one matrix product over its gathered windows; ``stride`` must divide ``H`` and ``W``."""
    kh, kw, cin, cout = kernel.shape
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    windows = [x[:, i : i + height : stride, j : j + width : stride, :] for i in range(kh) for j in range(kw)]
    return _product(jnp.concatenate(windows, axis=-1), kernel.reshape(kh * kw * cin, cout))


def _product(x: Float[Array, "B H W I"], matrix: Float[Array, "I O"]) -> Float[Array, "B H W O"]:
    """The matrix product over channels, summed in float32 whatever the type is.

    XLA's convolutions sum bfloat16 in float32. Its matrix products on CPU did until jax 0.10; since 0.11 they sum in
    bfloat16, and a kernel's gradient, which is a sum over all pixels of the batch, was off by 3 % after 192 pixels.
    """
    return lax.dot_general(x, matrix, (((3,), (0,)), ((), ())), preferred_element_type=jnp.float32).astype(x.dtype)


def depthwise(
    x: Float[Array, "B H W C"], kernel: Float[Array, "kh kw 1 C"], stride: int = 1
) -> Float[Array, "B h w C"]:
    """A convolution of every channel by itself, as a sum of shifted products: one loop over the output.

    XLA on CPU has no kernel of its own for it and loops over channels: 12 against 0.2 ms for 3x3 with stride 2 on
    208x208x16, 9 against 0.15 ms for 52x52x64. Sums are made in float32 whatever the type is.
    """
    kh, kw = kernel.shape[:2]
    # Behind a barrier, or the fused loop would compute the activation before it once for every one of the k * k reads.
    narrow, x, kernel = x.dtype, lax.optimization_barrier(x).astype(jnp.float32), kernel.astype(jnp.float32)
    x = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    height, width = ((side - k) // stride + 1 for side, k in zip(x.shape[1:3], (kh, kw), strict=True))
    total = None
    for i in range(kh):
        for j in range(kw):
            rows, columns = (slice(at, at + (n - 1) * stride + 1, stride) for at, n in ((i, height), (j, width)))
            part = x[:, rows, columns] * kernel[i, j].reshape(1, 1, 1, -1)
            total = part if total is None else total + part
    assert total is not None
    return total.astype(narrow)


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def convolve(
    x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw i O"], stride: int = 1, groups: int = 1
) -> Float[Array, "B h w O"]:
    """Convolution with symmetric padding ``k // 2``, in the lowering that runs fastest where it is compiled for.

    All lowerings agree to rounding. Convolutions of the same shapes are traced once.
    """
    choose = _inference_lowering if _only_inference.value else _cpu_lowering
    lowering = choose(x.shape, kernel.shape, stride, groups)
    default = partial(plain, stride=stride, groups=groups)
    return default(x, kernel) if lowering is None else by_platform(x, kernel, cpu=lowering, default=default)


def traced_for_inference() -> AbstractContextManager[None]:
    """Within this context convolutions are traced for a program without gradients.

    It is to be compiled with the options of `yolojax.processor.inference`.
    """
    return _only_inference(True)


_only_inference = jax.make_user_context(False)


def _inference_lowering(
    x: tuple[int, ...], kernel: tuple[int, ...], stride: int, groups: int
) -> Callable[[Array, Array], Array] | None:
    """As `_cpu_lowering`, where no gradient is needed: XLA's own convolution is then as fast, and compiled sooner."""
    if groups == x[-1] == kernel[-1] and groups > 1:
        return partial(depthwise, stride=stride)
    return by_columns if _is_small(x, kernel, stride, groups) else None


def _cpu_lowering(
    x: tuple[Any, ...], kernel: tuple[int, ...], stride: int, groups: int
) -> Callable[[Array, Array], Array] | None:
    """The lowering that a CPU runs faster than `plain` for these shapes; None where `plain` is the fastest.

    The batch may be a symbol of `jax.export`.
    """
    if groups == x[-1] == kernel[-1] and groups > 1:
        return partial(depthwise, stride=stride)
    if groups != 1:
        return None
    size = kernel[:2]
    if size == (1, 1) and stride == 1:
        return pointwise
    if _is_small(x, kernel, stride, groups):
        return by_columns
    odd = size[0] % 2 == size[1] % 2 == 1
    even = x[1] % 2 == x[2] % 2 == 0
    if stride == 2 and odd and even and x[3] >= COLUMNS_CHANNELS:
        return partial(by_columns, stride=2)
    return None


def _is_small(x: tuple[Any, ...], kernel: tuple[int, ...], stride: int, groups: int) -> bool:
    """Whether the map is smaller than the kernel, for which XLA on CPU has only a plain loop.

    3x3 on 16 maps of 2x2x512 to 512 channels takes 322 ms as a convolution and 5 as columns, and the gradient of the
    input 327 and 5. On maps of 3x3, which are more than twice as large, the convolution takes 13 ms.
    """
    kh, kw = kernel[:2]
    return stride == groups == 1 and kh % 2 == kw % 2 == 1 and (x[1] < kh or x[2] < kw)
