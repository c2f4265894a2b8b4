"""Mistakes in the input that look like a bad detector: wrong ids, other box formats, doubtful ground truth.

A result file with a wrong convention gets an AP near 0 and no error from any tool. Each test here looks at the rows
themselves, names what it finds with its evidence, and proposes the option that would read the file as it seems to be
meant. Nothing is converted in silence, and a right file stays without a word: every threshold asks for far more than a
bad detector could give by chance.

The tests of conventions try each convention on a sample of the images: a box format is suspected where the boxes, read
in that format, lie on at least twice as many objects as they do now.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.joining import CategoryIds, convert_boxes, file_numbers
from yolojax.eval.matching import Matches

SAMPLED_IMAGES, SAMPLED_BOXES = 100, 30
"""Images, and boxes of each, on which conventions are tried."""

ON_OBJECT = 0.7
"""IoU from which a box lies on an object when conventions are tried: above what most detectors reach by accident."""

SQUARES = (320, 416, 448, 512, 608, 640, 768, 800, 896, 960, 1024, 1280)
"""Sides of the input images that are tried."""

FORMATS = ("xyxy", "cxcywh", "yxhw", "yxyx", "xywhn", "xyxyn", "cxcywhn")
WORDS = {
    "xyxy": "corners (x1, y1, x2, y2)",
    "cxcywh": "centre and size",
    "yxhw": "y, x, height, width",
    "yxyx": "corners (y1, x1, y2, x2)",
    "xywhn": "left, top, width, height in parts of the image",
    "xyxyn": "corners in parts of the image",
    "cxcywhn": "centre and size in parts of the image",
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


def find_mistakes(truth: GroundTruth, found: ScoredBoxes, matches: Matches) -> tuple[Mistake, ...]:
    """All findings about ground truth and detections, the decisive ones first.

    Args:
      truth, found: checked columns.
      matches: of the detections at IoU .5.
    """
    findings = [*_of_truth(truth), *_of_detections(truth, found, matches)]
    return tuple(sorted(findings, key=lambda one: not one.decisive))


def _of_detections(truth: GroundTruth, found: ScoredBoxes, matches: Matches) -> Iterable[Mistake]:
    if not len(found.scores):
        if (~truth.crowd).any():
            yield Mistake("no_detections", "there is no detection at all", "check that the right file was given")
        return
    yield from _conventions(truth, found)
    yield from _repeated_rows(found)
    yield from _images_without_detections(truth, found, matches)
    yield from _score_scale(found)


# --- ground truth ---


def _of_truth(truth: GroundTruth) -> Iterable[Mistake]:
    real = np.flatnonzero(~truth.crowd)
    if not len(real):
        if len(truth.crowd):
            yield Mistake(
                "only_crowd",
                f"all {len(truth.crowd)} objects are crowd regions (iscrowd 1), so there is nothing to find",
                "set iscrowd to 0 for ordinary objects; some tools write 1 for every mask",
            )
        return
    boxes, areas = truth.boxes[real], truth.areas[real]
    n, own = len(real), boxes[:, 2] * boxes[:, 3]
    yield from _truth_boxes(boxes, truth.sizes[truth.images[real]][:, ::-1].astype(np.float64))
    repeats = _repeats(np.column_stack([truth.images[real], truth.categories[real], np.round(boxes, 2)]))
    if repeats >= max(2, 0.05 * n):
        yield Mistake(
            "repeated_objects",
            f"{repeats} of {n} objects repeat another one (same image, class and box); the second of a pair cannot be "
            "found by a detector that finds each object once",
            "remove the repeated annotations",
        )
    apart = (own >= 16) & ((areas > 1.5 * own + 16) | (areas < 0.01 * own))
    if apart.sum() >= max(1, 0.1 * n):
        k = int(np.argmax(apart))
        yield Mistake(
            "areas",
            f"the areas of {int(apart.sum())} of {n} objects lie far from those of their boxes (the first: area "
            f"{areas[k]:g}, box {boxes[k, 2]:g} x {boxes[k, 3]:g}); they decide what is small, medium and large, so "
            "APs, APm, APl, ARs, ARm and ARl mean little",
            "--areas box takes the areas of the boxes",
            decisive=False,
        )
    kinds = np.unique(truth.categories[real])
    if len(kinds) == 1 and len(truth.category_ids) >= 3 and n >= 20:
        yield Mistake(
            "one_class",
            f"all {n} objects are of the class {truth.category_names[kinds[0]]!r}; the other "
            f"{len(truth.category_ids) - 1} classes have none",
            "check the classes of the annotations",
            decisive=False,
        )


def _truth_boxes(boxes: Float64[np.ndarray, "n 4"], size: Float64[np.ndarray, "n 2"]) -> Iterable[Mistake]:
    n, low, side = len(boxes), boxes[:, :2], boxes[:, 2:]
    stated = (size > 0).all(axis=1)
    tiny = int(np.sum((side < 1).all(axis=1) & (side > 0).all(axis=1)))
    if tiny >= max(2, 0.5 * n) or (n == tiny == 1):
        relative = bool((np.abs(boxes) <= 1).all())
        yield Mistake(
            "tiny_objects",
            f"{tiny} of {n} objects are smaller than one pixel"
            + (" and no coordinate is above 1: the boxes look like parts of the image's width and height" * relative),
            "write the ground truth's boxes in pixels",
        )
        return
    beyond = stated & (low + side > size + np.maximum(0.02 * size, 2)).any(axis=1)
    corners = stated & (side > low).all(axis=1) & (side <= size + 2).all(axis=1)
    if beyond.sum() >= max(2, 0.2 * n):
        as_corners = int(np.sum(corners)) == int(np.sum(stated))
        yield Mistake(
            "objects_beyond_image",
            f"{int(beyond.sum())} of {n} objects reach beyond their image"
            + (", and read as corners (x1, y1, x2, y2) all lie inside: the boxes look like corners" * as_corners),
            "write the ground truth's boxes as left, top, width, height",
        )
    at_corner = int(np.sum((low <= 0).all(axis=1)))
    if n >= 5 and at_corner >= 0.9 * n:
        yield Mistake(
            "objects_at_corner",
            f"{at_corner} of {n} objects touch the top left corner of their image",
            "check the ground truth's boxes: left and top may be missing",
            decisive=False,
        )


# --- rows of the result file ---


def _repeats(rows: Float64[np.ndarray, "n k"]) -> int:
    """How many rows equal an earlier one."""
    return len(rows) - len(np.unique(rows, axis=0)) if len(rows) else 0


def _repeated_rows(found: ScoredBoxes) -> Iterable[Mistake]:
    same = (np.diff(found.images) == 0) & (np.diff(found.scores) == 0)  # equal rows stand together, with other ties
    tied = np.append(same, False) | np.append(False, same)
    repeats = _repeats(
        np.column_stack([found.images[tied], found.categories[tied], found.scores[tied], found.boxes[tied]])
    )
    if repeats >= max(2, 0.02 * len(found.scores)):
        yield Mistake(
            "repeated_detections",
            f"{repeats} of {len(found.scores)} rows repeat another one (same image, class, box and score), and each "
            "counts as a false positive",
            "remove the repeated rows; the file may have been written twice, or suppression left out",
        )


def _images_without_detections(truth: GroundTruth, found: ScoredBoxes, matches: Matches) -> Iterable[Mistake]:
    """Far more images without a detection than the share of missed objects in the other images explains.

    On an image with several objects of which one is found, the others are found with some probability r. An image of n
    objects then has no detection with probability (1 - r)^n.
    """
    images = len(truth.image_ids)
    objects = np.bincount(truth.images[~truth.crowd], minlength=images)
    hits = np.bincount(found.images[matches.object_of >= 0], minlength=images)
    rows = np.bincount(found.images, minlength=images)
    with_objects = objects > 0
    empty = with_objects & (rows == 0)
    several = (hits > 0) & (objects > 1)
    trials = int(np.sum(objects[several] - 1))
    if empty.sum() < max(3, 0.05 * with_objects.sum()) or trials < 5:
        return
    rate = float(np.sum(hits[several] - 1)) / trials
    expected = float(np.sum((1 - rate) ** objects[with_objects]))
    if empty.sum() < 3 + 3 * expected:
        return
    places = np.flatnonzero(empty)
    filled = np.flatnonzero(rows > 0)
    block = bool(places[0] > filled[-1] or places[-1] < filled[0])
    yield Mistake(
        "images_without_detections",
        f"{int(empty.sum())} of {int(with_objects.sum())} images with objects have no detection at all, while "
        f"{rate:.0%} of the objects of the other images are found"
        + (", and they stand together at one end of the list" * block)
        + f" (such as {truth.file_names[places[0]][:80]})",
        "check that the detector ran on all images",
    )


def _score_scale(found: ScoredBoxes) -> Iterable[Mistake]:
    low, high = float(found.scores.min()), float(found.scores.max())
    n, above = len(found.scores), int(np.sum(found.scores > 1))
    outside = above + int(np.sum(found.scores < 0))
    if low >= 0 and 1.5 < high <= 100 and above >= 0.5 * n:
        yield Mistake(
            "percent_scores",
            f"{above} of {n} scores lie above 1 and none above 100 (from {low:.3g} to {high:.3g}): they look like "
            "percentages, so precision and recall at a confidence mean little",
            "--score-format percent divides them by 100",
        )
    elif outside >= max(3, 0.05 * n):
        yield Mistake(
            "logit_scores",
            f"{outside} of {n} scores lie outside 0..1 (from {low:.3g} to {high:.3g}): they look like logits, so "
            "precision and recall at a confidence mean little",
            "--score-format logit takes their sigmoid",
        )


# --- conventions, tried on a sample ---


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


def _pick(values: np.ndarray, starts: np.ndarray, ends: np.ndarray, fill: float | int) -> np.ndarray:
    """Up to `SAMPLED_BOXES` rows from each start on, padded with ``fill``."""
    at = starts[:, None] + np.arange(SAMPLED_BOXES)[None, :]
    inside = at < ends[:, None]
    picked = values[np.where(inside, at, 0)] if len(values) else np.zeros((*at.shape, *values.shape[1:]), values.dtype)
    return np.where(inside.reshape(*inside.shape, *(1,) * (values.ndim - 1)), picked, fill)


def _sample(truth: GroundTruth, found: ScoredBoxes, image_of: Int64[np.ndarray, " I"] | None = None) -> _Sample:
    """Images spread over those that have detections, each with the objects of itself or of image ``image_of``."""
    order = np.flatnonzero(~truth.crowd)
    order = order[np.argsort(truth.images[order], kind="stable")]
    owners = truth.images[order]
    with_rows = np.unique(found.images)
    target = with_rows if image_of is None else image_of[with_rows]
    has = (target >= 0) & np.isin(target, owners)
    with_rows, target = with_rows[has], target[has]
    chosen = np.unique(np.linspace(0, len(with_rows) - 1, min(SAMPLED_IMAGES, len(with_rows))).astype(np.int64))
    images, target = with_rows[chosen], target[chosen]

    def bounds(column: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.searchsorted(column, keys, side="left"), np.searchsorted(column, keys, side="right")

    rows, objects = bounds(found.images, images), bounds(owners, target)
    return _Sample(
        target,
        _pick(found.boxes, *rows, 0.0),
        _pick(found.categories, *rows, -1),
        _pick(truth.boxes[order], *objects, 0.0),
        _pick(truth.categories[order], *objects, -1),
        truth.sizes[target],
    )


def _table(rows: Float64[np.ndarray, "i d 4"], objects: Float64[np.ndarray, "i g 4"]) -> Float64[np.ndarray, "i d g"]:
    """IoU of xywh boxes of each image; 0 with what has no area."""
    a, b = rows[:, :, None, :], objects[:, None, :, :]
    low = np.maximum(a[..., :2], b[..., :2])
    side = np.maximum(np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - low, 0)
    common = side[..., 0] * side[..., 1]
    union = np.maximum(a[..., 2], 0) * np.maximum(a[..., 3], 0) + b[..., 2] * b[..., 3] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _on_objects(sample: _Sample, box: str = "xywh") -> int:
    """How many sampled objects a detection of any class lies on, when the detections have this format."""
    sizes = np.broadcast_to(sample.sizes[:, None, :], (*sample.rows.shape[:2], 2))
    rows = convert_boxes(sample.rows, box, sizes) if box != "xywh" else sample.rows
    rows = np.where((sample.row_classes >= 0)[..., None], rows, 0.0)
    return int(np.sum(_table(rows, sample.objects).max(axis=1, initial=0) >= ON_OBJECT))


def _better(now: int, then: int, possible: int) -> bool:
    """Whether ``then`` hits instead of ``now`` are more than chance could give."""
    return then >= max(2 * now + 2, 3, 0.2 * possible) or (possible == then <= 2 and now == 0 and then > 0)


def _formats(sample: _Sample) -> list[str]:
    formats = list(FORMATS)
    if (sample.sizes > 0).all():
        kinds = ("letterbox", "corner", "stretch")
        return formats + [f"{kind}{side}" for kind in kinds for side in SQUARES]
    return [one for one in formats if not one.endswith("n")]


def _best_format(sample: _Sample) -> tuple[str, int]:
    scores = {box: _on_objects(sample, box) for box in _formats(sample)}
    best = max(scores, key=lambda box: scores[box])
    return best, scores[best]


def _conventions(truth: GroundTruth, found: ScoredBoxes) -> Iterable[Mistake]:
    """Findings about box format, image ids and class ids."""
    sample = _sample(truth, found)
    box = "xywh"
    if not len(sample.images):
        yield from _other_images(truth, found, 0)
        return
    now = _on_objects(sample)
    if now < 0.6 * sample.count:  # otherwise nothing could be twice as good
        best, then = _best_format(sample)
        relative = bool((np.abs(found.boxes) <= 1).all()) and float(np.median(truth.boxes[:, 2:])) > 2
        if _better(now, then, sample.count):
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
            yield from others
            if not others:
                yield from _beyond_image(truth, found)
                yield from _other_truth(sample, now)
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
    what = WORDS.get(box, f"pixels of a square input image of {box.lstrip('abcdefghijklmnopqrstuvwxyz')}")
    if box.startswith("letterbox"):
        what += " in which the photo is centred"
    return Mistake(
        "box_format",
        f"the detections' boxes look like {what}, not like left, top, width, height in pixels of the photo: "
        + "; ".join(evidence),
        f"--box-format {box} reads them so",
    )


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


def _other_truth(sample: _Sample, now: int) -> Iterable[Mistake]:
    """Whether the ground truth's boxes have another format instead."""
    sizes = np.broadcast_to(sample.sizes[:, None, :], (*sample.objects.shape[:2], 2))
    for box in ("xyxy", "cxcywh", "xywhn", "xyxyn", "cxcywhn"):
        if box.endswith("n") and not (sample.sizes > 0).all():
            continue
        objects = convert_boxes(sample.objects, box, sizes)
        sides = np.where((sample.object_classes >= 0)[..., None], objects, 0.0)
        objects = np.concatenate([sides[..., :2], np.maximum(sides[..., 2:], 0)], axis=-1)
        then = int(np.sum(_table(sample.rows, objects).max(axis=1, initial=0) >= ON_OBJECT))
        if _better(now, then, sample.count):
            yield Mistake(
                "truth_box_format",
                f"the ground truth's boxes look like {WORDS[box]}: if they are read so, a detection lies on {then} of "
                f"{sample.count} sampled objects, as they are on {now}",
                "write the ground truth's boxes as left, top, width, height in pixels",
            )
            return


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
        same = _on_objects(sample)
        box, other = _best_format(sample) if same < 0.2 * sample.count else ("xywh", 0)
        then, box = (other, box) if other > same else (same, "xywh")
        if _better(now, then, sample.count) and (best is None or then > best[0]):
            best = (then, what, mend, sample.count, box)
    if best is not None:
        then, what, mend, possible, box = best
        yield Mistake(
            "image_ids",
            f"the detections' image ids look like {what}: if they are read so, a detection lies on {then} of "
            f"{possible} sampled objects, as they are on {now}"
            + (f"; boxes as {WORDS.get(box, box)}" if box != "xywh" else ""),
            mend + (f", --box-format {box} reads the boxes" if box != "xywh" else ""),
        )


def _classes(truth: GroundTruth, sample: _Sample, box: str) -> Iterable[Mistake]:
    """Whether detections lie on objects of other classes in a regular way: one off, or in another order."""
    if len(truth.category_ids) < 2:
        return
    sizes = np.broadcast_to(sample.sizes[:, None, :], (*sample.rows.shape[:2], 2))
    rows = convert_boxes(sample.rows, box, sizes) if box != "xywh" else sample.rows
    table = _table(np.where((sample.row_classes >= 0)[..., None], rows, 0.0), sample.objects)
    alike = sample.row_classes[:, :, None] == sample.object_classes[:, None, :]
    table = np.where(alike & (table >= ON_OBJECT), table + 1, table)  # an object of its own class goes first
    nearest = table.argmax(axis=2)
    on = (table.max(axis=2, initial=0) >= ON_OBJECT) & (sample.row_classes >= 0)
    found = sample.row_classes[on]
    actual = np.take_along_axis(sample.object_classes, nearest, axis=1)[on]
    cases, agreeing = len(found), int(np.sum(found == actual))
    if cases < 3 or agreeing >= 0.4 * cases:
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
