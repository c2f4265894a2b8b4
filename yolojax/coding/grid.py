"""Cells of the prediction levels: where they lie on the input image, and one flat axis over all of them.

The flat axis of ``N`` predictions runs level by level (finest first, as the levels are given), then row by row.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yolojax.structures import Level


def levels_of(maps: Sequence[Float[Array, "B _h _w ..."]], strides: Sequence[int]) -> tuple[Level, ...]:
    """The level grids that prediction maps ``[B, h, w, ...]`` imply, one stride (input_size pixels) a map."""
    return tuple(Level(m.shape[1], m.shape[2], s) for m, s in zip(maps, strides, strict=True))


def cell_centres(levels: tuple[Level, ...]) -> tuple[Float[Array, "N 2"], Float[Array, " N"]]:
    """Centres ``(x, y)`` of all cells in input pixels, and the stride of each cell's level in pixels.

    The points of the anchor-free detectors (FCOS, arXiv 1904.01355, section 3.1): ``(column + 1/2) * stride``. Computed
    on the host from the static grid, so they enter a compiled program as constants.
    """
    points, strides = [], []
    for h, w, stride in levels:
        y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
        points.append((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(np.full(h * w, stride))
    return jnp.asarray(np.concatenate(points), jnp.float32), jnp.asarray(np.concatenate(strides), jnp.float32)


def anchor_grid(
    levels: tuple[Level, ...], anchors: Float[Array, "L A 2"]
) -> tuple[Float[Array, "N 2"], Float[Array, " N"], Float[Array, "N 2"]]:
    """Cell ``(column, row)``, stride and anchor ``(width, height)`` of every prediction of an anchor-based detector.

    ``N`` counts the anchors of a cell one after the other, as maps ``[B, h, w, A, ...]`` do. Anchors and strides are in
    input pixels.
    """
    per_cell = anchors.shape[1]
    cells, strides, sizes = [], [], []
    for (h, w, stride), own in zip(levels, anchors, strict=True):
        y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
        cells.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), per_cell, axis=0))
        strides.append(np.full(h * w * per_cell, stride))
        sizes.append(jnp.tile(own, (h * w, 1)))
    cells, strides = np.concatenate(cells), np.concatenate(strides)
    return jnp.asarray(cells, jnp.float32), jnp.asarray(strides, jnp.float32), jnp.concatenate(sizes)


def flatten_levels(maps: Sequence[Float[Array, "B _h _w *_anchors D"]]) -> Float[Array, "B N D"]:
    """Per-level maps as one array over all cells (and anchors), in float32 whatever the network computes in."""
    return jnp.concatenate([m.reshape(m.shape[0], -1, m.shape[-1]).astype(jnp.float32) for m in maps], axis=1)
