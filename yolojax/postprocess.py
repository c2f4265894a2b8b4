"""Candidates to detections: score threshold, the best candidates, suppression, and at most K rows an image."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from yolojax.errors import ConfigError
from yolojax.nms.greedy import keep_mask
from yolojax.nms.order import any_of_rows, ascending_order, count_set, first_set, first_true, score_keys, words_of
from yolojax.nms.rows import Rows
from yolojax.structures import Candidates, Detections

_ROOMS = (512, 8192, 65536)
"""Numbers of scores over the threshold that are worth a program of their own: sorting all of 8400 boxes x 80 classes
takes a hundred times as long on a CPU as sorting the few thousand that a trained detector leaves."""

_Each = Callable[[Callable[..., Any]], Callable[..., Any]]
"""`jax.vmap`, or nothing where there is one image."""


def postprocess(
    candidates: Candidates,
    score_threshold: float | Float[Array, ""],
    iou_threshold: float | Float[Array, ""],
    *,
    max_detections: int = 300,
    max_candidates: int | None = None,
    suppression: Literal["nms", "none"] = "nms",
    multi_label: bool = False,
    class_agnostic: bool = False,
) -> Detections:
    """The best ``max_detections`` of what suppression keeps of the candidates whose score reaches the threshold.

    Every image is treated by itself: alone and in any batch it gives the same detections, bit for bit. Equal scores go
    by candidate, then by class. A score that equals the threshold passes. A candidate with a NaN or infinite
    coordinate is dropped, and so is a score that is not finite. Boxes are neither clipped nor rounded.

    Memory: about 90 bytes for each of the N candidates (N x C with ``multi_label``) while their scores are sorted, on
    a CPU for one image at a time, elsewhere for the whole batch; less as long as few scores reach the threshold
    (at most 512, 8192 or 65536 in every image). The overlaps are never stored as an N x N matrix.

    Args:
      candidates: decoded boxes (xyxy, input pixels) and final scores.
      score_threshold: traced, compared in float32.
      iou_threshold: overlap above which the lower score is suppressed; traced. See `yolojax.nms.nms`.
      max_detections: ``K``, static.
      max_candidates: how many of the best candidates of an image enter suppression, static; None takes all.
      suppression: ``none`` for detectors that need none.
      multi_label: report a box under every class that reaches the threshold, instead of under its best class.
      class_agnostic: let boxes of different classes suppress each other.

    Raises:
      ConfigError: if a static setting is out of range.
    """
    for name, value in (("max_detections", max_detections), ("max_candidates", max_candidates)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}: at least one row must be asked for")
    if suppression not in ("nms", "none"):
        raise ConfigError(f"suppression is {suppression!r}: choose 'nms' or 'none'")

    batch, n, n_classes = candidates.scores.shape
    if 0 in (batch, n, n_classes):
        return _nothing(batch, max_detections)
    threshold = jnp.asarray(score_threshold, jnp.float32)
    finish = partial(
        _finish,
        iou_threshold=jnp.asarray(iou_threshold, jnp.float32) if suppression == "nms" else None,
        max_detections=max_detections,
        max_candidates=max_candidates,
        multi_label=multi_label,
        class_agnostic=class_agnostic or n_classes == 1,
    )
    rooms = [room for room in _ROOMS if room < n * (n_classes if multi_label else 1)]

    def run(boxes: Float[Array, "*b N 4"], scores: Float[Array, "*b N C"], each: _Each) -> Detections:
        """One image, or several side by side: the one with most over the threshold chooses the program for all."""
        over = each(partial(_words_over, score_threshold=threshold, multi_label=multi_label))(scores)
        smallest = jnp.sum(count_set(over).max() > jnp.array(rooms, jnp.int32), dtype=jnp.int32)
        return lax.switch(smallest, [each(partial(finish, room=room)) for room in (*rooms, None)], boxes, scores, over)

    def one_after_another(boxes: Float[Array, "B N 4"], scores: Float[Array, "B N C"]) -> Detections:
        return lax.map(lambda image: run(*image, each=lambda f: f), (boxes, scores))

    def side_by_side(boxes: Float[Array, "B N 4"], scores: Float[Array, "B N C"]) -> Detections:
        return run(boxes, scores, each=jax.vmap)

    return lax.platform_dependent(*candidates, cpu=one_after_another, default=side_by_side)


def _words_over(
    scores: Float[Array, "N C"], *, score_threshold: Float[Array, ""], multi_label: bool
) -> UInt32[Array, " W"]:
    """The bits (`words_of`) of the candidates, or with ``multi_label`` of all scores, that reach the threshold.

    The one time that all N x C scores are read, if few pass.
    """
    scores = scores.astype(jnp.float32)
    passes = jnp.isfinite(scores) & (scores >= score_threshold)
    # Straight from the scores to words: an array of N x C that had to be written would take longer than the rest.
    return words_of(passes.ravel() if multi_label else any_of_rows(passes))


def _finish(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, "N C"],
    over: UInt32[Array, " W"],
    *,
    iou_threshold: Float[Array, ""] | None,
    max_detections: int,
    max_candidates: int | None,
    multi_label: bool,
    class_agnostic: bool,
    room: int | None,
) -> Detections:
    """Sorting, suppression and output of one image of which at most ``room`` candidates or scores pass: ``over``."""
    n, n_classes = scores.shape
    positions, alive = first_set(over, room or n * (n_classes if multi_label else 1))
    rows = positions // n_classes if multi_label else positions
    if multi_label:
        best = scores.ravel()[positions].astype(jnp.float32)
        classes = positions % n_classes
    else:
        best, classes = _best_class(scores[rows].astype(jnp.float32))
    alive &= jnp.isfinite(boxes[rows]).all(-1)
    order = ascending_order(score_keys(best, alive))[:max_candidates]
    rows, best, classes = rows[order], best[order], classes[order]
    boxes = boxes[rows].astype(jnp.float32)
    passed = alive.sum(dtype=jnp.int32)
    count = jnp.minimum(passed, len(order))

    if iou_threshold is None:
        keep = jnp.arange(len(order)) < count
    elif class_agnostic:
        keep = keep_mask(Rows.of(boxes, None), count, iou_threshold)
    else:
        keep = keep_mask(Rows.of(boxes, classes), count, iou_threshold, n_classes=n_classes)
    at, valid = first_true(keep, max_detections)
    return Detections(
        boxes=jnp.where(valid[:, None], boxes[at], 0.0),
        scores=jnp.where(valid, best[at], 0.0),
        classes=jnp.where(valid, classes[at], -1),
        valid=valid,
        truncated_candidates=passed - count,
        truncated=keep.sum(dtype=jnp.int32) - valid.sum(dtype=jnp.int32),
    )


def _best_class(scores: Float[Array, "n C"]) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """The best finite score of each row and the first class that has it."""
    scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
    best = scores.max(-1)
    # By comparison, which fills vector lanes; argmax does not on a CPU.
    classes = jnp.arange(scores.shape[1], dtype=jnp.int32)[None]
    return best, jnp.where(scores == best[:, None], classes, scores.shape[1] - 1).min(-1)


def _nothing(batch: int, k: int) -> Detections:
    zero = jnp.zeros(batch, jnp.int32)
    return Detections(
        boxes=jnp.zeros((batch, k, 4), jnp.float32),
        scores=jnp.zeros((batch, k), jnp.float32),
        classes=jnp.full((batch, k), -1, jnp.int32),
        valid=jnp.zeros((batch, k), bool),
        truncated_candidates=zero,
        truncated=zero,
    )
