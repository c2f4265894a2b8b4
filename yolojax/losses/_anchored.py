"""What the losses of anchor-based detectors begin with: the positives, their raw predictions and their objects."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.assign import AnchoredAssign, Assigned, positives, without_padding
from yolojax.coding import anchor_grid
from yolojax.structures import Level, Targets


class AnchoredMatch(NamedTuple):
    """Predictions and the objects that they are to learn: ``P`` rows of positives, and all ``N`` predictions.

    Attributes:
      assigned: what the assigner decided.
      listed: indices of the positives among all predictions; 0 or a negative in rows without one.
      real: which of the rows hold a positive.
      raw: their ``(tx, ty, tw, th)``, 0 in rows without a positive.
      objectness, class_logits: theirs.
      boxes: their objects (xyxy, input pixels).
      one_hot: the classes of their objects.
      cells, strides, anchors: the ``(column, row)`` of their cells, and in input pixels strides and anchors.
      all_objectness: of all predictions.
      predicted: the decoded boxes of all predictions (xyxy, input pixels), without gradient.
    """

    assigned: Assigned
    listed: Int[Array, "B P"]
    real: Bool[Array, "B P"]
    raw: Float[Array, "B P 4"]
    objectness: Float[Array, "B P"]
    class_logits: Float[Array, "B P C"]
    boxes: Float[Array, "B P 4"]
    one_hot: Float[Array, "B P C"]
    cells: Float[Array, "B P 2"]
    strides: Float[Array, "B P"]
    anchors: Float[Array, "B P 2"]
    all_objectness: Float[Array, "B N"]
    predicted: Float[Array, "B N 4"]


def match_anchored(
    maps: Sequence[Float[Array, "B _h _w A _channels"]],
    levels: tuple[Level, ...],
    anchors: Float[Array, "L A 2"],
    targets: Targets,
    assign: AnchoredAssign,
    decoder: Callable[..., Array],
) -> AnchoredMatch:
    """Assigns predictions to objects and gathers what a loss compares.

    The last axis of ``maps`` is ``(tx, ty, tw, th, objectness, C class logits)``; ``decoder`` has the signature of
    `yolojax.coding.decode`.
    """
    objects = without_padding(targets)
    assigned = assign(targets, levels, anchors)
    cells, strides, sizes = anchor_grid(levels, anchors)
    listed, real = positives(assigned)
    owner = jnp.take_along_axis(assigned.objects, listed, axis=1)
    classes = jnp.take_along_axis(objects.classes, owner, axis=1)
    own = gather_rows(maps, listed)
    geometry = jnp.concatenate([m[..., :5].reshape(m.shape[0], -1, 5) for m in maps], axis=1).astype(jnp.float32)
    is_label = jnp.arange(own.shape[-1] - 5)[None, None, :] == classes[..., None]
    return AnchoredMatch(
        assigned=assigned,
        listed=listed,
        real=real,
        # Rows without a positive compare a raw prediction of 0 with a proper box, whose gradient cannot be NaN.
        raw=jnp.where(real[..., None], own[..., :4], 0.0),
        objectness=own[..., 4],
        class_logits=own[..., 5:],
        boxes=jnp.take_along_axis(objects.boxes, owner[..., None], axis=1),
        one_hot=is_label.astype(jnp.float32),
        cells=cells[listed],
        strides=strides[listed],
        anchors=sizes[listed],
        all_objectness=geometry[..., 4],
        predicted=decoder(jax.lax.stop_gradient(geometry[..., :4]), cells[None], strides[None], sizes[None]),
    )


def gather_rows(maps: Sequence[Array], index: Int[Array, "B P"]) -> Float[Array, "B P D"]:
    """The predictions at flat indices, gathered level by level, so that no copy of all maps in one array is made."""
    rows, start = jnp.zeros((*index.shape, maps[0].shape[-1])), 0
    for m in maps:
        flat = m.reshape(m.shape[0], -1, m.shape[-1])
        inside = (index >= start) & (index < start + flat.shape[1])
        found = jnp.take_along_axis(flat, jnp.clip(index - start, 0, flat.shape[1] - 1)[..., None], axis=1)
        rows += jnp.where(inside[..., None], found.astype(jnp.float32), 0.0)
        start += flat.shape[1]
    return rows
