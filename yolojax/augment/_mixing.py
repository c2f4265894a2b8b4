"""Augmentations that join several images of a batch: mosaics of four and of nine images, and MixUp."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from yolojax.augment._common import Augmentation, fit_into_rows, keep_visible
from yolojax.augment._products import bilinear_weights, resample
from yolojax.augment._resample import PAD, halve, sample_bilinear, to_uint8
from yolojax.errors import ConfigError
from yolojax.processor.platform import by_platform
from yolojax.structures import Targets


def mosaic(probability: float, *, scale: tuple[float, float] = (0.5, 1.0), pad: int = PAD) -> Augmentation:
    """Join four images into one, with this probability: the image itself and the three that follow it in its group.

    The four tiles meet at a random point in the middle half of the input image. Each tile shows
    its image magnified by a factor drawn log-uniformly from ``scale``, with one corner of the image at the meeting
    point. The image is cut at the border of the input image, and pixels that it does not cover are grey (``pad``).

    Boxes are clipped to their tile and dropped by the rule of `keep_visible`. Of the up to ``4 M`` objects only ``M``
    fit. Crowd regions are left out first, then the smallest objects; their number is added to ``dropped``, as are the
    numbers that were dropped from the four images.

    Raises:
      ConfigError: a scale out of range.

    Reference: YOLOv4, arXiv 2004.10934, section 3.3.
    """
    _check_scale(scale)

    def make(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, h, w, _ = images.shape
        keys = jax.random.split(key, 3)
        chosen = jax.random.bernoulli(keys[0], probability, (batch,))
        cuts = jax.random.uniform(keys[1], (batch, 2, 1), minval=0.25, maxval=0.75)
        tiles = _lay_tiles(cuts, _draw_sizes(keys[2], (batch, 4), scale), (h, w))
        draw = partial(_draw_tiles, tiles=tiles, pad=pad)
        pixels = by_platform(images, default=draw, tpu=partial(_multiply_four, tiles=tiles, pad=pad))
        made = _gather_objects(targets, tiles)
        return _where(chosen, pixels, images), jax.tree.map(partial(_where, chosen), made, targets)

    return make


def mosaic9(probability: float, *, scale: tuple[float, float] = (0.4, 0.8), pad: int = PAD) -> Augmentation:
    """Join nine images into three rows of three tiles, with this probability: the image itself and eight others.

    The others are those that follow it in its group, the first ones again where the group has fewer. The cuts between
    the tiles are drawn from 20 to 46 % and from 54 to 80 % of each side. An image in the middle row or column is
    centred on its tile along that axis; an image at the border touches the cut, as in `mosaic`. Where a factor is below
    .5, the image is first halved by averaging, to avoid aliasing of small objects. Everything else is as in `mosaic`,
    with ``9 M`` objects for ``M`` rows.

    Raises:
      ConfigError: a scale out of range, or an input image with an odd side.
    """
    _check_scale(scale)

    def make(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, h, w, _ = images.shape
        if h % 2 or w % 2:
            raise ConfigError(f"mosaic of nine on an input image of {h} x {w}: both sides must be even")
        keys = jax.random.split(key, 3)
        chosen = jax.random.bernoulli(keys[0], probability, (batch,))
        low = jnp.array([0.2, 0.54])[None, None]
        cuts = low + jax.random.uniform(keys[1], (batch, 2, 2), maxval=0.26)
        tiles = _lay_tiles(cuts, _draw_sizes(keys[2], (batch, 9), scale), (h, w))
        how = {"tiles": tiles, "pad": pad, "halved": scale[0] < 0.5}
        pixels = by_platform(images, default=partial(_draw_tiles, **how), tpu=partial(_multiply_tiles, **how))
        made = _gather_objects(targets, tiles)
        return _where(chosen, pixels, images), jax.tree.map(partial(_where, chosen), made, targets)

    return make


class _Tiles(NamedTuple):
    """``T`` tiles of each mosaic, row by row: the map ``x * size + shift`` of its image, and the window it is cut to.

    ``cuts`` are the positions along x and along y where one tile ends and the next begins.
    """

    cuts: Float[Array, "B 2 cuts"]
    size: Float[Array, "B T"]
    shift: Float[Array, "B T 2"]
    window: Float[Array, "B T 4"]


def _check_scale(scale: tuple[float, float]) -> None:
    if not 0 < scale[0] <= scale[1]:
        raise ConfigError(f"mosaic scale = {scale}: give two numbers with 0 < smallest <= largest")


def _draw_sizes(key: PRNGKeyArray, shape: tuple[int, int], scale: tuple[float, float]) -> Float[Array, "B T"]:
    low, high = jnp.log(jnp.float32(scale[0])), jnp.log(jnp.float32(scale[1]))
    return jnp.exp(jax.random.uniform(key, shape, minval=low, maxval=high))


GROUP = 8
"""Images that are mixed with each other, at least, where a batch has as many."""


def group_size(batch: int) -> int:
    """Into groups of how many neighbours a batch is parted: the smallest divisor from `GROUP` on.

    The images of a mosaic or a blend are of one group. What a batch holds is drawn anew in each epoch, so that an image
    meets others every time. Groups are the same on any number of devices, and where a device has whole groups no pixels
    move between devices.
    """
    return next((size for size in range(GROUP, batch) if batch % size == 0), batch)


def _following(arrays: Array, distance: int) -> Array:
    """For each image of the batch what belongs to the one that comes so many places after it in its group."""
    size = group_size(len(arrays))
    grouped = arrays.reshape(-1, size, *arrays.shape[1:])
    return jnp.roll(grouped, -distance % size, 1).reshape(arrays.shape)


def _where(chosen: Bool[Array, " B"], new: Array, old: Array) -> Array:
    return jnp.where(chosen.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)


def _lay_tiles(cuts: Float[Array, "B 2 cuts"], size: Float[Array, "B T"], input_size: tuple[int, int]) -> _Tiles:
    batch, _, count = cuts.shape
    extent = jnp.array([input_size[1], input_size[0]], jnp.float32)
    cuts = cuts * extent[None, :, None]
    zero, end = jnp.zeros((batch, 2, 1)), jnp.broadcast_to(extent[None, :, None], (batch, 2, 1))
    low, high = jnp.concatenate([zero, cuts], 2), jnp.concatenate([cuts, end], 2)
    # Along each axis the image of the first tile ends at the first cut, the image of the last tile begins at the last
    # cut, and those between are centred on their tile. `share` is the point of the image that lies at `anchor`.
    middle = (low[..., 1:-1] + high[..., 1:-1]) / 2
    anchor = jnp.concatenate([cuts[..., :1], middle, cuts[..., -1:]], 2)
    share = jnp.concatenate([jnp.ones(1), jnp.full(count - 1, 0.5), jnp.zeros(1)])
    column, row = (a.ravel() for a in reversed(jnp.meshgrid(*[jnp.arange(count + 1)] * 2, indexing="ij")))
    at = jnp.stack([anchor[:, 0, column], anchor[:, 1, row]], -1)
    part = jnp.stack([share[column], share[row]], -1) * extent[None, :]
    window = jnp.stack([low[:, 0, column], low[:, 1, row], high[:, 0, column], high[:, 1, row]], -1)
    return _Tiles(cuts, size, at - part[None] * size[..., None], window)


def _draw_tiles(
    images: UInt8[Array, "B H W 3"], *, tiles: _Tiles, pad: int, halved: bool = False
) -> UInt8[Array, "B H W 3"]:
    """Each pixel of the mosaics is read where it comes from."""
    batch, h, w, _ = images.shape
    size = group_size(batch)
    x = (jnp.arange(w, dtype=jnp.float32) + 0.5)[None, :]
    y = (jnp.arange(h, dtype=jnp.float32) + 0.5)[:, None]

    # Groups are mapped over: a gather from the whole batch would first collect every image on every device.
    def draw(group: UInt8[Array, "G H W 3"], tiles: _Tiles) -> UInt8[Array, "G H W 3"]:
        small = halve(group) if halved else None

        def one(number: Int[Array, ""], tiles: _Tiles) -> Float[Array, "H W 3"]:
            column = sum((x > cut for cut in tiles.cuts[0]), start=jnp.zeros((1, 1), jnp.int32))
            line = sum((y > cut for cut in tiles.cuts[1]), start=jnp.zeros((1, 1), jnp.int32))
            tile = column + (tiles.cuts.shape[1] + 1) * line
            source, factor = (number + tile) % size, tiles.size[tile]
            source_x = (x - tiles.shift[tile, 0]) / factor
            source_y = (y - tiles.shift[tile, 1]) / factor
            pixels = sample_bilinear(group, source, source_x, source_y, pad)
            if small is None:
                return pixels
            reduced = sample_bilinear(small, source, source_x / 2, source_y / 2, pad)
            return jnp.where((factor < 0.5)[..., None], reduced, pixels)

        return to_uint8(jax.vmap(one)(jnp.arange(size), tiles))

    def grouped(a: Array) -> Array:
        return a.reshape(-1, size, *a.shape[1:])

    return jax.vmap(draw)(grouped(images), jax.tree.map(grouped, tiles)).reshape(images.shape)


def _multiply_tiles(
    images: UInt8[Array, "B H W 3"], *, tiles: _Tiles, pad: int, halved: bool = False
) -> UInt8[Array, "B H W 3"]:
    """The same by matrix products: each tile on an image of its own, of which its window is taken."""
    _, h, w, _ = images.shape
    x = jnp.arange(w, dtype=jnp.float32) + 0.5
    y = jnp.arange(h, dtype=jnp.float32) + 0.5

    def draw(number: int, images: Array, share: float) -> Array:
        shift, size = tiles.shift[:, number], tiles.size[:, number, None]
        columns = bilinear_weights((x[None] - shift[:, :1]) / size * share, images.shape[2])
        rows = bilinear_weights((y[None] - shift[:, 1:]) / size * share, images.shape[1])
        return jnp.moveaxis(resample(_following(images, number), rows, columns, pad), 1, -1)

    mosaics = images
    for number in range(tiles.size.shape[1]):
        tile = draw(number, images, 1.0)
        if halved:
            tile = _where(tiles.size[:, number] < 0.5, draw(number, halve(images), 0.5), tile)
        x1, y1, x2, y2 = jnp.moveaxis(tiles.window[:, number, :, None], 1, 0)
        inside = ((y[None] > y1) & (y[None] <= y2))[:, :, None] & ((x[None] > x1) & (x[None] <= x2))[:, None, :]
        mosaics = jnp.where(inside[..., None], tile, mosaics)
    return mosaics


LANES = 128
"""Numbers that a TPU computes side by side. Arrays whose sides are multiples of it are put together without moving."""


def _multiply_four(images: UInt8[Array, "B H W 3"], *, tiles: _Tiles, pad: int) -> UInt8[Array, "B H W 3"]:
    """Mosaics of four by matrix products, which computes half of what `_multiply_tiles` does.

    The tiles meet in the middle half, so that each reaches over three quarters of a side at most. That part of each is
    drawn, from its corner of the mosaic, and every pixel is then taken from its tile. Tiles are drawn where their image
    is; they move to their mosaic when they are finished, each of a group by itself, because `_following` would copy
    them.
    """
    batch, h, w, _ = images.shape
    x, y = (jnp.arange(side, dtype=jnp.float32)[None] + 0.5 for side in (w, h))
    wide, tall = (min(side, -(-(side * 3 // 4 + 1) // LANES) * LANES) for side in (w, h))

    drawn = []
    for number in range(4):
        bottom, right = divmod(number, 2)
        shift, size = tiles.shift[:, number], tiles.size[:, number, None]
        at_x = ((x[:, w - wide :] if right else x[:, :wide]) - shift[:, :1]) / size
        at_y = ((y[:, h - tall :] if bottom else y[:, :tall]) - shift[:, 1:]) / size
        rows, columns = bilinear_weights(_following(at_y, -number), h), bilinear_weights(_following(at_x, -number), w)
        drawn.append(resample(images, rows, columns, pad))

    def place(tile: UInt8[Array, "G 3 tall wide"], number: int) -> UInt8[Array, "G 3 H W"]:
        bottom, right = divmod(number, 2)
        beyond_y = (h - tall, 0) if bottom else (0, h - tall)
        beyond_x = (w - wide, 0) if right else (0, w - wide)
        return jnp.pad(tile, ((0, 0), (0, 0), beyond_y, beyond_x))

    size = group_size(batch)
    grouped = [tile.reshape(-1, size, *tile.shape[1:]) for tile in drawn]
    right = (x > tiles.cuts[:, 0]).reshape(-1, size, 1, 1, w)
    below = (y > tiles.cuts[:, 1]).reshape(-1, size, 1, h, 1)
    mosaics = []
    for k in range(size):
        own = [place(tile[:, (k + number) % size], number) for number, tile in enumerate(grouped)]
        upper, lower = jnp.where(right[:, k], own[1], own[0]), jnp.where(right[:, k], own[3], own[2])
        mosaics.append(jnp.where(below[:, k], lower, upper))
    return jnp.moveaxis(jnp.stack(mosaics, 1).reshape(batch, 3, h, w), 1, -1)


def _gather_objects(targets: Targets, tiles: _Tiles) -> Targets:
    batch, count = targets.valid.shape
    number = tiles.size.shape[1]
    each = jax.tree.map(lambda a: jnp.stack([_following(a, k) for k in range(number)], 1), targets)

    def of_tiles(a: Array) -> Array:
        return a.reshape(batch, number * count, *a.shape[3:])

    moved = each.boxes * tiles.size[..., None, None] + jnp.tile(tiles.shift, (1, 1, 2))[:, :, None]
    gathered = Targets(
        of_tiles(moved), of_tiles(each.classes), of_tiles(each.valid), of_tiles(each.crowd), each.dropped.sum(1)
    )
    boxes, valid = keep_visible(gathered, gathered.boxes, jnp.repeat(tiles.window, count, axis=1))
    return fit_into_rows(gathered._replace(boxes=boxes, valid=valid), count)


def mixup(probability: float, *, alpha: float = 32.0) -> Augmentation:
    """Blend an image with another one of its group, with this probability, and keep the objects of both.

    The other is as far away in the group as can be, so that after mosaics, which take the next three, it shows others.

    The weight of the image itself is drawn from ``Beta(alpha, alpha)``. It is near .5 for a large ``alpha`` (32 in the
    trainers of YOLO detectors) and varies widely for a small one (1.5 in the paper). As in the paper, every object
    counts fully, however faint it is. Of the up to ``2 M`` objects only ``M`` fit. Crowd regions are left out first,
    then the smallest objects; their number is added to ``dropped``.

    Raises:
      ConfigError: an ``alpha`` that is not positive.

    Reference: Zhang et al. 2019, arXiv 1902.04103, section 3.1.
    """
    if not alpha > 0:
        raise ConfigError(f"mixup alpha = {alpha}: give a positive number")

    def mix(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, count = targets.valid.shape
        keys = jax.random.split(key)
        chosen = jax.random.bernoulli(keys[0], probability, (batch,)) & (batch > 1)
        share = jax.random.beta(keys[1], alpha, alpha, (batch, 1, 1, 1))

        def of_other(a: Array) -> Array:
            return _following(a, max(1, group_size(batch) // 2))

        blended = to_uint8(share * images.astype(jnp.float32) + (1 - share) * of_other(images).astype(jnp.float32))
        others = jax.tree.map(of_other, targets)
        boxes, classes, valid, crowd = (jnp.concatenate(pair, 1) for pair in zip(targets[:4], others[:4], strict=True))
        both = Targets(boxes, classes, valid, crowd, targets.dropped + others.dropped)
        mixed = fit_into_rows(both, count)

        return _where(chosen, blended, images), jax.tree.map(partial(_where, chosen), mixed, targets)

    return mix
