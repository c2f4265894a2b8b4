"""COCO's twelve numbers through the compiled evaluation, from checked columns; the basis of resampling.

They agree with pycocotools' but are not called COCO's: what a report states comes from `evaluate_coco`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from yolojax.eval.accumulate import Accumulated, Judged, Ranked, accumulate, recall_within
from yolojax.eval.device import AREA_RANGES, PaddedDetections, PaddedTruth, judge, object_counts
from yolojax.eval.inputs import GroundTruth, ScoredBoxes

NO_CLASS = np.iinfo(np.int32).max
AREA_SUFFIXES = ("", "s", "m", "l")


class Matched(NamedTuple):
    """A whole evaluation after matching: what any weighting of its images is accumulated from.

    Images ``I`` and classes ``C`` are padded with such as have no objects.
    """

    ranked: Ranked
    objects: Int[Array, "A I C"]


class Numbers(NamedTuple):
    """The twelve numbers by name, and AP and AP50 per class; NaN where there is nothing to measure."""

    overall: dict[str, Float[Array, ""]]
    class_ap: Float[Array, " C"]
    class_ap50: Float[Array, " C"]


def match_columns(truth: GroundTruth, detections: ScoredBoxes, cap: int = 100) -> Matched:
    """Pad, match in one compiled program, and set apart the detections that overlap no object of their class."""
    columns = pad_columns(truth, detections)
    judged, objects = _judge(*columns, cap, classes=_roomy(len(truth.category_ids)))
    return Matched(_compact(*(np.asarray(field) for field in judged)), objects)


def numbers(matched: Matched, weights: Int[Array, " I"], caps: tuple[int, int] = (1, 10)) -> Numbers:
    """The twelve numbers with each image counted ``weights`` times; pure, and compiles with ``caps`` static."""
    found = accumulate(matched.ranked, matched.objects, weights)
    return _summarise(found, [recall_within(*matched, weights, cap) for cap in caps])


def device_numbers(
    truth: GroundTruth, detections: ScoredBoxes, caps: tuple[int, int, int] = (1, 10, 100)
) -> dict[str, float]:
    """COCO's twelve numbers in float32, NaN where there is nothing to measure."""
    matched = match_columns(truth, detections, caps[-1])
    weights = jnp.ones(matched.objects.shape[1], jnp.int32)
    return {name: float(value) for name, value in compiled_numbers(matched, weights, caps[:2]).overall.items()}


def _summarise(found: Accumulated, low_recalls: list[Float[Array, "T C"]]) -> Numbers:
    precision, recall = found.precision, found.recall
    overall = {f"AP{s}": jnp.nanmean(precision[a]) for a, s in enumerate(AREA_SUFFIXES)}
    overall |= {"AP50": jnp.nanmean(precision[0, 0]), "AP75": jnp.nanmean(precision[0, 5])}
    overall |= {"AR1": jnp.nanmean(low_recalls[0]), "AR10": jnp.nanmean(low_recalls[1])}
    overall |= {f"AR{s or 100}": jnp.nanmean(recall[a]) for a, s in enumerate(AREA_SUFFIXES)}
    return Numbers(overall, jnp.mean(precision[0], axis=0), precision[0, 0])


compiled_numbers = jax.jit(numbers, static_argnums=2)


@partial(jax.jit, static_argnums=2)
def compiled_samples(matched: Matched, weights: Int[Array, "S I"], caps: tuple[int, int]) -> Numbers:
    """`numbers` for every row of weights, one after another: each field has a leading dimension ``S``."""
    return jax.lax.map(lambda row: numbers(matched, row, caps), weights)


@partial(jax.jit, static_argnames="classes")
def _judge(
    truth: PaddedTruth, detections: PaddedDetections, cap: int | Int[Array, ""], *, classes: int
) -> tuple[Judged, Int[Array, "A I C"]]:
    return judge(truth, detections, cap=cap), object_counts(truth, classes=classes, area_ranges=AREA_RANGES)


def _compact(scores: np.ndarray, classes: np.ndarray, place: np.ndarray, hit: np.ndarray, miss: np.ndarray) -> Ranked:
    """The fields of `Judged` as one list by class and falling score, for the host.

    Rows that miss at every threshold alike are set apart.
    """
    areas, thresholds = hit.shape[:2]
    hit, miss = (flags.reshape(areas, thresholds, -1) for flags in (hit, miss))
    images = np.repeat(np.arange(scores.shape[0], dtype=np.int32), scores.shape[1])
    scores, classes, place = (field.reshape(-1) for field in (scores, classes, place))
    ever_hit = np.asarray(hit.any(axis=(0, 1)))
    varies = ever_hit | (miss != miss[:, :1]).any(axis=(0, 1))
    kept = np.flatnonzero(varies | miss[:, 0].any(axis=0))
    order = kept[np.lexsort((-scores[kept], classes[kept]))]
    # What follows the last true positive of its class lowers no precision that is read.
    after = np.full(int(classes[order].max(initial=0)) + 1, -1)
    hits = np.flatnonzero(ever_hit[order])
    np.maximum.at(after, classes[order][hits], hits)
    order = order[np.arange(len(order)) <= after[classes[order]]]
    own, others = order[varies[order]], order[~varies[order]]
    before = np.cumsum(~varies[order])[varies[order]]
    p, n = _roomy(len(own), 512) - len(own), _roomy(len(others), 2048) - len(others)

    def pad(values: np.ndarray, by: int, fill: int = 0) -> Array:
        return jnp.asarray(np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, by)], constant_values=fill))

    return Ranked(
        pad(images[own], p),
        pad(classes[own], p, NO_CLASS),
        pad(place[own], p),
        pad(hit[:, :, own], p),
        pad(miss[:, :, own], p),
        pad(before.astype(np.int32), p),
        pad(images[others], n),
        pad(classes[others], n, NO_CLASS),
        pad(miss[:, 0, others], n),
    )


def pad_columns(truth: GroundTruth, detections: ScoredBoxes) -> tuple[PaddedTruth, PaddedDetections]:
    """Checked columns of an evaluation as float32 arrays, padded to the largest image and somewhat beyond.

    Sizes are rounded up, so that evaluations of similar size share their compiled programs.
    """
    images = _roomy(len(truth.image_ids), 16)

    def slots(owner: np.ndarray) -> tuple[np.ndarray, int]:
        """Position of each row within its image, and how many the fullest image has, rounded up."""
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=1)
        place = np.empty(len(owner), np.int64)
        place[order] = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return place, _roomy(int(counts.max()), 16)

    def spread(values: np.ndarray, owner: np.ndarray, place: np.ndarray, size: int) -> Array:
        table = np.zeros((images, size, *values.shape[1:]), values.dtype)
        table[owner, place] = values
        return jnp.asarray(table)

    def corners(boxes: np.ndarray) -> np.ndarray:
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)

    at, m = slots(truth.images)
    objects = (corners(truth.boxes), truth.categories.astype(np.int32), truth.areas.astype(np.float32), truth.crowd)
    where, k = slots(detections.images)
    rows = (corners(detections.boxes), detections.scores.astype(np.float32), detections.categories.astype(np.int32))
    return (
        PaddedTruth(*(spread(v, truth.images, at, m) for v in (*objects, np.ones(len(at), bool)))),
        PaddedDetections(*(spread(v, detections.images, where, k) for v in (*rows, np.ones(len(where), bool)))),
    )


def _roomy(n: int, least: int = 8) -> int:
    """At least ``n``: rounded up to one of four sizes per power of two, from ``least``."""
    step = 1 << max(max(n, least).bit_length() - 3, 0)
    return max(-(-n // step) * step, least)
