"""The composed loss of the anchor-based detectors up to YOLOv4: box, objectness and class loss of each positive."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign import AnchoredAssign, best_anchor_assign, count_assigned, ignored_negatives
from yolojax.coding import cell_offsets, decode
from yolojax.losses._anchored import match_anchored
from yolojax.losses._elementwise import BoxLoss, ClassLoss, binary_cross_entropy, unreduced
from yolojax.structures import Hyper, Level, LossTerms, Targets


@runtime_checkable
class RawBoxLoss(Protocol):
    """A box loss that sees the raw prediction, so that it may compare in the space of the box coder.

    ``raw`` is ``(tx, ty, tw, th)``, ``boxes`` are the objects (xyxy, input pixels), ``cells`` the ``(column, row)`` of
    the predictions' cells, ``strides`` and ``anchors`` (``(width, height)``) are in input pixels.
    """

    def __call__(
        self,
        raw: Float[Array, "*n 4"],
        boxes: Float[Array, "*n 4"],
        cells: Float[Array, "*n 2"],
        strides: Float[Array, "*n"],
        anchors: Float[Array, "*n 2"],
        /,
    ) -> Float[Array, "*n"]: ...


def squared_offset_loss(
    raw: Float[Array, "*n 4"],
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*n 2"],
    strides: Float[Array, "*n"],
    anchors: Float[Array, "*n 2"],
) -> Float[Array, "*n"]:
    """Squared error of ``(sigmoid(tx), sigmoid(ty), tw, th)``, summed over the four numbers. It is a `RawBoxLoss`.

    The targets are the offset of the object's centre in its cell and the logarithm of size over anchor, see
    `yolojax.coding.cell_offsets` (YOLOv2, arXiv 1612.08242, section 2, figure 3).
    """
    offset, log_ratio = cell_offsets(boxes, cells, strides, anchors)
    error = jnp.concatenate([jax.nn.sigmoid(raw[..., :2]) - offset, raw[..., 2:] - log_ratio], axis=-1)
    return jnp.sum(error**2, axis=-1)


def on_decoded_boxes(box_loss: BoxLoss, decoder: Callable[..., Array] = decode) -> RawBoxLoss:
    """The `RawBoxLoss` that compares decoded predictions with their objects by ``box_loss``.

    ``decoder`` has the signature of `yolojax.coding.decode`. For example, YOLOv4 (arXiv 2004.10934) trains with
    ``on_decoded_boxes(complete_box_iou_loss)``.
    """

    def loss(
        raw: Float[Array, "*n 4"],
        boxes: Float[Array, "*n 4"],
        cells: Float[Array, "*n 2"],
        strides: Float[Array, "*n"],
        anchors: Float[Array, "*n 2"],
        /,
    ) -> Float[Array, "*n"]:
        return box_loss(decoder(raw, cells, strides, anchors), boxes)

    return loss


def yolov3_loss(
    maps: Sequence[Float[Array, "B _h _w A _channels"]],
    levels: tuple[Level, ...],
    anchors: Float[Array, "L A 2"],
    targets: Targets,
    hyper: Hyper,
    *,
    assign: AnchoredAssign = best_anchor_assign,
    box_loss: RawBoxLoss = squared_offset_loss,
    class_loss: ClassLoss = binary_cross_entropy,
    decoder: Callable[..., Array] = decode,
) -> LossTerms:
    """Loss of per-level maps whose last axis is ``(tx, ty, tw, th, objectness, C class logits)``.

    ``assign`` decides which predictions are positive; its scores are not read. The parts are sums over an image:

    - ``box``: ``lambda_coord * box_loss`` of each positive;
    - ``obj``: ``lambda_obj * BCE(objectness, 1)`` of each positive;
    - ``noobj``: ``lambda_noobj * BCE(objectness, 0)`` of each negative that is not ignored;
    - ``cls``: ``lambda_cls * class_loss(class logits, one-hot)``, summed over classes, of each positive.

    A negative is ignored if its predicted box has an IoU above ``hyper.ignore_iou`` with any object (YOLOv3, arXiv
    1804.02767, section 2.1), or at least half of its own area in a crowd region. Every normaliser is the number of
    positives of the image, so that `LossTerms.reduce` divides by the number in the batch, at least 1. Counts:
    ``positives``, ``unassigned`` (objects without a prediction) and ``ignored``.

    Args:
      maps: one for each level, in the order of ``levels``.
      anchors: ``(width, height)`` in input pixels.
      assign: an assigner of `yolojax.assign` or your own; `functools.partial` sets its constants, such as Darknet's
        ``iou_thresh``. With `ratio_assign` give a ``box_loss`` and a ``decoder`` by `yolojax.coding.decode_yolov5`.
      box_loss: see `RawBoxLoss`; `on_decoded_boxes` makes one of any `BoxLoss`.
      class_loss: compares class logits with one-hot targets.
      decoder: gives the boxes of the ignore rules. It has the signature of `yolojax.coding.decode`.
    """
    found = match_anchored(maps, levels, anchors, targets, assign, decoder)
    assigned, real = found.assigned, found.real
    box = box_loss(found.raw, found.boxes, found.cells, found.strides, found.anchors)
    box = unreduced("box_loss", box, real.shape)
    cls = unreduced("class_loss", class_loss(found.class_logits, found.one_hot), found.class_logits.shape)
    cls = jnp.sum(cls, axis=-1)
    obj = binary_cross_entropy(found.objectness, jnp.ones(real.shape))

    ignored = ignored_negatives(found.predicted, assigned.positive, targets, hyper.ignore_iou)
    noobj = binary_cross_entropy(found.all_objectness, jnp.zeros(assigned.positive.shape))

    count = jnp.sum(assigned.positive, axis=-1).astype(jnp.float32)
    return LossTerms(
        sums={
            "box": hyper.lambda_coord * jnp.sum(jnp.where(real, box, 0.0), axis=-1),
            "obj": hyper.lambda_obj * jnp.sum(jnp.where(real, obj, 0.0), axis=-1),
            "noobj": hyper.lambda_noobj * jnp.sum(jnp.where(assigned.positive | ignored, 0.0, noobj), axis=-1),
            "cls": hyper.lambda_cls * jnp.sum(jnp.where(real, cls, 0.0), axis=-1),
        },
        normalisers=dict.fromkeys(("box", "obj", "noobj", "cls"), count),
        counts=count_assigned(assigned, targets, ignored),
    )
