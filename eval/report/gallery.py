"""Chooses the images that a report shows (the worst ones, and examples of every kind of error) and draws on them."""

import base64
import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from yolojax.errors import DataError
from yolojax.eval.analysis import Analysis, found_objects
from yolojax.eval.ordering import positions_of
from yolojax.eval.pairs import pair_overlaps
from yolojax.eval.tide import KINDS

Photo = Callable[[Any], UInt8[np.ndarray, "h w 3"] | None]
"""Gives the pixels of the image with this id, or None where there are none; may raise `DataError`."""

FOUND, IGNORED = -1, -2
"""Status of a detection that is no error: a true positive, or one in a crowd region."""


@dataclass(frozen=True)
class Limits:
    """How much of a data set a page can hold and still open at once."""

    images: int = 160
    worst: int = 48
    per_kind: int = 14
    boxes: int = 100
    objects: int = 1000
    side: int = 320
    differences: int = 24


@dataclass(frozen=True)
class Gallery:
    """Images for the page, worst first.

    Attributes:
      images: one JSON object each (`_image`).
      with_errors: how many images of the data set have an error at the confidence, and with each kind of error.
      total: images of the data set.
      cut: detections of the shown images that are left out, since only the highest scores of each are kept.
      cut_objects: objects of the shown images that are left out, since only the first of each are kept.
      missing: images shown without their photo.
      unreadable: the error message of the first photo that could not be read.
      limits: that were kept.
    """

    images: list[dict[str, Any]]
    with_errors: dict[str, int]
    total: int
    cut: int
    cut_objects: int
    missing: int
    unreadable: str | None
    limits: Limits


def build_gallery(analysis: Analysis, photo: Photo | None = None, limits: Limits | None = None) -> Gallery:
    """Choose images and collect boxes and thumbnails.

    Errors are counted at the confidence of the evaluation. The worst images are those with the most errors; then come,
    for every kind, those with the most of that kind; then for every class not seen yet its worst image; each as long as
    there is room.
    """
    limits = limits or Limits()
    counts = errors_per_image(analysis)
    total = counts.sum(axis=1)
    chosen: dict[int, None] = {}

    def take(order: np.ndarray, n: int) -> None:
        for k in order[:n].tolist():
            if len(chosen) < limits.images:
                chosen.setdefault(k)

    def falling(values: np.ndarray) -> np.ndarray:
        order = np.argsort(-values, kind="stable")
        return order[values[order] > 0]

    take(falling(total), limits.worst)
    for kind in range(len(KINDS)):
        take(falling(counts[:, kind]), limits.per_kind)
    _take_classes(analysis, total, take, chosen)
    if len(chosen) < limits.images:  # small data sets are shown whole
        take(np.argsort(-total, kind="stable"), limits.images)
    order = sorted(chosen, key=lambda k: (-int(total[k]), k))
    detections, objects = positions_of(analysis.found.images), positions_of(analysis.truth.images)
    images, cut, cut_objects, missing, unreadable = [], 0, 0, 0, None
    for k in order:
        rows, about = detections(k), objects(k)
        cut += max(len(rows) - limits.boxes, 0)
        cut_objects += max(len(about) - limits.objects, 0)
        pixels = None
        try:
            pixels = photo(analysis.truth.image_ids[k]) if photo is not None else None
        except DataError as error:
            unreadable = unreadable or str(error)
        missing += pixels is None
        image = _image(analysis, k, rows, about[: limits.objects], pixels, limits)
        images.append(image | {"errors": int(total[k])})
    with_errors = {"any": int(np.sum(total > 0))}
    with_errors |= {kind: int(np.sum(counts[:, i] > 0)) for i, kind in enumerate(KINDS)}
    return Gallery(images, with_errors, len(total), cut, cut_objects, missing, unreadable, limits)


def build_differences(
    analysis: Analysis, other: Analysis, photo: Photo | None = None, limits: Limits | None = None
) -> list[dict[str, Any]]:
    """The images on which two detectors find different objects, those with the most such objects first.

    Each is a JSON object with ``A`` and ``B`` (an image each, as in the gallery) and how many objects ``only_A`` and
    ``only_B`` find at IoU .5 and their confidences. ``A`` alone has the thumbnail, which both show. A photo that cannot
    be read is left out, as in the gallery.
    """
    limits = limits or Limits()
    truth = analysis.truth
    first, second = found_objects(analysis), found_objects(other)
    only = [
        np.bincount(truth.images[~truth.crowd & own & ~its], minlength=len(truth.image_ids))
        for own, its in ((first, second), (second, first))
    ]
    total = only[0] + only[1]
    order = np.argsort(-total, kind="stable")
    objects = positions_of(truth.images)
    rows = {"A": positions_of(analysis.found.images), "B": positions_of(other.found.images)}
    images = []
    for k in order[total[order] > 0][: limits.differences].tolist():
        pixels = None
        if photo is not None:
            with contextlib.suppress(DataError):
                pixels = photo(truth.image_ids[k])
        about = objects(k)[: limits.objects]
        pair = {
            side: _image(one, k, rows[side](k), about, photo_of_side, limits)
            | {"confidence": one.result.at_confidence.confidence}
            for side, one, photo_of_side in (("A", analysis, pixels), ("B", other, None))
        }
        if pixels is not None:  # whose size counts where the data set states none
            pair["B"] |= {name: pair["A"][name] for name in ("width", "height")}
        images.append(pair | {"only_A": int(only[0][k]), "only_B": int(only[1][k])})
    return images


def errors_per_image(analysis: Analysis) -> np.ndarray:
    """How many errors of each kind every image has at the confidence of the evaluation, ``[I, 6]``."""
    truth, found = analysis.truth, analysis.found
    counted = found.scores >= analysis.result.at_confidence.confidence
    counts = np.zeros((len(truth.image_ids), len(KINDS)), np.int64)
    wrong = counted & (analysis.kinds >= 0)
    np.add.at(counts, (found.images[wrong], analysis.kinds[wrong]), 1)
    missed = missed_objects(analysis)
    np.add.at(counts, (truth.images[missed], np.full(int(missed.sum()), KINDS.index("missed"))), 1)
    return counts


def missed_objects(analysis: Analysis) -> np.ndarray:
    """Objects that at the confidence nothing found, and no misclassified or misplaced detection points at."""
    found, counted = analysis.found, analysis.found.scores >= analysis.result.at_confidence.confidence
    missed = ~analysis.truth.crowd & ~found_objects(analysis)
    pointing = np.isin(analysis.kinds, [KINDS.index("classification"), KINDS.index("localisation")])
    missed[analysis.points_at[counted & pointing]] = False
    return missed if len(found.scores) else ~analysis.truth.crowd


def _take_classes(
    analysis: Analysis, total: np.ndarray, take: Callable[[np.ndarray, int], None], chosen: dict[int, None]
) -> None:
    """The worst image of each class that no chosen image has an object of."""
    truth = analysis.truth
    of_category = positions_of(truth.categories)
    for category in np.unique(truth.categories).tolist():
        of_class = np.unique(truth.images[of_category(category)])
        if not np.isin(of_class, list(chosen)).any():
            take(of_class[np.argsort(-total[of_class], kind="stable")], 1)


def _image(
    analysis: Analysis,
    k: int,
    rows: np.ndarray,
    objects: np.ndarray,
    pixels: UInt8[np.ndarray, "h w 3"] | None,
    limits: Limits,
) -> dict[str, Any]:
    """One image for the page, with these detections and objects.

    ``truth``: ``[x, y, w, h, class, crowd, score of the detection that found it or -1]``; ``found``: ``[x, y, w, h,
    class, score, status, object it is about or -1, IoU with that]``, where status is `FOUND`, `IGNORED` or an index
    into `KINDS` and objects are positions in ``truth``. Pixels of the original image.
    """
    truth, found, matches = analysis.truth, analysis.found, analysis.matches
    place = {int(g): i for i, g in enumerate(objects)}
    hits = rows[matches.object_of[rows] >= 0]
    score_of = dict(zip(matches.object_of[hits].tolist(), found.scores[hits].tolist(), strict=True))
    rows = rows[: limits.boxes]
    about_kinds = ("classification", "localisation", "both", "duplicate")
    drawn: list[list[Any]] = []
    pointed: list[int] = []
    for r in rows.tolist():
        status = IGNORED if matches.ignored[r] else FOUND if matches.object_of[r] >= 0 else int(analysis.kinds[r])
        about = int(matches.object_of[r])
        if status >= 0:
            about = int(analysis.points_at[r]) if KINDS[status] in about_kinds and len(objects) else -1
        at = place.get(about, -1)
        pointed.append(max(about, 0))
        drawn.append(
            [
                *(round(float(v), 1) for v in found.boxes[r]),
                int(found.categories[r]),
                round(float(found.scores[r]), 4),
                status,
                at,
            ]
        )
    if len(objects):
        iou = pair_overlaps(found.boxes[rows], truth.boxes[pointed], np.zeros(len(rows), bool))
    else:
        iou = np.zeros(len(rows))
    drawn = [[*row, round(value, 3) if row[-1] >= 0 else 0] for row, value in zip(drawn, iou.tolist(), strict=True)]
    height, width = _extent(analysis, k, rows, objects, pixels)
    return {
        "name": truth.file_names[k],
        "id": str(truth.image_ids[k]),
        "width": width,
        "height": height,
        "thumbnail": None if pixels is None else thumbnail(pixels, limits.side),
        "truth": [
            [
                *(round(float(v), 1) for v in truth.boxes[g]),
                int(truth.categories[g]),
                int(truth.crowd[g]),
                round(score_of.get(int(g), -1.0), 4),
            ]
            for g in objects.tolist()
        ],
        "found": drawn,
    }


def _extent(
    analysis: Analysis, k: int, rows: np.ndarray, objects: np.ndarray, pixels: np.ndarray | None
) -> tuple[int, int]:
    """Height and width to draw on: the stated size, else the photo's, else what the boxes reach to."""
    height, width = (int(v) for v in analysis.truth.sizes[k])
    if height > 1 and width > 1:
        return height, width
    if pixels is not None:
        return pixels.shape[0], pixels.shape[1]
    boxes = np.concatenate([analysis.truth.boxes[objects], analysis.found.boxes[rows], np.full((1, 4), 16.0)])
    reach = np.ceil((boxes[:, :2] + boxes[:, 2:]).max(axis=0)).astype(int)
    return int(reach[1]), int(reach[0])


def thumbnail(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> str:
    """A JPEG with its longer side at most ``side``, as a data address."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
