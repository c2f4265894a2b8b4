"""Bilinear resampling of a batch under one affine or perspective map per image."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

PAD = 114
"""Grey of pixels that no image covers, unless told otherwise: `Preprocess.pad`'s default."""


def invert_affine(matrices: Float[Array, "B 2 3"]) -> Float[Array, "B 2 3"]:
    """The inverse maps, in closed form (a general solver would be slow and less exact on 2 x 2)."""
    a, b, c = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 0, 2]
    d, e, f = matrices[:, 1, 0], matrices[:, 1, 1], matrices[:, 1, 2]
    det = a * e - b * d
    rows = [e, -b, b * f - c * e], [-d, a, c * d - a * f]
    return jnp.stack([jnp.stack(row, -1) for row in rows], 1) / det[:, None, None]


def sample_bilinear(
    images: UInt8[Array, "B H W 3"],
    source: Int[Array, "*P"],
    x: Float[Array, "*P"],
    y: Float[Array, "*P"],
    pad: int = PAD,
) -> Float[Array, "*P 3"]:
    """Values of image ``source`` at continuous positions (pixel centres lie at +.5); ``pad`` outside the image."""
    _, h, w, _ = images.shape
    flat = images.reshape(-1, 3)
    x0, y0 = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
    fx, fy = (x - 0.5 - x0)[..., None], (y - 0.5 - y0)[..., None]

    def at(ix: Float[Array, "*P"], iy: Float[Array, "*P"]) -> Float[Array, "*P 3"]:
        inside = (ix >= 0) & (ix < w) & (iy >= 0) & (iy < h)
        column = jnp.clip(ix, 0, w - 1).astype(jnp.int32)
        row = jnp.clip(iy, 0, h - 1).astype(jnp.int32)
        value = flat[(source * h + row) * w + column].astype(jnp.float32)
        return jnp.where(inside[..., None], value, jnp.float32(pad))

    top = at(x0, y0) * (1 - fx) + at(x0 + 1, y0) * fx
    bottom = at(x0, y0 + 1) * (1 - fx) + at(x0 + 1, y0 + 1) * fx
    return top * (1 - fy) + bottom * fy


def to_uint8(values: Float[Array, "*P"]) -> UInt8[Array, "*P"]:
    """Rounded to the nearest integer and clipped to 0..255."""
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)


def warp_affine(
    images: UInt8[Array, "B H W 3"], matrices: Float[Array, "B 2 3"], pad: int = PAD
) -> UInt8[Array, "B H W 3"]:
    """Each image moved by its map from input to output positions ``(x, y)`` in pixels; grey where nothing lands."""
    _, h, w, _ = images.shape
    x = (jnp.arange(w, dtype=jnp.float32) + 0.5)[None, :]
    y = (jnp.arange(h, dtype=jnp.float32) + 0.5)[:, None]
    here = jnp.zeros((h, w), jnp.int32)

    # Mapped over images, not one gather over the whole batch: on a batch sharded over devices that would first collect
    # every image on every device.
    def warp(image: UInt8[Array, "H W 3"], inverse: Float[Array, "2 3"]) -> UInt8[Array, "H W 3"]:
        source_x = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
        source_y = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]
        return to_uint8(sample_bilinear(image[None], here, source_x, source_y, pad))

    return jax.vmap(warp)(images, invert_affine(matrices))


def halve(images: UInt8[Array, "B H W 3"]) -> UInt8[Array, "B H/2 W/2 3"]:
    """Every two by two pixels averaged; both sides must be even."""
    batch, h, w, _ = images.shape
    return to_uint8(images.reshape(batch, h // 2, 2, w // 2, 2, 3).astype(jnp.float32).mean((2, 4)))


def warp_perspective(
    images: UInt8[Array, "B H W 3"], matrices: Float[Array, "B 3 3"], pad: int = PAD
) -> UInt8[Array, "B H W 3"]:
    """Each image moved by its homography from input to output positions; grey where nothing lands.

    Every pixel of the input must lie before the horizon of its map: ``(matrix @ (x, y, 1))[2] > 0``.
    """
    _, h, w, _ = images.shape
    x = (jnp.arange(w, dtype=jnp.float32) + 0.5)[None, :]
    y = (jnp.arange(h, dtype=jnp.float32) + 0.5)[:, None]
    here = jnp.zeros((h, w), jnp.int32)

    def warp(image: UInt8[Array, "H W 3"], m: Float[Array, "3 3"]) -> UInt8[Array, "H W 3"]:
        # The adjugate is the inverse up to a factor, which cancels; its sign is that of the determinant.
        rows = [jnp.cross(m[:, 1], m[:, 2]), jnp.cross(m[:, 2], m[:, 0]), jnp.cross(m[:, 0], m[:, 1])]
        determinant = m[0, 0] * rows[0][0] + m[1, 0] * rows[0][1] + m[2, 0] * rows[0][2]
        source_x, source_y, depth = (r[0] * x + r[1] * y + r[2] for r in rows)
        visible = depth * jnp.sign(determinant) > 0  # beyond the horizon lies what is behind the viewer
        safe = jnp.where(visible, depth, 1.0)
        outside = jnp.float32(-2.0)
        source_x = jnp.where(visible, source_x / safe, outside)
        return to_uint8(sample_bilinear(image[None], here, source_x, source_y / safe, pad))

    return jax.vmap(warp)(images, matrices)
