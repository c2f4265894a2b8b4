"""Greedy non-maximum suppression of fixed size: take the best box, strike out what overlaps it, repeat."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from yolojax.nms.greedy_blocks import keep_by_blocks
from yolojax.nms.greedy_tiles import keep_by_tiles, keep_class_by_class
from yolojax.nms.kept import Kept, Rescored, check_classes, usable_rows
from yolojax.nms.order import ascending_order, first_true, score_keys
from yolojax.nms.rows import Overlap, Rows, overlaps_by_area, overlaps_by_distance


def nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    iou_threshold: float | Float[Array, ""],
    max_detections: int,
    *,
    valid: Bool[Array, " N"] | None = None,
) -> Kept:
    """Class-agnostic greedy suppression; the best ``max_detections`` of what it keeps.

    A box is suppressed when its IoU with a kept box of higher score exceeds the threshold. An IoU that equals the
    threshold suppresses nothing. Of equal scores the lower index goes first. A row with a NaN or infinite coordinate
    or score is never kept and suppresses nothing.

    May be compiled and mapped over images. On a CPU it computes the overlaps of every row with the rows kept before
    it, and stops when ``max_detections`` are kept; elsewhere, of every row with all rows before it.

    Args:
      boxes: xyxy, any unit; not clipped.
      scores: any real numbers.
      iou_threshold: 0 to 1, traced: a new value does not recompile. It is compared in float32.
      max_detections: ``K``, static; may exceed ``N``.
      valid: rows to consider; all by default.

    Raises:
      ConfigError: if ``max_detections`` is below 1.
    """
    return _greedy(boxes, scores, None, iou_threshold, max_detections, valid)


def batched_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"],
    iou_threshold: float | Float[Array, ""],
    max_detections: int,
    *,
    valid: Bool[Array, " N"] | None = None,
) -> Kept:
    """Greedy suppression within each class; the best ``max_detections`` of what it keeps, over all classes.

    As `nms`, but boxes of different ``classes`` (any integers) never suppress each other. They are told apart by
    their class, not by moving boxes apart, so that no coordinate loses precision.
    """
    return _greedy(boxes, scores, classes, iou_threshold, max_detections, valid)


def greedy_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    iou_threshold: float | Float[Array, ""],
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """`nms` or `batched_nms` behind the common interface, `yolojax.nms.Suppression`."""
    kept = _greedy(boxes, scores, classes, iou_threshold, max_detections, valid)
    return _with_scores(kept, scores)


def diou_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    diou_threshold: float | Float[Array, ""],
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """Greedy suppression by DIoU, which spares boxes whose centres lie apart (DIoU-NMS, arXiv 1911.08287).

    A box goes when ``IoU - d^2 / c^2`` with a better box exceeds ``diou_threshold`` (0 to 1): ``d`` is the distance of
    the centres and ``c`` the diagonal of the smallest box around both. The paper also drops a box on the threshold.
    """
    kept = _greedy(boxes, scores, classes, diou_threshold, max_detections, valid, overlaps=overlaps_by_distance)
    return _with_scores(kept, scores)


def _greedy(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    threshold: float | Float[Array, ""],
    max_detections: int,
    valid: Bool[Array, " N"] | None,
    overlaps: Overlap = overlaps_by_area,
) -> Kept:
    check_classes(classes, scores)
    usable = usable_rows(boxes, scores, valid, max_detections)
    order = ascending_order(score_keys(scores, usable))
    rows = Rows.of(boxes[order], None if classes is None else classes[order])
    keep = keep_mask(rows, usable.sum(), threshold, limit=max_detections, overlaps=overlaps)
    positions, kept = first_true(keep, max_detections)
    return Kept(jnp.where(kept, order[positions], 0) if len(order) else positions, kept)


def _with_scores(kept: Kept, scores: Float[Array, " N"]) -> Rescored:
    found = scores[kept.indices].astype(jnp.float32) if len(scores) else jnp.zeros(len(kept.indices), jnp.float32)
    return Rescored(*kept, jnp.where(kept.valid, found, 0.0))


def keep_mask(
    rows: Rows,
    count: Int[Array, ""],
    threshold: float | Float[Array, ""],
    *,
    limit: int | None = None,
    n_classes: int | None = None,
    overlaps: Overlap = overlaps_by_area,
) -> Bool[Array, " n"]:
    """Which of the first ``count`` rows greedy suppression keeps, in the order given; exact on every platform.

    With a ``limit`` it may stop once that many are kept. Without one, and with classes known to be
    ``0 .. n_classes - 1``, a CPU takes one class after the other. Mapped over images, all of them are done in one
    program: one after another on a CPU, where a mapped loop would run every image as long as the slowest, and side by
    side elsewhere.
    """
    if rows.x1.shape[0] == 0:
        return jnp.zeros(0, bool)
    count, threshold = jnp.asarray(count, jnp.int32)[None], lax.stop_gradient(jnp.asarray(threshold, jnp.float32))[None]
    return _batched(limit, n_classes, overlaps)(rows.map(lambda x: x[None]), count, threshold)[0]


def _batched(limit: int | None, n_classes: int | None, overlaps: Overlap):
    """The suppression of a batch, ``[B, n] -> [B, n]``, with the rule that maps it by growing the batch."""

    if limit is None and n_classes is not None:
        one_image = partial(keep_class_by_class, n_classes=n_classes, overlaps=overlaps)
    else:
        one_image = partial(keep_by_tiles, limit=limit, by_class=False, overlaps=overlaps)

    @custom_vmap
    def keep(rows: Rows, count: Int[Array, " B"], threshold: Float[Array, " B"]) -> Bool[Array, "B n"]:
        return lax.platform_dependent(
            rows,
            count,
            threshold,
            cpu=lambda *images: lax.map(lambda image: one_image(*image), images),
            default=partial(keep_by_blocks, limit=limit, overlaps=overlaps),
        )

    @keep.def_vmap
    def grow(size, mapped, *args):
        args = jax.tree.map(lambda x, m: x if m else jnp.broadcast_to(x, (size, *x.shape)), args, tuple(mapped))
        merged = keep(*jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), args))
        return merged.reshape(size, -1, merged.shape[-1]), True

    return keep
