"""Cells of the prediction levels: where they lie on the input image, and the flat axis over all of them.

The flat axis of ``N`` predictions runs level by level (in the order of the levels, finest first), then row by row.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yolojax.structures import Level


def levels_of(maps: Sequence[Float[Array, "B _h _w ..."]], strides: Sequence[int]) -> tuple[Level, ...]:
    """The grids of prediction maps ``[B, h, w, ...]``, given the stride (input pixels) of each map."""
    return tuple(Level(m.shape[1], m.shape[2], s) for m, s in zip(maps, strides, strict=True))


def cell_centres(levels: tuple[Level, ...], per_cell: int = 1) -> tuple[Float[Array, "N 2"], Float[Array, " N"]]:
    """Centres ``(x, y)`` of all cells in input pixels, and the stride of each cell's level in pixels.

    These are the points of anchor-free detectors: ``(column + 1/2) * stride`` (FCOS, arXiv 1904.01355, section 3.1).
    They are computed on the host from the static grid, so that they enter a compiled program as constants. Each cell
    stands ``per_cell`` times in a row, for heads that make several predictions in a cell.
    """
    points, strides = [], []
    for h, w, stride in levels:
        y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
        points.append(np.repeat((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride, per_cell, axis=0))
        strides.append(np.full(h * w * per_cell, stride))
    return jnp.asarray(np.concatenate(points), jnp.float32), jnp.asarray(np.concatenate(strides), jnp.float32)


def anchor_grid(
    levels: tuple[Level, ...], anchors: Float[Array, "L A 2"]
) -> tuple[Float[Array, "N 2"], Float[Array, " N"], Float[Array, "N 2"]]:
    """Cell ``(column, row)``, stride and anchor ``(width, height)`` of every prediction of an anchor-based detector.

    The anchors of a cell follow one another on the flat axis, as in maps ``[B, h, w, A, ...]``. Anchors and strides are
    in input pixels.
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
    """Per-level maps as one float32 array over all cells (and anchors), whatever type the network computes in."""
    return jnp.concatenate([m.reshape(m.shape[0], -1, m.shape[-1]).astype(jnp.float32) for m in maps], axis=1)
