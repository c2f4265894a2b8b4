"""Regions of two-stage detectors and RetinaNet: their anchors, their box coder, and the pooling of their features.

Values are those of torchvision (``AnchorGenerator``, ``BoxCoder``, ``ops.roi_align``, ``ops.MultiScaleRoIAlign``), with
images as NHWC and a fixed number of boxes for each image.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from yolojax.errors import ConfigError

LARGEST_LOG_SCALE = math.log(1000.0 / 16)
"""Predicted sides are at most 62.5 times those of the reference box."""


def region_anchors(
    grids: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
) -> Float[Array, "N 4"]:
    """The anchors of all levels (xyxy, pixels of the input image), which may reach beyond the image.

    An anchor of size ``s`` and ratio ``r`` has the height ``s sqrt(r)`` and the width ``s / sqrt(r)``, its corners
    rounded to whole pixels, and is centred on ``(column, row)`` times the stride, which is the image's side divided by
    the grid's, rounded down (Faster R-CNN, arXiv 1506.01497, section 3.1.1; FPN, arXiv 1612.03144, section 4.1). The
    anchors are computed on the host. The flat axis runs over level, row, column, ratio, size.

    Args:
      grids: rows and columns of each level.
      image_size: ``(height, width)`` in pixels.
      sizes: in pixels, those of each level.
      ratios: of height to width.
    """
    every = []
    for (rows, columns), own in zip(grids, sizes, strict=True):
        tall = np.sqrt(np.asarray(ratios, np.float32))
        heights, widths = (np.outer(x, np.asarray(own, np.float32)).ravel() for x in (tall, np.float32(1) / tall))
        base = np.round(np.stack([-widths, -heights, widths, heights], -1) / 2)
        y, x = np.meshgrid(
            np.arange(rows) * (image_size[0] // rows), np.arange(columns) * (image_size[1] // columns), indexing="ij"
        )
        every.append((np.stack([x, y, x, y], -1).reshape(-1, 1, 4) + base[None]).reshape(-1, 4))
    return jnp.asarray(np.concatenate(every), jnp.float32)


def encode_regions(
    boxes: Float[Array, "*n 4"],
    references: Float[Array, "*n 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "*n 4"]:
    """The inverse of `decode_regions`: what a network should predict for these boxes.

    Boxes and references are xyxy in input pixels. Sides below 1e-3 pixel count as 1e-3, so that the result is finite.
    """
    (x, y, w, h), (rx, ry, rw, rh) = _centres(boxes), _centres(references)
    w, h, rw, rh = (jnp.maximum(side, 1e-3) for side in (w, h, rw, rh))
    values = ((x - rx) / rw, (y - ry) / rh, jnp.log(w / rw), jnp.log(h / rh))
    return jnp.stack([value * weight for value, weight in zip(values, weights, strict=True)], axis=-1)


def decode_regions(
    deltas: Float[Array, "*n 4"],
    references: Float[Array, "*n 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "*n 4"]:
    """Boxes (xyxy, input pixels) from predictions relative to reference boxes (R-CNN, arXiv 1311.2524, appendix C).

    With predictions ``t`` divided by the weights, the centre is ``t * side + centre`` and the side ``exp(t) * side`` of
    the reference, where the last two ``t`` are at most log 62.5.

    Args:
      deltas: ``(tx, ty, tw, th)``.
      references: anchors or proposals, xyxy in input pixels.
      weights: factors by which the network's targets were multiplied: 1 for anchors, ``(10, 10, 5, 5)`` for proposals.
    """
    dx, dy, dw, dh = (deltas[..., i].astype(jnp.float32) / weights[i] for i in range(4))
    x, y, w, h = _centres(references)
    x, y = dx * w + x, dy * h + y
    half_w, half_h = (0.5 * jnp.exp(jnp.minimum(log, LARGEST_LOG_SCALE)) * side for log, side in ((dw, w), (dh, h)))
    return jnp.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=-1)


def _centres(boxes: Float[Array, "*n 4"]) -> tuple[Array, Array, Array, Array]:
    x1, y1, x2, y2 = (boxes[..., i].astype(jnp.float32) for i in range(4))
    w, h = x2 - x1, y2 - y1
    return x1 + 0.5 * w, y1 + 0.5 * h, w, h


def roi_align(
    features: Float[Array, "B h w C"],
    boxes: Float[Array, "B R 4"],
    output_size: int = 7,
    *,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Float[Array, "B R S S C"]:
    """The features within each box, as a square of ``output_size`` bins (Mask R-CNN, arXiv 1703.06870, section 3).

    A bin is the mean of ``sampling_ratio ** 2`` bilinear samples that divide it evenly. A sample more than one pixel
    outside of the map is 0. Boxes carry no gradient.

    Args:
      features: one map for each image.
      boxes: xyxy in pixels of the image.
      output_size: bins along each side.
      spatial_scale: pixels of the map for one pixel of the image, such as 1/16.
      sampling_ratio: samples of a bin along each side, at least 1. torchvision's ratio that depends on the size of the
        box has no fixed shape and is not offered.
      aligned: move the boxes by half a pixel, so that the centre of the first pixel lies at .5. Without it a box has at
        least one pixel along each side.

    Raises:
      ConfigError: an output size or a sampling ratio below 1.
    """
    return pyramid_roi_align(
        (features,), boxes, (spatial_scale,), output_size, sampling_ratio=sampling_ratio, aligned=aligned
    )


def pyramid_roi_align(
    features: Sequence[Float[Array, "B _h _w C"]],
    boxes: Float[Array, "B R 4"],
    spatial_scales: Sequence[float],
    output_size: int = 7,
    *,
    sampling_ratio: int = 2,
    aligned: bool = False,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
) -> Float[Array, "B R S S C"]:
    """`roi_align` on the level of a feature pyramid that suits the size of each box.

    The level is ``floor(canonical_level + log2(sqrt(area) / canonical_size))`` (FPN, arXiv 1612.03144, equation 1),
    where level ``k`` is the map of scale ``2 ** -k``, limited to the levels that there are.

    Args:
      features: finest first; each level has half the scale of the one before it.
      boxes: xyxy in pixels of the image.
      spatial_scales: of each level, see `roi_align`.
      output_size, sampling_ratio, aligned: see `roi_align`.
      canonical_size: side in pixels of a square that belongs to ``canonical_level``.
      canonical_level: 4 is the map of stride 16.

    Raises:
      ConfigError: an output size or a sampling ratio below 1.
    """
    if output_size < 1 or sampling_ratio < 1:
        raise ConfigError(
            f"output_size = {output_size}, sampling_ratio = {sampling_ratio}: give whole numbers of at least 1"
        )
    boxes = jax.lax.stop_gradient(boxes.astype(jnp.float32))
    if len(features) == 1:
        level = jnp.zeros(boxes.shape[:2], jnp.int32)
    else:
        finest = -round(math.log2(spatial_scales[0]))
        side = jnp.sqrt(jnp.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 1e-12))
        level = jnp.floor(canonical_level + jnp.log2(side / canonical_size) + 1e-6).astype(jnp.int32) - finest
        level = jnp.clip(level, 0, len(features) - 1)

    def of_level(values: Sequence[int] | Sequence[float], dtype: type) -> Array:
        return jnp.asarray(values, dtype)[level][..., None]

    heights, widths = ([f.shape[axis] for f in features] for axis in (1, 2))
    starts = np.concatenate([[0], np.cumsum(np.multiply(heights, widths))[:-1]]).tolist()
    first, width = of_level(starts, jnp.int32), of_level(widths, jnp.int32)
    scale, offset = of_level(spatial_scales, jnp.float32), 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (boxes[..., i : i + 1] * scale - offset for i in range(4))
    bins = (output_size, sampling_ratio, not aligned)
    rows, columns = _corners(y1, y2, of_level(heights, jnp.int32), *bins), _corners(x1, x2, width, *bins)

    flat = jnp.concatenate([f.reshape(f.shape[0], -1, f.shape[-1]) for f in features], axis=1)
    total = jnp.zeros((*boxes.shape[:2], output_size, output_size, flat.shape[-1]), jnp.float32)
    for row in rows:
        start = first + row.pixel * width
        for column in columns:
            index = start[..., :, None] + column.pixel[..., None, :]
            weight = row.weight[..., :, None] * column.weight[..., None, :]
            pixels = jax.vmap(lambda image, index: image[index])(flat, index)
            total += weight[..., None] * pixels.astype(jnp.float32)
    return total / sampling_ratio**2


class _Corner(NamedTuple):
    """Of one sample in every bin along one axis: the pixel on one side of it, and the weight of that pixel."""

    pixel: Int[Array, "B R S"]
    weight: Float[Array, "B R S"]


def _corners(
    low: Float[Array, "B R 1"],
    high: Float[Array, "B R 1"],
    length: Int[Array, "B R 1"],
    output_size: int,
    sampling_ratio: int,
    at_least_one: bool,
) -> list[_Corner]:
    """Both corners of every sample along one axis of maps that have ``length`` pixels there."""
    extent = jnp.maximum(high - low, 1.0) if at_least_one else high - low
    size, bins = extent / output_size, jnp.arange(output_size, dtype=jnp.float32)[None, None]
    corners = []
    for i in range(sampling_ratio):
        at = low + bins * size + (i + 0.5) * size / sampling_ratio
        inside = (at >= -1.0) & (at <= length)
        at = jnp.where(inside, jnp.maximum(at, 0.0), 0.0)
        before = jnp.minimum(at.astype(jnp.int32), length - 1)
        share = jnp.where(before == length - 1, 0.0, at - before)
        corners.append(_Corner(before, jnp.where(inside, 1.0 - share, 0.0)))
        corners.append(_Corner(jnp.minimum(before + 1, length - 1), jnp.where(inside, share, 0.0)))
    return corners
