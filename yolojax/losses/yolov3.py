"""The loss of the anchor-based detectors up to YOLOv4: one responsible prediction an object, three kinds of error."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign.best_anchor import match_best_anchor
from yolojax.assign.ignore import ignored_negatives
from yolojax.assign.objects import sort_by_content
from yolojax.coding.anchored import cell_offsets, decode
from yolojax.coding.grid import anchor_grid
from yolojax.losses.box import complete_box_iou_loss
from yolojax.losses.classification import ClassLoss, binary_cross_entropy
from yolojax.structures import Hyper, Level, LossTerms, Targets

BoxLoss = Callable[[Float[Array, "*n 4"], Float[Array, "*n 4"]], Float[Array, "*n"]]
BoxPart = Callable[[Array, Array, Array, Array, Array], Array]
"""``(raw [..., 4], boxes [..., 4], cells [..., 2], strides [...], anchors [..., 2]) -> [...]``."""


def squared_offset_loss(
    raw: Float[Array, "*n 4"],
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*n 2"],
    strides: Float[Array, "*n"],
    anchors: Float[Array, "*n 2"],
) -> Float[Array, "*n"]:
    """Squared error of ``(sigmoid(tx), sigmoid(ty), tw, th)`` against offsets in the cell and log ratios, summed.

    Both sides in the space that `cell_offsets` describes (YOLOv2, arXiv 1612.08242, section 2, figure 3).
    """
    offset, log_ratio = cell_offsets(boxes, cells, strides, anchors)
    error = jnp.concatenate([jax.nn.sigmoid(raw[..., :2]) - offset, raw[..., 2:] - log_ratio], axis=-1)
    return jnp.sum(error**2, axis=-1)


def decoded_complete_iou_loss(
    raw: Float[Array, "*n 4"],
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*n 2"],
    strides: Float[Array, "*n"],
    anchors: Float[Array, "*n 2"],
    *,
    scale_x_y: float = 1.0,
) -> Float[Array, "*n"]:
    """``1 - CIoU`` of the decoded prediction with its object (arXiv 1911.08287), as YOLOv4 trains boxes."""
    return complete_box_iou_loss(decode(raw, cells, strides, anchors, scale_x_y=scale_x_y), boxes)


def decoded_box_part(box_loss: BoxLoss, decoder: Callable[..., Array] = decode) -> BoxPart:
    """The box part that compares decoded predictions with their objects by a loss of `losses.box`.

    ``decoder``: `yolojax.coding.decode`, or what decodes in its place, as in `yolov3_loss`.
    """

    def part(raw: Array, boxes: Array, cells: Array, strides: Array, anchors: Array) -> Array:
        return box_loss(decoder(raw, cells, strides, anchors), boxes)

    return part


def yolov3_loss(
    maps: Sequence[Float[Array, "B _h _w A _channels"]],
    levels: tuple[Level, ...],
    anchors: Float[Array, "L A 2"],
    targets: Targets,
    hyper: Hyper,
    *,
    box_part: BoxPart = squared_offset_loss,
    class_loss: ClassLoss = binary_cross_entropy,
    decoder: Callable[..., Array] = decode,
    iou_thresh: float = 1.0,
) -> LossTerms:
    """Loss of per-level maps whose last axis is ``(tx, ty, tw, th, objectness, C class logits)``.

    Parts, as sums over an image:

    - ``box``: ``lambda_coord * box_part`` of each positive (`squared_offset_loss` or `decoded_complete_iou_loss`);
    - ``obj``: ``lambda_obj * BCE(objectness, 1)`` of each positive;
    - ``noobj``: ``lambda_noobj * BCE(objectness, 0)`` of each negative that is not ignored;
    - ``cls``: ``lambda_cls * class_loss(class logits, one-hot)``, summed over classes, of each positive.

    Positives come from `match_best_anchor`. A negative is ignored if its predicted box has an IoU above
    ``hyper.ignore_iou`` with any object (YOLOv3, arXiv 1804.02767, section 2.1), or at least half of its own area in a
    crowd region. Every normaliser is the number of positives of the image, so that `LossTerms.reduce` divides by the
    positives of the batch, at least 1. Counts: ``positives``, ``collisions`` (objects that lost their cell and anchor
    to another one) and ``ignored``.

    Args:
      maps: one a level, in the order of ``levels``.
      anchors: ``(width, height)`` in input pixels.
      box_part: the error of the positives' boxes.
      class_loss: BCE unless given; see `yolojax.losses.classification`.
      decoder: for the boxes of the ignore rules; a partial of `yolojax.coding.decode` gives another ``scale_x_y``.
      iou_thresh: shape IoU above which other anchors than the best are positives too; 1 for none.
    """
    objects = sort_by_content(targets)
    responsible = match_best_anchor(objects, anchors, levels, iou_thresh=iou_thresh)
    boxes = jnp.take_along_axis(objects.boxes, responsible.object[..., None], axis=1)
    classes = jnp.take_along_axis(objects.classes, responsible.object, axis=1)
    cells, strides, sizes = anchor_grid(levels, anchors)
    owns = responsible.owns

    place = responsible.prediction
    own = _rows_of(maps, place)
    # Rows without an object compare a harmless prediction with a harmless box: no NaN gradient to mask away.
    raw = jnp.where(owns[..., None], own[..., :4], 0.0)
    box = box_part(raw, boxes, cells[place], strides[place], sizes[place])
    labels = jnp.arange(own.shape[-1] - 5)[None, None, :] == classes[..., None]
    cls = jnp.sum(class_loss(own[..., 5:], labels.astype(jnp.float32)), axis=-1)
    obj = binary_cross_entropy(own[..., 4], jnp.ones(owns.shape))

    geometry = jnp.concatenate([m[..., :5].reshape(m.shape[0], -1, 5) for m in maps], axis=1).astype(jnp.float32)
    predicted = decoder(jax.lax.stop_gradient(geometry[..., :4]), cells[None], strides[None], sizes[None])
    negative = jnp.ones(geometry.shape[:2], bool)
    negative = negative.at[_image_of(place), jnp.where(owns, place, geometry.shape[1])].set(False, mode="drop")
    ignored = ignored_negatives(predicted, ~negative, targets, hyper.ignore_iou)
    noobj = binary_cross_entropy(geometry[..., 4], jnp.zeros(negative.shape))

    positives = jnp.sum(owns, axis=-1).astype(jnp.float32)
    return LossTerms(
        sums={
            "box": hyper.lambda_coord * jnp.sum(jnp.where(owns, box, 0.0), axis=-1),
            "obj": hyper.lambda_obj * jnp.sum(jnp.where(owns, obj, 0.0), axis=-1),
            "noobj": hyper.lambda_noobj * jnp.sum(jnp.where(negative & ~ignored, noobj, 0.0), axis=-1),
            "cls": hyper.lambda_cls * jnp.sum(jnp.where(owns, cls, 0.0), axis=-1),
        },
        normalisers=dict.fromkeys(("box", "obj", "noobj", "cls"), positives),
        counts={
            "positives": positives,
            "collisions": responsible.collisions.astype(jnp.float32),
            "ignored": jnp.sum(ignored, axis=-1).astype(jnp.float32),
        },
    )


def _image_of(place: Array) -> Array:
    return jnp.broadcast_to(jnp.arange(place.shape[0])[:, None], place.shape)


def _rows_of(maps: Sequence[Array], place: Array) -> Float[Array, "B M D"]:
    """Predictions at flat places, gathered level by level: no copy of all maps in one array is made."""
    rows, start = jnp.zeros((*place.shape, maps[0].shape[-1])), 0
    for m in maps:
        flat = m.reshape(m.shape[0], -1, m.shape[-1])
        inside = (place >= start) & (place < start + flat.shape[1])
        found = jnp.take_along_axis(flat, jnp.clip(place - start, 0, flat.shape[1] - 1)[..., None], axis=1)
        rows += jnp.where(inside[..., None], found.astype(jnp.float32), 0.0)
        start += flat.shape[1]
    return rows
