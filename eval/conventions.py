"""Conventions of result files, tried on a sample: other box formats, image ids and class ids than the ground truth's.

Each test looks at the rows themselves. A format is suspected where the boxes, read in that format, lie on at least
twice as many objects as they do now; ids likewise. Where no convention explains why almost nothing matches, that is
said.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.joining import CategoryIds, convert_boxes, file_numbers

SAMPLED_IMAGES, SAMPLED_BOXES = 100, 30
"""Images, and boxes of each, on which conventions are tried."""

ON_OBJECT = 0.7
"""IoU from which a box lies on an object when conventions are tried: above what most detectors reach by accident."""

NEAR_OBJECT, LEAST_ROWS, LEAST_OBJECTS, LEAST_IMAGES = 0.3, 30, 10, 4
"""From which IoU, and on how much, it is tested whether detections have anything to do with the objects."""

SQUARE_STEP = 32
SQUARES = (1, 100, 300, 500, 600, 1000, 1333, *range(128, 2049, SQUARE_STEP))
"""Sides of the input images that are tried; 1 stands for parts of the square, and 100 for percent."""

LAYOUTS = ("", "-xyxy", "-cxcywh")
"""How boxes may be written on such a square."""

TRIED_FIRST, TRIED_WHOLE = 12, 6
"""Images on which all formats are tried, and the formats that are then tried on all of the sample."""

FORMATS = ("xyxy", "cxcywh", "yxhw", "yxyx", "xywhn", "xyxyn", "cxcywhn", "yxhwn", "yxyxn")
UNUSUAL = {
    "mirrored": "left and right exchanged (x counted from the right edge)",
    "from_bottom": "y counted from the bottom edge",
    "sides_first": "width, height, left, top",
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
class Mistake:
    """One finding.

    Attributes:
      kind: a short name.
      message: what is wrong, with its evidence.
      mend: what to do about it; options are those of the command ``yolojax eval``.
      decisive: whether precision, recall or AP mean little as they are, so that no other diagnosis makes sense.
    """

    kind: str
    message: str
    mend: str
    decisive: bool = True

    def __str__(self) -> str:
        return f"{self.message}; {self.mend}"


@dataclass(frozen=True)
class _Sample:
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

    def part(self, which: Int64[np.ndarray, " n"]) -> "_Sample":
        """Some of its images."""
        return _Sample(*(getattr(self, field.name)[which] for field in fields(self)))

    def rolled(self, shift: int) -> "_Sample":
        """Each image with the detections of another one."""
        rows, classes = (np.roll(column, shift, axis=0) for column in (self.rows, self.row_classes))
        return replace(self, rows=rows, row_classes=classes)


def pick_rows(values: np.ndarray, starts: np.ndarray, ends: np.ndarray, fill: float | int) -> np.ndarray:
    """Up to `SAMPLED_BOXES` rows from each start on, padded with ``fill``."""
    at = starts[:, None] + np.arange(SAMPLED_BOXES)[None, :]
    inside = at < ends[:, None]
    picked = values[np.where(inside, at, 0)] if len(values) else np.zeros((*at.shape, *values.shape[1:]), values.dtype)
    return np.where(inside.reshape(*inside.shape, *(1,) * (values.ndim - 1)), picked, fill)


def spread(count: int, most: int) -> Int64[np.ndarray, " n"]:
    """At most ``most`` of ``count`` positions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))


def _sample(truth: GroundTruth, found: ScoredBoxes, image_of: Int64[np.ndarray, " I"] | None = None) -> _Sample:
    """Images spread over those that have detections, each with the objects of itself or of image ``image_of``."""
    order = np.flatnonzero(~truth.crowd)
    order = order[np.argsort(truth.images[order], kind="stable")]
    owners = truth.images[order]
    with_rows = np.unique(found.images)
    target = with_rows if image_of is None else image_of[with_rows]
    has = (target >= 0) & np.isin(target, owners)
    with_rows, target = with_rows[has], target[has]
    chosen = spread(len(with_rows), SAMPLED_IMAGES)
    images, target = with_rows[chosen], target[chosen]

    def bounds(column: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.searchsorted(column, keys, side="left"), np.searchsorted(column, keys, side="right")

    rows, objects = bounds(found.images, images), bounds(owners, target)
    return _Sample(
        target,
        pick_rows(found.boxes, *rows, 0.0),
        pick_rows(found.categories, *rows, -1),
        pick_rows(truth.boxes[order], *objects, 0.0),
        pick_rows(truth.categories[order], *objects, -1),
        truth.sizes[target],
    )


def iou_table(
    rows: Float64[np.ndarray, "i d 4"], objects: Float64[np.ndarray, "i g 4"]
) -> Float64[np.ndarray, "i d g"]:
    """IoU of xywh boxes of each image; 0 with what has no area."""
    a, b = rows[:, :, None, :], objects[:, None, :, :]
    low = np.maximum(a[..., :2], b[..., :2])
    side = np.maximum(np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - low, 0)
    common = side[..., 0] * side[..., 1]
    union = np.maximum(a[..., 2], 0) * np.maximum(a[..., 3], 0) + b[..., 2] * b[..., 3] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _overlaps(sample: _Sample, box: str) -> Float64[np.ndarray, "i d g"]:
    """IoU of detections and objects of each image when the detections have this format."""
    sizes = np.broadcast_to(sample.sizes[:, None, :], (*sample.rows.shape[:2], 2))
    rows = _unusual(sample.rows, box, sizes) if box in UNUSUAL else convert_boxes(sample.rows, box, sizes)
    return iou_table(np.where((sample.row_classes >= 0)[..., None], rows, 0.0), sample.objects)


def _on_objects(sample: _Sample, box: str) -> tuple[int, float]:
    """How many sampled objects a detection of any class lies on when the detections have this format, and how well (the
    sum of their IoU)."""
    nearest = _overlaps(sample, box).max(axis=1, initial=0)
    nearest = nearest[nearest >= ON_OBJECT]
    return len(nearest), float(nearest.sum())


def _hits(sample: _Sample, box: str) -> int:
    return _on_objects(sample, box)[0]


def _better(now: int, then: int, possible: int) -> bool:
    """Whether ``then`` hits instead of ``now`` are more than chance could give."""
    return then >= max(2 * now + 2, 3, 0.2 * possible) or (possible == then <= 2 and now == 0 and then > 0)


def _is_no_chance(sample: _Sample, hits: Callable[[_Sample, str], int], box: str, then: int) -> bool:
    """Whether ``then`` hits in a format are more than many boxes have by chance, on the objects of other images."""
    if np.sum(sample.row_classes >= 0) <= 3 * sample.count:  # few boxes for each object
        return True
    return len(sample.images) >= LEAST_IMAGES and then >= 2 * _by_chance(sample, lambda one: hits(one, box)) + 2


def _by_chance(sample: _Sample, hits: Callable[[_Sample], int]) -> float:
    """The mean number of hits when images have the detections of others."""
    return float(np.mean([hits(sample.rolled(shift)) for shift in range(1, min(len(sample.images), 6))]))


def _unusual(rows: Float64[np.ndarray, "i d 4"], layout: str, sizes: Int64[np.ndarray, "i d 2"]) -> np.ndarray:
    """Boxes of one of the layouts in `UNUSUAL` as xywh."""
    a, b, c, d = np.moveaxis(rows, -1, 0)
    height, width = np.moveaxis(sizes.astype(np.float64), -1, 0)
    found = {
        "mirrored": (width - a - c, b, c, d),
        "from_bottom": (a, height - b - d, c, d),
        "sides_first": (c, d, a, b),
        "pairs": (a, c, b - a, d - c),
        "turned_left": (width - b - d, a, d, c),
        "turned_right": (b, height - a - c, d, c),
    }[layout]
    return np.stack(found, axis=-1)


def _plain_formats(sample: _Sample) -> list[str]:
    return [box for box in FORMATS if sample.is_sized or not box.endswith("n")]


def _best_format(sample: _Sample) -> tuple[str, int]:
    """The format in which most objects have a detection, and how many.

    Squares of any side and unusual layouts are hundreds of formats, one of which fits a few boxes by chance. Such a
    format is taken only where it explains far more than a plain one, and than detections of other images do in it.
    """
    plain = {box: _hits(sample, box) for box in _plain_formats(sample)}
    best = max(plain, key=lambda box: plain[box])
    if len(sample.images) < LEAST_IMAGES or plain[best] >= 0.6 * sample.count:
        return best, plain[best]
    other, then = _best_of_many(sample)
    chance = _by_chance(sample, lambda one: _hits(one, other))
    if then >= max(5, 0.3 * sample.count, 1.2 * plain[best] + 1, 3 * chance + 3):
        return other, then
    return best, plain[best]


def _best_of_many(sample: _Sample) -> tuple[str, int]:
    """The square or unusual layout in which most objects have a detection, and how many."""
    formats = ["sides_first", "pairs"]
    if sample.is_sized:
        kinds = ("letterbox", "corner", "stretch")
        formats = [*UNUSUAL, *(f"{kind}{side}{end}" for end in LAYOUTS for kind in kinds for side in SQUARES)]
    if len(sample.images) > TRIED_FIRST:
        few = sample.part(spread(len(sample.images), TRIED_FIRST))
        first = {box: _hits(few, box) for box in formats}
        formats = sorted(formats, key=lambda box: -first[box])[:TRIED_WHOLE]
    scores = {box: _on_objects(sample, box) for box in formats}
    best = max(scores, key=lambda box: scores[box][0])
    square = re.fullmatch(r"([a-z]+)(\d+)(-.*)?", best)
    if square is not None and (side := int(square[2])) > SQUARE_STEP:  # the side may be any near it
        near = (f"{square[1]}{one}{square[3] or ''}" for one in range(side - SQUARE_STEP, side + SQUARE_STEP))
        scores |= {box: _on_objects(sample, box) for box in near}
        best = max(scores, key=lambda box: (scores[box], box == best))
    return best, scores[best][0]


def find_conventions(truth: GroundTruth, found: ScoredBoxes) -> Iterable[Mistake]:
    """Findings about box format, image ids and class ids."""
    sample = _sample(truth, found)
    box = "xywh"
    if not len(sample.images):
        others = list(_other_images(truth, found, 0))
        yield from others
        if not others and (~truth.crowd).any():
            yield Mistake(
                "no_match",
                f"almost nothing matches: none of the {len(found.scores)} detections is about an image with objects",
                "check that image ids are those of the ground truth",
            )
        return
    now = _hits(sample, "xywh")
    if now < 0.6 * sample.count:  # otherwise nothing could be twice as good
        best, then = _best_format(sample)
        other_truth, if_so = _best_truth_format(sample)
        relative = bool((np.abs(found.boxes) <= 1).all()) and float(np.median(truth.boxes[:, 2:])) > 2
        if (
            if_so > then
            and _better(now, if_so, sample.count)
            and _is_no_chance(sample, _truth_hits, other_truth, if_so)
        ):
            yield _truth_mistake(other_truth, if_so, now, sample.count)
        elif _better(now, then, sample.count) and _is_no_chance(sample, _hits, best, then):
            box = best
            yield _format_mistake(truth, found, best, then, now, sample.count, relative)
        elif relative:
            yield Mistake(
                "box_format",
                f"no coordinate of the {len(found.scores)} detections is above 1: they look like parts of the image's "
                "width and height, but lie on no objects when read so",
                "write them in pixels, or try --box-format xywhn, xyxyn or cxcywhn",
            )
        elif now < 0.2 * sample.count:
            others = list(_other_images(truth, found, now))
            others += [] if others else _beyond_image(truth, found)
            yield from others or _no_match(sample)
    yield from _classes(truth, sample, box)


def _format_mistake(
    truth: GroundTruth, found: ScoredBoxes, box: str, then: int, now: int, possible: int, relative: bool
) -> Mistake:
    count = _count_beyond(truth, found, 0.02)
    evidence = [f"on {then} of {possible} sampled objects lies a detection if they are read so, on {now} as they are"]
    if relative:
        evidence.append("all coordinates are at most 1")
    if count:
        evidence.append(f"{count} of {len(found.scores)} boxes reach beyond their image as they are")
    what = WORDS.get(box) or UNUSUAL.get(box) or _square_in_words(box)
    return Mistake(
        "box_format",
        f"the detections' boxes look like {what}, not like left, top, width, height in pixels of the photo: "
        + "; ".join(evidence),
        f"--box-format {box} reads them so" if box not in UNUSUAL else "write left, top, width, height in pixels",
    )


def _square_in_words(box: str) -> str:
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


def _no_match(sample: _Sample) -> Iterable[Mistake]:
    """Whether detections lie on the objects of their image no more often than on those of other images.

    Even a poor detector does better on its own images. Where objects are at the same place on all of them, detections
    lie on many objects, and nothing is said.
    """
    rows, n = int(np.sum(sample.row_classes >= 0)), len(sample.images)
    if rows < LEAST_ROWS or sample.count < LEAST_OBJECTS or n < LEAST_IMAGES:
        return
    own = _near_objects(sample)
    chance = _by_chance(sample, _near_objects)
    if own < 0.2 * sample.count and own <= max(1.5 * chance, 0.02 * rows):
        yield Mistake(
            "no_match",
            f"almost nothing matches: on {own} of {sample.count} sampled objects lies a detection, and with the "
            f"detections of another image it would be {chance:.0f}",
            "check that image ids and box format are those of the ground truth; if they are, the detector has learnt "
            "nothing yet: look at its loss",
        )


def _near_objects(sample: _Sample) -> int:
    """How many objects of the sample have a detection near them."""
    return int(np.sum(iou_table(sample.rows, sample.objects).max(axis=1, initial=0) >= NEAR_OBJECT))


def _count_beyond(truth: GroundTruth, found: ScoredBoxes, share: float) -> int:
    """Detections that reach beyond their image by more than a share of its side (and two pixels)."""
    size = truth.sizes[found.images][:, ::-1].astype(np.float64)
    room = np.maximum(share * size, 2)
    over = (found.boxes[:, :2] + found.boxes[:, 2:] > size + room) | (found.boxes[:, :2] < -room)
    return int(np.sum(over.any(axis=1) & (size > 0).all(axis=1)))


def _beyond_image(truth: GroundTruth, found: ScoredBoxes) -> Iterable[Mistake]:
    count = _count_beyond(truth, found, 0.1)
    if count >= max(3, 0.25 * len(found.scores)):
        yield Mistake(
            "boxes_beyond_image",
            f"{count} of {len(found.scores)} detections reach far beyond their image, and almost none lies on an "
            "object",
            "check in which pixels the boxes are: of another size of the images, or of the detector's input",
        )


def _best_truth_format(sample: _Sample) -> tuple[str, int]:
    """The format of the ground truth's boxes, if it is another one, in which most objects have a detection."""
    scores = {box: _truth_hits(sample, box) for box in _plain_formats(sample)}
    best = max(scores, key=lambda box: scores[box])
    return best, scores[best]


def _truth_hits(sample: _Sample, box: str) -> int:
    """How many sampled objects have a detection on them when the ground truth's boxes have this format."""
    sizes = np.broadcast_to(sample.sizes[:, None, :], (*sample.objects.shape[:2], 2))
    objects = np.where((sample.object_classes >= 0)[..., None], convert_boxes(sample.objects, box, sizes), 0.0)
    objects = np.concatenate([objects[..., :2], np.maximum(objects[..., 2:], 0)], axis=-1)
    return int(np.sum(iou_table(sample.rows, objects).max(axis=1, initial=0) >= ON_OBJECT))


def _truth_mistake(box: str, then: int, now: int, possible: int) -> Mistake:
    return Mistake(
        "truth_box_format",
        f"the ground truth's boxes look like {WORDS[box]}: if they are read so, a detection lies on {then} of "
        f"{possible} sampled objects, as they are on {now}",
        "write the ground truth's boxes as left, top, width, height in pixels",
    )


def _other_images(truth: GroundTruth, found: ScoredBoxes, now: int) -> Iterable[Mistake]:
    """Whether the image ids mean other images: numbers in file names, or positions in the list."""
    ids = truth.image_ids
    if not all(isinstance(one, int | float) for one in ids):
        return
    numbers = file_numbers(truth.file_names)
    by_name = sorted(range(len(ids)), key=lambda k: truth.file_names[k])
    position = {one: k for k, one in enumerate(ids)}
    guesses: dict[str, tuple[str, dict[int, int]]] = {
        "the numbers in the file names": (
            "--image-ids names joins by them",
            {position[number]: k for number, k in numbers.items() if number in position},
        )
    }
    for first in (0, 1):
        for order, what in ((range(len(ids)), "ids"), (by_name, "file names")):
            guesses[f"positions in the order of the {what}, counted from {first}"] = (
                "write the ground truth's ids, or each row's file_name",
                {position[first + place]: k for place, k in enumerate(order) if first + place in position},
            )
    best: tuple[int, str, str, int, str] | None = None
    for what, (mend, places) in guesses.items():
        if not places or all(k == place for k, place in places.items()):
            continue
        image_of = np.full(len(ids), -1, np.int64)
        image_of[list(places)] = list(places.values())
        sample = _sample(truth, found, image_of)
        if not len(sample.images):
            continue
        same = _hits(sample, "xywh")
        box, other = _best_format(sample) if same < 0.2 * sample.count else ("xywh", 0)
        then, box = (other, box) if other > same else (same, "xywh")
        if (
            _better(now, then, sample.count)
            and _is_no_chance(sample, _hits, box, then)
            and (best is None or then > best[0])
        ):
            best = (then, what, mend, sample.count, box)
    if best is not None:
        then, what, mend, possible, box = best
        yield Mistake(
            "image_ids",
            f"the detections' image ids look like {what}: if they are read so, a detection lies on {then} of "
            f"{possible} sampled objects, as they are on {now}"
            + (f"; boxes as {WORDS.get(box) or UNUSUAL.get(box, box)}" if box != "xywh" else ""),
            mend + (f", --box-format {box} reads the boxes" if box not in ("xywh", *UNUSUAL) else ""),
        )


def _classes(truth: GroundTruth, sample: _Sample, box: str) -> Iterable[Mistake]:
    """Whether detections lie on objects of other classes in a regular way: one off, or in another order."""
    if len(truth.category_ids) < 2:
        return
    table = _overlaps(sample, box)
    alike = sample.row_classes[:, :, None] == sample.object_classes[:, None, :]
    table = np.where(alike & (table >= ON_OBJECT), table + 1, table)  # an object of its own class goes first
    nearest = table.argmax(axis=2)
    on = (table.max(axis=2, initial=0) >= ON_OBJECT) & (sample.row_classes >= 0)
    found = sample.row_classes[on]
    actual = np.take_along_axis(sample.object_classes, nearest, axis=1)[on]
    cases, agreeing = len(found), int(np.sum(found == actual))
    if cases < 3 or agreeing >= 0.4 * cases:
        return
    only = np.unique(found)
    if len(only) == 1 and cases >= 20 and len(np.unique(actual)) > 1:
        name = truth.category_names[only[0]]
        yield Mistake(
            "one_class_detections",
            f"all sampled detections are of the class {name[:80]!r}, and {cases - agreeing} of {cases} of them lie on "
            "objects of other classes",
            "check that the class of each detection was written",
        )
        return
    integers = all(isinstance(one, int) for one in truth.category_ids)
    ids = np.array(truth.category_ids if integers else range(len(truth.category_ids)), np.int64)
    shifts: dict[CategoryIds, tuple[str, Bool[np.ndarray, " m"]]] = {}
    if integers:
        shifts = {
            "less-one": ("class k lies on class k - 1", ids[found] - 1 == ids[actual]),
            "plus-one": ("class k lies on class k + 1", ids[found] + 1 == ids[actual]),
            "from-zero": ("class k lies on the class at position k, counted from 0", ids[found] == actual),
            "from-one": ("class k lies on the class at position k, counted from 1", ids[found] - 1 == actual),
        }
    for how, (what, holds) in shifts.items():
        if _better(agreeing, int(holds.sum()), cases) and holds.sum() >= 0.7 * cases:
            yield Mistake(
                "class_ids",
                f"the detections' class ids look shifted: {what} in {int(holds.sum())} of {cases} cases; the classes "
                f"agree in {agreeing}",
                f"--category-ids {how} reads them so",
            )
            return
    counts = np.zeros((len(ids), len(ids)), np.int64)
    np.add.at(counts, (found, actual), 1)
    main = counts.argmax(axis=1)
    seen = np.flatnonzero(counts.sum(axis=1))
    regular = int(counts[seen, main[seen]].sum())
    one_to_one = len(set(main[seen].tolist())) == len(seen)
    if len(seen) > 1 and one_to_one and regular >= 0.8 * cases and _better(agreeing, regular, cases):
        order = seen[np.argsort(-counts[seen, main[seen]], kind="stable")][:4]
        names = truth.category_names
        pairs = ", ".join(
            f"{names[k]!r} on {names[main[k]]!r} {counts[k, main[k]]} times" for k in order.tolist() if k != main[k]
        )
        yield Mistake(
            "class_order",
            f"the detections' classes look like those of another list: {pairs}; they agree in {agreeing} of {cases} "
            "cases",
            "give the classes by name, or the ids of the ground truth's categories",
        )
