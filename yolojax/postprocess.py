"""Candidates to detections: score threshold, the best candidates, suppression, and at most K rows an image."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from yolojax.errors import ConfigError
from yolojax.nms.greedy import keep_mask
from yolojax.nms.order import ascending_order, first_true, score_keys
from yolojax.nms.rows import Rows
from yolojax.structures import Candidates, Detections

_ROOMS = (512, 8192, 65536)
"""Numbers of scores over the threshold that are worth a program of their own: sorting all of 8400 boxes x 80 classes
takes a hundred times as long on a CPU as sorting the few thousand that a trained detector leaves."""

_NARROW = 512
"""Up to so many, the rows that hold them are gathered before anything is sorted."""

_DEAD = np.uint32(2**32 - 1)


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

    Memory: about 60 bytes for each of the N candidates (N x C with ``multi_label``) while their scores are sorted, on
    a CPU for one image at a time, elsewhere for the whole batch; less as long as few scores reach the threshold
    (at most 512, 8192 or 65536 in every image). The overlaps are never stored as an N x N matrix.

    Args:
      candidates: decoded boxes (xyxy, canvas pixels) and final scores.
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
    passing = partial(_passing, score_threshold=jnp.asarray(score_threshold, jnp.float32))
    finish = partial(
        _finish,
        iou_threshold=jnp.asarray(iou_threshold, jnp.float32) if suppression == "nms" else None,
        max_detections=max_detections,
        max_candidates=max_candidates,
        n_classes=n_classes,
        class_agnostic=class_agnostic or n_classes == 1,
    )
    rooms = [room for room in _ROOMS if room < n * (n_classes if multi_label else 1)]

    def program(room: int | None) -> Callable[[Float[Array, "N 4"], Float[Array, "N C"]], Detections]:
        """What follows the threshold where at most ``room`` scores pass it."""

        def run(boxes: Float[Array, "N 4"], scores: Float[Array, "N C"]) -> Detections:
            if room is not None and room <= _NARROW < n:
                # Only rows with a score that passes are read again: all 8400 x 80 scores take longer than the rest.
                rows, exists = first_true(passing(boxes, scores).any(-1), room)
                boxes, scores = boxes[rows], jnp.where(exists[:, None], scores[rows], -jnp.inf)
            scored = _select(boxes, scores, passing(boxes, scores), best_class_only=not multi_label)
            return finish(scored, room=room if room is not None and room < len(scored.keys) else None)

        return run

    programs = [program(room) for room in (*rooms, None)]

    def smallest(passed: Int[Array, "*b"]) -> Int[Array, ""]:
        return jnp.sum(passed.max() > jnp.array(rooms, jnp.int32), dtype=jnp.int32)

    def count(boxes: Float[Array, "N 4"], scores: Float[Array, "N C"]) -> Int[Array, ""]:
        passes = passing(boxes, scores)
        return jnp.sum(passes if multi_label else passes.any(-1), dtype=jnp.int32)

    def one_after_another(boxes: Float[Array, "B N 4"], scores: Float[Array, "B N C"]) -> Detections:
        return lax.map(lambda image: lax.switch(smallest(count(*image)), programs, *image), (boxes, scores))

    def side_by_side(boxes: Float[Array, "B N 4"], scores: Float[Array, "B N C"]) -> Detections:
        passed = jax.vmap(count)(boxes, scores)
        return lax.switch(smallest(passed), [jax.vmap(program) for program in programs], boxes, scores)

    return lax.platform_dependent(*candidates, cpu=one_after_another, default=side_by_side)


def _passing(
    boxes: Float[Array, "N 4"], scores: Float[Array, "N C"], *, score_threshold: Float[Array, ""]
) -> Bool[Array, "N C"]:
    boxes, scores = boxes.astype(jnp.float32), scores.astype(jnp.float32)
    return jnp.isfinite(scores) & (scores >= score_threshold) & jnp.isfinite(boxes).all(-1, keepdims=True)


class _Scored(NamedTuple):
    """One image's scores that may be detections: one for each candidate, or (``classes`` None) candidate and class.

    ``keys`` rise as scores fall, and are `_DEAD` below the threshold; ``passed`` counts the others.
    """

    boxes: Float[Array, "N 4"]
    scores: Float[Array, " R"]
    classes: Int[Array, " R"] | None
    keys: UInt32[Array, " R"]
    passed: Int[Array, ""]


def _select(
    boxes: Float[Array, "N 4"], scores: Float[Array, "N C"], passes: Bool[Array, "N C"], *, best_class_only: bool
) -> _Scored:
    boxes, scores = boxes.astype(jnp.float32), scores.astype(jnp.float32)
    keys = score_keys(scores, passes)
    classes = None
    if best_class_only:
        best = keys.min(-1, keepdims=True)
        # The first of equal scores. By comparison, which fills vector lanes; argmax does not on a CPU.
        classes = jnp.where(keys == best, jnp.arange(scores.shape[1])[None], scores.shape[1]).min(-1)
        keys = best
        scores = jnp.take_along_axis(scores, classes[:, None], axis=1)
    return _Scored(boxes, scores.ravel(), classes, keys.ravel(), jnp.sum(keys != _DEAD, dtype=jnp.int32))


def _finish(
    image: _Scored,
    *,
    iou_threshold: Float[Array, ""] | None,
    max_detections: int,
    max_candidates: int | None,
    n_classes: int,
    class_agnostic: bool,
    room: int | None,
) -> Detections:
    """Sorting, suppression and output of one image of which at most ``room`` scores pass."""
    if room is None:
        order = ascending_order(image.keys)[:max_candidates]
    else:
        passing, exists = first_true(image.keys != _DEAD, room)
        order = passing[ascending_order(jnp.where(exists, image.keys[passing], _DEAD))[:max_candidates]]
    if image.classes is None:
        rows, classes = order // n_classes, order % n_classes
    else:
        rows, classes = order, image.classes[order]
    count = jnp.minimum(image.passed, len(order))

    if iou_threshold is None:
        keep = jnp.arange(len(order)) < count
    elif class_agnostic:
        keep = keep_mask(Rows.of(image.boxes[rows], None), count, iou_threshold)
    else:
        keep = keep_mask(Rows.of(image.boxes[rows], classes), count, iou_threshold, n_classes=n_classes)
    at, valid = first_true(keep, max_detections)
    return Detections(
        boxes=jnp.where(valid[:, None], image.boxes[rows[at]], 0.0),
        scores=jnp.where(valid, image.scores[order[at]], 0.0),
        classes=jnp.where(valid, classes[at], -1),
        valid=valid,
        truncated_candidates=image.passed - count,
        truncated=keep.sum(dtype=jnp.int32) - valid.sum(dtype=jnp.int32),
    )


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
