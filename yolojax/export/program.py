"""The functions of arrays that are exported: from uint8 images to detections, pure and free of files.

run = detecting(detector, detector.fold(variables), description)
run(images)  # {"boxes": [B, K, 4], "scores": [B, K], "classes": [B, K], "count": [B]}
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from yolojax.detector import Detector, Variables, prepare_images
from yolojax.export.settings import Description
from yolojax.geometry import Preprocess
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates

Program = Callable[[UInt8[Array, "B H W 3"]], dict[str, Array]]
"""From images (or photos) to the named outputs of a file."""


def candidates_of(detector: Detector, variables: Variables) -> Callable[[UInt8[Array, "B H W 3"]], Candidates]:
    """The function from input images (RGB) to all candidates: channel order, range, network and decoding."""

    def run(images: UInt8[Array, "B H W 3"]) -> Candidates:
        found = detector.decode(detector.forward(variables, prepare_images(images, detector.spec.preprocess)))
        return Candidates(*(x.astype(jnp.float32) for x in found))

    return run


def make_program(detector: Detector, variables: Variables, description: Description) -> Program:
    """The function that a file with this description computes.

    Args:
      detector: closed over.
      variables: as ``detector.fold`` returns them; they become constants of the program.
      description: see `yolojax.export.settings.describe_export`.
    """
    run = candidates_of(detector, variables)
    if description.raw:
        return lambda images: run(images)._asdict()
    if description.letterbox:
        return lambda photos: _on_photos(run, photos, description)
    return lambda images: _detections(run(images), description)


def _detections(candidates: Candidates, description: Description) -> dict[str, Array]:
    thresholds = description.thresholds
    assert thresholds is not None
    found = postprocess(
        candidates,
        thresholds.confidence,
        thresholds.iou,
        suppress="none" if thresholds.iou is None else "nms",
        max_detections=thresholds.max_detections,
        multi_label=description.multi_label,
    )
    return {
        "boxes": found.boxes,
        "scores": found.scores,
        "classes": found.classes,
        "count": found.valid.sum(-1, dtype=jnp.int32),
    }


def _on_photos(
    run: Callable[[Array], Candidates], photos: UInt8[Array, "B h w 3"], description: Description
) -> dict[str, Array]:
    """Detections on photos of one size, whatever it is; boxes in pixels of the photo, inside it."""
    height, width = (jnp.asarray(side, jnp.float32) for side in photos.shape[1:3])
    box = content_box(height, width, description.input_size, description.preprocess)
    images = resize_photos(photos, box, description.input_size, description.preprocess.pad)
    found = _detections(run(images), description)
    low, size = jnp.stack([box[0], box[1]]), jnp.stack([box[2] - box[0], box[3] - box[1]])
    sides = jnp.stack([width, height])
    corners = found["boxes"].reshape(*found["boxes"].shape[:2], 2, 2)
    scaled = (corners - low.reshape(1, 1, 1, 2)) / (size / sides).reshape(1, 1, 1, 2)
    inside = jnp.clip(scaled, 0.0, sides.reshape(1, 1, 1, 2)).reshape(found["boxes"].shape)
    exists = found["classes"] >= 0
    return {**found, "boxes": jnp.where(exists[..., None], inside, 0.0)}


def content_box(
    height: Float[Array, ""], width: Float[Array, ""], input_size: tuple[int, int], preprocess: Preprocess
) -> Float[Array, 4]:
    """The box (xyxy, input pixels) that a photo covers: `yolojax.geometry.place_on_input` of a size that is traced."""
    border = preprocess.border
    room_h, room_w = (float(side - 2 * border) for side in input_size)
    if preprocess.resize == "stretch":
        new_h, new_w = jnp.float32(room_h), jnp.float32(room_w)
    else:
        # The side that fills its room is set exactly; the other is the rounded quotient of exact products.
        fills_height = room_h * width <= room_w * height
        new_h = jnp.where(fills_height, room_h, jnp.clip(jnp.round(height * room_w / width), 1.0, room_h))
        new_w = jnp.where(fills_height, jnp.clip(jnp.round(width * room_h / height), 1.0, room_w), room_w)
    top = left = jnp.float32(border)
    if preprocess.resize == "letterbox" and preprocess.align == "centre":
        top, left = top + jnp.floor((room_h - new_h) / 2), left + jnp.floor((room_w - new_w) / 2)
    return jnp.stack([left, top, left + new_w, top + new_h])


def resize_photos(
    photos: UInt8[Array, "B h w 3"], box: Float[Array, 4], input_size: tuple[int, int], pad: int
) -> UInt8[Array, "B H W 3"]:
    """Photos of one size on input images, by Pillow's ``BILINEAR``: across, rounded, then down, rounded.

    A value may differ from Pillow's by one level: Pillow computes its weights with 22 bits, and it stretches some tall
    photos down first and across then.
    """
    across = triangle_weights(photos.shape[2], input_size[1], box[0], box[2])
    down = triangle_weights(photos.shape[1], input_size[0], box[1], box[3])
    exact = lax.Precision.HIGHEST
    rows = jnp.einsum("bhwc,Ww->bhWc", photos.astype(jnp.float32), across, precision=exact)
    rows = jnp.clip(jnp.floor(rows + 0.5), 0.0, 255.0)
    resized = jnp.clip(jnp.floor(jnp.einsum("bhWc,Hh->bHWc", rows, down, precision=exact) + 0.5), 0.0, 255.0)
    y, x = (jnp.arange(side, dtype=jnp.float32) for side in input_size)
    inside = ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None, :]
    return jnp.where(inside[None, :, :, None], resized, jnp.float32(pad)).astype(jnp.uint8)


def triangle_weights(
    length: Int[Array, ""] | int, out: int, low: Float[Array, ""], high: Float[Array, ""]
) -> Float[Array, "out length"]:
    """The weight of each of ``length`` pixels of a photo in each of ``out`` pixels of the input image, along one axis.

    The photo covers the input image from ``low`` to ``high``. The filter is a triangle whose support grows with the
    reduction; weights sum to 1.
    """
    scale = jnp.asarray(length, jnp.float32) / (high - low)
    centre = (jnp.arange(out, dtype=jnp.float32) + 0.5 - low) * scale
    pixel = jnp.arange(length, dtype=jnp.float32) + 0.5
    weights = jnp.maximum(1 - jnp.abs(pixel[None, :] - centre[:, None]) / jnp.maximum(scale, 1.0), 0.0)
    total = weights.sum(1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)


def narrowed(variables: Variables, dtype: str) -> Variables:
    """The same variables with kernels (arrays of two and more axes) in another type, in which a file keeps them."""
    return jax.tree.map(lambda x: x.astype(dtype) if x.ndim >= 2 and x.dtype == jnp.float32 else x, variables)
