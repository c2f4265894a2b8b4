"""Assigners of anchor-based detectors: by the best anchor (YOLOv2 to v4), and by the ratio of sides (YOLOv5, v7)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.assign._common import Assigned, Objects, as_assigned, inside_crowd, resolve_conflicts, sort_by_content
from yolojax.coding import anchor_grid
from yolojax.structures import Level, Targets


class Matches(NamedTuple):
    """Pairs of an object and a prediction. The first ``M`` pairs hold the best anchor of each object, in order.

    ``object`` is an index into `Objects`, ``prediction`` one into the flat axis of `anchor_grid`. ``owns`` is False for
    a pair that is none, and for an object that lost the prediction to another object. ``collisions`` counts the objects
    that lost the prediction of their best anchor.
    """

    object: Int[Array, "B R"]
    prediction: Int[Array, "B R"]
    owns: Bool[Array, "B R"]
    collisions: Int[Array, " B"]


class TargetMaps(NamedTuple):
    """What every prediction should say, as one map for each level.

    Attributes:
      boxes: xyxy in input pixels, 0 where ``positive`` is False.
      classes: one-hot, 0 where ``positive`` is False.
      positive: whether the prediction learns an object.
      ignored: negatives whose anchor, centred on its cell, lies with at least half of its area in a crowd region. A
        loss that has predictions goes by the predicted box instead, see `ignored_negatives`.
      collisions: how many objects lost the cell and anchor that suit them best to another object.
    """

    boxes: tuple[Float[Array, "B h w A 4"], ...]
    classes: tuple[Float[Array, "B h w A C"], ...]
    positive: tuple[Bool[Array, "B h w A"], ...]
    ignored: tuple[Bool[Array, "B h w A"], ...]
    collisions: Int[Array, " B"]


def shape_iou(sizes: Float[Array, "*n 2"], anchors: Float[Array, "K 2"]) -> Float[Array, "*n K"]:
    """IoU of boxes and anchors that share their centre. Both are ``(width, height)`` in the same unit.

    It is 0 where both have no area.
    """
    w, h = (jnp.expand_dims(sizes[..., i], -1) for i in range(2))
    anchors = anchors.reshape(*(1,) * (sizes.ndim - 1), -1, 2)
    intersection = jnp.minimum(w, anchors[..., 0]) * jnp.minimum(h, anchors[..., 1])
    union = w * h + anchors[..., 0] * anchors[..., 1] - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1.0), 0.0)


def match_best_anchor(
    objects: Objects, levels: tuple[Level, ...], anchors: Float[Array, "L A 2"], iou_thresh: float
) -> Matches:
    """The pairs of `best_anchor_assign`, where the object of a pair may have lost its prediction to another."""
    per_level = anchors.shape[1]
    h, w, stride = (jnp.asarray(column, jnp.int32) for column in zip(*levels, strict=True))
    first = jnp.cumsum(h * w * per_level) - h * w * per_level
    total = sum(level.h * level.w * per_level for level in levels)

    overlap = shape_iou(objects.boxes[..., 2:] - objects.boxes[..., :2], anchors.reshape(-1, 2))
    best = jnp.argmax(overlap, axis=-1)
    batch, m = best.shape
    # The first block of rows holds the best anchor of each object, each further block one other anchor of each object.
    # Of two rows with the same prediction the earlier one owns it.
    chosen, proposed = best[:, None, :], objects.assignable[:, None, :]
    if iou_thresh < 1:
        each = jnp.arange(overlap.shape[-1])[None, :, None]
        others = (jnp.moveaxis(overlap, -1, 1) > iou_thresh) & (each != chosen)
        chosen = jnp.concatenate([chosen, jnp.broadcast_to(each, others.shape)], axis=1)
        proposed = jnp.concatenate([proposed, proposed & others], axis=1)

    level, anchor = chosen // per_level, chosen % per_level
    centre = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]
    cell = jnp.floor(centre[:, None] / stride[level][..., None].astype(jnp.float32))
    # The cell is clipped while it is a float, since a huge coordinate does not fit an integer.
    column = jnp.clip(cell[..., 0], 0, (w[level] - 1).astype(jnp.float32)).astype(jnp.int32)
    row = jnp.clip(cell[..., 1], 0, (h[level] - 1).astype(jnp.float32)).astype(jnp.int32)
    prediction = first[level] + (row * w[level] + column) * per_level + anchor.astype(jnp.int32)

    prediction, proposed = prediction.reshape(batch, -1), proposed.reshape(batch, -1)
    rows = prediction.shape[1]
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], prediction.shape)
    rank = jnp.broadcast_to(jnp.arange(rows)[None, :], prediction.shape)
    winner = jnp.full((batch, total), rows).at[image, prediction].min(jnp.where(proposed, rank, rows))
    owns = proposed & (winner[image, prediction] == rank)
    return Matches(rank % m, prediction, owns, jnp.sum(objects.assignable & ~owns[:, :m], axis=-1))


def best_anchor_assign(
    targets: Targets, levels: tuple[Level, ...], anchors: Float[Array, "L A 2"], *, iou_thresh: float = 1.0
) -> Assigned:
    """Assign each object to the anchor of best shape IoU over all levels, in the cell where its centre lies.

    This is the assignment of YOLOv2 and v3 (arXiv 1612.08242, section 2; 1804.02767, section 2.1). Anchors are
    ``(width, height)`` in input pixels. Of equally good anchors the first is taken. A centre on or beyond an edge of
    the input image falls into the border cell. Of several objects with the same cell and anchor the first by content
    owns it (smaller area, then x1, y1, x2, y2, class); the others get no prediction. Scores of positives are 1.

    With ``iou_thresh`` below 1 every other anchor whose shape IoU with the object is greater learns the object too, in
    the cell of its own level (Darknet's ``iou_thresh``, since YOLOv4). A prediction that is the best one of some object
    belongs to that object.
    """
    objects = sort_by_content(targets)
    matches = match_best_anchor(objects, levels, anchors, iou_thresh)
    shape = targets.boxes.shape[0], sum(level.h * level.w for level in levels) * anchors.shape[1]
    image = jnp.broadcast_to(jnp.arange(shape[0])[:, None], matches.prediction.shape)
    listed = jnp.where(matches.owns, matches.prediction, shape[1]).astype(jnp.int32)
    rows = jnp.take_along_axis(objects.rows, matches.object, axis=1)
    # Pairs without an owner have the index N, which is out of bounds and therefore dropped.
    by_prediction = jnp.zeros(shape, jnp.int32).at[image, listed].set(rows, mode="drop")
    positive = jnp.zeros(shape, bool).at[image, listed].set(True, mode="drop")
    return Assigned(by_prediction, positive, positive.astype(jnp.float32), listed)


def assign_targets(
    targets: Targets,
    levels: tuple[Level, ...],
    anchors: Float[Array, "L A 2"],
    num_classes: int,
    *,
    iou_thresh: float = 1.0,
) -> TargetMaps:
    """The assignment of `best_anchor_assign` as maps of boxes and classes, one for each level.

    ``anchors`` are ``(width, height)`` in input pixels. Crowd objects and boxes without area are never positives.
    Neither the order of the objects nor the content of padding rows changes the maps.
    """
    objects = sort_by_content(targets)
    matches = match_best_anchor(objects, levels, anchors, iou_thresh)
    owned_boxes = jnp.take_along_axis(objects.boxes, matches.object[..., None], axis=1)
    owned_classes = jnp.take_along_axis(objects.classes, matches.object, axis=1)
    cells, strides, sizes = anchor_grid(levels, anchors)
    batch, total = targets.boxes.shape[0], len(strides)

    image = jnp.broadcast_to(jnp.arange(batch)[:, None], matches.prediction.shape)
    # Pairs without an owner have an index that is out of bounds and therefore dropped.
    index = jnp.where(matches.owns, matches.prediction, total)
    positive = jnp.zeros((batch, total), bool).at[image, index].set(True, mode="drop")
    boxes = jnp.zeros((batch, total, 4)).at[image, index].set(owned_boxes, mode="drop")
    one_hot = jax.nn.one_hot(owned_classes, num_classes, dtype=jnp.float32)
    classes = jnp.zeros((batch, total, num_classes)).at[image, index].set(one_hot, mode="drop")

    centres = (cells + 0.5) * strides[:, None]
    priors = jnp.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)
    ignored = inside_crowd(jnp.broadcast_to(priors, (batch, total, 4)), targets) & ~positive

    def by_level(flat: Array) -> tuple[Array, ...]:
        maps, start = [], 0
        for level in levels:
            end = start + level.h * level.w * anchors.shape[1]
            maps.append(flat[:, start:end].reshape(batch, level.h, level.w, anchors.shape[1], *flat.shape[2:]))
            start = end
        return tuple(maps)

    return TargetMaps(by_level(boxes), by_level(classes), by_level(positive), by_level(ignored), matches.collisions)


def ratio_assign(
    targets: Targets, levels: tuple[Level, ...], anchors: Float[Array, "L A 2"], *, largest_ratio: float = 4.0
) -> Assigned:
    """Assign each object to all anchors whose sides fit, in the cell of its centre and in the two nearest neighbours.

    An anchor (``(width, height)``, input pixels) fits if ``max(w / aw, aw / w, h / ah, ah / h) < largest_ratio``, on
    any number of levels. The neighbours are the next cell to the left (where the centre lies in the left half of its
    cell) or to the right, and the next cell above or below, as far as the grid has them. The box coder must reach half
    a cell beyond its cell, as `yolojax.coding.decode_yolov5` does, so that a neighbour can predict the object. Scores
    of positives are 1. A centre outside of the input image counts as in the border cell.

    A contested prediction goes to an object that has its centre in the cell before one that has it in a neighbour, then
    to the first by content. There is no paper: YOLOv5's documentation describes the rule, and YOLOv7 (arXiv 2207.02696)
    builds on it.
    """
    objects = sort_by_content(targets)
    sizes = objects.boxes[..., 2:] - objects.boxes[..., :2]
    centres = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]
    per_cell = anchors.shape[1]

    indices, proposals, preferences, start = [], [], [], 0
    for level, own in zip(levels, anchors, strict=True):
        ratio = sizes[:, :, None] / own[None, None]
        fits = jnp.max(jnp.maximum(ratio, 1.0 / ratio), axis=-1) < largest_ratio
        x, has_side, side = _cells_along(centres[..., 0] / level.stride, level.w)
        y, has_other, other = _cells_along(centres[..., 1] / level.stride, level.h)
        everywhere = jnp.ones(x.shape, bool)
        cells = [(y, x, everywhere), (y, side, has_side), (other, x, has_other)]
        for rank, (row, column, exists) in enumerate(cells):
            first = start + (row * level.w + column) * per_cell
            indices.append(first[..., None] + jnp.arange(per_cell, dtype=jnp.int32)[None, None])
            proposals.append(fits & (objects.assignable & exists)[..., None])
            preferences.append(jnp.full(fits.shape, 1.0 if rank == 0 else 0.0))
        start += level.h * level.w * per_cell

    index, proposed, preference = (jnp.concatenate(parts, axis=-1) for parts in (indices, proposals, preferences))
    owner, won = resolve_conflicts(proposed, index, preference, start)
    return as_assigned(owner, index, won.astype(jnp.float32), objects)


def _cells_along(position: Array, count: int) -> tuple[Array, Array, Array]:
    """Along one axis: the cell of a position (in cells), whether its nearest neighbour exists, and that neighbour."""
    cell = jnp.clip(jnp.floor(position), 0, count - 1)
    neighbour = jnp.where(position - cell < 0.5, cell - 1, cell + 1)
    exists = (neighbour >= 0) & (neighbour < count)
    return cell.astype(jnp.int32), exists, jnp.clip(neighbour, 0, count - 1).astype(jnp.int32)
