"""The composed loss of YOLOv8 and the anchor-free detectors after it: task-aligned assignment, CIoU and DFL."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign import (
    DUMMY_BOX,
    AnchorFreeAssign,
    Predictions,
    count_assigned,
    inside_crowd,
    positives,
    task_aligned_assign,
    without_padding,
)
from yolojax.coding import (
    boxes_to_distances,
    cell_centres,
    dfl_expectation,
    distances_to_boxes,
    flatten_levels,
)
from yolojax.losses._elementwise import (
    BoxLoss,
    ClassLoss,
    binary_cross_entropy,
    complete_box_iou_loss,
    distribution_focal_loss,
    unreduced,
)
from yolojax.structures import Hyper, Level, LossTerms, Targets


def yolov8_loss(
    box_maps: Sequence[Float[Array, "B _h _w sides_bins"]],
    class_maps: Sequence[Float[Array, "B _h _w C"]],
    levels: tuple[Level, ...],
    targets: Targets,
    hyper: Hyper,
    *,
    assign: AnchorFreeAssign = task_aligned_assign,
    box_loss: BoxLoss = complete_box_iou_loss,
    class_loss: ClassLoss = binary_cross_entropy,
    dfl_margin: float = 0.0,
) -> LossTerms:
    """Loss of per-level maps of ``4 * reg_max`` distance logits (left, top, right, bottom) and ``C`` class logits.

    ``assign`` decides on the predictions, without gradient, which points are positive, and gives each positive a score
    ``t_hat``, which weighs its losses. The parts are sums over the points of an image:

    - ``box``: ``lambda_coord * t_hat * box_loss(predicted, object)``, over positives;
    - ``dfl``: ``lambda_dfl * t_hat * (mean of the distribution focal loss over the four sides)``, over positives;
    - ``cls``: ``lambda_cls * class_loss(class logits, t_hat at the object's class and 0 elsewhere)``, summed over
      classes, over all points except negatives whose predicted box lies in a crowd region.

    Every normaliser is the image's sum of ``t_hat``, so that `LossTerms.reduce` divides by the sum of the batch, at
    least 1. The gains of YOLOv8 are box 7.5, cls 0.5 and dfl 1.5. Counts: ``positives``, ``unassigned`` (objects
    without a point) and ``ignored`` (negatives in a crowd region).

    Args:
      box_maps: one for each level, in the order of ``levels``.
      class_maps: likewise.
      assign: an assigner of `yolojax.assign` or your own; `functools.partial` sets its constants.
      box_loss: compares decoded boxes, xyxy in input pixels.
      class_loss: compares class logits with soft targets.
      dfl_margin: in bins; the distances that the distribution learns stay this far below the last bin (.01 in PP-YOLOE,
        arXiv 2203.16250).

    References: TOOD, arXiv 2108.07755, section 3.2.2 (here without its focal factor, as in YOLOv8); DFL, arXiv
    2006.04388, equation 6; CIoU, arXiv 1911.08287.
    """
    return distance_loss(
        box_maps,
        class_maps,
        levels,
        targets,
        hyper,
        distances=dfl_expectation,
        side_loss=partial(_focal_side_loss, margin=dfl_margin),
        assign=assign,
        box_loss=box_loss,
        class_loss=class_loss,
    )


def _focal_side_loss(
    bins: Float[Array, "B P 4 bins"], sides: Float[Array, "B P 4"], stride: Float[Array, "B P 1"], margin: float
) -> Float[Array, "B P 4"]:
    """The distribution focal loss of each side; what is learnt stays ``margin`` bins below the last."""
    return distribution_focal_loss(bins, jnp.minimum(sides / stride, bins.shape[-1] - 1 - margin))


def distance_loss(
    box_maps: Sequence[Float[Array, "B _h _w sides_bins"]],
    class_maps: Sequence[Float[Array, "B _h _w C"]],
    levels: tuple[Level, ...],
    targets: Targets,
    hyper: Hyper,
    *,
    distances: Callable[[Float[Array, "B N 4 bins"]], Float[Array, "B N 4"]],
    side_loss: Callable[..., Float[Array, "B P 4"]],
    side_part: str = "dfl",
    assign: AnchorFreeAssign,
    box_loss: BoxLoss,
    class_loss: ClassLoss,
) -> LossTerms:
    """The loss of `yolov8_loss`, for any way in which a head predicts the distances to the four sides.

    Args:
      distances: decodes what is predicted for a side to its distance in strides.
      side_loss: ``(predicted [B, P, 4, bins], true distances in pixels [B, P, 4], strides [B, P, 1])``: the loss of
        each side, of which the mean over the four stands in the place of the distribution focal loss.
      side_part: how the part with that loss is called.

    The other arguments are those of `yolov8_loss`.
    """
    points, strides = cell_centres(levels)
    raw, class_logits = flatten_levels(box_maps), flatten_levels(class_maps)
    far = distances(_by_side(jax.lax.stop_gradient(raw)))
    boxes = distances_to_boxes(points, far * jnp.broadcast_to(strides[:, None], far.shape))
    assigned = assign(targets, levels, Predictions(boxes, jax.lax.stop_gradient(class_logits)))
    ignored = inside_crowd(boxes, targets) & ~assigned.positive
    objects = without_padding(targets)

    own_class = jnp.take_along_axis(objects.classes, assigned.objects, axis=1)
    is_label = jnp.arange(class_logits.shape[-1])[None, None, :] == own_class[..., None]
    class_targets = jnp.where(is_label, assigned.scores[..., None], 0.0)
    cls = unreduced("class_loss", class_loss(class_logits, class_targets), class_logits.shape)
    cls = jnp.where(ignored, 0.0, jnp.sum(cls, axis=-1))

    # Only positives learn boxes, so only theirs are decoded with a gradient.
    listed, real = positives(assigned)
    weight = jnp.where(real, jnp.take_along_axis(assigned.scores, listed, axis=1), 0.0)
    owner = jnp.take_along_axis(assigned.objects, listed, axis=1)
    truth = jnp.take_along_axis(objects.boxes, owner[..., None], axis=1)
    point, stride = points[listed], strides[listed][..., None]
    # Taken as whole rows: the gradient of all predictions by side has four rows of 16 numbers for each, which a TPU
    # stores as 8 x 128, and 6 % of a step of YOLOv8s were spent on its zeros.
    own = _by_side(jnp.take_along_axis(raw, listed[..., None], axis=1))
    predicted = distances_to_boxes(point, distances(own) * jnp.broadcast_to(stride, truth.shape))

    # Rows without a positive compare the dummy box with itself. A weight of 0 alone would not stop a NaN gradient.
    dummy = jnp.broadcast_to(jnp.asarray(DUMMY_BOX, jnp.float32), truth.shape)
    box = box_loss(jnp.where(real[..., None], predicted, dummy), jnp.where(real[..., None], truth, dummy))
    box = unreduced("box_loss", box, real.shape)
    side = jnp.mean(side_loss(own, boxes_to_distances(point, truth), stride), axis=-1)

    normaliser = jnp.sum(assigned.scores, axis=-1)
    return LossTerms(
        sums={
            "box": hyper.lambda_coord * jnp.sum(weight * box, axis=-1),
            "cls": hyper.lambda_cls * jnp.sum(cls, axis=-1),
            side_part: hyper.lambda_dfl * jnp.sum(weight * side, axis=-1),
        },
        normalisers=dict.fromkeys(("box", "cls", side_part), normaliser),
        counts=count_assigned(assigned, targets, ignored),
    )


def _by_side(raw: Float[Array, "B N sides_bins"]) -> Float[Array, "B N 4 bins"]:
    return raw.reshape(*raw.shape[:2], 4, -1)


def add_auxiliary(main: LossTerms, auxiliary: LossTerms, weight: float) -> LossTerms:
    """Adds the loss of an auxiliary head, multiplied by ``weight``: its parts get the prefix ``auxiliary_``.

    Each head is normalised by its own assignment. Counts are those of the main head. Reference: YOLOv9, arXiv
    2402.13616, section 4.1.
    """
    return LossTerms(
        sums={**main.sums, **{f"auxiliary_{part}": weight * value for part, value in auxiliary.sums.items()}},
        normalisers={**main.normalisers, **{f"auxiliary_{k}": value for k, value in auxiliary.normalisers.items()}},
        counts=main.counts,
    )
