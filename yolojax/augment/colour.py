"""Random hue, saturation and brightness."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from yolojax.augment.compose import Augmentation
from yolojax.augment.warp import to_uint8
from yolojax.structures import Targets

Planes = tuple[Float[Array, "*P"], Float[Array, "*P"], Float[Array, "*P"]]
"""Three channels apart. A processor's loops over the last axis of ``[..., 3]`` are short, and do not vectorise."""


def rgb_to_hsv(rgb: Float[Array, "*P 3"]) -> Float[Array, "*P 3"]:
    """RGB in 0..1 to hue, saturation and value, each in 0..1 (the hexcone model; grey has hue 0)."""
    hue, saturation, value = _to_hsv((rgb[..., 0], rgb[..., 1], rgb[..., 2]))
    return jnp.stack([_fraction(hue), saturation, value], -1)


def hsv_to_rgb(hsv: Float[Array, "*P 3"]) -> Float[Array, "*P 3"]:
    """The inverse of `rgb_to_hsv`; the hue may be any number, of which the fraction counts."""
    return jnp.stack(_to_rgb((hsv[..., 0], hsv[..., 1], hsv[..., 2])), -1)


def _fraction(x: Array) -> Array:
    """``x mod 1``. ``%`` would call the C library for every value, some five times slower than the rest together."""
    return x - jnp.floor(x)


def _planes(images: UInt8[Array, "*P 3"]) -> Planes:
    """The three channels as floats, to the bit.

    On a processor by a product with the identity, at which XLA stops merging loops: of slices it would compute what
    made the images, such as the gathers of a warp, anew for each. Warp and jitter of 16 images of 320 pixels took
    150 ms so, and take 31.
    """
    wide = images.astype(jnp.float32)
    wide = jax.lax.platform_dependent(
        wide,
        cpu=lambda x: jax.lax.dot_general(x, jnp.eye(3), (((x.ndim - 1,), (0,)), ((), ())), precision="highest"),
        default=lambda x: x,
    )
    return wide[..., 0], wide[..., 1], wide[..., 2]


def _to_hsv(rgb: Planes) -> Planes:
    """The hue from -1/6 to 5/6."""
    r, g, b = rgb
    value, low = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    spread = value - low
    safe = jnp.where(spread > 0, spread, 1.0)
    hue = jnp.where(value == r, (g - b) / safe, jnp.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = jnp.where(spread > 0, hue / 6, 0.0)
    return hue, spread / jnp.where(value > 0, value, 1.0), value


def _to_rgb(hsv: Planes) -> Planes:
    """Without branches: ``v - v s max(0, min(k, 4 - k, 1))``, ``k = (n + 6 h) mod 6``."""
    hue, saturation, value = hsv
    k = [6 * _fraction(hue + n / 6) for n in (5.0, 3.0, 1.0)]
    r, g, b = (value * (1 - saturation * jnp.clip(jnp.minimum(x, 4 - x), 0, 1)) for x in k)
    return r, g, b


def random_hsv(hue: float, saturation: float, value: float) -> Augmentation:
    """Shift the hue by up to ``hue`` of the circle; scale saturation and value by up to ``1 +- share``."""

    def jitter(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        draw = jax.random.uniform(key, (3, images.shape[0], 1, 1), minval=-1.0, maxval=1.0)
        r, g, b = (plane / 255 for plane in _planes(images))
        h, s, v = _to_hsv((r, g, b))
        s = jnp.clip(s * (1 + saturation * draw[1]), 0, 1)
        v = jnp.clip(v * (1 + value * draw[2]), 0, 1)
        planes = _to_rgb((h + hue * draw[0], s, v))
        return jnp.stack([to_uint8(255 * plane) for plane in planes], -1), targets

    return jitter
