"""The composed loss of YOLOX: SimOTA, IoU, objectness, classes, and L1 on the raw boxes by choice."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign.crowd import inside_crowd
from yolojax.assign.objects import DUMMY_BOX, without_padding
from yolojax.assign.points import assignment_counts, list_positives
from yolojax.assign.simota import simota_assign
from yolojax.boxes import paired_box_iou
from yolojax.coding.grid import cell_centres, flatten_levels
from yolojax.coding.yolox import decode_yolox, encode_yolox
from yolojax.losses.classification import binary_cross_entropy
from yolojax.structures import Hyper, Level, LossTerms, Targets


def yolox_loss(
    box_maps: Sequence[Float[Array, "B _h _w 4"]],
    objectness_maps: Sequence[Float[Array, "B _h _w 1"]],
    class_maps: Sequence[Float[Array, "B _h _w C"]],
    levels: tuple[Level, ...],
    targets: Targets,
    hyper: Hyper,
    *,
    largest_k: int = 10,
) -> LossTerms:
    """Loss of per-level maps of raw boxes (`yolojax.coding.decode_yolox`), objectness logits and class logits.

    `simota_assign` says which points are positive, on the predictions without gradient. Parts, summed over the points
    of an image:

    - ``box``: ``lambda_coord * (1 - IoU^2)``, over positives;
    - ``obj``: ``lambda_obj * BCE(objectness, 1)``, over positives;
    - ``noobj``: ``lambda_noobj * BCE(objectness, 0)``, over the others but those whose predicted box lies in a crowd
      region;
    - ``cls``: ``lambda_cls * BCE(class logits, IoU at the object's class and 0 elsewhere)``, over positives, the IoU
      being the prediction's own with its object;
    - ``l1``: ``lambda_l1 * sum over four numbers of |raw - encoded object|``, over positives.

    Every normaliser is the number of positives, so that `LossTerms.reduce` divides by the batch's, at least 1. YOLOX's
    gains: coord 5, the others 1; L1 is 0 until the last 15 of 300 epochs, then 1. Counts: ``positives``,
    ``unassigned`` (objects without a point) and ``ignored`` (crowd negatives).

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
    assigned = simota_assign(points, strides, boxes, logits, objectness, targets, largest_k=largest_k)
    ignored = inside_crowd(boxes, targets) & ~assigned.positive
    objects = without_padding(targets)

    bce = binary_cross_entropy(objectness, assigned.positive.astype(jnp.float32))
    obj = jnp.sum(jnp.where(assigned.positive, bce, 0.0), axis=-1)
    noobj = jnp.sum(jnp.where(assigned.positive | ignored, 0.0, bce), axis=-1)

    # The rest is learnt by positives alone, and computed for them alone.
    listed, real = list_positives(assigned, targets.classes.shape[1] * largest_k)
    owner = jnp.take_along_axis(assigned.objects, listed, axis=1)
    truth = jnp.take_along_axis(objects.boxes, owner[..., None], axis=1)
    label = jnp.take_along_axis(objects.classes, owner, axis=1)
    score = jnp.take_along_axis(assigned.scores, listed, axis=1)
    own_raw = jnp.take_along_axis(raw, listed[..., None], axis=1)
    own_logits = jnp.take_along_axis(logits, listed[..., None], axis=1)
    own_cells, own_strides = cells[listed], strides[listed]

    # In unused rows both boxes are the harmless one: a weight of zero would not stop a NaN gradient.
    harmless = jnp.broadcast_to(jnp.asarray(DUMMY_BOX, jnp.float32), truth.shape)
    predicted = jnp.where(real[..., None], decode_yolox(own_raw, own_cells, own_strides), harmless)
    iou = paired_box_iou(predicted, jnp.where(real[..., None], truth, harmless))
    box = jnp.where(real, 1.0 - iou**2, 0.0)
    is_label = jnp.arange(logits.shape[-1])[None, None, :] == label[..., None]
    wanted = jnp.where(is_label, score[..., None], 0.0)
    cls = jnp.where(real, jnp.sum(binary_cross_entropy(own_logits, wanted), axis=-1), 0.0)
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
        counts=assignment_counts(assigned, targets, owner, real, ignored),
    )
