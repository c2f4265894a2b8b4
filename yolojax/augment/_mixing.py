"""Augmentations that join several images of a batch: mosaics of four and of nine images, and MixUp."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from yolojax.augment._common import Augmentation, fit_into_rows, keep_visible
from yolojax.augment._resample import PAD, halve, sample_bilinear, to_uint8
from yolojax.errors import ConfigError
from yolojax.structures import Targets


def mosaic(probability: float, *, scale: tuple[float, float] = (0.5, 1.0), pad: int = PAD) -> Augmentation:
    """Join four images into one, with this probability: the image itself and three others of the batch.

    The others may repeat. The four tiles meet at a random point in the middle half of the input image. Each tile shows
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
        keys = jax.random.split(key, 4)
        chosen = jax.random.bernoulli(keys[0], probability, (batch,))
        cuts = jax.random.uniform(keys[2], (batch, 2, 1), minval=0.25, maxval=0.75)
        tiles = _lay_tiles(cuts, _draw_sizes(keys[3], (batch, 4), scale), (h, w))
        source = _draw_sources(keys[1], batch, 4)
        pixels = _draw_tiles(images, source, tiles, pad)
        made = _gather_objects(targets, source, tiles)
        return _where(chosen, pixels, images), jax.tree.map(lambda new, old: _where(chosen, new, old), made, targets)

    return make


def mosaic9(probability: float, *, scale: tuple[float, float] = (0.4, 0.8), pad: int = PAD) -> Augmentation:
    """Join nine images into three rows of three tiles, with this probability: the image itself and eight others.

    The others may repeat. The cuts between the tiles are drawn from 20 to 46 % and from 54 to 80 % of each side. An
    image in the middle row or column is centred on its tile along that axis; an image at the border touches the cut, as
    in `mosaic`. Where a factor is below .5, the image is first halved by averaging, to avoid aliasing of small objects.
    Everything else is as in `mosaic`, with ``9 M`` objects for ``M`` rows.

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
        keys = jax.random.split(key, 4)
        chosen = jax.random.bernoulli(keys[0], probability, (batch,))
        low = jnp.array([0.2, 0.54])[None, None]
        cuts = low + jax.random.uniform(keys[2], (batch, 2, 2), maxval=0.26)
        tiles = _lay_tiles(cuts, _draw_sizes(keys[3], (batch, 9), scale), (h, w))
        source = _draw_sources(keys[1], batch, 9)
        pixels = _draw_tiles(images, source, tiles, pad, halved=scale[0] < 0.5)
        made = _gather_objects(targets, source, tiles)
        return _where(chosen, pixels, images), jax.tree.map(lambda new, old: _where(chosen, new, old), made, targets)

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


def _draw_sources(key: PRNGKeyArray, batch: int, tiles: int) -> Int[Array, "B T"]:
    """The indices of the images in each mosaic: the image itself, then others of the batch."""
    own = jnp.arange(batch)[:, None]
    others = (own + jax.random.randint(key, (batch, tiles - 1), 1, max(batch, 2))) % batch
    return jnp.concatenate([own, others], 1)


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
    images: UInt8[Array, "B H W 3"], source: Int[Array, "B T"], tiles: _Tiles, pad: int, *, halved: bool = False
) -> UInt8[Array, "B H W 3"]:
    batch, h, w, _ = images.shape
    x = (jnp.arange(w, dtype=jnp.float32) + 0.5)[None, None, :]
    y = (jnp.arange(h, dtype=jnp.float32) + 0.5)[None, :, None]
    cuts = tiles.cuts[..., None, None]
    column = sum((x > cuts[:, 0, i] for i in range(cuts.shape[2])), start=jnp.zeros((1, 1, 1), jnp.int32))
    line = sum((y > cuts[:, 1, i] for i in range(cuts.shape[2])), start=jnp.zeros((1, 1, 1), jnp.int32))
    tile = column + (cuts.shape[2] + 1) * line
    row = jnp.arange(batch)[:, None, None]
    size = tiles.size[row, tile]
    source_x = (x - tiles.shift[row, tile, 0]) / size
    source_y = (y - tiles.shift[row, tile, 1]) / size
    pixels = sample_bilinear(images, source[row, tile], source_x, source_y, pad)
    if halved:
        small = sample_bilinear(halve(images), source[row, tile], source_x / 2, source_y / 2, pad)
        pixels = jnp.where((size < 0.5)[..., None], small, pixels)
    return to_uint8(pixels)


def _gather_objects(targets: Targets, source: Int[Array, "B T"], tiles: _Tiles) -> Targets:
    batch, count = targets.valid.shape
    number = source.shape[1]

    def of_tiles(a: Array) -> Array:
        return a[source].reshape(batch, number * count, *a.shape[2:])

    moved = targets.boxes[source] * tiles.size[..., None, None] + jnp.tile(tiles.shift, (1, 1, 2))[:, :, None]
    gathered = Targets(
        moved.reshape(batch, number * count, 4),
        of_tiles(targets.classes),
        of_tiles(targets.valid),
        of_tiles(targets.crowd),
        targets.dropped[source].sum(1),
    )
    boxes, valid = keep_visible(gathered, gathered.boxes, jnp.repeat(tiles.window, count, axis=1))
    return fit_into_rows(gathered._replace(boxes=boxes, valid=valid), count)


def mixup(probability: float, *, alpha: float = 32.0) -> Augmentation:
    """Blend an image with another one of the batch, with this probability, and keep the objects of both.

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
        keys = jax.random.split(key, 3)
        chosen = jax.random.bernoulli(keys[0], probability, (batch,)) & (batch > 1)
        other = (jnp.arange(batch) + jax.random.randint(keys[1], (batch,), 1, max(batch, 2))) % batch
        share = jax.random.beta(keys[2], alpha, alpha, (batch, 1, 1, 1))
        blended = to_uint8(share * images.astype(jnp.float32) + (1 - share) * images[other].astype(jnp.float32))
        boxes, classes, valid, crowd = (jnp.concatenate([a, a[other]], 1) for a in targets[:4])
        both = Targets(boxes, classes, valid, crowd, targets.dropped + targets.dropped[other])
        mixed = fit_into_rows(both, count)

        def select(new: Array, old: Array) -> Array:
            return jnp.where(chosen.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

        return select(blended, images), jax.tree.map(select, mixed, targets)

    return mix
