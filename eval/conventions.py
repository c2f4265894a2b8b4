"""Conventions of result files, tried on a sample: other box formats, image ids and class ids than the ground truth's.

Each test looks at the rows themselves. A format is suspected where the boxes, read in that format, lie on at least
twice as many objects as they do now; ids likewise. Where no convention explains why almost nothing matches, that is
said.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.eval.box_formats import (
    LEAST_IMAGES,
    ON_OBJECT,
    UNUSUAL,
    WORDS,
    Sample,
    best_format,
    best_shift,
    best_truth_format,
    count_hits,
    count_truth_hits,
    format_in_words,
    hits_by_chance,
    is_better,
    is_no_chance,
    overlaps_in,
    take_sample,
)
from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.joining import file_numbers
from yolojax.eval.result_format import CategoryIds
from yolojax.host_boxes import iou_table

NEAR_OBJECT, LEAST_ROWS, LEAST_OBJECTS = 0.3, 30, 10
"""From which IoU, and on how much, it is tested whether detections have anything to do with the objects."""


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


def find_conventions(truth: GroundTruth, found: ScoredBoxes) -> Iterable[Mistake]:
    """Findings about box format, image ids and class ids."""
    sample = take_sample(truth, found)
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
    now = count_hits(sample, "xywh")
    if now < 0.6 * sample.count:  # otherwise nothing could be twice as good
        best, then = best_format(sample)
        other_truth, if_so = best_truth_format(sample)
        relative = bool((np.abs(found.boxes) <= 1).all()) and float(np.median(truth.boxes[:, 2:])) > 2
        if (
            if_so > then
            and is_better(now, if_so, sample.count)
            and is_no_chance(sample, count_truth_hits, other_truth, if_so)
        ):
            yield _truth_mistake(other_truth, if_so, now, sample.count)
        elif is_better(now, then, sample.count) and is_no_chance(sample, count_hits, best, then):
            # A square that fits the images of one size alone is the wrong advice where one factor fits all of them.
            moved = [] if best in WORDS else list(_moved(sample, now, then + max(3, 0.1 * then)))
            box = "xywh" if moved else best
            yield from moved or [_format_mistake(truth, found, best, then, now, sample.count, relative)]
        elif relative:
            yield Mistake(
                "box_format",
                f"no coordinate of the {len(found.scores)} detections is above 1: they look like parts of the image's "
                "width and height, but lie on no objects when read so",
                "write them in pixels, or try --box-format xywhn, xyxyn or cxcywhn",
            )
        elif now < 0.2 * sample.count:
            others = list(_other_images(truth, found, now))
            others += [] if others else list(_moved_by_size(sample, now)) or _moved(sample, now)
            others += [] if others else _beyond_image(truth, found)
            if not others and (nothing := list(_no_match(sample))):
                yield from nothing
                return  # the classes of what lies on an object by chance say nothing
            yield from others
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
    what = WORDS.get(box) or UNUSUAL.get(box) or format_in_words(box)
    return Mistake(
        "box_format",
        f"the detections' boxes look like {what}, not like left, top, width, height in pixels of the photo: "
        + "; ".join(evidence),
        f"--box-format {box} reads them so" if box not in UNUSUAL else "write left, top, width, height in pixels",
    )


def _moved(sample: Sample, now: int, least: float = 5) -> Iterable[Mistake]:
    """Whether one factor and one shift for all images put the detections onto the objects, at least onto so many."""
    factor, (x, y), then = best_shift(sample)
    if (
        then < max(least, 5, 0.3 * sample.count)
        or not is_better(now, then, sample.count)
        or len(sample.images) < LEAST_IMAGES
    ):
        return
    if then < 3 * hits_by_chance(sample, lambda other: best_shift(other)[2]) + 3:
        return
    how = [f"multiplied by {factor:.3g}"] if factor != 1 else []
    how += [f"moved by {x:.3g} and {y:.3g} pixels"] if max(abs(x), abs(y)) >= 1 else []
    yield Mistake(
        "moved_boxes",
        f"the detections' boxes lie on objects once they are {' and '.join(how)}: on {then} of {sample.count} sampled "
        f"objects then, on {now} as they are",
        "write them in pixels of the images of the ground truth; the detector may have seen smaller or larger ones, a "
        "part of them, or a border around them",
    )


def _moved_by_size(sample: Sample, now: int) -> Iterable[Mistake]:
    """Whether a factor and a shift for each size of image put the detections onto the objects.

    So it is where photos of several sizes were scaled and centred on an input image that is no square. Only sizes of
    which there are enough images to measure chance are looked at, and each has to exceed it; together they have to
    explain far more than one factor and shift for all images.
    """
    if not sample.is_sized:
        return
    sizes, group_of = np.unique(sample.sizes, axis=0, return_inverse=True)
    if len(sizes) < 2:
        return
    hits, possible, how = 0, 0, list[str]()
    for k, (height, width) in enumerate(sizes.tolist()):
        group = sample.part(np.flatnonzero(group_of.reshape(-1) == k))
        if len(group.images) < LEAST_IMAGES or group.count < 5:
            continue
        factor, (x, y), then = best_shift(group)
        possible += group.count
        if then < max(5, 0.3 * group.count) or then < 3 * hits_by_chance(group, lambda one: best_shift(one)[2]) + 3:
            continue
        hits += then
        how.append(f"multiplied by {factor:.3g} and moved by {x:.3g} and {y:.3g} on images of {width} x {height}")
    if len(how) < 2 or hits < 0.3 * sample.count or hits < 0.5 * possible or not is_better(now, hits, sample.count):
        return
    if hits < 1.5 * best_shift(sample)[2]:
        return
    yield Mistake(
        "moved_boxes",
        f"the detections' boxes lie on objects once they are {', '.join(how[:2])}{', ...' if len(how) > 2 else ''}: on "
        f"{hits} of {sample.count} sampled objects then, on {now} as they are",
        "write them in pixels of the images of the ground truth; they look like those of an input image onto which "
        "photos of several sizes were scaled and centred",
    )


def _no_match(sample: Sample) -> Iterable[Mistake]:
    """Whether detections lie on the objects of their image no more often than on those of other images.

    Even a poor detector does better on its own images: near more objects, or on an object of more images, by more than
    three standard deviations of such a count, which are taken for its square root. Images are counted, and a twentieth
    of them allowed for, because some have their own ids when the ids of all are in disorder. Where objects are at the
    same place on all images, detections lie on many of them, and nothing is said.
    """
    rows, n = int(np.sum(sample.row_classes >= 0)), len(sample.images)
    if rows < LEAST_ROWS or sample.count < LEAST_OBJECTS or n < LEAST_IMAGES:
        return

    overlaps = _best_overlaps(sample)
    if np.sum(overlaps >= 0.5) >= 0.2 * sample.count:
        return
    own = _counts(overlaps)
    chance = np.mean([_counts(_best_overlaps(other)) for other in sample.by_chance()], axis=0)
    if (own <= np.maximum(chance + 3 * chance**0.5, [0.02 * rows, n / 20, n / 20])).all():
        yield Mistake(
            "no_match",
            f"almost nothing matches: on {own[0]} of {sample.count} sampled objects lies a detection, and with the "
            f"detections of another image it would be {chance[0]:.0f}",
            "check that image ids and box format are those of the ground truth; if they are, the detector has learnt "
            "nothing yet: look at its loss",
        )


def _best_overlaps(sample: Sample) -> Float64[np.ndarray, "i g"]:
    """The largest IoU of each object of the sample with a detection."""
    return iou_table(sample.rows, sample.objects).max(axis=1, initial=0)


def _counts(overlaps: Float64[np.ndarray, "i g"]) -> Int64[np.ndarray, " 3"]:
    """Objects that have a detection near them, and images with a detection on an object by IoU .5 and `ON_OBJECT`."""
    images = [(overlaps >= iou).any(axis=1).sum() for iou in (0.5, ON_OBJECT)]
    return np.array([np.sum(overlaps >= NEAR_OBJECT), *images])


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


def _truth_mistake(box: str, then: int, now: int, possible: int) -> Mistake:
    return Mistake(
        "truth_box_format",
        f"the ground truth's boxes look like {WORDS[box]}: if they are read so, a detection lies on {then} of "
        f"{possible} sampled objects, as they are on {now}",
        "write the ground truth's boxes as left, top, width, height in pixels",
    )


def _other_images(truth: GroundTruth, found: ScoredBoxes, now: int) -> Iterable[Mistake]:
    """Whether the image ids mean other images: numbers in file names, positions in the list, or ids one off.

    Where the ground truth's ids are no numbers, rows with numbers were joined by those in the file names.
    """
    ids = truth.image_ids
    numbers = file_numbers(truth.file_names)
    by_name = sorted(range(len(ids)), key=lambda k: truth.file_names[k])
    position, guesses = numbers, dict[str, tuple[str, dict[int, int]]]()
    if all(isinstance(one, int | float) for one in ids):
        position = {one: k for k, one in enumerate(ids)}
        guesses["the numbers in the file names"] = (
            "--image-ids names joins by them",
            {position[number]: k for number, k in numbers.items() if number in position},
        )
    for off, what, mend in ((1, "high", "subtract 1 from them"), (-1, "low", "add 1 to them")):
        guesses[f"the ground truth's, but one too {what}"] = (
            f"{mend}, or write each row's file_name",
            {position[one + off]: k for one, k in position.items() if one + off in position},
        )
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
        sample = take_sample(truth, found, image_of)
        if not len(sample.images):
            continue
        same = count_hits(sample, "xywh")
        box, other = best_format(sample) if same < 0.2 * sample.count else ("xywh", 0)
        then, box = (other, box) if other > same else (same, "xywh")
        if (
            is_better(now, then, sample.count)
            and is_no_chance(sample, count_hits, box, then)
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


def _classes(truth: GroundTruth, sample: Sample, box: str) -> Iterable[Mistake]:
    """Whether detections lie on objects of other classes in a regular way: one off, or in another order."""
    if len(truth.category_ids) < 2:
        return
    table = overlaps_in(sample, box)
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
    counts = np.zeros((len(ids), len(ids)), np.int64)
    np.add.at(counts, (found, actual), 1)
    main = counts.argmax(axis=1)
    seen = np.flatnonzero(counts.sum(axis=1))
    one_to_one = len(set(main[seen].tolist())) == len(seen)
    regular = int(counts[seen, main[seen]].sum()) if one_to_one else 0
    for how, (what, holds) in shifts.items():
        if regular > holds.sum() + max(2, 0.1 * cases):
            continue  # a shift of all but a class or two is another order
        if is_better(agreeing, int(holds.sum()), cases) and holds.sum() >= 0.7 * cases:
            yield Mistake(
                "class_ids",
                f"the detections' class ids look shifted: {what} in {int(holds.sum())} of {cases} cases; the classes "
                f"agree in {agreeing}",
                f"--category-ids {how} reads them so",
            )
            return
    if len(seen) > 1 and regular >= 0.8 * cases and is_better(agreeing, regular, cases):
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
