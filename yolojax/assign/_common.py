"""What all assigners share: their signatures, how they read `Targets`, and how conflicts are resolved."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.assign._on_tpu import lie_as_written
from yolojax.boxes import box_iou, crowd_iou
from yolojax.errors import ConfigError
from yolojax.structures import Level, Targets

DUMMY_BOX = (0.0, 0.0, 1.0, 1.0)
"""The box (xyxy) that stands in rows without an object. Its area is positive, so that no formula divides by zero."""

CROWD_SHARE = 0.5
"""Share of a predicted box's own area inside a crowd region from which on the prediction carries no negative loss."""


class Predictions(NamedTuple):
    """What an anchor-free detector predicts for a batch, in the order of `yolojax.coding.cell_centres`.

    ``boxes`` are decoded, xyxy in input pixels. Class and objectness are logits; ``objectness_logits`` is None for a
    detector without objectness. A head with ``A`` predictions in each cell lists them next to one another, so that
    ``N`` is ``A`` times the number of cells.
    """

    boxes: Float[Array, "B N 4"]
    class_logits: Float[Array, "B N C"]
    objectness_logits: Float[Array, "B N"] | None = None


class Assigned(NamedTuple):
    """The result of an assigner: which object each of ``N`` predictions learns.

    Attributes:
      objects: the row of the `Targets` that a positive prediction learns, 0 elsewhere.
      positive: whether the prediction learns an object.
      scores: the class target of a positive, in [0, 1]; 0 elsewhere.
      listed: optional. The indices of the positives of each image, each once, padded with ``N``. It lets a loss
        compute what concerns positives for ``P`` rows instead of ``N``. None means that ``P`` is not known, and is
        always correct. See `positives`.
    """

    objects: Int[Array, "B N"]
    positive: Bool[Array, "B N"]
    scores: Float[Array, "B N"]
    listed: Int[Array, "B P"] | None = None


@runtime_checkable
class AnchorFreeAssign(Protocol):
    """``(targets, levels, predictions) -> Assigned``, the signature of assigners of anchor-free detectors.

    ``levels`` are the grids of the prediction maps, finest first. The predictions must be read without gradient.
    """

    def __call__(self, targets: Targets, levels: tuple[Level, ...], predictions: Predictions, /) -> Assigned: ...


@runtime_checkable
class AnchoredAssign(Protocol):
    """``(targets, levels, anchors) -> Assigned``, the signature of assigners of anchor-based detectors.

    ``anchors`` are ``(width, height)`` in input pixels, ``[L, A, 2]``. The ``N`` predictions are in the order of
    `yolojax.coding.anchor_grid`: level, row, column, anchor.
    """

    def __call__(self, targets: Targets, levels: tuple[Level, ...], anchors: Float[Array, "L A 2"], /) -> Assigned: ...


class Objects(NamedTuple):
    """The objects of a batch, sorted by content. ``rows`` are the rows of the `Targets` that they come from.

    ``assignable`` objects may own predictions: they are valid, not crowd, finite, and have a positive width and
    height. Rows of padding hold `DUMMY_BOX` and class 0.
    """

    boxes: Float[Array, "B M 4"]
    classes: Int[Array, "B M"]
    assignable: Bool[Array, "B M"]
    rows: Int[Array, "B M"]


def without_padding(targets: Targets) -> Targets:
    """Return the targets with `DUMMY_BOX` and class 0 in every row that is padding or has no proper box.

    A proper box is finite and has a positive width and height; ``valid`` is False in all other rows.

    Raises:
      ConfigError: the targets hold no image or no row. An image without objects needs one row that is not valid.
    """
    if 0 in targets.valid.shape:
        images, rows = targets.valid.shape
        raise ConfigError(
            f"targets of {images} images with {rows} rows each: assignment needs at least one of both; where there is "
            "no object, give a row that is not valid"
        )
    boxes = jnp.asarray(targets.boxes, jnp.float32)
    dummy = jnp.broadcast_to(jnp.asarray(DUMMY_BOX, jnp.float32), boxes.shape)
    proper = jnp.all(jnp.isfinite(boxes), axis=-1) & jnp.all(boxes[..., 2:] - boxes[..., :2] > 0, axis=-1)
    usable = targets.valid & proper
    return targets._replace(
        boxes=jnp.where(usable[..., None], boxes, dummy),
        classes=jnp.where(usable, targets.classes, 0),
        valid=usable,
    )


def sort_by_content(targets: Targets) -> Objects:
    """Sort the objects of each image: assignable first, then by smaller area, x1, y1, x2, y2 and class.

    An assigner that breaks ties by the first object in this order returns the same result however the objects were
    listed. Objects that are equal in all of these are interchangeable.
    """
    clean = without_padding(targets)
    assignable = clean.valid & ~targets.crowd
    x1, y1, x2, y2 = (clean.boxes[..., i] for i in range(4))
    # The last key of lexsort is the most significant one.
    rows = jnp.lexsort((clean.classes, y2, x2, y1, x1, (x2 - x1) * (y2 - y1), ~assignable), axis=-1)
    rows = rows.astype(jnp.int32)
    return Objects(
        jnp.take_along_axis(clean.boxes, rows[..., None], axis=1),
        jnp.take_along_axis(clean.classes, rows, axis=1),
        jnp.take_along_axis(assignable, rows, axis=1),
        rows,
    )


def inside_crowd(boxes: Float[Array, "B N 4"], targets: Targets) -> Bool[Array, "B N"]:
    """Whether at least half of the area of a predicted box (xyxy, input pixels) lies in one crowd box.

    A negative prediction of this kind carries no objectness or class loss. COCO's evaluation forgives such a detection
    by the same measure, the intersection divided by the detection's own area. A box without area lies in no crowd.
    """
    clean = without_padding(targets)
    crowd = (clean.valid & targets.crowd)[:, :, None]
    share = jnp.swapaxes(crowd_iou(boxes, clean.boxes), 1, 2)
    # With predictions in its lanes a TPU takes a third of the time.
    return jnp.any(lie_as_written(crowd & (share >= CROWD_SHARE)), axis=1)


def ignored_negatives(
    boxes: Float[Array, "B N 4"],
    positive: Bool[Array, "B N"],
    targets: Targets,
    ignore_iou: float | Float[Array, ""],
) -> Bool[Array, "B N"]:
    """Which negatives carry no objectness loss: those nearly right, and those in a crowd region.

    A negative is nearly right if its predicted box (xyxy, input pixels) has an IoU above ``ignore_iou`` with any object
    (YOLOv3, arXiv 1804.02767, section 2.1, with a threshold of 0.5). For crowd regions see `inside_crowd`. Boxes are
    read without gradient.
    """
    boxes, objects = jax.lax.stop_gradient(boxes), sort_by_content(targets)
    overlap = jnp.where(objects.assignable[..., None], box_iou(objects.boxes, boxes), 0.0)
    return ~positive & ((jnp.max(overlap, axis=1) > ignore_iou) | inside_crowd(boxes, targets))


def positives(assigned: Assigned) -> tuple[Int[Array, "B P"], Bool[Array, "B P"]]:
    """The indices of the positives of each image, and which of the ``P`` rows hold one.

    Rows that hold none point at prediction 0, so that they can be gathered. ``P`` is the width of ``assigned.listed``,
    or ``N`` where it is None.
    """
    if assigned.listed is None:
        every = jnp.arange(assigned.positive.shape[1], dtype=jnp.int32)[None, :]
        return jnp.broadcast_to(every, assigned.positive.shape), assigned.positive
    real = assigned.listed < assigned.positive.shape[1]
    return jnp.where(real, assigned.listed, 0), real


def count_assigned(assigned: Assigned, targets: Targets, ignored: Bool[Array, "B N"]) -> dict[str, Float[Array, " B"]]:
    """What a loss counts in each image: ``positives``, ``unassigned`` (objects without a prediction) and ``ignored``.

    ``ignored`` marks the negatives that carry no loss.
    """
    listed, real = positives(assigned)
    owner = jnp.take_along_axis(assigned.objects, listed, axis=1)
    image = jnp.broadcast_to(jnp.arange(owner.shape[0])[:, None], owner.shape)
    owned = jnp.zeros(targets.valid.shape, bool).at[image, owner].max(real)
    masks = {
        "positives": assigned.positive,
        "unassigned": targets.valid & ~targets.crowd & ~owned,
        "ignored": ignored,
    }
    return {name: jnp.sum(mask, axis=-1).astype(jnp.float32) for name, mask in masks.items()}


def resolve_conflicts(
    proposed: Bool[Array, "B M k"], index: Int[Array, "B M k"], preference: Float[Array, "B M k"], n: int
) -> tuple[Int[Array, "B n"], Bool[Array, "B M k"]]:
    """Decide which object owns each of ``n`` predictions, where every object proposes up to ``k`` of them.

    Object ``m`` proposes prediction ``index[b, m, i]`` where ``proposed[b, m, i]`` is True. A prediction that several
    objects propose goes to the one with the highest preference and, at equal preference, to the object that comes
    first. That is the first by content where the objects are sorted by `sort_by_content`. Returns the owner of each
    prediction (``M`` for none) and a mask of the proposals that won. No array of ``M`` by ``n`` is made.
    """
    batch, m, k = index.shape
    # Sorting is exact. A scattered maximum that is compared with the preferences afterwards is not: the compiler may
    # compute a preference twice with different rounding, and then no object would equal the maximum.
    index = jnp.where(proposed, index, n).reshape(batch, -1)
    owner = jnp.broadcast_to(jnp.repeat(jnp.arange(m, dtype=jnp.int32), k)[None, :], index.shape)
    order = jnp.lexsort((owner, -preference.reshape(batch, -1), index), axis=-1)
    in_order = jnp.take_along_axis(index, order, axis=1)
    before = jnp.concatenate([jnp.full((batch, 1), -1, index.dtype), in_order[:, :-1]], axis=1)
    first = (in_order != before) & (in_order < n)

    image = jnp.broadcast_to(jnp.arange(batch)[:, None], index.shape)
    won = jnp.zeros(index.shape, bool).at[image, order].set(first)
    owners = jnp.full((batch, n), m, jnp.int32).at[image, jnp.where(won, index, n)].set(owner, mode="drop")
    return owners, won.reshape(batch, m, k)


def as_assigned(
    owner: Int[Array, "B n"],
    index: Int[Array, "B M k"],
    scores: Float[Array, "B M k"],
    objects: Objects,
) -> Assigned:
    """The owners of `resolve_conflicts` as rows of the `Targets`. ``scores`` are 0 for proposals that did not win."""
    batch, m, k = index.shape
    n = owner.shape[1]
    positive = owner < m
    rows = jnp.take_along_axis(objects.rows, jnp.minimum(owner, m - 1), axis=1)
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, m * k))
    by_prediction = jnp.zeros(owner.shape).at[image, index.reshape(batch, -1)].max(scores.reshape(batch, -1))

    # Each object owns at most k predictions, so a list of M k of them is long enough. At 1578 points and 320 rows it
    # halved the time of a loss and its gradient on a CPU.
    length = min(m * k, n)
    image = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, n))
    prediction = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32)[None, :], (batch, n))
    slot = jnp.where(positive, jnp.cumsum(positive, axis=1) - 1, length)
    listed = jnp.full((batch, length), n, jnp.int32).at[image, slot].set(prediction, mode="drop")
    return Assigned(jnp.where(positive, rows, 0), positive, by_prediction, listed)
