"""Augmentations that change pixels where they are: hue, saturation and value, and cut-out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from yolojax.augment._common import Augmentation
from yolojax.augment._resample import PAD, to_uint8
from yolojax.errors import ConfigError
from yolojax.processor.platform import by_platform
from yolojax.structures import Targets

Planes = tuple[Float[Array, "*P"], Float[Array, "*P"], Float[Array, "*P"]]
"""Three channels as separate arrays. On a CPU, loops over the last axis of ``[..., 3]`` do not vectorise."""


def rgb_to_hsv(rgb: Float[Array, "*P 3"]) -> Float[Array, "*P 3"]:
    """RGB to hue, saturation and value, all in 0..1 (the hexcone model). Grey has hue 0."""
    hue, saturation, value = _to_hsv((rgb[..., 0], rgb[..., 1], rgb[..., 2]))
    return jnp.stack([_fraction(hue), saturation, value], -1)


def hsv_to_rgb(hsv: Float[Array, "*P 3"]) -> Float[Array, "*P 3"]:
    """The inverse of `rgb_to_hsv`. The hue may be any number; only its fraction counts."""
    return jnp.stack(_to_rgb((hsv[..., 0], hsv[..., 1], hsv[..., 2])), -1)


def _fraction(x: Array) -> Array:
    """``x mod 1``. The operator ``%`` calls the C library for every value on a CPU, which takes far longer."""
    return x - jnp.floor(x)


def _planes(images: UInt8[Array, "*P 3"]) -> Planes:
    """The three channels as floats, exactly.

    On a CPU, XLA would merge the loops of whatever computed the images (such as the gathers of a warp) into each of the
    three slices and so run them three times. A product with the identity matrix stops this: warp and jitter of 16
    images of 320 pixels took 150 ms without it, and take 31 ms with it.
    """

    def by_product(wide: Array) -> Array:
        return jax.lax.dot_general(wide, jnp.eye(3), (((wide.ndim - 1,), (0,)), ((), ())), precision="highest")

    wide = by_platform(images.astype(jnp.float32), cpu=by_product, default=lambda wide: wide)
    return wide[..., 0], wide[..., 1], wide[..., 2]


def _to_hsv(rgb: Planes) -> Planes:
    """Hue, saturation and value, where the hue lies between -1/6 and 5/6."""
    r, g, b = rgb
    value, low = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    spread = value - low
    safe = jnp.where(spread > 0, spread, 1.0)
    hue = jnp.where(value == r, (g - b) / safe, jnp.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = jnp.where(spread > 0, hue / 6, 0.0)
    return hue, spread / jnp.where(value > 0, value, 1.0), value


def _to_rgb(hsv: Planes) -> Planes:
    """``v - v s max(0, min(k, 4 - k, 1))`` with ``k = (n + 6 h) mod 6`` for n = 5, 3 and 1, which needs no branch."""
    hue, saturation, value = hsv
    k = [6 * _fraction(hue + n / 6) for n in (5.0, 3.0, 1.0)]
    r, g, b = (value * (1 - saturation * jnp.clip(jnp.minimum(x, 4 - x), 0, 1)) for x in k)
    return r, g, b


def _pixels_of_planes(hue: Array, saturation: Array, value: Array) -> UInt8[Array, "*P 3"]:
    return jnp.stack([to_uint8(255 * plane) for plane in _to_rgb((hue, saturation, value))], -1)


def _pixels_at_once(*hsv: Float[Array, "*P"]) -> UInt8[Array, "*P 3"]:
    """The same by one formula for all channels, which a TPU computes where it writes them, without a stack."""
    hue, saturation, value = (jnp.expand_dims(plane, -1) for plane in hsv)
    sector = jnp.array([5.0, 3.0, 1.0]).reshape((1,) * (hue.ndim - 1) + (3,))
    k = 6 * _fraction(hue + sector / 6)
    return to_uint8(255 * (value * (1 - saturation * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))))


def random_hsv(hue: float, saturation: float, value: float) -> Augmentation:
    """Shift the hue by up to the share ``hue`` of the circle, and scale saturation and value.

    The factors are drawn uniformly from ``1 - saturation`` to ``1 + saturation`` and from ``1 - value`` to
    ``1 + value``, one of each for every image.
    """

    def jitter(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        draw = jax.random.uniform(key, (3, images.shape[0], 1, 1), minval=-1.0, maxval=1.0)
        r, g, b = (plane / 255 for plane in _planes(images))
        h, s, v = _to_hsv((r, g, b))
        s = jnp.clip(s * (1 + saturation * draw[1]), 0, 1)
        v = jnp.clip(v * (1 + value * draw[2]), 0, 1)
        shifted = h + hue * draw[0], s, v
        return by_platform(*shifted, default=_pixels_of_planes, tpu=_pixels_at_once), targets

    return jitter


MOST_HIDDEN = 0.75
"""An object is dropped if a larger share of it is hidden, since the rest does not show what it is."""


def cutout(
    probability: float, *, holes: int = 4, sides: tuple[float, float] = (0.05, 0.25), pad: int = PAD
) -> Augmentation:
    """Hide up to ``holes`` rectangles of an image with grey (``pad``), with this probability.

    The number of holes is drawn from 1 to ``holes``. Each hole's width and height are drawn from the range ``sides``,
    as shares of the input image, and its centre anywhere on the input image. Boxes do not change. An object is dropped
    if all holes together hide more than `MOST_HIDDEN` (.75) of its pixels. Crowd regions stay.

    Raises:
      ConfigError: no hole, or sides out of range.

    References: DeVries and Taylor 2017, arXiv 1708.04552; Zhong et al. 2017, arXiv 1708.04896, for detection.
    """
    if holes < 1 or not 0 < sides[0] <= sides[1] <= 1:
        raise ConfigError(
            f"cutout holes = {holes}, sides = {sides}: give at least 1 hole, and 0 < smallest <= largest <= 1"
        )

    def cut(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, h, w, _ = images.shape
        keys = jax.random.split(key, 4)
        chosen = jax.random.bernoulli(keys[0], probability, (batch, 1))
        number = jax.random.randint(keys[1], (batch, 1), 1, holes + 1)
        extent = jnp.array([w, h], jnp.float32)[None, None]
        size = extent * jax.random.uniform(keys[2], (batch, holes, 2), minval=sides[0], maxval=sides[1])
        centre = extent * jax.random.uniform(keys[3], (batch, holes, 2))
        low, high = jnp.round(centre - size / 2), jnp.round(centre + size / 2)
        real = (jnp.arange(holes)[None] < number) & chosen
        hidden = _covered(low, high, real, (h, w))
        share = _hidden_share(hidden, targets.boxes)
        stays = targets.crowd | (share <= MOST_HIDDEN)
        return (
            jnp.where(hidden[..., None], jnp.uint8(pad), images),
            targets._replace(valid=targets.valid & stays),
        )

    return cut


def _covered(
    low: Float[Array, "B holes 2"],
    high: Float[Array, "B holes 2"],
    real: Bool[Array, "B holes"],
    input_size: tuple[int, int],
) -> Bool[Array, "B H W"]:
    x, y = (jnp.arange(n, dtype=jnp.float32)[None, None] for n in (input_size[1], input_size[0]))
    column = (x >= low[..., :1]) & (x < high[..., :1]) & real[..., None]
    row = (y >= low[..., 1:]) & (y < high[..., 1:])
    return jnp.any(row[..., :, None] & column[..., None, :], axis=1)


def _hidden_share(hidden: Bool[Array, "B H W"], boxes: Float[Array, "B M 4"]) -> Float[Array, "B M"]:
    """The share of each box's pixels that is hidden. Borders are rounded, and a box has at least one pixel."""
    batch, h, w = hidden.shape
    table = jnp.pad(jnp.cumsum(jnp.cumsum(hidden.astype(jnp.int32), 1), 2), ((0, 0), (1, 0), (1, 0)))
    limit = jnp.array([w, h], jnp.int32)[None, None]
    # Rows of padding may hold anything, including NaN.
    whole = jnp.nan_to_num(jnp.round(boxes), nan=0.0, posinf=0.0, neginf=0.0)
    low = jnp.clip(whole[..., :2].astype(jnp.int32), 0, limit - 1)
    high = jnp.clip(whole[..., 2:].astype(jnp.int32), low + 1, limit)
    image = jnp.arange(batch)[:, None]

    def at(x: Int[Array, "B M"], y: Int[Array, "B M"]) -> Int[Array, "B M"]:
        return table[image, y, x]

    inside = (at(high[..., 0], high[..., 1]) - at(low[..., 0], high[..., 1]) - at(high[..., 0], low[..., 1])) + at(
        low[..., 0], low[..., 1]
    )
    pixels = (high - low).prod(-1)
    return inside.astype(jnp.float32) / pixels.astype(jnp.float32)
