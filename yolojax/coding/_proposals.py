"""Choosing a fixed number of boxes: the proposals of a first stage, and the best pairs of box and class."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from yolojax.boxes import clip_boxes, remove_small
from yolojax.coding._regions import decode_regions
from yolojax.nms import batched_nms
from yolojax.structures import Candidates

SMALLEST_SIDE = 1e-3
"""Pixels; a proposal with a shorter side is dropped."""


class Proposals(NamedTuple):
    """Boxes (xyxy, input pixels) by falling objectness, and which of the ``P`` rows exist; the others hold box 0."""

    boxes: Float[Array, "B P 4"]
    valid: Bool[Array, "B P"]


def select_proposals(
    objectness: Sequence[Float[Array, "B _n"]],
    deltas: Sequence[Float[Array, "B _n 4"]],
    anchors: Sequence[Float[Array, "_n 4"]],
    image_size: tuple[int, int],
    *,
    per_level: int = 1000,
    count: int = 1000,
    iou_threshold: float = 0.7,
) -> Proposals:
    """The proposals of a region proposal network (Faster R-CNN, arXiv 1506.01497, section 3.3), level by level.

    The ``per_level`` anchors of highest objectness on each level are decoded (`decode_regions`) and clipped to the
    image; boxes with a side below 1e-3 pixel are dropped; greedy suppression removes what overlaps a better box of the
    same level by more than ``iou_threshold``; the best ``count`` of all levels are kept. Proposals carry no gradient.

    Args:
      objectness: logits of each level.
      deltas: predictions relative to the anchors of each level.
      anchors: xyxy in input pixels, of each level.
      image_size: ``(height, width)`` in pixels.
      per_level: static.
      count: ``P``, static.
      iou_threshold: 0 to 1.
    """
    chosen, levels = [], []
    for level, (scores, raw, references) in enumerate(zip(objectness, deltas, anchors, strict=True)):
        scores, raw = (jax.lax.stop_gradient(x).astype(jnp.float32) for x in (scores, raw))
        best, at = jax.lax.top_k(scores, min(per_level, scores.shape[1]))
        raw = jnp.take_along_axis(raw, at[..., None], axis=1)
        chosen.append((best, decode_regions(raw, references[at])))
        levels.append(jnp.full(best.shape, level, jnp.int32))
    scores, boxes = (jnp.concatenate(parts, axis=1) for parts in zip(*chosen, strict=True))
    boxes = clip_boxes(boxes, image_size)

    def of_image(boxes: Array, scores: Array, level: Array, valid: Array) -> tuple[Array, Array]:
        kept = batched_nms(boxes, scores, level, iou_threshold, count, valid=valid)
        return jnp.where(kept.valid[:, None], boxes[kept.indices], 0.0), kept.valid

    return Proposals(
        *jax.vmap(of_image)(boxes, scores, jnp.concatenate(levels, axis=1), remove_small(boxes, SMALLEST_SIDE))
    )


def best_pairs(boxes: Float[Array, "B N #C 4"], scores: Float[Array, "B N C"], count: int) -> Candidates:
    """The ``count`` pairs of box and class with the highest scores, each a candidate with a score for its class alone.

    It makes `Candidates` of detectors that predict a box for each class, and of those that report at most a number of
    pairs. The pairs that are left out have no higher score than any that is kept.

    Args:
      boxes: xyxy in input pixels, one for each class or one for all classes.
      scores: of each class.
      count: static; fewer if there are fewer pairs.
    """
    batch, n, classes = scores.shape
    best, at = jax.lax.top_k(scores.reshape(batch, -1), min(count, n * classes))
    row = at if boxes.shape[2] == classes else at // classes
    chosen = jnp.take_along_axis(boxes.reshape(batch, -1, 4), row[..., None], axis=1)
    own = jax.nn.one_hot(at % classes, classes, dtype=jnp.float32)
    return Candidates(chosen.astype(jnp.float32), best[..., None] * own)
