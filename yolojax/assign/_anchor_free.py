"""Assigners of anchor-free detectors: ATSS, SimOTA, task-aligned and one-to-one assignment."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.assign._common import (
    Assigned,
    Predictions,
    as_assigned,
    resolve_conflicts,
    sort_by_content,
    without_padding,
)
from yolojax.assign._matching import least_cost_matching
from yolojax.assign._on_tpu import largest_by_sorting, logits_by_product
from yolojax.boxes import box_iou, generalized_box_iou, paired_box_iou, xyxy_to_cxcywh
from yolojax.coding import cell_centres
from yolojax.errors import ConfigError
from yolojax.processor.platform import by_platform
from yolojax.structures import Level, Targets

Candidates = tuple[Float[Array, "B M k"], Int[Array, "B M k"], Float[Array, "B M k"]]
"""The alignment of the best points of each object, their indices, and the overlap of their boxes with the object."""

_SMALLEST_IOU = 1e-8
_SMALLEST_PROBABILITY = 1e-7


def atss_assign(
    targets: Targets,
    levels: tuple[Level, ...],
    predictions: Predictions | None = None,
    /,
    *,
    k: int = 9,
    anchor_scale: float = 8.0,
) -> Assigned:
    """Assign points by a threshold that comes from the statistics of each object (ATSS, algorithm 1).

    On each level the candidates of an object are the ``k`` points nearest to its centre (of equally near points the
    earlier in `cell_centres`). Each point stands for a square anchor of ``anchor_scale`` strides. A candidate is
    positive if the IoU of its anchor with the object is at least mean + standard deviation over all candidates of the
    object, and if its point lies inside the object. The deviation is the unbiased one, as in the authors' code. A
    contested point goes to the object of highest IoU, then to the first by content. Scores of positives are 1.

    An object may get no point: where most of its candidates overlap it equally well, none exceeds the others by a
    deviation. Predictions are not needed; where they are given, only their number is read.

    Reference: Zhang et al. 2020, arXiv 1912.02424.
    """
    objects = sort_by_content(targets)
    points, strides = _points(levels, predictions)
    centres = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]
    per_cell = len(points) // sum(level.h * level.w for level in levels)

    nearest, start = [], 0
    for level in levels:
        count = level.h * level.w * per_cell
        here = points[start : start + count]
        dx, dy = (centres[..., i, None] - here[None, None, :, i] for i in range(2))
        nearest.append(start + jax.lax.top_k(-(dx**2 + dy**2), min(k, count))[1])
        start += count
    index = jnp.concatenate(nearest, axis=-1)

    point, half = points[index], 0.5 * anchor_scale * strides[index][..., None]
    anchors = jnp.concatenate([point - half, point + half], axis=-1)
    boxes = jnp.broadcast_to(objects.boxes[:, :, None], anchors.shape)
    overlap = paired_box_iou(anchors, boxes)
    threshold = jnp.mean(overlap, axis=-1) + jnp.std(overlap, axis=-1, ddof=min(1, index.shape[-1] - 1))
    inside = jnp.all((point > boxes[..., :2]) & (point < boxes[..., 2:]), axis=-1)
    proposed = (overlap >= threshold[..., None]) & inside & objects.assignable[..., None]
    owner, won = resolve_conflicts(proposed, index, overlap, start)
    return as_assigned(owner, index, won.astype(jnp.float32), objects)


def simota_assign(
    targets: Targets,
    levels: tuple[Level, ...],
    predictions: Predictions,
    /,
    *,
    radius: float = 2.5,
    iou_weight: float = 3.0,
    largest_k: int = 10,
) -> Assigned:
    """Assign to each object the points of least cost, as many as its predictions deserve (SimOTA).

    The cost of an object and a point is ``L_cls + iou_weight * -log IoU`` (YOLOX, equation 1). ``L_cls`` is the binary
    cross entropy of ``sqrt(sigmoid(class) * sigmoid(objectness))``, kept 1e-7 from 0 and 1, against the object's class,
    summed over classes. Without objectness its factor is 1.

    Only points inside the box of some object, or within ``radius`` strides of its centre (on both axes), take part. A
    point that lies both in the box and in the centre region of the object costs less than any that does not. Each
    object gets ``k`` points, where ``k`` is the sum of its ``largest_k`` largest IoUs with the predictions that take
    part, rounded down, and at least 1 (OTA, section 3.3). A contested point goes to the object of lowest cost, then to
    the first by content. Scores of positives are their IoU, which is YOLOX's class target.

    Predictions are read without gradient. A prediction that is not finite takes no part.

    References: YOLOX, Ge et al. 2021, arXiv 2107.08430, section 2.1; OTA, arXiv 2103.14259.
    """
    boxes, class_logits, objectness_logits = _read(predictions)
    objects = sort_by_content(targets)
    points, strides = _points(levels, predictions)
    n = points.shape[0]

    in_box = _points_inside(objects.boxes, points)
    centres = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]
    dx, dy = (jnp.abs(centres[..., i, None] - points[None, None, :, i]) for i in range(2))
    in_centre = jnp.maximum(dx, dy) < radius * strides[None, None]
    assignable = objects.assignable[..., None]
    total = jnp.sum(class_logits, axis=-1) + jnp.sum(boxes, axis=-1)
    finite = jnp.isfinite(total if objectness_logits is None else total + objectness_logits)
    takes_part = jnp.any((in_box | in_centre) & assignable, axis=1, keepdims=True) & finite[:, None]

    pool = takes_part & assignable
    overlap = jnp.where(pool, box_iou(objects.boxes, boxes), 0.0)
    cost = _class_cost(class_logits, objectness_logits, objects.classes) - iou_weight * jnp.log(overlap + _SMALLEST_IOU)
    cost = jnp.where(pool, cost, 0.0)
    # The penalty exceeds any difference of costs. A constant of 1e5 would round the costs that it is added to.
    penalty = 1.0 + jnp.max(cost, axis=(1, 2), keepdims=True)
    cost = jnp.where(in_box & in_centre, cost, cost + penalty)

    largest_k = min(largest_k, n)
    k = jnp.maximum(jnp.floor(jnp.sum(jax.lax.top_k(overlap, largest_k)[0], axis=-1)), 1.0)
    cheapness, index = jax.lax.top_k(jnp.where(pool, -cost, -jnp.inf), largest_k)
    proposed = (jnp.arange(largest_k, dtype=jnp.float32)[None, None] < k[..., None]) & (cheapness > -jnp.inf)
    owner, won = resolve_conflicts(proposed, index, cheapness, n)
    scores = jnp.where(won, jnp.take_along_axis(overlap, index, axis=-1), 0.0)
    return as_assigned(owner, index, scores, objects)


def task_aligned_assign(
    targets: Targets,
    levels: tuple[Level, ...],
    predictions: Predictions,
    /,
    *,
    alpha: float = 0.5,
    beta: float = 6.0,
    k: int = 10,
    keep: int | None = None,
    smallest: float = 0.0,
) -> Assigned:
    """Assign to each object the ``k`` points inside its box with the highest alignment ``t = s^alpha * u^beta``.

    ``s`` is the predicted score of the object's class, ``sigmoid(class)``, times ``sigmoid(objectness)`` where there is
    objectness. ``u`` is the IoU of the predicted box with the object (TOOD, section 3.2.1). A contested point goes to
    the object of highest IoU, then to the first by content (smaller area, then x1, y1, x2, y2, class). The score of a
    positive is ``t_hat = t / max t * max u`` over the positives of its object (section 3.2.2).

    A point must lie strictly inside the box and have a positive ``t``. An object that contains no point (one smaller
    than a stride), or that no prediction inside of it overlaps, therefore gets none. Of points with equal alignment
    the earlier ones are taken. ``alpha`` is 1 and ``k`` is 13 in the paper; YOLOv8 uses 0.5 and 10. Predictions are
    read without gradient.

    Args:
      alpha, beta: the exponents of score and IoU.
      k: the most points of an object.
      keep: where given, an object keeps only so many of the points that it got, those of highest alignment. With
        ``keep`` 1 an object whose best point went to another takes its next best, down to the ``k``-th.
      smallest: a side of a box that is shorter counts as so many pixels long, about the same centre, when it is asked
        which points lie inside (YOLO26's assignment for small targets, arXiv 2606.03748).

    Reference: Feng et al. 2021, arXiv 2108.07755.
    """
    boxes, class_logits, objectness_logits = _read(predictions)
    objects = sort_by_content(targets)
    points, _ = _points(levels, predictions)
    label = jnp.clip(objects.classes, 0, class_logits.shape[-1] - 1)
    eligible = _points_inside(_widen(objects.boxes, smallest), points) & objects.assignable[:, :, None]
    objectness = 1.0 if objectness_logits is None else jax.nn.sigmoid(objectness_logits)[:, None]
    k = min(k, boxes.shape[1])

    def aligned(logits: Float[Array, "B M N"], overlap: Float[Array, "B M N"]) -> Float[Array, "B M N"]:
        alignment = jnp.where(eligible, (jax.nn.sigmoid(logits) * objectness) ** alpha * overlap**beta, 0.0)
        # `top_k` puts NaN first. This comparison makes it 0, so that a prediction that is not finite is never taken.
        return jnp.where(alignment > 0, alignment, 0.0)

    def by_rows(boxes: Array, class_logits: Array) -> Candidates:
        logits = jnp.swapaxes(jnp.take_along_axis(class_logits, label[:, None, :], axis=2), 1, 2)
        overlap = box_iou(objects.boxes, boxes)
        best, index = jax.lax.top_k(aligned(logits, overlap), k)
        return best, index, jnp.take_along_axis(overlap, index, axis=-1)

    def by_columns(boxes: Array, class_logits: Array) -> Candidates:
        logits = logits_by_product(class_logits, label)
        best, index = largest_by_sorting(aligned(logits, box_iou(objects.boxes, boxes)), k)
        own = jnp.take_along_axis(boxes, index.reshape(len(boxes), -1, 1), axis=1).reshape(*index.shape, 4)
        return best, index, paired_box_iou(jnp.broadcast_to(objects.boxes[:, :, None], own.shape), own)

    # From here on only the k candidates of each object are touched.
    best, index, candidate_overlap = by_platform(boxes, class_logits, default=by_rows, tpu=by_columns)
    owner, won = resolve_conflicts(best > 0, index, candidate_overlap, boxes.shape[1])
    if keep is not None:
        owner, won = _keep_first(owner, won, index, keep)

    best = jnp.where(won, best, 0.0)
    most_aligned = jnp.max(best, axis=-1, keepdims=True)
    most_overlap = jnp.max(jnp.where(won, candidate_overlap, 0.0), axis=-1, keepdims=True)
    target = best / jnp.where(most_aligned > 0, most_aligned, 1.0) * most_overlap
    return as_assigned(owner, index, target, objects)


def responsible_assign(targets: Targets, levels: tuple[Level, ...], predictions: Predictions, /) -> Assigned:
    """Assign to each object one of the boxes of the cell that holds its centre: that of highest IoU (YOLOv1).

    A cell has several predictions next to one another and learns one object. Where several objects have their centre
    in one cell, the first by content keeps it; the paper does not say which. Where no box of the cell overlaps the
    object, the box whose ``(x, y, w, h)``, as shares of the input image, is nearest to the object's is taken, as in
    Darknet. Scores of positives are their IoU. Class scores and objectness are not read. Predictions are read without
    gradient.

    Raises:
      ConfigError: there is more than one level, or the number of predictions is no multiple of the number of cells.

    Reference: Redmon et al. 2016, arXiv 1506.02640, section 2.2.
    """
    if len(levels) != 1:
        raise ConfigError(f"responsible_assign: {len(levels)} levels; a network with one grid of cells is needed")
    boxes, _, _ = _read(predictions)
    (level,) = levels
    objects = sort_by_content(targets)
    per_cell = len(_points(levels, predictions)[0]) // (level.h * level.w)
    centres = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]
    column, row = (
        jnp.clip(jnp.floor(centres[..., i] / level.stride), 0, count - 1).astype(jnp.int32)
        for i, count in ((0, level.w), (1, level.h))
    )
    cell = row * level.w + column
    _, has_cell = resolve_conflicts(
        objects.assignable[..., None], cell[..., None], jnp.zeros((*cell.shape, 1)), level.h * level.w
    )

    index = cell[..., None] * per_cell + jnp.arange(per_cell, dtype=jnp.int32)[None, None]
    own = jnp.take_along_axis(boxes, index.reshape(len(boxes), -1)[..., None], axis=1).reshape(*index.shape, 4)
    truth = jnp.broadcast_to(objects.boxes[:, :, None], own.shape)
    overlap = jnp.nan_to_num(paired_box_iou(own, truth))
    size = jnp.asarray([level.w * level.stride, level.h * level.stride] * 2, jnp.float32).reshape(1, 1, 1, 4)
    distance = jnp.sum(((xyxy_to_cxcywh(own) - xyxy_to_cxcywh(truth)) / size) ** 2, axis=-1)
    distance = jnp.where(jnp.isfinite(distance), distance, jnp.inf)
    meets = jnp.any(overlap > 0, axis=-1)
    best = jnp.where(meets, jnp.argmax(overlap, axis=-1), jnp.argmin(distance, axis=-1))[..., None]
    index = jnp.take_along_axis(index, best, axis=-1)
    score = jnp.take_along_axis(overlap, best, axis=-1)
    owner, won = resolve_conflicts(has_cell, index, score, boxes.shape[1])
    return as_assigned(owner, index, jnp.where(won, score, 0.0), objects)


def one_to_one_assign(
    targets: Targets,
    levels: tuple[Level, ...],
    predictions: Predictions,
    /,
    *,
    class_weight: float = 1.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
) -> Assigned:
    """Assign to each object exactly one prediction, at the least total `matching_cost` (DETR, arXiv 2005.12872).

    The probability of a class is ``sigmoid(class)``, times ``sigmoid(objectness)`` where there is objectness. Scores of
    positives are 1. Predictions are read without gradient. See `hungarian_assign` for costs of your own.
    """
    boxes, class_logits, objectness_logits = _read(predictions)
    scores = jax.nn.sigmoid(class_logits)
    if objectness_logits is not None:
        scores = scores * jax.nn.sigmoid(objectness_logits)[..., None]
    input_size = levels[0].h * levels[0].stride, levels[0].w * levels[0].stride
    weights = {"class_weight": class_weight, "l1_weight": l1_weight, "giou_weight": giou_weight}
    return hungarian_assign(matching_cost(boxes, scores, targets, input_size, **weights), targets)


def matching_cost(
    boxes: Float[Array, "B N 4"],
    class_scores: Float[Array, "B N C"],
    targets: Targets,
    input_size: tuple[int, int],
    *,
    class_weight: float = 1.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
) -> Float[Array, "B M N"]:
    """DETR's cost of each object and prediction: ``-p(class)``, L1 distance and ``-GIoU``, weighted and summed.

    Boxes are xyxy in input pixels. The L1 distance compares ``(centre x, centre y, width, height)`` as fractions of
    ``input_size = (h, w)``. ``class_scores`` are probabilities. Reference: arXiv 2005.12872, sections 3.1 and A.2.
    """
    clean = without_padding(targets)
    label = jnp.clip(clean.classes, 0, class_scores.shape[-1] - 1)
    probability = jnp.swapaxes(jnp.take_along_axis(class_scores, label[:, None, :], axis=2), 1, 2)
    size = jnp.asarray([input_size[1], input_size[0]] * 2, jnp.float32)[None, None]
    predicted, true = (xyxy_to_cxcywh(b) / size for b in (boxes, clean.boxes))
    # The sum runs coordinate by coordinate, so that no [B, M, N, 4] array is made.
    distance = sum(
        (jnp.abs(true[:, :, None, i] - predicted[:, None, :, i]) for i in range(4)), start=jnp.zeros(probability.shape)
    )
    overlap = generalized_box_iou(clean.boxes, boxes)
    return l1_weight * distance - class_weight * probability - giou_weight * overlap


def hungarian_assign(cost: Float[Array, "B M N"], targets: Targets) -> Assigned:
    """The matching of objects to predictions of least total cost (DETR, arXiv 2005.12872, equation 1).

    ``cost[b, m, n]`` is the cost of prediction ``n`` for row ``m`` of the targets. Rows that are padding or crowd are
    not read. If there are more objects than predictions, those objects are matched whose total is least. The costs are
    read without gradient; infinite or NaN ones count as the largest finite one. Scores of positives are 1. The time is
    that of the objects which there are, at most cubic in their number; padding costs none.
    """
    objects = sort_by_content(targets)  # those to be matched come first
    batch, m, n = cost.shape
    cost = jnp.take_along_axis(jax.lax.stop_gradient(cost.astype(jnp.float32)), objects.rows[..., None], axis=1)
    known = objects.assignable[..., None] & jnp.isfinite(cost)
    largest = jnp.max(jnp.where(known, cost, -jnp.inf), axis=(1, 2), keepdims=True)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
    cost = jnp.where(known, cost, largest)
    if m > n:  # columns that are no prediction, and dearer than any, take what is left over
        cost = jnp.concatenate([cost, jnp.broadcast_to(largest + 1.0, (batch, m, m - n))], axis=2)
    owner = least_cost_matching(cost, jnp.sum(objects.assignable, axis=1))[:, :n]
    owner = jnp.where(owner < 0, m, owner)
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], owner.shape)
    column = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32)[None], owner.shape)
    index = jnp.zeros((batch, m), jnp.int32).at[image, owner].set(column, mode="drop")
    matched = jnp.zeros((batch, m), jnp.float32).at[image, owner].set(1.0, mode="drop")
    return as_assigned(owner, index[..., None], matched[..., None], objects)


def _read(predictions: Predictions) -> Predictions:
    """The predictions in float32, without gradient."""
    return jax.tree.map(lambda a: jax.lax.stop_gradient(a.astype(jnp.float32)), predictions)


def _points(
    levels: tuple[Level, ...], predictions: Predictions | None
) -> tuple[Float[Array, "N 2"], Float[Array, " N"]]:
    """Centre and stride of each prediction's cell, in input pixels.

    Raises:
      ConfigError: the number of predictions is no multiple of the number of cells.
    """
    cells = sum(level.h * level.w for level in levels)
    n = cells if predictions is None else predictions.boxes.shape[1]
    if n % cells:
        grids = ", ".join(f"{level.h} x {level.w}" for level in levels)
        raise ConfigError(f"{n} predictions for {cells} cells ({grids}): give equally many for each cell of each level")
    return cell_centres(levels, n // cells)


def _points_inside(boxes: Float[Array, "B M 4"], points: Float[Array, "N 2"]) -> Bool[Array, "B M N"]:
    """Whether a point lies strictly inside of a box (xyxy)."""
    # The coordinates are apart, so that no [B, M, N, 4] array is made.
    x1, y1, x2, y2 = (boxes[:, :, None, i] for i in range(4))
    x, y = (points[None, None, :, i] for i in range(2))
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def _widen(boxes: Float[Array, "B M 4"], smallest: float) -> Float[Array, "B M 4"]:
    """The boxes (xyxy), with sides shorter than ``smallest`` pixels made as long about the same centre."""
    if not smallest:
        return boxes
    low, high = boxes[..., :2], boxes[..., 2:]
    half, short = 0.5 * smallest, high - low < smallest
    centre = 0.5 * low + 0.5 * high
    low, high = jnp.where(short, centre - half, low), jnp.where(short, centre + half, high)
    return jnp.concatenate([low, high], axis=-1)


def _keep_first(
    owner: Int[Array, "B n"], won: Bool[Array, "B M k"], index: Int[Array, "B M k"], keep: int
) -> tuple[Int[Array, "B n"], Bool[Array, "B M k"]]:
    """The first ``keep`` of the proposals that each object won, and the owners that are left."""
    won = won & (jnp.cumsum(won, axis=-1) <= keep)
    batch, m, k = index.shape
    n = owner.shape[1]
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, m * k))
    taken = jnp.where(won, index, n).reshape(batch, m * k)
    kept = jnp.zeros(owner.shape, bool).at[image, taken].set(True, mode="drop")
    return jnp.where(kept, owner, m), won


def _class_cost(class_logits: Array, objectness_logits: Array | None, labels: Array) -> Float[Array, "B M N"]:
    """Binary cross entropy against one-hot classes, summed over classes.

    It is the cross entropy against "no class at all", corrected at the object's class, so that no [B, M, N, C] array is
    made.
    """
    log_p = jax.nn.log_sigmoid(class_logits)
    if objectness_logits is not None:
        log_p = log_p + jax.nn.log_sigmoid(objectness_logits)[..., None]
    log_p = jnp.maximum(0.5 * log_p, jnp.log(_SMALLEST_PROBABILITY))
    log_q = jnp.log(jnp.maximum(-jnp.expm1(log_p), _SMALLEST_PROBABILITY))
    label = jnp.clip(labels, 0, class_logits.shape[-1] - 1)[:, None, :]
    correction = jnp.take_along_axis(log_q - log_p, label, axis=2)
    return jnp.swapaxes(correction, 1, 2) - jnp.sum(log_q, axis=-1)[:, None]
