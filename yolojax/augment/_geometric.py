"""Flips, and random scale, shift, rotation, shear and perspective in one resampling."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from yolojax.augment._common import Augmentation, keep_visible, project_boxes, transform_boxes
from yolojax.augment._resample import PAD, magnify_and_shift, warp_affine, warp_perspective
from yolojax.errors import ConfigError
from yolojax.structures import Targets


def random_flip(probability: float, *, vertical: bool = False) -> Augmentation:
    """Mirror each image left to right (or top to bottom) with this probability. Pixels and boxes are exact."""
    axis, low, high = (1, 1, 3) if vertical else (2, 0, 2)

    def flip(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        extent = images.shape[axis]
        chosen = jax.random.bernoulli(key, probability, (images.shape[0],))
        boxes = targets.boxes
        mirrored = boxes.at[..., low].set(extent - boxes[..., high]).at[..., high].set(extent - boxes[..., low])
        return (
            jnp.where(chosen[:, None, None, None], jnp.flip(images, axis), images),
            targets._replace(boxes=jnp.where(chosen[:, None, None], mirrored, boxes)),
        )

    return flip


def random_affine(
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    translate: float = 0.0,
    rotate: float = 0.0,
    shear: float = 0.0,
    pad: int = PAD,
) -> Augmentation:
    """Move each image by a random affine map about the centre of the input image.

    Args:
      scale: smallest and largest magnification. It is drawn log-uniformly, so that halving is as likely as doubling.
      translate: largest shift, as a share of the input image's width and height.
      rotate: largest rotation in degrees. Boxes become the smallest boxes around their rotated corners.
      shear: largest shear angle in degrees on each axis, below 45 (at 45 an image could collapse into a line).
      pad: grey of the pixels that the image does not cover.

    Boxes are clipped to the input image and dropped by the rule of `keep_visible`.

    Raises:
      ConfigError: a scale or shear out of range.
    """
    _check_affine(scale, shear)

    def affine(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, h, w, _ = images.shape
        draw = jax.random.uniform(key, (6, batch), minval=-1.0, maxval=1.0)
        matrices = _affine_matrices(draw, (h, w), scale, translate, rotate, shear)
        moved = transform_boxes(targets.boxes, matrices)
        boxes, valid = keep_visible(targets, moved, jnp.array([0, 0, w, h], jnp.float32))
        turned = bool(rotate or shear)
        moved_images = warp_affine(images, matrices, pad) if turned else magnify_and_shift(images, matrices, pad)
        return moved_images, targets._replace(boxes=boxes, valid=valid)

    return affine


def random_perspective(
    perspective: float,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    translate: float = 0.0,
    rotate: float = 0.0,
    shear: float = 0.0,
    pad: int = PAD,
) -> Augmentation:
    """Tilt each image out of its plane, then move it as `random_affine` does, in one resampling.

    The tilt is random about both axes. The depth at a border of the input image changes by up to the share
    ``perspective`` on each axis, and the centre keeps its depth. ``perspective`` must be below .5, where a corner of
    the image would reach the horizon. Boxes become the smallest boxes around their four mapped corners. The other
    arguments are those of `random_affine`.

    Raises:
      ConfigError: a perspective, scale or shear out of range.
    """
    _check_affine(scale, shear)
    if not 0 <= perspective < 0.5:
        raise ConfigError(f"perspective = {perspective}: give a share from 0 to below .5")

    def tilt(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, h, w, _ = images.shape
        draw = jax.random.uniform(key, (8, batch), minval=-1.0, maxval=1.0)
        matrices = _affine_matrices(draw[:6], (h, w), scale, translate, rotate, shear)
        # The depth is 1 + p u + q v about the centre, where u and v run from -1 to 1 across the input image.
        p, q = perspective * draw[6] / (w / 2), perspective * draw[7] / (h / 2)
        c, d = w / 2, h / 2
        rest = 1 - p * c - q * d
        one, zero = jnp.ones(batch), jnp.zeros(batch)
        depth = jnp.stack([p, q, rest], -1)
        across = jnp.stack([one, zero, -c * one], -1) + c * depth
        down = jnp.stack([zero, one, -d * one], -1) + d * depth
        # Computed element by element, since some hardware rounds a matrix product to bfloat16 or TF32.
        rows = [m[:, :1] * across + m[:, 1:2] * down + m[:, 2:] * depth for m in (matrices[:, 0], matrices[:, 1])]
        projection = jnp.stack([*rows, depth], 1)
        # Rows of padding may hold boxes beyond the horizon. They are clipped so that they do not become infinite.
        inside = jnp.clip(targets.boxes, 0, jnp.array([w, h, w, h], jnp.float32)[None, None])
        moved = project_boxes(inside, projection)
        boxes, valid = keep_visible(targets, moved, jnp.array([0, 0, w, h], jnp.float32))
        return warp_perspective(images, projection, pad), targets._replace(boxes=boxes, valid=valid)

    return tilt


def _check_affine(scale: tuple[float, float], shear: float) -> None:
    if not 0 < scale[0] <= scale[1]:
        raise ConfigError(f"affine scale = {scale}: give two numbers with 0 < smallest <= largest")
    if not 0 <= shear < 45:
        raise ConfigError(f"affine shear = {shear}: give degrees from 0 to below 45")


def _affine_matrices(
    draw: Float[Array, "6 B"],
    input_size: tuple[int, int],
    scale: tuple[float, float],
    translate: float,
    rotate: float,
    shear: float,
) -> Float[Array, "B 2 3"]:
    """The maps from six numbers in [-1, 1] for each image: size, angle, shear on each axis, shift on each axis."""
    h, w = input_size
    log_low, log_high = jnp.log(jnp.float32(scale[0])), jnp.log(jnp.float32(scale[1]))
    size = jnp.exp(log_low + (draw[0] + 1) / 2 * (log_high - log_low))
    angle = jnp.deg2rad(rotate) * draw[1]
    shear_x, shear_y = jnp.tan(jnp.deg2rad(shear) * draw[2]), jnp.tan(jnp.deg2rad(shear) * draw[3])
    cos, sin = size * jnp.cos(angle), size * jnp.sin(angle)
    a, b = cos - sin * shear_y, cos * shear_x - sin
    c, d = sin + cos * shear_y, sin * shear_x + cos
    move_x = w / 2 - a * w / 2 - b * h / 2 + translate * w * draw[4]
    move_y = h / 2 - c * w / 2 - d * h / 2 + translate * h * draw[5]
    return jnp.stack([jnp.stack([a, b, move_x], -1), jnp.stack([c, d, move_y], -1)], 1)
