"""Which detection finds which object, compiled: COCO's greedy rule for arrays of fixed size.

`match_padded` matches them for all area ranges and IoU thresholds in one program. Its rules are those of pycocotools'
`evaluateImg`: in float64 it agrees with them; in float32 rounding may move an overlap across a threshold or make two
scores equal. Its input is not checked (a NaN would match).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from yolojax.eval.matching import AREA_RANGES, IOU_THRESHOLDS

AreaRange = tuple[float | Float[Array, ""], float | Float[Array, ""]]
"""Least and greatest area in square pixels, both included; may be traced."""


class PaddedTruth(NamedTuple):
    """Objects of ``I`` images, padded to ``M``; boxes xyxy in pixels. Rows where ``valid`` is False are never read.

    ``areas`` decide the area range (the mask's area in COCO); ``crowd`` regions are neither object nor background.
    """

    boxes: Float[Array, "I M 4"]
    classes: Int[Array, "I M"]
    areas: Float[Array, "I M"]
    crowd: Bool[Array, "I M"]
    valid: Bool[Array, "I M"]


class PaddedDetections(NamedTuple):
    """Detections of ``I`` images, padded to ``K``; boxes xyxy in pixels, in any order (ties stand as given)."""

    boxes: Float[Array, "I K 4"]
    scores: Float[Array, "I K"]
    classes: Int[Array, "I K"]
    valid: Bool[Array, "I K"]


class PaddedMatches(NamedTuple):
    """Detections after matching, each image sorted by falling score, for each area range ``A`` and IoU threshold ``T``.

    ``hit`` and ``miss`` mark true and false positives; a detection that is ignored (padding, beyond the cap, in a crowd
    region, outside the area range) is neither. ``place`` counts the detections of the same class on the same image that
    score higher. Padding has a class beyond all others.
    """

    scores: Float[Array, "I K"]
    classes: Int[Array, "I K"]
    place: Int[Array, "I K"]
    hit: Bool[Array, "A T I K"]
    miss: Bool[Array, "A T I K"]


def object_counts(
    truth: PaddedTruth, *, classes: int, area_ranges: Float[Array, "A 2"] | Float[np.ndarray, "A 2"]
) -> Int[Array, "A I C"]:
    """Objects that count, per area range, image and class."""
    counts = truth.valid[None] & ~_ignore(truth, jnp.asarray(area_ranges, truth.areas.dtype))
    of_class = truth.classes[..., None] == jnp.arange(classes, dtype=truth.classes.dtype)[None, None, :]
    return jnp.sum(of_class[None] & counts[..., None], axis=2, dtype=jnp.int32)


def match_padded(
    truth: PaddedTruth,
    detections: PaddedDetections,
    *,
    cap: int | Int[Array, ""] = 100,
    area_ranges: Float[Array, "A 2"] | Float[np.ndarray, "A 2"] = AREA_RANGES,
    iou_thresholds: Float[np.ndarray, " T"] = IOU_THRESHOLDS,
) -> PaddedMatches:
    """Match the detections of every image by COCO's greedy rule, for all area ranges and thresholds at once.

    Only detections that overlap an object of their class by at least the least threshold can match; they are put first,
    and the loop over them is as long as the fullest image needs.
    """
    thresholds = jnp.minimum(jnp.asarray(iou_thresholds, detections.boxes.dtype), 1 - 1e-10)
    area_ranges = jnp.asarray(area_ranges, truth.areas.dtype)
    order = jnp.argsort(jnp.where(detections.valid, -detections.scores, jnp.inf), axis=1, stable=True)
    found = PaddedDetections(*(jax.vmap(lambda values, rows: values[rows])(field, order) for field in detections))
    alike = (found.classes[:, :, None] == truth.classes[:, None, :]) & found.valid[:, :, None] & truth.valid[:, None, :]
    table = jnp.where(alike, jax.vmap(_padded_overlaps)(found.boxes, truth.boxes, truth.crowd), -1.0)  # [I, K, M]
    same = found.valid[:, :, None] & found.valid[:, None, :] & (found.classes[:, :, None] == found.classes[:, None, :])
    place = jnp.sum(same & jnp.tril(jnp.ones(same.shape[1:], bool), -1)[None], axis=2, dtype=jnp.int32)
    within_cap = found.valid & (place < cap)
    candidate = within_cap & jnp.any(table >= jnp.min(thresholds), axis=2)
    first = jnp.argsort(~candidate, axis=1, stable=True)
    hit, on_ignored = _match(
        jnp.where(candidate[:, :, None], table, -1.0),
        first,
        candidate,
        truth.crowd,
        _ignore(truth, area_ranges),
        thresholds,
    )
    size = found.boxes[..., 2:] - found.boxes[..., :2]
    area = (size[..., 0] * size[..., 1])[None]
    outside = (area < area_ranges[:, 0, None, None]) | (area > area_ranges[:, 1, None, None])
    ignored = on_ignored | (outside[:, None] & ~hit) | ~within_cap[None, None]
    return PaddedMatches(
        scores=jnp.where(found.valid, found.scores, -jnp.inf),
        classes=jnp.where(found.valid, found.classes, jnp.iinfo(found.classes.dtype).max),
        place=place,
        hit=hit,
        miss=~hit & ~ignored,
    )


def _match(
    table: Float[Array, "I K M"],
    first: Int[Array, "I K"],
    candidate: Bool[Array, "I K"],
    crowd: Bool[Array, "I M"],
    ignore: Bool[Array, "A I M"],
    thresholds: Float[Array, " T"],
) -> tuple[Bool[Array, "A T I K"], Bool[Array, "A T I K"]]:
    """Which detections find an object that counts, and which one that is ignored, in the order ``first``."""
    images, rows, _ = table.shape
    steps = jnp.max(jnp.sum(candidate, axis=1), initial=0)
    real, crowd = ~ignore[:, None], crowd[None, None]
    columns = jnp.arange(table.shape[2])[None, None, None, :]
    image = jnp.arange(images)

    def step(k: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        free, hit, on_ignored = state  # free: [A, T, I, M]
        overlap = table[image, jax.lax.dynamic_index_in_dim(first, k, axis=1, keepdims=False)]  # [I, M]
        possible = free & (overlap[None] >= thresholds[:, None, None])[None]
        # An object that counts goes before any that is ignored, whatever their overlaps.
        counts = jnp.any(possible & real, axis=3, keepdims=True)
        eligible = possible & (real | ~counts)
        value = jnp.where(eligible, overlap[None, None], -1.0)
        best = jnp.max(value, axis=3, keepdims=True)
        last = jnp.max(jnp.where(eligible & (value == best), columns, -1), axis=3, keepdims=True)  # of equal overlaps
        taken = (columns == last) & ~crowd
        matched, counts = last[..., 0] >= 0, counts[..., 0]
        write = jax.lax.dynamic_update_index_in_dim
        return free & ~taken, write(hit, counts, k, 0), write(on_ignored, matched & ~counts, k, 0)

    shape = (ignore.shape[0], len(thresholds), images)
    nothing = jnp.zeros((rows, *shape), bool)
    _, hit, on_ignored = jax.lax.fori_loop(0, steps, step, (jnp.ones((*shape, table.shape[2]), bool), nothing, nothing))
    back = jnp.argsort(first, axis=1)[None, None]  # where each detection went
    hit, on_ignored = (jnp.moveaxis(values, 0, 3) for values in (hit, on_ignored))
    return jnp.take_along_axis(hit, back, axis=3), jnp.take_along_axis(on_ignored, back, axis=3)


def _ignore(truth: PaddedTruth, area_ranges: Float[Array, "A 2"]) -> Bool[Array, "A I M"]:
    low, high = area_ranges[:, 0, None, None], area_ranges[:, 1, None, None]
    return truth.crowd[None] | (truth.areas[None] < low) | (truth.areas[None] > high)


def _padded_overlaps(
    found: Float[Array, "K 4"], objects: Float[Array, "M 4"], crowd: Bool[Array, " M"]
) -> Float[Array, "K M"]:
    """IoU, or for a crowd region intersection over the detection's area; 0 where that is 0 / 0."""
    low = jnp.maximum(found[:, None, :2], objects[None, :, :2])
    side = jnp.maximum(jnp.minimum(found[:, None, 2:], objects[None, :, 2:]) - low, 0)
    intersection = side[..., 0] * side[..., 1]
    area_found = jnp.prod(found[:, 2:] - found[:, :2], axis=1)[:, None]
    area_objects = jnp.prod(objects[:, 2:] - objects[:, :2], axis=1)[None, :]
    union = jnp.where(crowd[None, :], area_found, area_found + area_objects - intersection)
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)
