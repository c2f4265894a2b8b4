"""The composed loss of YOLOv5: ratio assignment, CIoU, and objectness that learns how well the box fits."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yolojax.assign import AnchoredAssign, count_assigned, inside_crowd, ratio_assign
from yolojax.coding import decode_yolov5
from yolojax.losses._anchored import match_anchored
from yolojax.losses._elementwise import BoxLoss, ClassLoss, binary_cross_entropy, complete_box_iou_loss, unreduced
from yolojax.structures import Hyper, Level, LossTerms, Targets

BALANCE = (4.0, 1.0, 0.4)
"""Weights of the objectness of the levels of strides 8, 16 and 32, which have ever fewer cells."""


def yolov5_loss(
    maps: Sequence[Float[Array, "B _h _w A _channels"]],
    levels: tuple[Level, ...],
    anchors: Float[Array, "L A 2"],
    targets: Targets,
    hyper: Hyper,
    *,
    assign: AnchoredAssign = ratio_assign,
    box_loss: BoxLoss = complete_box_iou_loss,
    class_loss: ClassLoss = binary_cross_entropy,
    balance: Sequence[float] = BALANCE,
    decoder: Callable[..., Array] = decode_yolov5,
) -> LossTerms:
    """Loss of per-level maps whose last axis is ``(tx, ty, tw, th, objectness, C class logits)``.

    ``assign`` decides which predictions are positive; its scores are not read. For each level ``l`` of the batch:

    - ``box_l``: ``lambda_coord`` times the mean of ``box_loss`` over the level's positives;
    - ``cls_l``: ``lambda_cls`` times the mean of ``class_loss(class logits, one-hot)`` over its positives and classes;

    and over all levels ``obj``: ``lambda_obj`` times the sum of ``balance[l]`` times the mean over all predictions of
    the level of ``BCE(objectness, q)``. ``q`` is ``max(0, 1 - box_loss)`` of a positive, without gradient (the CIoU of
    its box), and 0 of a negative. A negative with at least half of its box in a crowd region counts as 0.

    Counts: ``positives``, ``unassigned`` (objects without a prediction) and ``ignored``.

    Args:
      maps: one for each level, in the order of ``levels``.
      anchors: ``(width, height)`` in input pixels.
      assign: an assigner of `yolojax.assign` or your own.
      box_loss: compares decoded boxes; 0 for a perfect one.
      class_loss: compares class logits with one-hot targets.
      balance: a weight for each level.
      decoder: has the signature of `yolojax.coding.decode_yolov5`.

    References: there is no paper; Ultralytics' documentation of YOLOv5 ("architecture summary", sections 4.1 to 4.4)
    gives the three parts, the balance of the levels and the coder. Here a prediction learns one object; there it may
    learn several at once.
    """
    found = match_anchored(maps, levels, anchors, targets, assign, decoder)
    assigned, listed, real = found.assigned, found.listed, found.real
    box = box_loss(decoder(found.raw, found.cells, found.strides, found.anchors), found.boxes)
    box = unreduced("box_loss", box, real.shape)
    cls = unreduced("class_loss", class_loss(found.class_logits, found.one_hot), found.class_logits.shape)
    cls = jnp.mean(cls, axis=-1)

    ignored = inside_crowd(found.predicted, targets) & ~assigned.positive
    batch, total = assigned.positive.shape
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], listed.shape)
    # Rows without a positive have the index N, which is out of bounds and therefore dropped.
    place = jnp.where(real, listed, total)
    fits = jnp.clip(1.0 - jax.lax.stop_gradient(box), 0.0, 1.0)
    quality = jnp.zeros((batch, total)).at[image, place].set(fits, mode="drop")
    obj = jnp.where(ignored, 0.0, binary_cross_entropy(found.all_objectness, quality))

    per_level = [level.h * level.w * anchors.shape[1] for level in levels]
    weight = np.concatenate([np.full(n, w / n, np.float32) for n, w in zip(per_level, balance, strict=True)])
    sums = {"obj": hyper.lambda_obj * jnp.sum(obj * weight[None], axis=-1)}
    normalisers = {"obj": jnp.ones(batch)}
    level_of = np.repeat(np.arange(len(levels), dtype=np.int32), per_level)
    for i in range(len(levels)):
        here = real & (jnp.asarray(level_of)[listed] == i)
        sums[f"box_{i}"] = hyper.lambda_coord * jnp.sum(jnp.where(here, box, 0.0), axis=-1)
        sums[f"cls_{i}"] = hyper.lambda_cls * jnp.sum(jnp.where(here, cls, 0.0), axis=-1)
        count = jnp.sum(here, axis=-1).astype(jnp.float32)
        normalisers |= {f"box_{i}": count, f"cls_{i}": count}
    return LossTerms(sums, normalisers, count_assigned(assigned, targets, ignored))
