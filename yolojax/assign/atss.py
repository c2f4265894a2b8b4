"""Adaptive training sample selection (ATSS, Zhang et al. 2020, arXiv 1912.02424)."""

import jax
import jax.numpy as jnp

from yolojax.assign.objects import sort_by_content
from yolojax.assign.points import PredictionAssignment, as_assignment, settle
from yolojax.boxes import paired_box_iou
from yolojax.coding.grid import cell_centres
from yolojax.structures import Level, Targets


def atss_assign(
    targets: Targets, levels: tuple[Level, ...], *, k: int = 9, anchor_scale: float = 8.0
) -> PredictionAssignment:
    """Assign points by a threshold that each object's own statistics set (algorithm 1).

    Candidates of an object are, on each level, the ``k`` points nearest to its centre (among equals the earlier in
    `cell_centres`). Each point stands for a square anchor of ``anchor_scale`` strides. Positive are the candidates
    whose anchor has an IoU with the object of at least mean + standard deviation over its candidates, and whose point
    lies inside of it. The deviation is the unbiased one, as in the authors' code. A point wanted by several objects
    goes to the highest IoU, then to the first by content. Scores of positives are 1; no prediction is needed. An object
    may get no point at all: where most of its candidates overlap it equally well, none exceeds the others by a
    deviation.
    """
    objects = sort_by_content(targets)
    points, strides = cell_centres(levels)
    centres = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]

    nearest, start = [], 0
    for level in levels:
        count = level.h * level.w
        here = points[start : start + count]
        dx, dy = (centres[..., i, None] - here[None, None, :, i] for i in range(2))
        nearest.append(start + jax.lax.top_k(-(dx**2 + dy**2), min(k, count))[1])
        start += count
    place = jnp.concatenate(nearest, axis=-1)

    point, half = points[place], 0.5 * anchor_scale * strides[place][..., None]
    anchors = jnp.concatenate([point - half, point + half], axis=-1)
    boxes = jnp.broadcast_to(objects.boxes[:, :, None], anchors.shape)
    overlap = paired_box_iou(anchors, boxes)
    threshold = jnp.mean(overlap, axis=-1) + jnp.std(overlap, axis=-1, ddof=min(1, place.shape[-1] - 1))
    inside = jnp.all((point > boxes[..., :2]) & (point < boxes[..., 2:]), axis=-1)
    wanted = (overlap >= threshold[..., None]) & inside & objects.assignable[..., None]
    owner, wins = settle(wanted, place, overlap, start)
    return as_assignment(owner, place, wins.astype(jnp.float32), objects)
