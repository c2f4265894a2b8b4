"""Anchor shapes for a data set, and how well they cover it. NumPy on the host; sizes are ``(width, height)`` pixels.

Sizes must be in pixels of the input image that the detector will see, since anchors are. Nothing depends on the order
of the boxes, and every random choice on ``seed`` alone.
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
"""YOLOv3's anchors for COCO, strides 8, 16 and 32, pixels of a 416 x 416 input image (arXiv 1804.02767, section
2.3)."""

SMALLEST_BOX = 2.0
"""Boxes with a side under two input pixels carry no shape to learn an anchor from."""

ENOUGH_BOXES = 200
GOOD_IOU = 0.5
GOOD_RECALL = 0.9
AREA_REACH = 4.0

_KMEANS_SAMPLE = 20_000
_RESTARTS = (5, 50)
_RESTART_BOXES = 100_000
_ITERATIONS = 100

Sizes = Float[np.ndarray, "n 2"]
Anchors = Float[np.ndarray, "k 2"]


def shape_ious(sizes: Sizes, anchors: Anchors) -> Float[np.ndarray, "n k"]:
    """IoU of boxes and anchors laid over a common corner, float64."""
    sizes, anchors = np.asarray(sizes, np.float64)[:, None], np.asarray(anchors, np.float64)[None]
    intersection = np.minimum(sizes, anchors).prod(-1)
    return intersection / (sizes.prod(-1) + anchors.prod(-1) - intersection)


def by_area(anchors: Anchors) -> Anchors:
    """Anchors by rising area, then width; no side below one pixel."""
    anchors = np.maximum(np.asarray(anchors, np.float64), 1.0)
    return anchors[np.lexsort((anchors[:, 0], anchors.prod(-1)))]


def kmeans_anchors(sizes: Sizes, k: int, seed: int = 0) -> Anchors:
    """``k`` anchors by k-means under the distance ``1 - IoU`` (YOLO9000, arXiv 1612.08242, section 2), by rising area.

    A centre is the median width and height of its boxes. The best of several k-means++ starts by mean IoU of the boxes
    with their best anchor; of more than 20,000 boxes a random 20,000 are used. Raises `ConfigError` if there are fewer
    boxes than anchors.
    """
    sizes = _in_canonical_order(sizes)
    if not 1 <= k <= len(sizes):
        raise ConfigError(f"cannot make {k} anchors from {len(sizes)} boxes: ask for 1 to {len(sizes)}")
    rng = np.random.default_rng(seed)
    if len(sizes) > _KMEANS_SAMPLE:
        sizes = sizes[np.sort(rng.choice(len(sizes), _KMEANS_SAMPLE, replace=False))]
    # Lloyd's rounds end in a local optimum, on few boxes often in a poor one, and there another start costs nothing.
    restarts = int(np.clip(_RESTART_BOXES // len(sizes), *_RESTARTS))
    found = [_kmeans(sizes, _spread_start(sizes, k, rng)) for _ in range(restarts)]
    return by_area(max(found, key=lambda anchors: _mean_best_iou(sizes, anchors)))


def quantile_anchors(sizes: Sizes, k: int) -> Anchors:
    """The median width and height within each of ``k`` quantiles of the area, by rising area.

    For one anchor a level, where clusters of shapes would put two levels on one scale. With fewer boxes than anchors
    boxes repeat.
    """
    if k < 1:
        raise ConfigError(f"cannot make {k} anchors: ask for at least 1")
    sizes = _in_canonical_order(sizes)
    if len(sizes) < k:
        return by_area(sizes[np.round(np.linspace(0, len(sizes) - 1, k)).astype(int)])
    return by_area(np.stack([np.median(part, axis=0) for part in np.array_split(sizes, k)]))


def evolve_anchors(sizes: Sizes, anchors: Anchors, generations: int = 1000, seed: int = 0) -> Anchors:
    """Anchors refined by a random search that multiplies sides by factors near 1 and keeps what fits better.

    Fitness is the mean IoU of the boxes with their best anchor, so the result is never worse than what came in.
    """
    sizes, best = _in_canonical_order(sizes), by_area(anchors)
    rng = np.random.default_rng(seed)
    if len(sizes) > _KMEANS_SAMPLE:
        sizes = sizes[np.sort(rng.choice(len(sizes), _KMEANS_SAMPLE, replace=False))]
    fitness = _mean_best_iou(sizes, best)
    for _ in range(generations):
        # About a third of the sides move at a time; steps from fine to coarse.
        moved = rng.random(best.shape) < 1 / 3
        step = rng.normal(0.0, rng.choice([0.02, 0.1, 0.3]), best.shape)
        child = np.maximum(best * np.exp(moved * step), 1.0)
        score = _mean_best_iou(sizes, child)
        if score > fitness:
            best, fitness = child, score
    return by_area(best)


def deal_to_levels(anchors: Anchors, num_levels: int) -> Float[np.ndarray, "L A 2"]:
    """Anchors sorted by area, the smallest to the first level (the smallest stride), equally many to each."""
    if num_levels < 1 or len(anchors) % num_levels:
        raise ConfigError(f"{len(anchors)} anchors cannot be shared equally among {num_levels} levels")
    return by_area(anchors).reshape(num_levels, -1, 2)


@dataclass(frozen=True)
class LevelDesign:
    """Anchors of one level and how they fit the boxes whose best anchor is among them.

    Attributes:
      stride: of the level, in input pixels.
      anchors: ``(width, height)`` in input pixels, by rising area.
      boxes: how many boxes have their best anchor here.
      median_iou: median over those boxes of the IoU with the best anchor; None without boxes, as the next two.
      recall: share of them with a best IoU above 0.5.
      area_coverage: share of them with an area from a quarter of the smallest anchor's to four times the largest's.
      retune: recall under 0.9.
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
    """What `design_anchors` found.

    Attributes:
      levels: from the smallest stride to the largest.
      boxes: boxes used.
      dropped: boxes left out because a side is under 2 pixels or not finite.
      recall: share of all used boxes with a best IoU above 0.5.
      mean_iou: mean IoU of all used boxes with their best anchor.
      recommendation: the one thing to do next.
      warning: why the numbers deserve little trust, or None.
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
        """``(width, height)`` for each level, as detectors take them."""
        return np.array([level.anchors for level in self.levels], np.float64)


def design_anchors(
    sizes: Sizes, strides: tuple[int, ...] = (8, 16, 32), per_level: int = 3, seed: int = 0, generations: int = 0
) -> AnchorDesign:
    """Anchors for boxes of the given sizes (input_size pixels), how they cover each level, and what to do next.

    K-means on ``1 - IoU``, or with one anchor a level the median box of each area quantile; then by choice
    ``generations`` of `evolve_anchors`. Anchors are dealt by area to the strides, smallest first. Under 200 boxes there
    is a warning and the advice to take the published COCO anchors; with fewer boxes than anchors, quantiles.

    Raises `DataError` if no box is left, `ConfigError` for no level or no anchor.
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
    """Sorted by area, then width, so that a seeded choice does not depend on how the boxes were listed.

    Raises `DataError` for no box at all and for a side that is not a positive number.
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
    """k-means++: each next centre is a box drawn in proportion to its squared distance from the nearest centre."""
    chosen = [int(rng.integers(len(sizes)))]
    while len(chosen) < k:
        distance = (1.0 - shape_ious(sizes, sizes[chosen]).max(-1)) ** 2
        total = distance.sum()
        # All boxes lie on a centre already: any repetition will do.
        weights = distance / total if total > 0 else None
        chosen.append(int(rng.choice(len(sizes), p=weights)))
    return sizes[chosen]


def _kmeans(sizes: Sizes, centres: Anchors) -> Anchors:
    """Lloyd's rounds. Medians do not minimise 1 - IoU exactly, so the best centres seen are kept."""
    best, best_fit, nearest = centres, _mean_best_iou(sizes, centres), None
    for _ in range(_ITERATIONS):
        previous, nearest = nearest, _nearest(sizes, centres)
        if previous is not None and np.array_equal(previous, nearest):
            break
        # A centre that lost its last box stays where it is.
        centres = np.stack(
            [np.median(sizes[nearest == i], axis=0) if (nearest == i).any() else c for i, c in enumerate(centres)]
        )
        fit = _mean_best_iou(sizes, centres)
        if fit > best_fit:
            best, best_fit = centres, fit
    return best


def _nearest(sizes: Sizes, centres: Anchors) -> Int[np.ndarray, " n"]:
    return shape_ious(sizes, centres).argmax(-1)
