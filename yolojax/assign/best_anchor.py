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
    """For each object (in the order of `Objects`) the prediction that answers for it.

    ``prediction`` indexes the flat axis of `anchor_grid` (level, row, column, anchor). ``owns`` is False for objects
    that cannot be assigned and for those that lost their place to another; ``collisions`` counts the latter.
    """

    prediction: Int[Array, "B M"]
    owns: Bool[Array, "B M"]
    collisions: Int[Array, " B"]


class Assignment(NamedTuple):
    """Target maps, one of each a level; where ``positive`` is False boxes and classes are 0.

    ``boxes [B, h, w, A, 4]`` are xyxy in canvas pixels, ``classes [B, h, w, A, C]`` one-hot. ``ignored`` are negatives
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


def find_responsible(objects: Objects, anchors: Float[Array, "L A 2"], levels: tuple[Level, ...]) -> Responsible:
    """The anchor of best shape IoU over all levels (the first of equals), in the cell where the centre lies.

    Centres on or beyond an edge of the canvas fall into the border cell. Of several objects with the same cell and
    anchor the first by content (smaller area, then x1, y1, x2, y2, class) wins. Anchors are in canvas pixels.
    """
    per_level = anchors.shape[1]
    h, w, stride = (jnp.asarray(column, jnp.int32) for column in zip(*levels, strict=True))
    first = jnp.cumsum(h * w * per_level) - h * w * per_level
    total = sum(level.h * level.w * per_level for level in levels)

    best = jnp.argmax(shape_iou(objects.boxes[..., 2:] - objects.boxes[..., :2], anchors.reshape(-1, 2)), axis=-1)
    level, anchor = best // per_level, best % per_level
    centre = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]
    cell = jnp.floor(centre / stride[level][..., None].astype(jnp.float32))
    # Clipped while still a float: a huge coordinate has no integer.
    column = jnp.clip(cell[..., 0], 0, (w[level] - 1).astype(jnp.float32)).astype(jnp.int32)
    row = jnp.clip(cell[..., 1], 0, (h[level] - 1).astype(jnp.float32)).astype(jnp.int32)
    prediction = first[level] + (row * w[level] + column) * per_level + anchor.astype(jnp.int32)

    batch, m = prediction.shape
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, m))
    rank = jnp.broadcast_to(jnp.arange(m)[None, :], (batch, m))
    winner = jnp.full((batch, total), m).at[image, prediction].min(jnp.where(objects.assignable, rank, m))
    owns = objects.assignable & (winner[image, prediction] == rank)
    return Responsible(prediction, owns, jnp.sum(objects.assignable & ~owns, axis=-1))


def assign_targets(
    targets: Targets, anchors: Float[Array, "L A 2"], levels: tuple[Level, ...], num_classes: int
) -> Assignment:
    """Maps of what every prediction should say, for a whole batch; see `find_responsible` and `Assignment`.

    ``anchors`` are ``(width, height)`` in canvas pixels for each level. Crowd objects and boxes without area are never
    positives. Neither the order of the objects nor the content of padding rows changes anything.
    """
    objects = sort_by_content(targets)
    responsible = find_responsible(objects, anchors, levels)
    cells, strides, sizes = anchor_grid(levels, anchors)
    batch, total = targets.boxes.shape[0], len(strides)

    image = jnp.broadcast_to(jnp.arange(batch)[:, None], responsible.prediction.shape)
    # Objects without a place are written beyond the end, and so dropped.
    place = jnp.where(responsible.owns, responsible.prediction, total)
    positive = jnp.zeros((batch, total), bool).at[image, place].set(True, mode="drop")
    boxes = jnp.zeros((batch, total, 4)).at[image, place].set(objects.boxes, mode="drop")
    one_hot = jax.nn.one_hot(objects.classes, num_classes, dtype=jnp.float32)
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
