"""Mosaic of four images (YOLOv4, arXiv 2004.10934, section 3.3) on fixed shapes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from yolojax.augment.boxes import keep_visible
from yolojax.augment.compose import Augmentation
from yolojax.augment.warp import PAD, sample_bilinear, to_uint8
from yolojax.errors import ConfigError
from yolojax.structures import Targets


def mosaic(probability: float, *, scale: tuple[float, float] = (0.5, 1.0), pad: int = PAD) -> Augmentation:
    """With this probability an image becomes four tiles: itself and three others of the batch, which may repeat.

    The tiles meet at a random point in the middle half of the canvas. Each shows its image magnified by a factor drawn
    log-uniformly from ``scale``, with the nearest corner of the image at the meeting point, the rest cut at the border
    of the canvas; what the image does not cover is grey (``pad``). Boxes are clipped to their tile and dropped by the
    rule of `keep_visible`. Of the up to ``4 M`` objects only ``M`` fit: what is left out, crowd regions first and then
    the smallest objects, is added to ``dropped``, as is what had been dropped from the four images.
    """
    if not 0 < scale[0] <= scale[1]:
        raise ConfigError(f"mosaic scale = {scale}: give two numbers with 0 < smallest <= largest")

    def make(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, h, w, _ = images.shape
        keys = jax.random.split(key, 4)
        chosen = jax.random.bernoulli(keys[0], probability, (batch,))
        own = jnp.arange(batch)[:, None]
        source = jnp.concatenate([own, (own + jax.random.randint(keys[1], (batch, 3), 1, max(batch, 2))) % batch], 1)
        extent = jnp.array([[w, h]], jnp.float32)
        centre = jax.random.uniform(keys[2], (batch, 2), minval=0.25, maxval=0.75) * extent
        low, high = jnp.log(jnp.float32(scale[0])), jnp.log(jnp.float32(scale[1]))
        size = jnp.exp(jax.random.uniform(keys[3], (batch, 4), minval=low, maxval=high))
        # Tiles from left to right, then down; the meeting point is their image's bottom right, bottom left, ... corner.
        corner = jnp.array([[[1, 1], [0, 1], [1, 0], [0, 0]]], jnp.float32) * extent[:, None]
        shift = centre[:, None] - corner * size[..., None]

        pixels = _draw_tiles(images, source, centre, size, shift, pad)
        made = _gather_objects(targets, source, centre, size, shift, (h, w))
        select = lambda new, old: jnp.where(chosen.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)  # noqa: E731
        return select(pixels, images), jax.tree.map(select, made, targets)

    return make


def _draw_tiles(
    images: UInt8[Array, "B H W 3"],
    source: Int[Array, "B 4"],
    centre: Float[Array, "B 2"],
    size: Float[Array, "B 4"],
    shift: Float[Array, "B 4 2"],
    pad: int,
) -> UInt8[Array, "B H W 3"]:
    batch, h, w, _ = images.shape
    x = (jnp.arange(w, dtype=jnp.float32) + 0.5)[None, None, :]
    y = (jnp.arange(h, dtype=jnp.float32) + 0.5)[None, :, None]
    tile = (x > centre[:, 0, None, None]) + 2 * (y > centre[:, 1, None, None])
    row = jnp.arange(batch)[:, None, None]
    source_x = (x - shift[row, tile, 0]) / size[row, tile]
    source_y = (y - shift[row, tile, 1]) / size[row, tile]
    return to_uint8(sample_bilinear(images, source[row, tile], source_x, source_y, pad))


def _gather_objects(
    targets: Targets,
    source: Int[Array, "B 4"],
    centre: Float[Array, "B 2"],
    size: Float[Array, "B 4"],
    shift: Float[Array, "B 4 2"],
    canvas: tuple[int, int],
) -> Targets:
    batch, count = targets.valid.shape

    def of_tiles(a: Array) -> Array:
        return a[source].reshape(batch, 4 * count, *a.shape[2:])

    zero = jnp.zeros_like(centre)
    end = jnp.broadcast_to(jnp.array([[canvas[1], canvas[0]]], jnp.float32), centre.shape)
    low_x, low_y = (jnp.stack([zero[:, i], centre[:, i]], -1) for i in (0, 1))
    high_x, high_y = (jnp.stack([centre[:, i], end[:, i]], -1) for i in (0, 1))
    column, row = jnp.array([0, 1, 0, 1]), jnp.array([0, 0, 1, 1])
    windows = jnp.stack([low_x[:, column], low_y[:, row], high_x[:, column], high_y[:, row]], -1)

    moved = targets.boxes[source] * size[..., None, None] + jnp.tile(shift, (1, 1, 2))[:, :, None]
    gathered = Targets(
        moved.reshape(batch, 4 * count, 4),
        of_tiles(targets.classes),
        of_tiles(targets.valid),
        of_tiles(targets.crowd),
        targets.dropped[source].sum(1),
    )
    boxes, valid = keep_visible(gathered, gathered.boxes, jnp.repeat(windows, count, axis=1))
    order = _strongest_claim(boxes, valid, gathered.crowd)[:, :count]

    def take(a: Array) -> Array:
        return jnp.take_along_axis(a, order.reshape(order.shape + (1,) * (a.ndim - 2)), 1)

    overflow = jnp.maximum(valid.sum(1, dtype=jnp.int32) - count, 0)
    return Targets(take(boxes), take(gathered.classes), take(valid), take(gathered.crowd), gathered.dropped + overflow)


def _strongest_claim(
    boxes: Float[Array, "B N 4"], valid: Bool[Array, "B N"], crowd: Bool[Array, "B N"]
) -> Int[Array, "B N"]:
    """The order in which objects take the padded rows: valid ones, objects before crowd regions, large before small."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return jnp.lexsort((-sides[..., 0] * sides[..., 1], crowd, ~valid), axis=-1)
