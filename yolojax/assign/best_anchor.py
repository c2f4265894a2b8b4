"""One responsible prediction for each object: the cell of its centre and the anchor of most similar shape.

The assignment of YOLOv2 and v3 (arXiv 1612.08242, 1804.02767), over the anchors of all levels at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.assign.crowd import inside_crowd
from yolojax.assign.objects import Objects, sort_by_content
from yolojax.coding.grid import anchor_grid
from yolojax.structures import Level, Targets


class Responsible(NamedTuple):
    """Pairs of an object and a prediction that may answer for it; the first ``M`` are each object's best, in order.

    ``object`` is a place in `Objects`, ``prediction`` one on the flat axis of `anchor_grid` (level, row, column,
    anchor). ``owns`` is False for pairs that are none, and for those that lost the prediction to another object;
    ``collisions`` counts the objects that so lost their best.
    """

    object: Int[Array, "B R"]
    prediction: Int[Array, "B R"]
    owns: Bool[Array, "B R"]
    collisions: Int[Array, " B"]


class Assignment(NamedTuple):
    """Target maps, one of each a level; where ``positive`` is False boxes and classes are 0.

    ``boxes [B, h, w, A, 4]`` are xyxy in input pixels, ``classes [B, h, w, A, C]`` one-hot. ``ignored`` are negatives
    whose anchor, centred on its cell, lies with at least half of its area in a crowd region: what can be known before
    there are predictions (a loss goes by the predicted box instead). ``collisions [B]`` counts the objects that lost
    their cell and anchor to another object.
    """

    boxes: tuple[Float[Array, "B h w A 4"], ...]
    classes: tuple[Float[Array, "B h w A C"], ...]
    positive: tuple[Bool[Array, "B h w A"], ...]
    ignored: tuple[Bool[Array, "B h w A"], ...]
    collisions: Int[Array, " B"]


def shape_iou(sizes: Float[Array, "*n 2"], anchors: Float[Array, "K 2"]) -> Float[Array, "*n K"]:
    """IoU of boxes and anchors laid over a common centre, from ``(width, height)`` in the same unit; 0 without area."""
    w, h = (jnp.expand_dims(sizes[..., i], -1) for i in range(2))
    anchors = anchors.reshape(*(1,) * (sizes.ndim - 1), -1, 2)
    intersection = jnp.minimum(w, anchors[..., 0]) * jnp.minimum(h, anchors[..., 1])
    union = w * h + anchors[..., 0] * anchors[..., 1] - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1.0), 0.0)


def match_best_anchor(
    objects: Objects, anchors: Float[Array, "L A 2"], levels: tuple[Level, ...], *, iou_thresh: float = 1.0
) -> Responsible:
    """The anchor of best shape IoU over all levels (the first of equals), in the cell where the centre lies.

    Centres on or beyond an edge of the input image fall into the border cell. Of several objects with the same cell and
    anchor the first by content (smaller area, then x1, y1, x2, y2, class) wins. Anchors are in input pixels.

    With ``iou_thresh`` below 1 every other anchor whose shape IoU is greater answers for the object as well, each in
    the cell of its own level (Darknet's ``iou_thresh``, since YOLOv4): ``R`` is then ``M (1 + L A)``. A prediction that
    is some object's best belongs to that one; the remaining ones go by content.
    """
    per_level = anchors.shape[1]
    h, w, stride = (jnp.asarray(column, jnp.int32) for column in zip(*levels, strict=True))
    first = jnp.cumsum(h * w * per_level) - h * w * per_level
    total = sum(level.h * level.w * per_level for level in levels)

    overlap = shape_iou(objects.boxes[..., 2:] - objects.boxes[..., :2], anchors.reshape(-1, 2))
    best = jnp.argmax(overlap, axis=-1)
    batch, m = best.shape
    # One block of all objects after another, such that the earlier row is the one that wins.
    chosen, wanted = best[:, None, :], objects.assignable[:, None, :]
    if iou_thresh < 1:
        each = jnp.arange(overlap.shape[-1])[None, :, None]
        others = (jnp.moveaxis(overlap, -1, 1) > iou_thresh) & (each != chosen)
        chosen = jnp.concatenate([chosen, jnp.broadcast_to(each, others.shape)], axis=1)
        wanted = jnp.concatenate([wanted, wanted & others], axis=1)

    level, anchor = chosen // per_level, chosen % per_level
    centre = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]
    cell = jnp.floor(centre[:, None] / stride[level][..., None].astype(jnp.float32))
    # Clipped while still a float: a huge coordinate has no integer.
    column = jnp.clip(cell[..., 0], 0, (w[level] - 1).astype(jnp.float32)).astype(jnp.int32)
    row = jnp.clip(cell[..., 1], 0, (h[level] - 1).astype(jnp.float32)).astype(jnp.int32)
    prediction = first[level] + (row * w[level] + column) * per_level + anchor.astype(jnp.int32)

    prediction, wanted = prediction.reshape(batch, -1), wanted.reshape(batch, -1)
    rows = prediction.shape[1]
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], prediction.shape)
    rank = jnp.broadcast_to(jnp.arange(rows)[None, :], prediction.shape)
    winner = jnp.full((batch, total), rows).at[image, prediction].min(jnp.where(wanted, rank, rows))
    owns = wanted & (winner[image, prediction] == rank)
    return Responsible(rank % m, prediction, owns, jnp.sum(objects.assignable & ~owns[:, :m], axis=-1))


def assign_targets(
    targets: Targets,
    anchors: Float[Array, "L A 2"],
    levels: tuple[Level, ...],
    num_classes: int,
    *,
    iou_thresh: float = 1.0,
) -> Assignment:
    """Maps of what every prediction should say, for a whole batch; see `match_best_anchor` and `Assignment`.

    ``anchors`` are ``(width, height)`` in input pixels for each level. Crowd objects and boxes without area are never
    positives. Neither the order of the objects nor the content of padding rows changes anything.
    """
    objects = sort_by_content(targets)
    responsible = match_best_anchor(objects, anchors, levels, iou_thresh=iou_thresh)
    owned_boxes = jnp.take_along_axis(objects.boxes, responsible.object[..., None], axis=1)
    owned_classes = jnp.take_along_axis(objects.classes, responsible.object, axis=1)
    cells, strides, sizes = anchor_grid(levels, anchors)
    batch, total = targets.boxes.shape[0], len(strides)

    image = jnp.broadcast_to(jnp.arange(batch)[:, None], responsible.prediction.shape)
    # Objects without a place are written beyond the end, and so dropped.
    place = jnp.where(responsible.owns, responsible.prediction, total)
    positive = jnp.zeros((batch, total), bool).at[image, place].set(True, mode="drop")
    boxes = jnp.zeros((batch, total, 4)).at[image, place].set(owned_boxes, mode="drop")
    one_hot = jax.nn.one_hot(owned_classes, num_classes, dtype=jnp.float32)
    classes = jnp.zeros((batch, total, num_classes)).at[image, place].set(one_hot, mode="drop")

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

    return Assignment(by_level(boxes), by_level(classes), by_level(positive), by_level(ignored), responsible.collisions)
