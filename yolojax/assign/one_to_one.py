"""One prediction for each object, at the least total cost: the matching of the DETR family."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign.objects import sort_by_content, without_padding
from yolojax.assign.points import PredictionAssignment, as_assignment, settle
from yolojax.boxes import generalized_box_iou, xyxy_to_cxcywh
from yolojax.structures import Targets


def one_to_one_assign(cost: Float[Array, "B M N"], targets: Targets) -> PredictionAssignment:
    """The matching of objects to predictions of least total cost (DETR, arXiv 2005.12872, equation 1).

    ``cost[b, m, n]`` is what it costs that prediction ``n`` answers for row ``m`` of the targets; columns of rows that
    are padding or crowd are not read. If there are more objects than predictions, the cheapest choice of objects is
    matched. By `optax.assignment.hungarian_algorithm`, cubic in the number of objects. Scores of positives are 1.
    Costs are read without gradient; infinite or NaN ones count as the largest finite one.
    """
    import optax  # slow to import, and most users of this package match otherwise

    objects = sort_by_content(targets)
    m, n = cost.shape[1:]
    cost = jnp.take_along_axis(jax.lax.stop_gradient(cost.astype(jnp.float32)), objects.rows[..., None], axis=1)
    known = objects.assignable[..., None] & jnp.isfinite(cost)
    largest = jnp.max(jnp.where(known, cost, -jnp.inf), axis=(1, 2), keepdims=True)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
    # A row of equal costs takes what the others leave; where predictions are scarce it must also be the dearest.
    filler = largest + 1.0 if m > n else jnp.zeros_like(largest)
    cost = jnp.where(objects.assignable[..., None], jnp.where(known, cost, largest), filler)

    row, column = jax.vmap(optax.assignment.hungarian_algorithm)(cost)
    image = jnp.broadcast_to(jnp.arange(cost.shape[0])[:, None], row.shape)
    place = jnp.zeros((cost.shape[0], m), jnp.int32).at[image, row].set(column.astype(jnp.int32))[..., None]
    matched = jnp.zeros((cost.shape[0], m), bool).at[image, row].set(True) & objects.assignable
    owner, wins = settle(matched[..., None], place, jnp.zeros(place.shape), n)
    return as_assignment(owner, place, wins.astype(jnp.float32), objects)


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
    """DETR's cost of each pair: ``-p(class)``, L1 distance and ``-GIoU`` (arXiv 2005.12872, section 3.1 and A.2).

    Boxes are xyxy in input pixels; the L1 distance is of ``(centre x, centre y, width, height)`` as fractions of the
    ``input_size = (h, w)``. ``class_scores`` are probabilities, whichever way the network makes them.
    """
    clean = without_padding(targets)
    label = jnp.clip(clean.classes, 0, class_scores.shape[-1] - 1)
    probability = jnp.swapaxes(jnp.take_along_axis(class_scores, label[:, None, :], axis=2), 1, 2)
    size = jnp.asarray([input_size[1], input_size[0]] * 2, jnp.float32)[None, None]
    theirs, ours = (xyxy_to_cxcywh(b) / size for b in (boxes, clean.boxes))
    # Coordinate by coordinate: no [B, M, N, 4] array.
    distance = sum(
        (jnp.abs(ours[:, :, None, i] - theirs[:, None, :, i]) for i in range(4)), start=jnp.zeros(probability.shape)
    )
    overlap = generalized_box_iou(clean.boxes, boxes)
    return l1_weight * distance - class_weight * probability - giou_weight * overlap
