"""SimOTA (YOLOX, Ge et al. 2021, arXiv 2107.08430, section 2.1; OTA, arXiv 2103.14259)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign.objects import sort_by_content
from yolojax.assign.points import PredictionAssignment, as_assignment, points_inside, settle
from yolojax.boxes import box_iou
from yolojax.structures import Targets

_SMALLEST_IOU = 1e-8
_SMALLEST_PROBABILITY = 1e-7


def simota_assign(
    points: Float[Array, "N 2"],
    strides: Float[Array, " N"],
    boxes: Float[Array, "B N 4"],
    class_logits: Float[Array, "B N C"],
    objectness_logits: Float[Array, "B N"],
    targets: Targets,
    *,
    radius: float = 2.5,
    iou_weight: float = 3.0,
    largest_k: int = 10,
) -> PredictionAssignment:
    """Assign to each object its ``k`` cheapest points, with a ``k`` of its own.

    The cost of a pair is ``L_cls + iou_weight * -log IoU`` (equation 1), where ``L_cls`` is the binary cross entropy of
    ``sqrt(sigmoid(class) * sigmoid(objectness))``, kept 1e-7 from 0 and 1, against the object's class, summed over
    classes. Only points inside
    the box of some object, or within ``radius`` strides of its centre (both axes), take part. Pairs where the point is
    not both in that box and in that centre region cost more than any where it is. ``k`` is the sum of the
    ``largest_k`` largest IoUs of the object with taking-part predictions, rounded down, at least 1 (OTA, section 3.3).
    A point wanted by several objects goes to the one it costs least, then to the first by content.

    Boxes are xyxy in input pixels, as are points and strides. Scores of positives are their IoU, YOLOX's class target.
    Predictions are read without gradient; one that is not finite takes no part.
    """
    boxes, class_logits, objectness_logits = jax.lax.stop_gradient(
        tuple(x.astype(jnp.float32) for x in (boxes, class_logits, objectness_logits))
    )
    objects = sort_by_content(targets)
    n = points.shape[0]

    in_box = points_inside(objects.boxes, points)
    centres = 0.5 * objects.boxes[..., :2] + 0.5 * objects.boxes[..., 2:]
    dx, dy = (jnp.abs(centres[..., i, None] - points[None, None, :, i]) for i in range(2))
    in_centre = jnp.maximum(dx, dy) < radius * strides[None, None]
    assignable = objects.assignable[..., None]
    finite = jnp.isfinite(jnp.sum(class_logits, axis=-1) + objectness_logits + jnp.sum(boxes, axis=-1))
    takes_part = jnp.any((in_box | in_centre) & assignable, axis=1, keepdims=True) & finite[:, None]

    pool = takes_part & assignable
    overlap = jnp.where(pool, box_iou(objects.boxes, boxes), 0.0)
    cost = _class_cost(class_logits, objectness_logits, objects.classes) - iou_weight * jnp.log(overlap + _SMALLEST_IOU)
    cost = jnp.where(pool, cost, 0.0)
    # Larger than any difference of costs; a constant of 1e5 would round the costs that it is added to.
    penalty = 1.0 + jnp.max(cost, axis=(1, 2), keepdims=True)
    cost = jnp.where(in_box & in_centre, cost, cost + penalty)

    largest_k = min(largest_k, n)
    k = jnp.maximum(jnp.floor(jnp.sum(jax.lax.top_k(overlap, largest_k)[0], axis=-1)), 1.0)
    cheapness, place = jax.lax.top_k(jnp.where(pool, -cost, -jnp.inf), largest_k)
    wanted = (jnp.arange(largest_k, dtype=jnp.float32)[None, None] < k[..., None]) & (cheapness > -jnp.inf)
    owner, wins = settle(wanted, place, cheapness, n)
    scores = jnp.where(wins, jnp.take_along_axis(overlap, place, axis=-1), 0.0)
    return as_assignment(owner, place, scores, objects)


def _class_cost(class_logits: Array, objectness_logits: Array, labels: Array) -> Float[Array, "B M N"]:
    """BCE against one-hot, summed over classes: that of "no class at all", corrected at the object's class.

    So no [B, M, N, C] array is made.
    """
    log_p = 0.5 * (jax.nn.log_sigmoid(class_logits) + jax.nn.log_sigmoid(objectness_logits)[..., None])
    log_p = jnp.maximum(log_p, jnp.log(_SMALLEST_PROBABILITY))
    log_q = jnp.log(jnp.maximum(-jnp.expm1(log_p), _SMALLEST_PROBABILITY))
    label = jnp.clip(labels, 0, class_logits.shape[-1] - 1)[:, None, :]
    correction = jnp.take_along_axis(log_q - log_p, label, axis=2)
    return jnp.swapaxes(correction, 1, 2) - jnp.sum(log_q, axis=-1)[:, None]
