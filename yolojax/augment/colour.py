"""Random hue, saturation and brightness."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from yolojax.augment.compose import Augmentation
from yolojax.augment.warp import to_uint8
from yolojax.structures import Targets


def rgb_to_hsv(rgb: Float[Array, "*P 3"]) -> Float[Array, "*P 3"]:
    """RGB in 0..1 to hue, saturation and value, each in 0..1 (the hexcone model; grey has hue 0)."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value, low = rgb.max(-1), rgb.min(-1)
    spread = value - low
    safe = jnp.where(spread > 0, spread, 1.0)
    hue = jnp.where(value == r, (g - b) / safe, jnp.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = jnp.where(spread > 0, (hue / 6) % 1.0, 0.0)
    return jnp.stack([hue, spread / jnp.where(value > 0, value, 1.0), value], -1)


def hsv_to_rgb(hsv: Float[Array, "*P 3"]) -> Float[Array, "*P 3"]:
    """The inverse of `rgb_to_hsv`, without branches: ``v - v s max(0, min(k, 4 - k, 1))``, ``k = (n + 6 h) mod 6``."""
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    k = jnp.stack([n + 6 * hue for n in (5.0, 3.0, 1.0)], -1) % 6
    return value[..., None] * (1 - saturation[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))


def random_hsv(hue: float, saturation: float, value: float) -> Augmentation:
    """Shift the hue by up to ``hue`` of the circle; scale saturation and value by up to ``1 +- share``."""

    def jitter(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        draw = jax.random.uniform(key, (3, images.shape[0], 1, 1), minval=-1.0, maxval=1.0)
        hsv = rgb_to_hsv(images.astype(jnp.float32) / 255)
        changed = [
            (hsv[..., 0] + hue * draw[0]) % 1.0,
            jnp.clip(hsv[..., 1] * (1 + saturation * draw[1]), 0, 1),
            jnp.clip(hsv[..., 2] * (1 + value * draw[2]), 0, 1),
        ]
        return to_uint8(255 * hsv_to_rgb(jnp.stack(changed, -1))), targets

    return jitter
