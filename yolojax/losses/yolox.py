"""The composed loss of YOLOX: SimOTA, IoU, objectness and classes, with an optional L1 loss on the raw boxes."""

from collections.abc import Sequence

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
    simota_assign,
    without_padding,
)
from yolojax.coding import cell_centres, decode_yolox, encode_yolox, flatten_levels
from yolojax.losses._elementwise import BoxLoss, ClassLoss, binary_cross_entropy, squared_box_iou_loss, unreduced
from yolojax.structures import Hyper, Level, LossTerms, Targets


def yolox_loss(
    box_maps: Sequence[Float[Array, "B _h _w 4"]],
    objectness_maps: Sequence[Float[Array, "B _h _w 1"]],
    class_maps: Sequence[Float[Array, "B _h _w C"]],
    levels: tuple[Level, ...],
    targets: Targets,
    hyper: Hyper,
    *,
    assign: AnchorFreeAssign = simota_assign,
    box_loss: BoxLoss = squared_box_iou_loss,
    class_loss: ClassLoss = binary_cross_entropy,
) -> LossTerms:
    """Loss of per-level maps of raw boxes (`yolojax.coding.decode_yolox`), objectness logits and class logits.

    ``assign`` decides on the predictions, without gradient, which points are positive. The parts are sums over the
    points of an image:

    - ``box``: ``lambda_coord * box_loss(predicted, object)``, over positives;
    - ``obj``: ``lambda_obj * BCE(objectness, 1)``, over positives;
    - ``noobj``: ``lambda_noobj * BCE(objectness, 0)``, over all other points except those whose predicted box lies in a
      crowd region;
    - ``cls``: ``lambda_cls * class_loss(class logits, score at the object's class and 0 elsewhere)``, summed over
      classes, over positives. SimOTA's score is the IoU of the prediction with its object;
    - ``l1``: ``lambda_l1 * |raw - encoded object|``, summed over the four numbers, over positives.

    Every normaliser is the number of positives, so that `LossTerms.reduce` divides by the number in the batch, at least
    1. YOLOX's gains are coord 5 and the others 1; L1 is 0 until the last 15 of 300 epochs, then 1. Counts:
    ``positives``, ``unassigned`` (objects without a point) and ``ignored`` (negatives in a crowd region).

    Args:
      box_maps: one for each level, in the order of ``levels``.
      objectness_maps: likewise.
      class_maps: likewise.
      assign: an assigner of `yolojax.assign` or your own; `functools.partial` sets its constants.
      box_loss: compares decoded boxes, xyxy in input pixels.
      class_loss: compares class logits with soft targets.

    References: YOLOX, arXiv 2107.08430, section 2.1; IoU loss, arXiv 1608.01471, here of the squared IoU, as YOLOX's
    authors published it.
    """
    points, strides = cell_centres(levels)
    cells = points / strides[:, None] - 0.5
    raw, objectness, logits = (
        flatten_levels(box_maps),
        flatten_levels(objectness_maps)[..., 0],
        flatten_levels(class_maps),
    )
    boxes = decode_yolox(jax.lax.stop_gradient(raw), cells[None], strides[None])
    assigned = assign(targets, levels, Predictions(boxes, *jax.lax.stop_gradient((logits, objectness))))
    ignored = inside_crowd(boxes, targets) & ~assigned.positive
    objects = without_padding(targets)

    bce = binary_cross_entropy(objectness, assigned.positive.astype(jnp.float32))
    obj = jnp.sum(jnp.where(assigned.positive, bce, 0.0), axis=-1)
    noobj = jnp.sum(jnp.where(assigned.positive | ignored, 0.0, bce), axis=-1)

    # The other parts concern positives only, and are computed for them only.
    listed, real = positives(assigned)
    owner = jnp.take_along_axis(assigned.objects, listed, axis=1)
    truth = jnp.take_along_axis(objects.boxes, owner[..., None], axis=1)
    label = jnp.take_along_axis(objects.classes, owner, axis=1)
    score = jnp.take_along_axis(assigned.scores, listed, axis=1)
    own_raw = jnp.take_along_axis(raw, listed[..., None], axis=1)
    own_logits = jnp.take_along_axis(logits, listed[..., None], axis=1)
    own_cells, own_strides = cells[listed], strides[listed]

    # Rows without a positive compare the dummy box with itself. A weight of 0 alone would not stop a NaN gradient.
    dummy = jnp.broadcast_to(jnp.asarray(DUMMY_BOX, jnp.float32), truth.shape)
    predicted = jnp.where(real[..., None], decode_yolox(own_raw, own_cells, own_strides), dummy)
    box = unreduced("box_loss", box_loss(predicted, jnp.where(real[..., None], truth, dummy)), real.shape)
    box = jnp.where(real, box, 0.0)
    is_label = jnp.arange(logits.shape[-1])[None, None, :] == label[..., None]
    class_targets = jnp.where(is_label, score[..., None], 0.0)
    cls = unreduced("class_loss", class_loss(own_logits, class_targets), own_logits.shape)
    cls = jnp.where(real, jnp.sum(cls, axis=-1), 0.0)
    l1 = jnp.where(real, jnp.sum(jnp.abs(own_raw - encode_yolox(truth, own_cells, own_strides)), axis=-1), 0.0)

    return LossTerms(
        sums={
            "box": hyper.lambda_coord * jnp.sum(box, axis=-1),
            "obj": hyper.lambda_obj * obj,
            "noobj": hyper.lambda_noobj * noobj,
            "cls": hyper.lambda_cls * jnp.sum(cls, axis=-1),
            "l1": hyper.lambda_l1 * jnp.sum(l1, axis=-1),
        },
        normalisers=dict.fromkeys(
            ("box", "obj", "noobj", "cls", "l1"), jnp.sum(assigned.positive, axis=-1).astype(jnp.float32)
        ),
        counts=count_assigned(assigned, targets, ignored),
    )
