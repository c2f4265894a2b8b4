"""Box formats, tried on a sample: how many objects a detection lies on when the boxes are read in another format.

Squares of any side and unusual layouts make hundreds of formats, some of which fit a few boxes by chance, so every
format is held to what chance gives: the hits of detections on the objects of other images.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float64, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.ordering import stable_order
from yolojax.eval.result_format import convert_boxes
from yolojax.host_boxes import iou_table

SAMPLED_IMAGES, SAMPLED_BOXES = 100, 30
"""Images, and boxes of each, on which conventions are tried."""

ON_OBJECT = 0.7
"""IoU from which a box lies on an object when conventions are tried: above what most detectors reach by accident."""

SQUARE_STEP = 32

SQUARES = (1, 100, 300, 500, 600, 1000, 1333, *range(128, 2049, SQUARE_STEP))
"""Sides of the input images that are tried; 1 stands for parts of the square, and 100 for percent."""

LAYOUTS = ("", "-xyxy", "-cxcywh")
"""How boxes may be written on such a square."""

_AS_GOOD = 0.01
"""Share of the mean IoU by which boxes may fit less well on a square of a usual side than on the best of all."""

TRIED_FIRST, TRIED_WHOLE = 12, 6
"""Images on which all formats are tried, and the formats that are then tried on all of the sample."""

LEAST_IMAGES = 4
"""Images from which chance can be measured."""

FORMATS = ("xyxy", "cxcywh", "yxhw", "yxyx", "xywhn", "xyxyn", "cxcywhn", "yxhwn", "yxyxn")

UNUSUAL = {
    "mirrored": "left and right exchanged (x counted from the right edge)",
    "from_bottom": "y counted from the bottom edge",
    "sides_first": "width, height, left, top",
    "sides_swapped": "left, top, height, width",
    "pairs": "x1, x2, y1, y2",
    "turned_left": "pixels of the photo turned by 90 degrees to the left",
    "turned_right": "pixels of the photo turned by 90 degrees to the right",
}
"""Layouts that are named and that no option reads."""

WORDS = {
    "xyxy": "corners (x1, y1, x2, y2)",
    "cxcywh": "centre and size",
    "yxhw": "y, x, height, width",
    "yxyx": "corners (y1, x1, y2, x2)",
    "xywhn": "left, top, width, height in parts of the image",
    "xyxyn": "corners in parts of the image",
    "cxcywhn": "centre and size in parts of the image",
    "yxhwn": "y, x, height, width in parts of the image",
    "yxyxn": "corners (y1, x1, y2, x2) in parts of the image",
}


@dataclass(frozen=True)
class Sample:
    """Some images' objects and best detections, padded; invalid rows have no area. Boxes are xywh."""

    images: Int64[np.ndarray, " i"]
    rows: Float64[np.ndarray, "i d 4"]
    row_classes: Int64[np.ndarray, "i d"]
    objects: Float64[np.ndarray, "i g 4"]
    object_classes: Int64[np.ndarray, "i g"]
    sizes: Int64[np.ndarray, "i 2"]

    @property
    def count(self) -> int:
        return int(np.sum(self.object_classes >= 0))

    @property
    def is_sized(self) -> bool:
        """Whether the sizes of all its images are stated."""
        return bool((self.sizes > 0).all())

    def part(self, which: Int64[np.ndarray, " n"]) -> "Sample":
        """Some of its images."""
        return Sample(*(getattr(self, field.name)[which] for field in fields(self)))

    def rolled(self, shift: int) -> "Sample":
        """Each image with the detections of another one."""
        rows, classes = (np.roll(column, shift, axis=0) for column in (self.rows, self.row_classes))
        return replace(self, rows=rows, row_classes=classes)

    def by_chance(self) -> Iterator["Sample"]:
        """Up to five samples in which images have the detections of others."""
        return map(self.rolled, range(1, min(len(self.images), 6)))


def pick_rows(values: np.ndarray, starts: np.ndarray, ends: np.ndarray, fill: float | int) -> np.ndarray:
    """Up to `SAMPLED_BOXES` rows from each start on, padded with ``fill`` to the most that there are."""
    at = starts[:, None] + np.arange(min((ends - starts).max(initial=1), SAMPLED_BOXES))[None, :]
    inside = at < ends[:, None]
    picked = values[np.where(inside, at, 0)] if len(values) else np.zeros((*at.shape, *values.shape[1:]), values.dtype)
    return np.where(inside.reshape(*inside.shape, *(1,) * (values.ndim - 1)), picked, fill)


def spread(count: int, most: int) -> Int64[np.ndarray, " n"]:
    """At most ``most`` of ``count`` positions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))


def take_sample(truth: GroundTruth, found: ScoredBoxes, image_of: Int64[np.ndarray, " I"] | None = None) -> Sample:
    """Images spread over those that have detections, each with the objects of itself or of image ``image_of``."""
    order = np.flatnonzero(~truth.crowd)
    order = order[stable_order(truth.images[order])]
    owners = truth.images[order]
    with_rows = np.flatnonzero(np.bincount(found.images))
    target = with_rows if image_of is None else image_of[with_rows]
    has = (target >= 0) & np.isin(target, owners)
    with_rows, target = with_rows[has], target[has]
    chosen = spread(len(with_rows), SAMPLED_IMAGES)
    images, target = with_rows[chosen], target[chosen]

    def bounds(column: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.searchsorted(column, keys, side="left"), np.searchsorted(column, keys, side="right")

    rows, objects = bounds(found.images, images), bounds(owners, target)
    return Sample(
        target,
        pick_rows(found.boxes, *rows, 0.0),
        pick_rows(found.categories, *rows, -1),
        pick_rows(truth.boxes[order], *objects, 0.0),
        pick_rows(truth.categories[order], *objects, -1),
        truth.sizes[target],
    )


def overlaps_in(sample: Sample, box: str) -> Float64[np.ndarray, "i d g"]:
    """IoU of detections and objects of each image when the detections have this format."""
    sizes = np.broadcast_to(sample.sizes[:, None, :], (*sample.rows.shape[:2], 2))
    rows = _unusual(sample.rows, box, sizes) if box in UNUSUAL else convert_boxes(sample.rows, box, sizes)
    return iou_table(np.where((sample.row_classes >= 0)[..., None], rows, 0.0), sample.objects)


def _on_objects(sample: Sample, box: str) -> tuple[int, float]:
    """How many sampled objects a detection of any class lies on when the detections have this format, and how well (the
    sum of their IoU)."""
    nearest = overlaps_in(sample, box).max(axis=1, initial=0)
    nearest = nearest[nearest >= ON_OBJECT]
    return len(nearest), float(nearest.sum())


def count_hits(sample: Sample, box: str) -> int:
    return _on_objects(sample, box)[0]


def count_truth_hits(sample: Sample, box: str) -> int:
    """How many sampled objects have a detection on them when the ground truth's boxes have this format."""
    sizes = np.broadcast_to(sample.sizes[:, None, :], (*sample.objects.shape[:2], 2))
    objects = np.where((sample.object_classes >= 0)[..., None], convert_boxes(sample.objects, box, sizes), 0.0)
    objects = np.concatenate([objects[..., :2], np.maximum(objects[..., 2:], 0)], axis=-1)
    return int(np.sum(iou_table(sample.rows, objects).max(axis=1, initial=0) >= ON_OBJECT))


def is_better(now: int, then: int, possible: int) -> bool:
    """Whether ``then`` hits instead of ``now`` are more than chance could give."""
    return then >= max(2 * now + 2, 3, 0.2 * possible) or (possible == then <= 2 and now == 0 and then > 0)


def is_no_chance(sample: Sample, hits: Callable[[Sample, str], int], box: str, then: int) -> bool:
    """Whether ``then`` hits in a format are more than many boxes have by chance, on the objects of other images."""
    if np.sum(sample.row_classes >= 0) <= 3 * sample.count:  # few boxes for each object
        return True
    return len(sample.images) >= LEAST_IMAGES and then >= 2 * hits_by_chance(sample, lambda one: hits(one, box)) + 2


def hits_by_chance(sample: Sample, hits: Callable[[Sample], int]) -> float:
    """The mean number of hits when images have the detections of others."""
    return float(np.mean([hits(other) for other in sample.by_chance()]))


def _unusual(rows: Float64[np.ndarray, "i d 4"], layout: str, sizes: Int64[np.ndarray, "i d 2"]) -> np.ndarray:
    """Boxes of one of the layouts in `UNUSUAL` as xywh."""
    a, b, c, d = np.moveaxis(rows, -1, 0)
    height, width = np.moveaxis(sizes.astype(np.float64), -1, 0)
    found = {
        "mirrored": (width - a - c, b, c, d),
        "from_bottom": (a, height - b - d, c, d),
        "sides_first": (c, d, a, b),
        "sides_swapped": (a, b, d, c),
        "pairs": (a, c, b - a, d - c),
        "turned_left": (width - b - d, a, d, c),
        "turned_right": (b, height - a - c, d, c),
    }[layout]
    return np.stack(found, axis=-1)


def _plain_formats(sample: Sample) -> list[str]:
    return [box for box in FORMATS if sample.is_sized or not box.endswith("n")]


def best_format(sample: Sample) -> tuple[str, int]:
    """The format in which most objects have a detection, and how many.

    Squares of any side and unusual layouts are hundreds of formats, one of which fits a few boxes by chance. Such a
    format is taken only where it explains far more than a plain one, and than detections of other images do in it.
    """
    plain = {box: count_hits(sample, box) for box in _plain_formats(sample)}
    best = max(plain, key=lambda box: plain[box])
    if len(sample.images) < LEAST_IMAGES or plain[best] >= 0.6 * sample.count:
        return best, plain[best]
    other, then = _best_of_many(sample)
    chance = hits_by_chance(sample, lambda one: count_hits(one, other))
    if then >= max(5, 0.3 * sample.count, 1.2 * plain[best] + 1, 3 * chance + 3):
        return other, then
    return best, plain[best]


def _best_of_many(sample: Sample) -> tuple[str, int]:
    """The square or unusual layout in which most objects have a detection, and how many."""
    formats = ["sides_first", "sides_swapped", "pairs"]
    if sample.is_sized:
        kinds = ("letterbox", "corner", "stretch")
        formats = [*UNUSUAL, *(f"{kind}{side}{end}" for end in LAYOUTS for kind in kinds for side in SQUARES)]
    if len(sample.images) > TRIED_FIRST:
        few = sample.part(spread(len(sample.images), TRIED_FIRST))
        first = {box: count_hits(few, box) for box in formats}
        formats = sorted(formats, key=lambda box: -first[box])[:TRIED_WHOLE]
    scores = {box: _on_objects(sample, box) for box in formats}
    best = max(scores, key=lambda box: scores[box][0])
    square = re.fullmatch(r"([a-z]+)(\d+)(-.*)?", best)
    if square is not None and (side := int(square[2])) > SQUARE_STEP:  # the side may be any near it
        sides = range(side - SQUARE_STEP, side + SQUARE_STEP)
        near = {f"{square[1]}{one}{square[3] or ''}": one for one in sides}
        scores |= {box: _on_objects(sample, box) for box in near}
        best = max(scores, key=lambda box: (scores[box], box == best))
        hits, overlap = scores[best]
        # Some pixels more or less are within the noise of the boxes; the sides of networks are multiples.
        alike = [box for box in near if scores[box][0] >= max(0.95 * hits, 1)]
        alike = [box for box in alike if scores[box][1] / scores[box][0] > (1 - _AS_GOOD) * overlap / hits]
        usual = [box for step in (SQUARE_STEP, 100, 50) for box in alike if near[box] % step == 0]
        best = usual[0] if usual else best
    return best, scores[best][0]


def best_shift(sample: Sample) -> tuple[float, tuple[float, float], int]:
    """The factor and the shift in pixels that put most detections on objects, and how many objects those are.

    Detections and objects of each image are paired in all ways. The factor is the most frequent ratio of their sizes,
    the shift the most frequent distance of centres among the pairs that have this ratio.
    """
    pairs = (sample.row_classes[:, :, None] >= 0) & (sample.object_classes[:, None, :] >= 0)
    image, row, one = np.nonzero(pairs & (sample.rows[:, :, None, 2:] > 0).all(-1))
    rows, objects = sample.rows[image, row], sample.objects[image, one]
    if not len(rows):
        return 1.0, (0.0, 0.0), 0
    ratios = np.log(np.maximum(objects[:, 2:], 1e-9) / rows[:, 2:])
    alike = np.abs(ratios[:, 0] - ratios[:, 1]) < 0.1  # the shape stays as it is
    if not alike.any():
        return 1.0, (0.0, 0.0), 0
    middle = _most_frequent(ratios[alike].mean(axis=1), 0.1)
    factor = float(np.exp(middle))
    factor = 1.0 if abs(factor - 1) < 0.03 else factor
    near = alike & (np.abs(ratios.mean(axis=1) - np.log(factor)) < 0.1)
    if not near.any():
        return 1.0, (0.0, 0.0), 0
    apart = (objects[:, :2] + objects[:, 2:] / 2) - factor * (rows[:, :2] + rows[:, 2:] / 2)
    width = max(2.0, 0.1 * float(np.median(objects[:, 2:])))
    x, y = (_most_frequent(column, width) for column in apart[near].T)
    moved = replace(sample, rows=sample.rows * factor + np.array([x, y, 0, 0]))
    return factor, (x, y), count_hits(moved, "xywh")


def _most_frequent(values: Float64[np.ndarray, " n"], width: float) -> float:
    """The median of the values in the interval of this width that holds most of them."""
    ordered = np.sort(values)
    ends = np.searchsorted(ordered, ordered + width, side="right")
    start = int(np.argmax(ends - np.arange(len(ordered))))
    return float(np.median(ordered[start : ends[start]]))


def best_truth_format(sample: Sample) -> tuple[str, int]:
    """The format of the ground truth's boxes, if it is another one, in which most objects have a detection."""
    scores = {box: count_truth_hits(sample, box) for box in _plain_formats(sample)}
    best = max(scores, key=lambda box: scores[box])
    return best, scores[best]


def format_in_words(box: str) -> str:
    """A format such as ``letterbox640-xyxy`` in words."""
    square, _, layout = box.partition("-")
    kind = square.rstrip("0123456789")
    side = square.removeprefix(kind)
    if kind == "stretch" and side == "100":
        what = "percent of the image"
    else:
        what = "parts of a square input image" if side == "1" else f"pixels of a square input image of {side}"
        what += " in which the photo is centred" if kind == "letterbox" else ""
    return f"{WORDS[layout]} in {what}" if layout else what
