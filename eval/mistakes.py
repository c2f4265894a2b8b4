"""Mistakes in the input that look like a bad detector: wrong ids, other box formats, doubtful ground truth.

A result file with a wrong convention gets an AP near 0 and no error from any tool. Each test here looks at the rows
themselves, names what it finds with its evidence, and proposes the option that would read the file as it seems to be
meant. Nothing is converted in silence, and a right file stays without a word: every threshold asks for far more than a
bad detector could give by chance.

`yolojax.eval.conventions` tries other conventions on a sample of the images.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, Int64

from yolojax.eval.box_formats import SAMPLED_IMAGES, pick_rows, spread
from yolojax.eval.conventions import Mistake, find_conventions
from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import Matches
from yolojax.eval.ordering import stable_order
from yolojax.eval.pairs import overlapping_pairs
from yolojax.host_boxes import iou_table

__all__ = ["Mistake", "find_mistakes"]

LEAST_PAIRED = 10
"""Detections that match, and that do not, from which it is tested whether the former score higher."""

LEAST_AHEAD = 0.25
"""Share of the pairs of a match and another one in which the match scores higher; poor detectors have about a half."""

LEAST_ODD, LEAST_ODD_SHARE, LEAST_SURE = 3, 0.2, 0.6
"""Images on which nothing matches, and their share, from which this is said, and the share of confident detections that
match on the others."""

SAME_BOX = 0.95
"""IoU from which two boxes count as the same one; suppression never leaves both."""


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
    yield from find_conventions(truth, found)
    yield from _repeated_rows(found)
    yield from _images_without_detections(truth, found, matches)
    yield from _images_without_matches(truth, found, matches)
    yield from _score_order(found, matches) or _score_scale(found)
    yield from _equal_scores(found, matches)


# --- ground truth ---


def _of_truth(truth: GroundTruth) -> Iterable[Mistake]:
    real = np.flatnonzero(~truth.crowd)
    if not len(real):
        if not len(truth.crowd):
            yield Mistake(
                "no_objects",
                "the ground truth holds no object, so there is nothing to find",
                "check that the right file and part were given",
            )
        else:
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
    elif n > 1:
        sampled, near = _near_repeats(truth.images[real], truth.categories[real], boxes)
        if near >= max(5, 0.05 * sampled):
            yield Mistake(
                "repeated_objects",
                f"{near} of {sampled} sampled objects lie almost exactly (IoU {SAME_BOX:g}) on another one of their "
                "class; the second of a pair cannot be found by a detector that finds each object once",
                "remove the repeated annotations; two annotators may have labelled the same images",
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
    tiny = int(np.sum((side <= 1).all(axis=1) & (side > 0).all(axis=1)))
    if tiny >= max(2, 0.5 * n) or (n == tiny == 1):
        relative = bool((np.abs(boxes) <= 1).all())
        yield Mistake(
            "tiny_objects",
            f"{tiny} of {n} objects are no larger than one pixel"
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
            "write the ground truth's boxes as left, top, width, height"
            + ("" if as_corners else ", in pixels of images of the stated size"),
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

_WEIGHTS = np.random.default_rng(0).uniform(1, 2, 7)
"""Of the columns of a row, so that rows with equal sums are nearly always equal."""


def _repeats(rows: Float64[np.ndarray, "n k"]) -> int:
    """How many rows equal an earlier one."""
    mixed = np.zeros(len(rows))  # equal rows have equal sums, so that only those need a closer look
    for weight, column in zip(_WEIGHTS, rows.T, strict=False):
        mixed += weight * column
    order = np.argsort(mixed)
    same = np.diff(mixed[order]) == 0
    rows = rows[order[np.append(same, False) | np.append(False, same)]] if len(rows) else rows
    ordered = rows[np.lexsort(rows.T)]
    return int(np.sum((ordered[1:] == ordered[:-1]).all(axis=1)))


def _repeated_rows(found: ScoredBoxes) -> Iterable[Mistake]:
    n = len(found.scores)
    same = (np.diff(found.images) == 0) & (np.diff(found.scores) == 0)  # equal rows stand together, with other ties
    tied = np.append(same, False) | np.append(False, same)
    repeats = _repeats(
        np.column_stack([found.images[tied], found.categories[tied], found.scores[tied], found.boxes[tied]])
    )
    if repeats >= max(2, 0.02 * n):
        yield Mistake(
            "repeated_detections",
            f"{repeats} of {n} rows repeat another one (same image, class, box and score), and each counts as a false "
            "positive",
            "remove the repeated rows; the file may have been written twice, or suppression left out",
        )
        return
    rows, near = _near_repeats(found.images, found.categories, found.boxes)
    if near >= max(10, 0.2 * rows):
        yield Mistake(
            "unsuppressed_detections",
            f"{near} of {rows} sampled rows lie almost exactly (IoU {SAME_BOX:g}) on a row of the same class with a "
            "higher score, and each counts as a false positive",
            "apply suppression (NMS), or remove the rows of one of two files that were joined",
            decisive=False,
        )


def _near_repeats(
    images: Int64[np.ndarray, " n"], categories: Int64[np.ndarray, " n"], boxes: Float64[np.ndarray, "n 4"]
) -> tuple[int, int]:
    """How many rows of a sample there are, and how many lie on one before them of the same image and class."""
    order = stable_order(images)
    images, categories, boxes = images[order], categories[order], boxes[order]
    chosen = np.flatnonzero(np.bincount(images))
    chosen = chosen[spread(len(chosen), SAMPLED_IMAGES)]
    starts, ends = (np.searchsorted(images, chosen, side=side) for side in ("left", "right"))
    rows, classes = (pick_rows(column, starts, ends, fill) for column, fill in ((boxes, 0.0), (categories, -1)))
    alike = (classes[:, :, None] == classes[:, None, :]) & (classes >= 0)[:, :, None]
    before = np.tri(rows.shape[1], k=-1, dtype=bool)
    return int(np.sum(classes >= 0)), int(np.sum((alike & before & (iou_table(rows, rows) >= SAME_BOX)).any(axis=2)))


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


def _images_without_matches(truth: GroundTruth, found: ScoredBoxes, matches: Matches) -> Iterable[Mistake]:
    """Far more images on which no confident detection lies on any object, than those of the other images explain.

    Confident is what scores at least as high as half of the detections that lie on an object. Where one of several on
    an image lies on an object, the others do with some probability p; the n of another image all miss with probability
    (1 - p)^n. Confident ones seldom miss, so that a few odd images stand out; a poor detector has none.
    """
    on = matches.object_of >= 0
    if not on.any():
        return
    sure = found.scores >= np.median(found.scores[on])
    images = len(truth.image_ids)
    n, hits = (np.bincount(found.images[which], minlength=images) for which in (sure, sure & on))
    some = np.bincount(found.images[on], minlength=images)
    with_objects = np.bincount(truth.images[~truth.crowd], minlength=images) > 0
    odd = with_objects & (n > 0) & (some == 0)
    least = max(LEAST_ODD, LEAST_ODD_SHARE * np.sum(n > 0))
    several = (hits > 0) & (n > 1)
    trials = int(np.sum(n[several] - 1))
    if odd.sum() < least or trials < 5:
        return
    # Where detections lie on objects of other classes, the boxes are right.
    on_odd = np.flatnonzero(odd[found.images])
    pairs = overlapping_pairs(truth, found, 0.5, same_class=False, detections=on_odd)
    odd[found.images[pairs.detections]] = False
    if odd.sum() < least:
        return
    rate = float(np.sum(hits[several] - 1)) / trials
    expected = float(np.sum((1 - rate) ** n[with_objects & (n > 0)]))
    if rate < LEAST_SURE or odd.sum() < 3 + 3 * expected:
        return
    first = int(np.flatnonzero(odd)[0])
    yield Mistake(
        "images_without_matches",
        f"on {int(odd.sum())} of {int(np.sum(with_objects & (n > 0)))} images with objects and confident detections "
        f"not one detection lies on an object, while {rate:.0%} of the confident ones of the other images do (the "
        f"first: {truth.file_names[first][:80]})",
        "check box format, image ids and orientation of these images; files of several conventions may have been "
        "joined",
    )


def _equal_scores(found: ScoredBoxes, matches: Matches) -> Iterable[Mistake]:
    """One score for all detections, where their order decides the numbers."""
    n, wrong = len(found.scores), int(np.sum((matches.object_of < 0) & ~matches.ignored))
    if n >= LEAST_PAIRED and 0 < wrong < n and found.scores.min() == found.scores.max():
        yield Mistake(
            "equal_scores",
            f"all {n} detections have the score {found.scores[0]:g}, and {wrong} of them find nothing: which of them "
            "come first, and so AP, is decided by their order in the file",
            "write the confidence of each detection",
            decisive=False,
        )


def _score_order(found: ScoredBoxes, matches: Matches) -> list[Mistake]:
    """Whether detections that match score lower than those that do not, as distances and negated scores do."""
    hit, other = matches.object_of >= 0, (matches.object_of < 0) & ~matches.ignored
    n, m = int(hit.sum()), int(other.sum())
    if min(n, m) < LEAST_PAIRED:
        return []
    # The Mann-Whitney statistic: the share of pairs in which the match has the higher score, ties as halves.
    values, place, counts = np.unique(found.scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ahead = (float(middle[place][hit].sum()) - n * (n + 1) / 2) / (n * m)
    by_chance = np.sqrt((n + m + 1) / (12 * n * m))  # standard deviation around a half
    if ahead > min(LEAST_AHEAD, 0.5 - 4 * by_chance) or len(values) < 3:
        return []
    return [
        Mistake(
            "score_order",
            f"the scores look turned round: of a detection that matches and one that does not, the former has the "
            f"higher score in {ahead:.0%} of all pairs",
            "write scores that are higher for better detections; negated scores and distances are not",
        )
    ]


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
    elif low >= 0 and high > 100 and above >= 0.5 * n:
        yield Mistake(
            "large_scores",
            f"{above} of {n} scores lie above 1 and none below 0 (from {low:.3g} to {high:.3g}): they are no "
            "probabilities, so precision and recall at a confidence mean little",
            "divide them by the largest score that there can be, such as 255",
        )
    elif outside >= max(3, 0.05 * n):
        yield Mistake(
            "logit_scores",
            f"{outside} of {n} scores lie outside 0..1 (from {low:.3g} to {high:.3g}): they look like logits, so "
            "precision and recall at a confidence mean little",
            "--score-format logit takes their sigmoid",
        )
