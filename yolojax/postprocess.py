"""Candidates to detections: score threshold, the best candidates, suppression, and at most K rows an image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from yolojax.errors import ConfigError
from yolojax.nms import Kept, Merged, Rescored, Suppression
from yolojax.nms.greedy import Rows, keep_mask
from yolojax.nms.named import BuiltIn
from yolojax.nms.sorting import (
    any_of_rows,
    ascending_order,
    count_set,
    first_set,
    first_true,
    score_keys,
    words_of,
)
from yolojax.processor.platform import by_platform
from yolojax.structures import Candidates, Detections

_BUCKET_SIZES = (512, 8192, 65536)
"""Numbers of scores over the threshold for which a program of their own is compiled: sorting all of 8400 boxes x 80
classes takes a hundred times as long on a CPU as sorting the few thousand that a trained detector leaves."""

MOST_SUPPRESSED = 2000
"""Candidates of an image that enter a suppression function unless ``max_candidates`` says otherwise. Most of these
functions compare all pairs, or go over all candidates for each that they take."""

_Each = Callable[[Callable[..., Any]], Callable[..., Any]]
"""`jax.vmap`, or nothing where there is one image."""


def postprocess(
    candidates: Candidates,
    score_threshold: float | Float[Array, ""],
    iou_threshold: float | Float[Array, ""] | None = None,
    *,
    suppress: Suppression | BuiltIn = "nms",
    max_detections: int = 300,
    max_candidates: int | None = None,
    multi_label: bool = False,
    class_agnostic: bool = False,
    capacity: int | None = None,
) -> Detections:
    """The best ``max_detections`` of what suppression keeps of the candidates whose score reaches the threshold.

    Every image is treated by itself: alone and in any batch it gives the same detections, bit for bit. Equal scores go
    by candidate, then by class. A score that equals the threshold passes. A candidate with a NaN or infinite
    coordinate is dropped, and so is a score that is not finite. Boxes are neither clipped nor rounded.

    Memory: about 90 bytes for each of the N candidates (N x C with ``multi_label``) while their scores are sorted, on
    a CPU for one image at a time, elsewhere for the whole batch; less as long as few scores reach the threshold
    (at most 512, 8192 or 65536 in every image). Greedy suppression never stores the overlaps as an N x N matrix.

    Args:
      candidates: decoded boxes (xyxy, input pixels) and final scores.
      score_threshold: traced, compared in float32. A detection has at least this score, before and after suppression.
      iou_threshold: overlap above which greedy suppression removes the lower score; traced. See `yolojax.nms.nms`.
        Other kinds of suppression have thresholds of their own and take none here.
      suppress: ``nms`` for greedy suppression, ``none`` for detectors that need none, or a function with the interface
        `yolojax.nms.Suppression`. The function sees the candidates of one image by falling score. Where it returns new
        scores, the rows are sorted by them; where it returns new boxes, these are reported.
      max_detections: ``K``, static.
      max_candidates: how many of the best candidates of an image enter suppression, static; None takes all for ``nms``
        and ``none``, and at most `MOST_SUPPRESSED` for a function.
      multi_label: report a box under every class that reaches the threshold, instead of under its best class.
      class_agnostic: let boxes of different classes suppress each other; a function is then given no classes.
      capacity: how many scores of an image may reach the threshold, static; None allows all. The program for fewer is
        compiled sooner. Of an image with more, those that come first are taken, whatever their scores, and the others
        are counted in ``truncated_candidates``: such an image is to be done again without ``capacity``.

    Raises:
      ConfigError: if a static setting is out of range, or ``iou_threshold`` is missing or not read.
    """
    counts = (("max_detections", max_detections), ("max_candidates", max_candidates), ("capacity", capacity))
    for name, value in counts:
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}: at least one row must be asked for")
    check_suppression(suppress)
    if suppress == "nms" and iou_threshold is None:
        raise ConfigError("greedy suppression needs an iou_threshold; give one, such as 0.7")
    if suppress != "nms" and iou_threshold is not None:
        raise ConfigError(
            "iou_threshold belongs to greedy suppression (nms); leave it out, and bind the thresholds of another "
            "suppression function with functools.partial"
        )

    batch, n, n_classes = candidates.scores.shape
    if 0 in (batch, n, n_classes):
        return _nothing(batch, max_detections)
    threshold = jnp.asarray(score_threshold, jnp.float32)
    if max_candidates is None and callable(suppress):
        max_candidates = MOST_SUPPRESSED
    finish = partial(
        _finish,
        score_threshold=threshold,
        iou_threshold=None if iou_threshold is None else jnp.asarray(iou_threshold, jnp.float32),
        suppress=suppress,
        max_detections=max_detections,
        max_candidates=max_candidates,
        multi_label=multi_label,
        class_agnostic=class_agnostic or n_classes == 1,
    )
    most = n * (n_classes if multi_label else 1)
    largest = None if capacity is None or capacity >= most else capacity
    sizes = [size for size in _BUCKET_SIZES if size < most]

    def run(boxes: Float[Array, "*b N 4"], scores: Float[Array, "*b N C"], each: _Each) -> Detections:
        """One image, or several at once: the one with most scores over the threshold chooses the program for all."""
        over = each(partial(_words_over, score_threshold=threshold, multi_label=multi_label))(scores)
        if largest is not None:
            found = each(partial(finish, capacity=largest))(boxes, scores, over)
            beyond = jnp.maximum(count_set(over) - largest, 0)
            return found._replace(truncated_candidates=found.truncated_candidates + beyond)
        smallest = jnp.sum(count_set(over).max() > jnp.array(sizes, jnp.int32), dtype=jnp.int32)
        programs = [each(partial(finish, capacity=size)) for size in (*sizes, None)]
        return lax.switch(smallest, programs, boxes, scores, over)

    def one_after_another(boxes: Float[Array, "B N 4"], scores: Float[Array, "B N C"]) -> Detections:
        return lax.map(lambda image: run(*image, each=lambda f: f), (boxes, scores))

    def side_by_side(boxes: Float[Array, "B N 4"], scores: Float[Array, "B N C"]) -> Detections:
        return run(boxes, scores, each=jax.vmap)

    return by_platform(*candidates, cpu=one_after_another, default=side_by_side)


def check_suppression(suppress: Any) -> None:
    """Raises `ConfigError` for what is no suppression: neither ``nms`` nor ``none`` nor a function."""
    if suppress not in ("nms", "none") and not callable(suppress):
        raise ConfigError(
            f"suppress is {suppress!r}: choose 'nms' or 'none', or give a function, such as one that "
            "yolojax.nms.named_suppression makes by name"
        )


def _words_over(
    scores: Float[Array, "N C"], *, score_threshold: Float[Array, ""], multi_label: bool
) -> UInt32[Array, " W"]:
    """The bits (`words_of`) of the candidates, or with ``multi_label`` of all scores, that reach the threshold.

    If few scores pass, this is the only time that all N x C scores are read.
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
    score_threshold: Float[Array, ""],
    iou_threshold: Float[Array, ""] | None,
    suppress: Suppression | BuiltIn,
    max_detections: int,
    max_candidates: int | None,
    multi_label: bool,
    class_agnostic: bool,
    capacity: int | None,
) -> Detections:
    """Sorting, suppression and output of one image.

    ``over`` says which candidates or scores reach the threshold; they are at most ``capacity``, None if all may.
    """
    n, n_classes = scores.shape
    positions, alive = first_set(over, capacity or n * (n_classes if multi_label else 1))
    rows = positions // n_classes if multi_label else positions
    if multi_label:
        best = scores.ravel()[positions].astype(jnp.float32)
        classes = positions % n_classes
    else:
        best, classes = best_class(scores[rows].astype(jnp.float32))
    alive &= jnp.isfinite(boxes[rows]).all(-1)
    order = ascending_order(score_keys(best, alive))[:max_candidates]
    rows, best, classes = rows[order], best[order], classes[order]
    boxes = boxes[rows].astype(jnp.float32)
    passed = alive.sum(dtype=jnp.int32)
    count = jnp.minimum(passed, len(order))

    if callable(suppress):
        boxes, best, classes, keep = _suppressed(
            suppress, boxes, best, classes, jnp.arange(len(order)) < count, score_threshold, class_agnostic
        )
    elif iou_threshold is None:
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


def _suppressed(
    suppress: Suppression,
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    classes: Int[Array, " n"],
    valid: Bool[Array, " n"],
    score_threshold: Float[Array, ""],
    class_agnostic: bool,
) -> tuple[Float[Array, "n 4"], Float[Array, " n"], Int[Array, " n"], Bool[Array, " n"]]:
    """Boxes, scores and classes by falling score after a suppression function, and which of the rows exist."""
    # Rows that do not exist hold a box of no size, whatever the buffer held: functions may compute with them.
    boxes, scores = jnp.where(valid[:, None], boxes, 0.0), jnp.where(valid, scores, 0.0)
    kept = suppress(boxes, scores, None if class_agnostic else classes, len(scores), valid=valid)
    if not isinstance(kept, Kept | Rescored | Merged):
        raise ConfigError(
            f"suppress returns Kept, Rescored or Merged of yolojax.nms (see yolojax.nms.Suppression), not a "
            f"{type(kept).__name__}"
        )
    at = kept.indices
    boxes = kept.boxes if isinstance(kept, Merged) else boxes[at]
    scores = kept.scores if isinstance(kept, Rescored | Merged) else scores[at]
    finite = jnp.isfinite(boxes).all(-1) & jnp.isfinite(scores)
    keep = kept.valid & finite & (scores >= score_threshold)
    order = ascending_order(score_keys(scores, keep))
    return boxes[order].astype(jnp.float32), scores[order].astype(jnp.float32), classes[at][order], keep[order]


def best_class(scores: Float[Array, "n C"]) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """The best finite score of each row and the first class that has it; -inf where no score is finite."""
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
