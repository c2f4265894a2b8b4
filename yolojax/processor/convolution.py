"""One convolution, several lowerings: same kernel ``[kh, kw, cin, cout]``, same values, chosen by what runs fastest.

On an accelerator a convolution is left to the compiler. XLA on CPU has a good matrix product and a poor convolution,
above all its gradients, so there `convolve` rewrites a convolution as matrix products where that was measured to be
faster. Padding is symmetric, ``k // 2`` on every side, as in Darknet and
PyTorch; ``SAME`` would pad a stride-2 convolution on one side only and shift published weights by a pixel.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from yolojax.processor.winograd import winograd

# Below, its transforms cost more than they save.
WINOGRAD_CHANNELS = 32

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
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def strided_by_columns(x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw I O"]) -> Float[Array, "B h w O"]:
    """A stride-2 convolution as one matrix product over its gathered windows; ``H`` and ``W`` must be even."""
    kh, kw, cin, cout = kernel.shape
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    windows = [x[:, i : i + height : 2, j : j + width : 2, :] for i in range(kh) for j in range(kw)]
    return lax.dot_general(
        jnp.concatenate(windows, axis=-1), kernel.reshape(kh * kw * cin, cout), (((3,), (0,)), ((), ()))
    )


def depthwise(
    x: Float[Array, "B H W C"], kernel: Float[Array, "kh kw 1 C"], stride: int = 1
) -> Float[Array, "B h w C"]:
    """A convolution of every channel by itself, as a sum of shifted products: one loop over the output.

    XLA on CPU has no kernel of its own for it and loops over channels: 12 against 0.2 ms for 3x3 with stride 2 on
    208x208x16, 9 against 0.15 ms for 52x52x64.
    """
    kh, kw = kernel.shape[:2]
    # Behind a barrier, or the fused loop would compute the activation before it once for every one of the k * k reads.
    x = lax.optimization_barrier(x)
    x = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    height, width = ((side - k) // stride + 1 for side, k in zip(x.shape[1:3], (kh, kw), strict=True))
    total = None
    for i in range(kh):
        for j in range(kw):
            rows, columns = (slice(at, at + (n - 1) * stride + 1, stride) for at, n in ((i, height), (j, width)))
            part = x[:, rows, columns] * kernel[i, j].reshape(1, 1, 1, -1)
            total = part if total is None else total + part
    assert total is not None
    return total


def convolve(
    x: Float[Array, "B H W I"], kernel: Float[Array, "kh kw i O"], stride: int = 1, groups: int = 1
) -> Float[Array, "B h w O"]:
    """Convolution with symmetric padding ``k // 2``, in the lowering that is fastest on the default backend.

    The choice is made while tracing, from static shapes and `jax.default_backend`; all lowerings agree to rounding.
    """
    if jax.default_backend() != "cpu":
        return plain(x, kernel, stride, groups)
    if groups == x.shape[-1] == kernel.shape[-1] and groups > 1:
        return depthwise(x, kernel, stride)
    if groups != 1:
        return plain(x, kernel, stride, groups)
    size = kernel.shape[:2]
    if size == (1, 1) and stride == 1:
        return pointwise(x, kernel)
    if size == (3, 3) and stride == 1 and min(kernel.shape[2:]) >= WINOGRAD_CHANNELS:
        # In float32 whatever comes in: its transforms would lose most of the eight bits that bfloat16 has.
        return winograd(x.astype(jnp.float32), kernel.astype(jnp.float32)).astype(x.dtype)
    even = x.shape[1] % 2 == x.shape[2] % 2 == 0
    if stride == 2 and size[0] % 2 == size[1] % 2 == 1 and even and x.shape[3] >= COLUMNS_CHANNELS:
        return strided_by_columns(x, kernel)
    return plain(x, kernel, stride)
