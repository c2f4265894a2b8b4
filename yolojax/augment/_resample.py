"""Resampling on the device: affine and perspective warps, and resizing as Pillow does it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from yolojax.augment._common import Augmentation
from yolojax.augment._products import bilinear_weights, resample
from yolojax.geometry import Preprocess, place_on_input, scale_and_offset
from yolojax.processor.platform import by_platform
from yolojax.structures import Targets

PAD = 114
"""Default grey of the pixels that no image covers. It is the default of `Preprocess.pad` too."""


def invert_affine(matrices: Float[Array, "B 2 3"]) -> Float[Array, "B 2 3"]:
    """The inverse maps in closed form, which is faster and more exact for 2 x 2 than a general solver."""
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
    """Bilinear values of image ``source`` at positions in pixels (pixel centres lie at +.5), ``pad`` outside it."""
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
    """Move each image by its affine map from old to new positions ``(x, y)`` in pixels.

    Pixels are sampled bilinearly. Pixels that the image does not cover are grey (``pad``).
    """
    _, h, w, _ = images.shape
    x = (jnp.arange(w, dtype=jnp.float32) + 0.5)[None, :]
    y = (jnp.arange(h, dtype=jnp.float32) + 0.5)[:, None]
    here = jnp.zeros((h, w), jnp.int32)

    # The warp is mapped over images. One gather over the whole batch would first collect every image on every device
    # where the batch is sharded.
    def warp(image: UInt8[Array, "H W 3"], inverse: Float[Array, "2 3"]) -> UInt8[Array, "H W 3"]:
        source_x = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
        source_y = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]
        return to_uint8(sample_bilinear(image[None], here, source_x, source_y, pad))

    return jax.vmap(warp)(images, invert_affine(matrices))


def magnify_and_shift(
    images: UInt8[Array, "B H W 3"], matrices: Float[Array, "B 2 3"], pad: int = PAD
) -> UInt8[Array, "B H W 3"]:
    """`warp_affine` for maps that neither turn nor shear: only the diagonal and the last column are read.

    On a TPU it is two matrix products (`yolojax.augment._products`), which round positions to 1/256 of a pixel.
    """

    def by_products(images: Array, matrices: Array) -> Array:
        def weights(axis: int, extent: int) -> Array:
            size, shift = matrices[:, axis, axis], matrices[:, axis, 2]
            centre = jnp.arange(extent, dtype=jnp.float32) + 0.5
            return bilinear_weights((centre[None] - shift[:, None]) / size[:, None], extent)

        _, h, w, _ = images.shape
        return jnp.moveaxis(resample(images, weights(1, h), weights(0, w), pad), 1, -1)

    return by_platform(
        images, matrices, default=lambda images, matrices: warp_affine(images, matrices, pad), tpu=by_products
    )


def halve(images: UInt8[Array, "B H W 3"]) -> UInt8[Array, "B H/2 W/2 3"]:
    """Halve both sides by averaging every two by two pixels. Both sides must be even."""
    batch, h, w, _ = images.shape
    return to_uint8(images.reshape(batch, h // 2, 2, w // 2, 2, 3).astype(jnp.float32).mean((2, 4)))


def warp_perspective(
    images: UInt8[Array, "B H W 3"], matrices: Float[Array, "B 3 3"], pad: int = PAD
) -> UInt8[Array, "B H W 3"]:
    """Move each image by its perspective map (homography) from old to new positions ``(x, y)`` in pixels.

    Pixels are sampled bilinearly. Pixels that the image does not cover are grey (``pad``). Every pixel of the image
    must lie before the horizon of its map: ``(matrix @ (x, y, 1))[2] > 0``.
    """
    _, h, w, _ = images.shape
    x = (jnp.arange(w, dtype=jnp.float32) + 0.5)[None, :]
    y = (jnp.arange(h, dtype=jnp.float32) + 0.5)[:, None]
    here = jnp.zeros((h, w), jnp.int32)

    def warp(image: UInt8[Array, "H W 3"], m: Float[Array, "3 3"]) -> UInt8[Array, "H W 3"]:
        # The adjugate is the inverse times the determinant. The factor cancels, but its sign decides what is visible.
        rows = [jnp.cross(m[:, 1], m[:, 2]), jnp.cross(m[:, 2], m[:, 0]), jnp.cross(m[:, 0], m[:, 1])]
        determinant = m[0, 0] * rows[0][0] + m[1, 0] * rows[0][1] + m[2, 0] * rows[0][2]
        source_x, source_y, depth = (r[0] * x + r[1] * y + r[2] for r in rows)
        visible = depth * jnp.sign(determinant) > 0  # what is beyond the horizon lies behind the viewer
        safe = jnp.where(visible, depth, 1.0)
        outside = jnp.float32(-2.0)
        source_x = jnp.where(visible, source_x / safe, outside)
        return to_uint8(sample_bilinear(image[None], here, source_x, source_y / safe, pad))

    return jax.vmap(warp)(images, matrices)


def letterbox(
    images: UInt8[Array, "B h w 3"],
    sizes: Int[Array, "B 2"],
    content: Float[Array, "B 4"],
    input_size: tuple[int, int],
    pad: int,
) -> UInt8[Array, "B H W 3"]:
    """Resize photos of different sizes onto their input images, on the device.

    Args:
      images: one photo in the top left corner of each array. Pixels beyond its size are not read.
      sizes: ``(height, width)`` of each photo in pixels.
      content: the box of the input image (xyxy, whole pixels) that each photo covers. It is `Placement.content` of
        `place_on_input`.
      input_size: ``(H, W)`` in pixels.
      pad: grey of the pixels that the photo does not cover.

    The filter is Pillow's ``BILINEAR``, except that Pillow rounds between the two axes: a triangle whose support grows
    with the reduction, applied to one axis and then to the other, over the pixels of the photo alone.
    """

    def one(image: Array, size: Array, box: Array) -> Array:
        down = _triangle(image.shape[0], size[0], input_size[0], box[1], box[3])
        across = _triangle(image.shape[1], size[1], input_size[1], box[0], box[2])
        photo = image.astype(jnp.float32)
        exact = jax.lax.Precision.HIGHEST  # an accelerator's default would round pixels to bfloat16 or TF32
        resized = jnp.einsum("Hh,hwc->Hwc", down, photo, precision=exact)
        resized = jnp.einsum("Ww,Hwc->HWc", across, resized, precision=exact)
        x, y = (jnp.arange(n, dtype=jnp.float32) for n in (input_size[1], input_size[0]))
        inside = ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None, :]
        return jnp.where(inside[..., None], resized, jnp.float32(pad))

    return to_uint8(jax.vmap(one)(images, sizes, content))


def _triangle(
    length: int, extent: Int[Array, ""], out: int, low: Float[Array, ""], high: Float[Array, ""]
) -> Float[Array, "out length"]:
    """The weight of each of ``length`` pixels in each of ``out`` pixels of the input image, along one axis.

    The photo has ``extent`` of the ``length`` pixels and covers the input image from ``low`` to ``high``.
    """
    extent = extent.astype(jnp.float32)
    scale = extent / (high - low)
    centre = (jnp.arange(out, dtype=jnp.float32) + 0.5 - low) * scale
    pixel = jnp.arange(length, dtype=jnp.float32) + 0.5
    weights = jnp.maximum(1 - jnp.abs(pixel[None, :] - centre[:, None]) / jnp.maximum(scale, 1.0), 0.0)
    weights = jnp.where(pixel[None, :] < extent, weights, 0.0)
    total = weights.sum(1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)


def resize_to(input_size: tuple[int, int], preprocess: Preprocess) -> Augmentation:
    """Resize all input images of a batch, and their boxes, to another input size ``(H, W)``.

    It is deterministic, and it changes the shape of the images. Training at several sizes uses it.
    """

    def resize(
        key: PRNGKeyArray, images: UInt8[Array, "B h w 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, h, w, _ = images.shape
        if (h, w) == input_size:
            return images, targets
        placement = place_on_input((h, w), input_size, preprocess)
        size = jnp.broadcast_to(jnp.array([h, w], jnp.int32), (batch, 2))
        content = jnp.broadcast_to(jnp.array(placement.content, jnp.float32), (batch, 4))
        scale, offset = scale_and_offset(np.array([h, w]), np.array(placement.content))
        boxes = targets.boxes * jnp.float32(scale)[None, None] + jnp.float32(offset)[None, None]
        return letterbox(images, size, content, input_size, preprocess.pad), targets._replace(boxes=boxes)

    return resize
