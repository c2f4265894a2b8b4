"""Mosaic of four images (YOLOv4, arXiv 2004.10934, section 3.3) on fixed shapes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8

from yolojax.augment.boxes import keep_visible
from yolojax.augment.compose import Augmentation
from yolojax.augment.warp import sample_bilinear, to_uint8
from yolojax.structures import Targets


def mosaic(probability: float, *, scale: tuple[float, float] = (0.5, 1.0)) -> Augmentation:
    """With this probability an image becomes four quarters: itself and three others of the batch.

    The quarters meet at a random point in the middle half of the canvas. Each tile shows its image magnified by a
    factor drawn log-uniformly from ``scale``, one corner of the image at the meeting point, the rest cut at the tile's
    border. Boxes are clipped to their tile and dropped by the rule of `keep_visible`. Of the up to ``4 M`` objects the
    ``M`` padded rows take valid ones first; what does not fit is added to ``dropped``.
    """

    def make(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, h, w, _ = images.shape
        keys = jax.random.split(key, 4)
        chosen = jax.random.bernoulli(keys[0], probability, (batch,))
        shifts = jax.random.randint(keys[1], (batch, 3), 1, max(batch, 2))
        own = jnp.arange(batch)[:, None]
        source = jnp.concatenate([own, (own + shifts) % batch], 1)
        centre = jax.random.uniform(keys[2], (batch, 2), minval=0.25, maxval=0.75) * jnp.array([w, h])
        low, high = jnp.log(jnp.float32(scale[0])), jnp.log(jnp.float32(scale[1]))
        size = jnp.exp(jax.random.uniform(keys[3], (batch, 4), minval=low, maxval=high))
        # Corner of each tile's image that touches the meeting point: bottom right, bottom left, top right, top left.
        anchor = jnp.array([[w, h], [0, h], [w, 0], [0, 0]], jnp.float32)
        shift = centre[:, None] - anchor * size[..., None]

        x = jnp.broadcast_to(jnp.arange(w, dtype=jnp.float32) + 0.5, (batch, h, w))
        y = jnp.broadcast_to((jnp.arange(h, dtype=jnp.float32) + 0.5)[:, None], (batch, h, w))
        tile = (x > centre[:, 0, None, None]) + 2 * (y > centre[:, 1, None, None])
        row = jnp.arange(batch)[:, None, None]
        pixels = sample_bilinear(
            images,
            source[row, tile],
            (x - shift[row, tile, 0]) / size[row, tile],
            (y - shift[row, tile, 1]) / size[row, tile],
        )

        cx, cy = centre[:, 0], centre[:, 1]
        zero, right, bottom = jnp.zeros_like(cx), jnp.full_like(cx, w), jnp.full_like(cy, h)
        windows = [(zero, zero, cx, cy), (cx, zero, right, cy), (zero, cy, cx, bottom), (cx, cy, right, bottom)]
        window = jnp.stack([jnp.stack(edges, -1) for edges in windows], 1)
        moved = targets.boxes[source] * size[..., None, None] + jnp.tile(shift, (1, 1, 2))[:, :, None]
        count = targets.boxes.shape[1]
        flat = jax.tree.map(
            lambda a: a[source].reshape(batch, 4 * count, *a.shape[2:]), targets._replace(dropped=targets.valid)
        )
        boxes, valid = keep_visible(
            flat._replace(dropped=targets.dropped),
            moved.reshape(batch, 4 * count, 4),
            jnp.repeat(window, count, axis=1),
        )
        order = jnp.argsort(~valid, axis=1, stable=True)[:, :count]
        take = lambda a: jnp.take_along_axis(a, order.reshape(order.shape + (1,) * (a.ndim - 2)), 1)  # noqa: E731
        overflow = jnp.maximum(valid.sum(1) - count, 0)
        made = Targets(
            take(boxes), take(flat.classes), take(valid), take(flat.crowd), targets.dropped[source].sum(1) + overflow
        )
        select = lambda new, old: jnp.where(chosen.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)  # noqa: E731
        return select(to_uint8(pixels), images), jax.tree.map(select, made, targets)

    return make
