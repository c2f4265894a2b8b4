"""Anchor shapes for a data set, and how well they cover it. NumPy on the host; sizes are ``(width, height)`` pixels.

Sizes must be in pixels of the input image that the detector will see, since anchors are. No result depends on the order
of the boxes, and every random choice depends on ``seed`` alone.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from yolojax.errors import ConfigError, DataError

COCO_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""YOLOv3's anchors for COCO at strides 8, 16 and 32, for an input size of 416 x 416 (arXiv 1804.02767, section 2.3)."""

SMALLEST_BOX = 2.0
"""Boxes with a side under two input pixels are left out, because rounding has destroyed their shape."""

ENOUGH_BOXES = 200
"""With fewer boxes, anchors describe the sample and not the data, and a warning says so."""

GOOD_IOU = 0.5
GOOD_RECALL = 0.9
"""A level should be retuned if a smaller share of its boxes has a best IoU above `GOOD_IOU`."""

AREA_REACH = 4.0
"""Anchors are taken to cover boxes whose area is up to this many times smaller or larger than theirs."""

_KMEANS_SAMPLE = 20_000
_RESTARTS = (5, 50)
_RESTART_BOXES = 100_000
_ITERATIONS = 100

Sizes = Float[np.ndarray, "n 2"]
Anchors = Float[np.ndarray, "k 2"]


def shape_ious(sizes: Sizes, anchors: Anchors) -> Float[np.ndarray, "n k"]:
    """IoU of boxes and anchors that share a corner, in float64. Both are ``(width, height)`` in the same unit."""
    sizes, anchors = np.asarray(sizes, np.float64)[:, None], np.asarray(anchors, np.float64)[None]
    intersection = np.minimum(sizes, anchors).prod(-1)
    return intersection / (sizes.prod(-1) + anchors.prod(-1) - intersection)


def by_area(anchors: Anchors) -> Anchors:
    """Sort anchors by area, then by width, and enlarge sides below one pixel to one."""
    anchors = np.maximum(np.asarray(anchors, np.float64), 1.0)
    return anchors[np.lexsort((anchors[:, 0], anchors.prod(-1)))]


def kmeans_anchors(sizes: Sizes, k: int, seed: int = 0) -> Anchors:
    """Find ``k`` anchors by k-means under the distance ``1 - IoU``, sorted by area.

    A centre is the median width and height of its boxes. K-means starts several times from k-means++ centres, and the
    result with the highest mean IoU of the boxes with their best anchor is returned. Of more than 20,000 boxes a random
    20,000 are used. Reference: YOLO9000, arXiv 1612.08242, section 2.

    Raises:
      ConfigError: no anchor is asked for, or more anchors than there are boxes.
      DataError: no box, or a side that is not a positive number.
    """
    sizes = _in_canonical_order(sizes)
    if not 1 <= k <= len(sizes):
        raise ConfigError(f"cannot make {k} anchors from {len(sizes)} boxes: ask for 1 to {len(sizes)}")
    rng = np.random.default_rng(seed)
    if len(sizes) > _KMEANS_SAMPLE:
        sizes = sizes[np.sort(rng.choice(len(sizes), _KMEANS_SAMPLE, replace=False))]
    # Lloyd's algorithm ends in a local optimum. With few boxes it is often a poor one, but more starts are cheap.
    restarts = int(np.clip(_RESTART_BOXES // len(sizes), *_RESTARTS))
    found = [_kmeans(sizes, _spread_start(sizes, k, rng)) for _ in range(restarts)]
    return by_area(max(found, key=lambda anchors: _mean_best_iou(sizes, anchors)))


def quantile_anchors(sizes: Sizes, k: int) -> Anchors:
    """The median width and height within each of ``k`` quantiles of the area, sorted by area.

    It suits detectors with one anchor on each level, where k-means may give two levels anchors of one area. With fewer
    boxes than anchors, boxes repeat.

    Raises:
      ConfigError: no anchor is asked for.
      DataError: no box, or a side that is not a positive number.
    """
    if k < 1:
        raise ConfigError(f"cannot make {k} anchors: ask for at least 1")
    sizes = _in_canonical_order(sizes)
    if len(sizes) < k:
        return by_area(sizes[np.round(np.linspace(0, len(sizes) - 1, k)).astype(int)])
    return by_area(np.stack([np.median(part, axis=0) for part in np.array_split(sizes, k)]))


def evolve_anchors(sizes: Sizes, anchors: Anchors, generations: int = 1000, seed: int = 0) -> Anchors:
    """Refine anchors by a random search that multiplies sides by factors near 1 and keeps improvements.

    The fitness is the mean IoU of the boxes with their best anchor. The result is never worse than the given anchors.
    """
    sizes, best = _in_canonical_order(sizes), by_area(anchors)
    rng = np.random.default_rng(seed)
    if len(sizes) > _KMEANS_SAMPLE:
        sizes = sizes[np.sort(rng.choice(len(sizes), _KMEANS_SAMPLE, replace=False))]
    fitness = _mean_best_iou(sizes, best)
    for _ in range(generations):
        # About a third of the sides change in each generation, by steps of three sizes.
        moved = rng.random(best.shape) < 1 / 3
        step = rng.normal(0.0, rng.choice([0.02, 0.1, 0.3]), best.shape)
        child = np.maximum(best * np.exp(moved * step), 1.0)
        score = _mean_best_iou(sizes, child)
        if score > fitness:
            best, fitness = child, score
    return by_area(best)


def deal_to_levels(anchors: Anchors, num_levels: int) -> Float[np.ndarray, "L A 2"]:
    """Share anchors equally among the levels by area, the smallest to the first level (the smallest stride).

    Raises:
      ConfigError: the anchors cannot be shared equally.
    """
    if num_levels < 1 or len(anchors) % num_levels:
        raise ConfigError(f"{len(anchors)} anchors cannot be shared equally among {num_levels} levels")
    return by_area(anchors).reshape(num_levels, -1, 2)


@dataclass(frozen=True)
class LevelDesign:
    """The anchors of one level, and how well they fit the boxes whose best anchor is among them.

    Attributes:
      stride: stride of the level, in input pixels.
      anchors: ``(width, height)`` in input pixels, sorted by area.
      boxes: how many boxes have their best anchor here.
      median_iou: median of their IoU with the best anchor. It is None without boxes, as are the next two.
      recall: share of these boxes with a best IoU above 0.5.
      area_coverage: share of these boxes whose area is at least a quarter of the smallest anchor's and at most four
        times the largest anchor's.
      retune: whether the recall is under 0.9.
    """

    stride: int
    anchors: tuple[tuple[float, float], ...]
    boxes: int
    median_iou: float | None
    recall: float | None
    area_coverage: float | None
    retune: bool


@dataclass(frozen=True)
class AnchorDesign:
    """The result of `design_anchors`.

    Attributes:
      levels: the levels, from the smallest stride to the largest.
      boxes: number of boxes used.
      dropped: number of boxes left out because a side is under 2 pixels or not finite.
      recall: share of all used boxes with a best IoU above 0.5.
      mean_iou: mean IoU of all used boxes with their best anchor.
      recommendation: the one thing to do next.
      warning: why the numbers are not reliable, or None.
    """

    levels: tuple[LevelDesign, ...]
    boxes: int
    dropped: int
    recall: float
    mean_iou: float
    recommendation: str
    warning: str | None

    @property
    def anchors(self) -> Float[np.ndarray, "L A 2"]:
        """``(width, height)`` of the anchors of each level, as detectors take them."""
        return np.array([level.anchors for level in self.levels], np.float64)


def design_anchors(
    sizes: Sizes, strides: tuple[int, ...] = (8, 16, 32), per_level: int = 3, seed: int = 0, generations: int = 0
) -> AnchorDesign:
    """Design anchors for boxes of the given sizes, measure how they cover each level, and recommend the next step.

    The anchors come from `kmeans_anchors`, or from `quantile_anchors` where there is one anchor on each level or where
    there are fewer boxes than anchors. `deal_to_levels` shares them among the strides. With under 200 boxes the result
    carries a warning and recommends the published COCO anchors.

    Args:
      sizes: ``(width, height)`` of each box, in input pixels.
      strides: strides of the levels, in input pixels.
      per_level: anchors on each level.
      seed: decides all random choices.
      generations: rounds of `evolve_anchors` after that; 0 for none.

    Raises:
      DataError: no box is left.
      ConfigError: no level or no anchor.
    """
    strides = tuple(sorted(strides))
    if not strides or per_level < 1:
        raise ConfigError(f"anchors need at least one level and one anchor each, not {len(strides)} x {per_level}")
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    usable = np.isfinite(sizes).all(-1) & (sizes >= SMALLEST_BOX).all(-1)
    dropped, sizes = int((~usable).sum()), sizes[usable]
    if not len(sizes) and not dropped:
        raise DataError(
            "no box to design anchors from: the data set holds no object; give another part of it, or labels"
        )
    if not len(sizes):
        raise DataError(
            f"no box to design anchors from: all {dropped} have a side under {SMALLEST_BOX:g} input pixels; "
            "check that sizes are in pixels, or enlarge the input image"
        )
    k = len(strides) * per_level
    anchors = quantile_anchors(sizes, k) if per_level == 1 or len(sizes) < k else kmeans_anchors(sizes, k, seed)
    if generations:
        anchors = evolve_anchors(sizes, anchors, generations, seed)
    dealt = deal_to_levels(anchors, len(strides))

    ious = shape_ious(sizes, dealt.reshape(-1, 2))
    best_iou, level_of = ious.max(-1), ious.argmax(-1) // per_level
    levels = tuple(
        _describe(stride, own, sizes[level_of == i], best_iou[level_of == i])
        for i, (stride, own) in enumerate(zip(strides, dealt, strict=True))
    )
    recall = float((best_iou > GOOD_IOU).mean())
    warning = None
    if len(sizes) < ENOUGH_BOXES:
        warning = f"only {len(sizes)} boxes: anchors fitted to so few describe the sample, not the data"
    return AnchorDesign(
        levels, len(sizes), dropped, recall, float(best_iou.mean()), _recommend(levels, len(sizes), dropped), warning
    )


def _describe(stride: int, anchors: Anchors, sizes: Sizes, best_iou: Float[np.ndarray, " n"]) -> LevelDesign:
    shapes = tuple((float(w), float(h)) for w, h in anchors)
    if not len(sizes):
        return LevelDesign(stride, shapes, 0, None, None, None, retune=False)
    areas, reach = sizes.prod(-1), anchors.prod(-1)
    covered = (areas >= reach.min() / AREA_REACH) & (areas <= reach.max() * AREA_REACH)
    recall = float((best_iou > GOOD_IOU).mean())
    return LevelDesign(
        stride,
        shapes,
        len(sizes),
        float(np.median(best_iou)),
        recall,
        float(covered.mean()),
        retune=recall < GOOD_RECALL,
    )


def _recommend(levels: tuple[LevelDesign, ...], boxes: int, dropped: int) -> str:
    if boxes < ENOUGH_BOXES:
        return (
            f"Use the published COCO anchors, scaled from their 416-pixel input image to yours: {boxes} boxes "
            f"are too few to learn shapes from (at least {ENOUGH_BOXES})."
        )
    if dropped > 0.05 * (boxes + dropped):
        share = dropped / (boxes + dropped)
        return (
            f"Enlarge the input image: {share:.0%} of the boxes have a side under {SMALLEST_BOX:g} pixels on this one."
        )
    poor = [level for level in levels if level.retune]
    if poor:
        worst = min(poor, key=lambda level: level.recall or 0.0)
        return (
            f"Add an anchor to each level: at stride {worst.stride} only {worst.recall or 0.0:.0%} of the boxes "
            f"have one of IoU above {GOOD_IOU:g}."
        )
    return "Use these anchors."


def _in_canonical_order(sizes: Sizes) -> Sizes:
    """The sizes sorted by area, then width, so that a random choice does not depend on how the boxes were listed.

    Raises:
      DataError: no box, or a side that is not a positive number.
    """
    sizes = np.asarray(sizes, np.float64)
    if not len(sizes) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise DataError(
            f"{len(sizes)} sizes of boxes, {int((~(np.isfinite(sizes) & (sizes > 0)).all(-1)).sum())} of them not two "
            "positive numbers: give at least one, and leave those out"
        )
    return sizes[np.lexsort((sizes[:, 0], sizes.prod(-1)))]


def _mean_best_iou(sizes: Sizes, anchors: Anchors) -> float:
    return float(shape_ious(sizes, anchors).max(-1).mean())


def _spread_start(sizes: Sizes, k: int, rng: np.random.Generator) -> Anchors:
    """Starting centres by k-means++: boxes are drawn by their squared distance from the nearest centre."""
    chosen = [int(rng.integers(len(sizes)))]
    while len(chosen) < k:
        distance = (1.0 - shape_ious(sizes, sizes[chosen]).max(-1)) ** 2
        total = distance.sum()
        # Where all boxes lie on a centre already, any box may repeat.
        weights = distance / total if total > 0 else None
        chosen.append(int(rng.choice(len(sizes), p=weights)))
    return sizes[chosen]


def _kmeans(sizes: Sizes, centres: Anchors) -> Anchors:
    """Lloyd's algorithm. Medians do not minimise ``1 - IoU`` exactly, so the best centres of all rounds are kept."""
    best, best_fit, nearest = centres, _mean_best_iou(sizes, centres), None
    for _ in range(_ITERATIONS):
        previous, nearest = nearest, _nearest(sizes, centres)
        if previous is not None and np.array_equal(previous, nearest):
            break
        # A centre without boxes stays where it is.
        centres = np.stack(
            [np.median(sizes[nearest == i], axis=0) if (nearest == i).any() else c for i, c in enumerate(centres)]
        )
        fit = _mean_best_iou(sizes, centres)
        if fit > best_fit:
            best, best_fit = centres, fit
    return best


def _nearest(sizes: Sizes, centres: Anchors) -> Int[np.ndarray, " n"]:
    return shape_ious(sizes, centres).argmax(-1)
