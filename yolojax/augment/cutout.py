"""Cut-out: grey rectangles that hide parts of an image, and the objects that they hide."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from yolojax.augment.compose import Augmentation
from yolojax.augment.warp import PAD
from yolojax.errors import ConfigError
from yolojax.structures import Targets

MOST_HIDDEN = 0.75
"""An object of which a larger share is hidden is dropped: what is left tells nothing."""


def cutout(
    probability: float, *, holes: int = 4, sides: tuple[float, float] = (0.05, 0.25), pad: int = PAD
) -> Augmentation:
    """With this probability up to ``holes`` rectangles of an image become grey.

    Each hole's width and height are drawn from ``sides``, as shares of the input image, and its centre anywhere on the
    input image, beyond whose border it is cut; the number of holes is drawn from 1 to ``holes``. Boxes stay as they
    are; an object of whose pixels more than `MOST_HIDDEN` are hidden, by all holes together, is dropped. Crowd regions
    stay.

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
    """Of the pixels of each box (its borders rounded, at least one pixel) the share that is hidden; exact counts."""
    batch, h, w = hidden.shape
    table = jnp.pad(jnp.cumsum(jnp.cumsum(hidden.astype(jnp.int32), 1), 2), ((0, 0), (1, 0), (1, 0)))
    limit = jnp.array([w, h], jnp.int32)[None, None]
    # Padding rows may hold anything, NaN included.
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
