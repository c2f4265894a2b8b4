"""Images resized onto an input image on the device, as Pillow's antialiased bilinear filter does on the host."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from yolojax.augment.compose import Augmentation
from yolojax.augment.warp import to_uint8
from yolojax.geometry import Preprocess, place_on_input
from yolojax.structures import Targets


def letterbox(
    images: UInt8[Array, "B h w 3"],
    sizes: Int[Array, "B 2"],
    content: Float[Array, "B 4"],
    input_size: tuple[int, int],
    pad: int,
) -> UInt8[Array, "B H W 3"]:
    """Photos of different sizes, each in the top left corner of its array, on their input images.

    Args:
      images: photos; what lies beyond an image's size is not read.
      sizes: ``(height, width)`` of each photo in pixels.
      content: the box of the input image (xyxy, whole pixels) that each photo covers: `Placement.content` of
        `place_on_input`, and `Batch.content`.
      input_size: ``(H, W)`` in pixels.
      pad: grey of the pixels that the photo does not cover.

    The filter is a triangle whose support grows with the reduction, applied along one axis and then the other, with
    what lies outside of the photo left out: Pillow's ``BILINEAR``, up to its rounding between the two axes.
    """

    def one(image: Array, size: Array, box: Array) -> Array:
        down = _triangle(image.shape[0], size[0], input_size[0], box[1], box[3])
        across = _triangle(image.shape[1], size[1], input_size[1], box[0], box[2])
        photo = image.astype(jnp.float32)
        exact = jax.lax.Precision.HIGHEST  # the default would round pixels to bfloat16 or TF32 on an accelerator
        resized = jnp.einsum("Hh,hwc->Hwc", down, photo, precision=exact)
        resized = jnp.einsum("Ww,Hwc->HWc", across, resized, precision=exact)
        x, y = (jnp.arange(n, dtype=jnp.float32) for n in (input_size[1], input_size[0]))
        inside = ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None, :]
        return jnp.where(inside[..., None], resized, jnp.float32(pad))

    return to_uint8(jax.vmap(one)(images, sizes, content))


def _triangle(
    length: int, extent: Int[Array, ""], out: int, low: Float[Array, ""], high: Float[Array, ""]
) -> Float[Array, "out length"]:
    """Weights of ``length`` pixels, of which ``extent`` are the photo's, in each of ``out`` pixels of the input
    image."""
    extent = extent.astype(jnp.float32)
    scale = extent / (high - low)
    centre = (jnp.arange(out, dtype=jnp.float32) + 0.5 - low) * scale
    pixel = jnp.arange(length, dtype=jnp.float32) + 0.5
    weights = jnp.maximum(1 - jnp.abs(pixel[None, :] - centre[:, None]) / jnp.maximum(scale, 1.0), 0.0)
    weights = jnp.where(pixel[None, :] < extent, weights, 0.0)
    total = weights.sum(1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)


def resize_to(input_size: tuple[int, int], preprocess: Preprocess) -> Augmentation:
    """All input images of a batch, and the boxes on them, onto an input image of another size; deterministic.

    The shape of the result differs from that of what comes in: this is how a program trains at several sizes.
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
        scale = jnp.array([placement.width / w, placement.height / h] * 2, jnp.float32)
        offset = jnp.array([placement.left, placement.top] * 2, jnp.float32)
        boxes = targets.boxes * scale[None, None] + offset[None, None]
        return letterbox(images, size, content, input_size, preprocess.pad), targets._replace(boxes=boxes)

    return resize
