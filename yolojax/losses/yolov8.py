"""The composed loss of the anchor-free detectors in the line of YOLOv8: task-aligned, CIoU and DFL."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign.crowd import inside_crowd
from yolojax.assign.objects import DUMMY_BOX, without_padding
from yolojax.assign.points import assignment_counts, list_positives
from yolojax.assign.task_aligned import task_aligned_assign
from yolojax.coding.dfl import boxes_to_distances, decode_distributions, dfl_expectation, distances_to_boxes
from yolojax.coding.grid import cell_centres, flatten_levels
from yolojax.losses.box import complete_box_iou_loss
from yolojax.losses.classification import ClassLoss, binary_cross_entropy
from yolojax.losses.distribution import distribution_focal_loss
from yolojax.structures import Hyper, Level, LossTerms, Targets

BoxLoss = Callable[[Float[Array, "*batch 4"], Float[Array, "*batch 4"]], Float[Array, "*batch"]]


def yolov8_loss(
    box_maps: Sequence[Float[Array, "B _h _w sides_bins"]],
    class_maps: Sequence[Float[Array, "B _h _w C"]],
    levels: tuple[Level, ...],
    targets: Targets,
    hyper: Hyper,
    *,
    box_loss: BoxLoss = complete_box_iou_loss,
    class_loss: ClassLoss = binary_cross_entropy,
    alpha: float = 0.5,
    beta: float = 6.0,
    k: int = 10,
) -> LossTerms:
    """Loss of per-level maps of ``4 * reg_max`` distance logits (left, top, right, bottom) and ``C`` class logits.

    Points are assigned by `task_aligned_assign` (``alpha``, ``beta``, ``k``) on the predictions without gradient; a
    positive with score target ``t_hat`` learns its object with that weight. Parts, summed over points of an image:

    - ``box``: ``lambda_coord * t_hat * box_loss(predicted, object)``, over positives;
    - ``dfl``: ``lambda_dfl * t_hat * mean over the four sides of the distribution focal loss``, over positives;
    - ``cls``: ``lambda_cls * class_loss(class logits, t_hat at the object's class and 0 elsewhere)``, BCE unless given,
      summed over classes, over all points but the negatives whose predicted box lies in a crowd region.

    Every normaliser is the image's sum of ``t_hat``, so that `LossTerms.reduce` divides by the batch's sum, at least
    1. The gains of YOLOv8 are box 7.5, cls 0.5, dfl 1.5. Counts: ``positives``, ``unassigned`` (objects without a
    point) and ``ignored`` (crowd negatives).

    References: TOOD, arXiv 2108.07755, section 3.2.2 (here without its focal factor, as in YOLOv8); DFL, arXiv
    2006.04388, equation 6; CIoU, arXiv 1911.08287.
    """
    points, strides = cell_centres(levels)
    distance_logits, class_logits = flatten_levels(box_maps), flatten_levels(class_maps)
    boxes = decode_distributions(jax.lax.stop_gradient(distance_logits), points, strides)
    assigned = task_aligned_assign(points, boxes, class_logits, targets, alpha=alpha, beta=beta, k=k)
    ignored = inside_crowd(boxes, targets) & ~assigned.positive
    objects = without_padding(targets)

    own_class = jnp.take_along_axis(objects.classes, assigned.objects, axis=1)
    labels = jnp.arange(class_logits.shape[-1])[None, None, :] == own_class[..., None]
    wanted = jnp.where(labels, assigned.scores[..., None], 0.0)
    bce = jnp.where(ignored, 0.0, jnp.sum(class_loss(class_logits, wanted), axis=-1))

    # Boxes are learnt by positives alone, and only those are decoded with a gradient.
    listed, real = list_positives(assigned, targets.classes.shape[1] * k)
    weight = jnp.where(real, jnp.take_along_axis(assigned.scores, listed, axis=1), 0.0)
    owner = jnp.take_along_axis(assigned.objects, listed, axis=1)
    truth = jnp.take_along_axis(objects.boxes, owner[..., None], axis=1)
    point, stride = points[listed], strides[listed][..., None]
    bins = jnp.take_along_axis(distance_logits, listed[..., None], axis=1).reshape(*listed.shape, 4, -1)
    predicted = distances_to_boxes(point, dfl_expectation(bins) * jnp.broadcast_to(stride, truth.shape))

    # In unused rows both boxes are the harmless one: a weight of zero would not stop a NaN gradient.
    harmless = jnp.broadcast_to(jnp.asarray(DUMMY_BOX, jnp.float32), truth.shape)
    regression = box_loss(jnp.where(real[..., None], predicted, harmless), jnp.where(real[..., None], truth, harmless))
    sides = boxes_to_distances(point, truth) / stride
    dfl = jnp.mean(distribution_focal_loss(bins, sides), axis=-1)

    normaliser = jnp.sum(assigned.scores, axis=-1)
    return LossTerms(
        sums={
            "box": hyper.lambda_coord * jnp.sum(weight * regression, axis=-1),
            "cls": hyper.lambda_cls * jnp.sum(bce, axis=-1),
            "dfl": hyper.lambda_dfl * jnp.sum(weight * dfl, axis=-1),
        },
        normalisers=dict.fromkeys(("box", "cls", "dfl"), normaliser),
        counts=assignment_counts(assigned, targets, owner, real, ignored),
    )
