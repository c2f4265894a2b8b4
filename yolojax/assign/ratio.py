"""Assignment by side ratio with neighbour cells, as YOLOv5 introduced it: many positives for each object."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign.objects import sort_by_content
from yolojax.assign.points import PredictionAssignment, as_assignment, settle
from yolojax.structures import Level, Targets


def ratio_assign(
    targets: Targets, anchors: Float[Array, "L A 2"], levels: tuple[Level, ...], *, largest_ratio: float = 4.0
) -> PredictionAssignment:
    """Every anchor whose sides fit is positive, in the cell of the object's centre and in its two nearest neighbours.

    An anchor (``(width, height)``, input pixels) fits if ``max(w / aw, aw / w, h / ah, ah / h) < largest_ratio``, on
    any number of levels. The neighbours are the next cell to the left (centre in the left half of its cell) or right,
    and above or below, where the grid has one: a coder that reaches half a cell beyond, `decode_yolov5`, can predict
    the object from there. Predictions are ordered as in `anchor_grid`; scores of positives are 1. There is no
    paper: the rule is the one that YOLOv5's documentation describes, and YOLOv7 (arXiv 2207.02696) builds on.

    A prediction that several objects claim goes to one that has its centre in the cell before one that has it next to
    it, then to the first by content. Centres outside of the input image count as in the border cell.
    """
    objects = sort_by_content(targets)
    sizes = objects.boxes[..., 2:] - objects.boxes[..., :2]
    centres = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]
    per_cell = anchors.shape[1]

    places, wishes, preferences, start = [], [], [], 0
    for level, own in zip(levels, anchors, strict=True):
        ratio = sizes[:, :, None] / own[None, None]
        fits = jnp.max(jnp.maximum(ratio, 1.0 / ratio), axis=-1) < largest_ratio
        x, has_side, side = _cells_along(centres[..., 0] / level.stride, level.w)
        y, has_other, other = _cells_along(centres[..., 1] / level.stride, level.h)
        everywhere = jnp.ones(x.shape, bool)
        cells = [(y, x, everywhere), (y, side, has_side), (other, x, has_other)]
        for rank, (row, column, exists) in enumerate(cells):
            first = start + (row * level.w + column) * per_cell
            places.append(first[..., None] + jnp.arange(per_cell, dtype=jnp.int32)[None, None])
            wishes.append(fits & (objects.assignable & exists)[..., None])
            preferences.append(jnp.full(fits.shape, 1.0 if rank == 0 else 0.0))
        start += level.h * level.w * per_cell

    place, wanted, preference = (jnp.concatenate(parts, axis=-1) for parts in (places, wishes, preferences))
    owner, wins = settle(wanted, place, preference, start)
    return as_assignment(owner, place, wins.astype(jnp.float32), objects)


def _cells_along(position: Array, count: int) -> tuple[Array, Array, Array]:
    """Along one axis: the cell of a position (in cells), whether its nearest neighbour exists, and that neighbour."""
    cell = jnp.clip(jnp.floor(position), 0, count - 1)
    neighbour = jnp.where(position - cell < 0.5, cell - 1, cell + 1)
    exists = (neighbour >= 0) & (neighbour < count)
    return cell.astype(jnp.int32), exists, jnp.clip(neighbour, 0, count - 1).astype(jnp.int32)
