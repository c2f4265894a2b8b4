"""Task-aligned assignment (TOOD, Feng et al. 2021, arXiv 2108.07755), the assigner of YOLOv8 and later."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign.objects import sort_by_content
from yolojax.assign.points import PredictionAssignment, as_assignment, points_inside, settle
from yolojax.boxes import box_iou
from yolojax.structures import Targets


def task_aligned_assign(
    points: Float[Array, "N 2"],
    boxes: Float[Array, "B N 4"],
    class_logits: Float[Array, "B N C"],
    targets: Targets,
    *,
    alpha: float = 0.5,
    beta: float = 6.0,
    k: int = 10,
) -> PredictionAssignment:
    """Assign to each object the ``k`` points inside its box with the highest alignment ``t = s^alpha * u^beta``.

    ``s`` is the predicted score (sigmoid) of the object's class, ``u`` the IoU of the predicted box (xyxy, input image
    pixels) with the object (section 3.2.1). A point wanted by several objects goes to the one it overlaps most, or, at
    equal overlap, to the first by content (smaller area, then x1, y1, x2, y2, class). The score target of a positive
    is ``t_hat = t / max t * max u`` over the positives of its object (section 3.2.2).

    Points must lie strictly inside of the box, and ``t`` must be positive: an object that contains no point (smaller
    than a stride), or that no prediction inside of it overlaps, gets none. Crowd objects never do. Among points of
    equal alignment the earlier one wins. ``alpha`` is 1 in the paper and 0.5 in YOLOv8; the paper's ``k`` is 13.
    Predictions are read without gradient.
    """
    boxes, class_logits = jax.lax.stop_gradient((boxes.astype(jnp.float32), class_logits.astype(jnp.float32)))
    objects = sort_by_content(targets)
    overlap = box_iou(objects.boxes, boxes)
    label = jnp.clip(objects.classes, 0, class_logits.shape[-1] - 1)
    score = jax.nn.sigmoid(jnp.swapaxes(jnp.take_along_axis(class_logits, label[:, None, :], axis=2), 1, 2))
    eligible = points_inside(objects.boxes, points) & objects.assignable[:, :, None]
    alignment = jnp.where(eligible, score**alpha * overlap**beta, 0.0)
    # `top_k` ranks NaN first; a prediction that is not finite aligns with nothing.
    alignment = jnp.where(alignment > 0, alignment, 0.0)

    # From here on only the k candidates of each object are touched.
    best, point = jax.lax.top_k(alignment, min(k, boxes.shape[1]))
    candidate_overlap = jnp.take_along_axis(overlap, point, axis=-1)
    owner, wins = settle(best > 0, point, candidate_overlap, boxes.shape[1])

    best = jnp.where(wins, best, 0.0)
    most_aligned = jnp.max(best, axis=-1, keepdims=True)
    most_overlap = jnp.max(jnp.where(wins, candidate_overlap, 0.0), axis=-1, keepdims=True)
    target = best / jnp.where(most_aligned > 0, most_aligned, 1.0) * most_overlap
    return as_assignment(owner, point, target, objects)
