"""Winograd's minimal filtering for 3x3 convolutions of stride 1 (arXiv 1509.09308), written as batched matrix products.

``F(4x4, 3x3)``: an output tile of 4x4 values is made of an input tile of 6x6 by 36 multiplications a channel pair
instead of 144. Input tiles, kernels and output tiles are transformed by small constant matrices, and between the
transforms stand 36 independent matrix products ``[tiles, cin] @ [cin, cout]``. Gradients go the same way backwards: the
transform of the output gradient serves both the input gradient and the kernel gradient.

In float32 the result agrees with a direct convolution to about 1e-6 of its largest value; narrower types lose more than
they gain. All tiles of one transform row ``a`` are one array ``[6, T, C]``, ``T`` tiles of the batch, since XLA on CPU
makes good loops of a stack of 6 and poor ones of a stack of 36.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

TILE = 4
REACH = 6  # TILE + 3 - 1

# Equation 12 of the paper's section 5.1 for F(4x4, 3x3): output = A^T [(G g G^T) * (B^T d B)] A.
INPUT_TRANSFORM = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
KERNEL_TRANSFORM = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float32
) / np.float32(24)
OUTPUT_TRANSFORM = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32
)
KERNEL_TRANSFORM_2D = np.kron(KERNEL_TRANSFORM, KERNEL_TRANSFORM)  # [36, 9]


def combine(coefficients: np.ndarray, terms: list[Array]) -> Array:
    """The linear combination, with nothing spent on coefficients 0 and 1."""
    total = None
    for coefficient, term in zip(coefficients, terms, strict=True):
        if coefficient == 0:
            continue
        scaled = term if coefficient == 1 else -term if coefficient == -1 else term * coefficient
        total = scaled if total is None else total + scaled
    assert total is not None
    return total


def _pad_to_tiles(x: Array) -> Array:
    height, width = x.shape[1:3]
    return jnp.pad(x, ((0, 0), (0, -height % TILE), (0, -width % TILE), (0, 0)))


def _shift(x: Array, axis: int, by: int) -> Array:
    """Tile ``i`` moves to ``i + by``, with zeros at the open end."""
    pad = [(0, 0, 0)] * x.ndim
    pad[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), pad)


def _split(x: Array, axis: int) -> list[Array]:
    """The 4 positions in each tile of ``axis``, tile by tile."""
    shape = (*x.shape[:axis], x.shape[axis] // TILE, TILE, *x.shape[axis + 1 :])
    x = x.reshape(shape)
    return [lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in range(TILE)]


def _join(parts: list[Array], axis: int) -> Array:
    """The inverse of `_split`."""
    out = jnp.stack(parts, axis + 1)
    return out.reshape(*out.shape[:axis], -1, *out.shape[axis + 2 :])


def _windows(x: Array, axis: int) -> list[Array]:
    """The 6 positions of the windows that reach one beyond each tile of ``axis`` on both sides."""
    parts = _split(x, axis)
    return [_shift(parts[3], axis, 1), *parts, _shift(parts[0], axis, -1)]


def _windows_adjoint(parts: list[Array], axis: int) -> list[Array]:
    """The transpose of `_windows`, up to `_join`: what reaches beyond a tile is added to its neighbour."""
    return [parts[1] + _shift(parts[5], axis, 1), parts[2], parts[3], parts[4] + _shift(parts[0], axis, -1)]


def transform_input(x: Float[Array, "B H W C"]) -> list[Float[Array, "6 T C"]]:
    """``B^T d B`` of all overlapping 6x6 tiles."""
    columns = _windows(_pad_to_tiles(x), 2)
    stacked = jnp.stack([combine(b, columns) for b in INPUT_TRANSFORM])
    rows = _windows(stacked, 2)
    return [combine(a, rows).reshape(REACH, -1, x.shape[3]) for a in INPUT_TRANSFORM]


def transform_input_adjoint(
    planes: list[Float[Array, "6 T C"]], shape: tuple[int, int, int, int]
) -> Float[Array, "B H W C"]:
    """The transpose of `transform_input`: tiles are put back and added where they overlap."""
    tiles = _as_tiles(planes, shape)
    rows = _windows_adjoint([combine(a, tiles) for a in INPUT_TRANSFORM.T], 2)
    out = [_join(_windows_adjoint([combine(b, list(row)) for b in INPUT_TRANSFORM.T], 2), 2) for row in rows]
    return _join(out, 1)[:, : shape[1], : shape[2]]


def _as_tiles(planes: list[Array], shape: tuple[int, int, int, int]) -> list[Float[Array, "6 B h w C"]]:
    batch, height, width, channels = shape
    return [p.reshape(REACH, batch, -(-height // TILE), -(-width // TILE), channels) for p in planes]


def transform_kernel(kernel: Float[Array, "3 3 I O"]) -> Float[Array, "6 6 I O"]:
    """``G g G^T``."""
    cin, cout = kernel.shape[2:]
    flat = lax.dot(KERNEL_TRANSFORM_2D, kernel.reshape(9, cin * cout), precision="highest")
    return flat.reshape(REACH, REACH, cin, cout)


def transform_output(planes: list[Float[Array, "6 T C"]], shape: tuple[int, int, int, int]) -> Float[Array, "B H W C"]:
    """``A^T m A`` of all tiles, laid side by side and cut to ``shape``."""
    tiles = _as_tiles(planes, shape)
    rows = [combine(a, tiles) for a in OUTPUT_TRANSFORM]
    out = [_join([combine(b, list(row)) for b in OUTPUT_TRANSFORM], 2) for row in rows]
    return _join(out, 1)[:, : shape[1], : shape[2]]


def transform_output_adjoint(y: Float[Array, "B H W C"]) -> list[Float[Array, "6 T C"]]:
    """The transpose of `transform_output`: disjoint 4x4 tiles to 6x6 planes."""
    columns = _split(_pad_to_tiles(y), 2)
    stacked = jnp.stack([combine(b, columns) for b in OUTPUT_TRANSFORM.T])
    rows = _split(stacked, 2)
    return [combine(a, rows).reshape(REACH, -1, y.shape[3]) for a in OUTPUT_TRANSFORM.T]


def _products(left: Array, right: Array, contract: tuple[int, int]) -> Array:
    return lax.dot_general(left, right, (((contract[0],), (contract[1],)), ((0,), (0,))))


@jax.custom_vjp
def winograd(x: Float[Array, "B H W I"], kernel: Float[Array, "3 3 I O"]) -> Float[Array, "B H W O"]:
    """A 3x3 convolution of stride 1 and padding 1; differentiable once in both arguments."""
    return _forward(x, kernel)[0]


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[list[Array], Array]]:
    planes, kernels = transform_input(x), transform_kernel(kernel)
    products = [_products(planes[a], kernels[a], (2, 1)) for a in range(REACH)]
    batch, height, width = x.shape[:3]
    return transform_output(products, (batch, height, width, kernel.shape[3])), (planes, kernels)


def _vjp_forward(x, kernel):
    return _forward(x, kernel)[0], (x, kernel)


def _vjp_backward(residuals, dy):
    x, kernel = residuals
    planes, kernels = transform_input(x), transform_kernel(kernel)
    dproducts = transform_output_adjoint(dy)
    dplanes = [_products(dproducts[a], kernels[a], (2, 2)) for a in range(REACH)]
    dkernels = jnp.stack([_products(planes[a], dproducts[a], (1, 1)) for a in range(REACH)])
    dx = transform_input_adjoint(dplanes, x.shape)
    flat = dkernels.reshape(REACH * REACH, -1)
    dkernel = lax.dot(KERNEL_TRANSFORM_2D.T, flat, precision="highest").reshape(kernel.shape)
    return dx, dkernel


winograd.defvjp(_vjp_forward, _vjp_backward)
