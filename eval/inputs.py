"""Ground truth and detections, read and checked once, as columns of arrays.

This module refuses or counts input that COCO tools accept silently and then score wrongly. Arguments are never changed;
ids are renumbered in the columns.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from yolojax.errors import DataError, ResultError
from yolojax.eval.columns import (
    LARGEST_AREA,
    Record,
    RowName,
    check_sides,
    column,
    few,
    finite_column,
    flag_column,
    id_column,
    is_missing,
    keys_used,
    lists_of,
    number_rows,
    optional_column,
    parse_json,
    read_content,
    read_json,
)
from yolojax.eval.joining import (
    CATEGORY_NAMES,
    IMAGE_NAMES,
    Unknown,
    check_category_names,
    guess_ids,
    join_images,
    join_scored,
    keys_or_names,
    named,
)
from yolojax.eval.listings import count_ids, file_name_of, grouping_categories, image_sides, records_by_id
from yolojax.eval.ordering import by_key_and_score
from yolojax.eval.plain_results import PlainRows, read_plain_rows
from yolojax.eval.result_format import COCO_FORMAT, ResultFormat, convert_boxes, convert_category_ids, convert_scores
from yolojax.other_tools import name_other_results, name_other_tool

GroundTruthSource = Record | str | PathLike[str]
DetectionSource = Sequence[Record] | Record | np.ndarray | str | PathLike[str]
IgnoreMeans = Literal["ordinary", "crowd"]
Ties = Literal["listed", "canonical"]
Areas = Literal["given", "box"]

_LARGEST_SCORE = 1e6


@dataclass(frozen=True)
class GroundTruth:
    """Objects of a data set, in columns; images and categories are indices into the sorted ids.

    ``sizes`` are ``(height, width)`` of the images, 0 where the data set does not state them. ``boxes`` are xywh in
    pixels. ``areas`` are the data set's own (of the mask, in COCO), which decide what is small,
    medium and large, and the box's only where the data set gives none. ``crowd`` regions are neither object nor
    background. ``repairs`` counts what was renumbered, filled in or left out.
    """

    image_ids: tuple[Any, ...]
    file_names: tuple[str, ...]
    sizes: Int64[np.ndarray, "I 2"]
    category_ids: tuple[Any, ...]
    category_names: tuple[str, ...]
    images: Int64[np.ndarray, " G"]
    categories: Int64[np.ndarray, " G"]
    boxes: Float64[np.ndarray, "G 4"]
    areas: Float64[np.ndarray, " G"]
    crowd: Bool[np.ndarray, " G"]
    repairs: dict[str, int]


@dataclass(frozen=True)
class ScoredBoxes:
    """Detections in columns, ordered by image and falling score.

    ``rows`` are their positions in the list that was read. ``boxes`` are xywh in pixels of the original image;
    ``images`` and ``categories`` index those of the ground truth. Rows about unknown ids are left out and counted by
    id.
    """

    images: Int64[np.ndarray, " D"]
    categories: Int64[np.ndarray, " D"]
    boxes: Float64[np.ndarray, "D 4"]
    scores: Float64[np.ndarray, " D"]
    rows: Int64[np.ndarray, " D"]
    unknown_images: dict[str, int]
    unknown_categories: dict[str, int]


def read_ground_truth(
    source: GroundTruthSource,
    *,
    ignore_means: IgnoreMeans = "ordinary",
    unknown: Unknown = "refuse",
    areas: Areas = "given",
) -> GroundTruth:
    """A COCO data set (parsed, or the path of its JSON file) as columns.

    Args:
      source: needs ``images`` (``id``), ``categories`` (``id``, ``name``) and ``annotations`` (``image_id``,
        ``category_id``, ``bbox`` as xywh; ``id``, ``area``, ``iscrowd`` and ``ignore`` are optional).
      ignore_means: COCO's code overwrites the flag ``ignore`` by ``iscrowd``, so with ``ordinary``, as there, flagged
        objects count like any other; ``crowd`` makes them regions that are neither object nor background.
      unknown: annotations on images or categories that are not listed: ``refuse`` them, or leave out and ``count``.
      areas: what decides small, medium and large: the areas ``given`` (of masks, in COCO), or those of the ``box``.

    Raises:
      DataError: on a missing list or field, a duplicate id or category name, a box that is not finite or has a
        negative side.
    """
    where = f"{source}: " if isinstance(source, (str, PathLike)) else "ground truth: "
    data = read_json(source, DataError) if isinstance(source, (str, PathLike)) else source
    try:
        images, categories, annotations = lists_of(data, ("images", "categories", "annotations"), where[:-2], DataError)
    except DataError as error:
        other = name_other_tool(Path(source)) if isinstance(source, (str, PathLike)) else ""
        raise DataError(f"{error}{other}") from None
    image_of = records_by_id(images, "image", where)
    category_of = records_by_id(categories, "category", where)

    def name(row: int) -> str:
        return f"{where}annotation row {row} (id {annotations[row].get('id')!r})"

    def bare_name(row: int) -> str:
        return f"{where}annotation row {row}"

    image_keys = id_column(annotations, "image_id", bare_name, DataError)
    category_keys = id_column(annotations, "category_id", bare_name, DataError)
    grouping = grouping_categories(category_of, set(category_keys))
    category_of = {key: record for key, record in category_of.items() if key not in grouping}
    category_names = tuple(str(r.get("name", r["id"])) for r in category_of.values())
    if len(set(category_names)) < len(category_names):  # what is reported by class would keep the last of them alone
        twice = Counter(category_names).most_common(1)[0][0]
        raise DataError(f"{where}the name {twice!r} belongs to more than one category; rename or merge them")
    image_index, category_index = _index(image_keys, image_of), _index(category_keys, category_of)
    known = np.flatnonzero((image_index >= 0) & (category_index >= 0))
    left_out = len(annotations) - len(known)
    if left_out and unknown == "refuse":
        row = int(np.argmax((image_index < 0) | (category_index < 0)))
        keys, ids = (image_keys, image_of) if image_index[row] < 0 else (category_keys, category_of)
        guess = guess_ids("image", set(keys), (), tuple(ids))
        raise DataError(
            f"{name(row)} is about image {image_keys[row]!r} and category {category_keys[row]!r}, which are not both "
            f"listed ({left_out} such rows in all){guess}; list them, remove the rows, or have them counted and left "
            "out"
        )

    boxes = number_rows(optional_column(annotations, "bbox"), name, DataError)
    check_sides(boxes, name, DataError)
    raw_areas = optional_column(annotations, "area")
    no_area = is_missing(raw_areas)
    if no_area.any():
        raw_areas = [0 if area is None else area for area in raw_areas]
    given = finite_column(raw_areas, "'area'", name, DataError)
    wrong = (given < 0) | (given > LARGEST_AREA)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{name(row)}: 'area' is {given[row]:g}; correct it, or leave it out for the box's own")
    crowd = flag_column(annotations, "iscrowd", name, DataError)
    flagged = flag_column(annotations, "ignore", name, DataError) & ~crowd
    ids = optional_column(annotations, "id")  # may be missing, 0 or repeated
    no_flag = optional_column(annotations, "iscrowd").count(None)
    return GroundTruth(
        image_ids=tuple(image_of),
        file_names=tuple(file_name_of(r) for r in image_of.values()),
        sizes=np.stack([image_sides(list(image_of.values()), key) for key in ("height", "width")], axis=1),
        category_ids=tuple(category_of),
        category_names=category_names,
        images=image_index[known],
        categories=category_index[known],
        boxes=boxes[known],
        areas=np.where(no_area | (areas == "box"), boxes[:, 2] * boxes[:, 3], given)[known],
        crowd=(crowd | flagged if ignore_means == "crowd" else crowd)[known],
        repairs={
            # pycocotools takes id 0 for "unmatched", and of a repeated id it keeps one annotation.
            "renumbered_ids": len(ids) - count_ids(ids),
            "filled_areas": int(no_area.sum()),
            "filled_iscrowd": no_flag,
            "ignore_flags": int(flagged.sum()),
            "unknown_annotations": left_out,
            "repeated_images": len(images) - len(image_of),
            "grouping_categories": len(grouping),
        },
    )


def read_detections(
    source: DetectionSource,
    truth: GroundTruth,
    *,
    unknown: Unknown = "refuse",
    ties: Ties = "listed",
    result_format: ResultFormat = COCO_FORMAT,
) -> ScoredBoxes:
    """Detections as columns, by image and falling score.

    Args:
      source: one of

        - a COCO result list of ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``, or its JSON file. Where
          the ground truth's own ids are numbers, strings in their place are names: of the image's file, with or without
          folder and suffix, and of the category, exactly. Where a row has a name of its image or category besides
          (``file_name``, ``category_name``), it must agree with the id; where no row has an id, names are enough;
        - a scored COCO *data set*, whose ``annotations`` have a ``score``, or its JSON file. Its ids are its own: it
          is joined by file name and category name;
        - an array ``[D, 7]`` of ``image_id, x, y, w, h, score, category_id``.
      truth: what the detections are about.
      unknown: rows on images or categories that the ground truth does not list: ``refuse`` them, or leave them out and
        ``count``.
      ties: the order of equal scores within an image: as ``listed``, or ``canonical``, by content (area, x, y, w, h).
      result_format: the conventions of the source; ids of a scored data set are never converted.

    Raises:
      ResultError: on what is missing, not a number, not finite, negative in width or height, or unknown; on a row whose
        file name contradicts its id.
    """
    where, data = "detections", source
    if isinstance(source, (str, PathLike)):
        where = str(source)
        content = read_content(source, ResultError)
        data = read_plain_rows(content)
        data = parse_json(content, source, ResultError) if data is None else data
        del content

    def bare_name(row: int) -> str:
        return f"{where} row {row}"

    records: Sequence[Any] | None = None
    used: set[Any] = set()
    if isinstance(data, np.ndarray):
        if data.ndim != 2 or data.shape[1] != 7 or data.dtype.kind not in "fiu":
            raise ResultError(
                f"{where}: an array of detections has 7 numeric columns (image_id, x, y, w, h, score, category_id), "
                f"not shape {data.shape} of {data.dtype}"
            )
        image_keys, category_keys = data[:, 0].tolist(), data[:, 6].tolist()
        raw_boxes, raw_scores = data[:, 1:5], data[:, 5]
    elif isinstance(data, PlainRows):
        image_keys, category_keys, raw_boxes, raw_scores = data
    else:
        if isinstance(data, Mapping):
            records = lists_of(data, ("annotations",), where, ResultError)[0]
        elif isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
            records = data
            if other := name_other_results(records):
                raise ResultError(f"{where} {other}")
        else:
            raise ResultError(f"{where} must be a list of results, not a {type(data).__name__}")
        if isinstance(data, Mapping):
            image_keys = id_column(records, "image_id", bare_name, ResultError)
            category_keys = id_column(records, "category_id", bare_name, ResultError)
        else:
            used = keys_used(records)
            image_keys = keys_or_names(records, used, "image_id", IMAGE_NAMES, bare_name)
            category_keys = keys_or_names(records, used, "category_id", CATEGORY_NAMES, bare_name)
        raw_boxes = column(records, "bbox", bare_name, ResultError)
        raw_scores = column(records, "score", bare_name, ResultError)

    def name(row: int) -> str:
        return f"{where} row {row} (image {image_keys[row]})"

    if isinstance(data, Mapping):
        images_of, names_of = ("images", "file_name"), ("categories", "name")
        image_keys = join_scored(data, *images_of, image_keys, truth.file_names, truth.image_ids, where, unknown)
        category_keys = join_scored(
            data, *names_of, category_keys, truth.category_names, truth.category_ids, where, unknown
        )
    else:
        image_keys = join_images(
            records, used, image_keys, truth.file_names, truth.image_ids, result_format.image_ids, where, name
        )
        category_keys = named(category_keys, truth.category_names, truth.category_ids, (str,))
        category_keys = convert_category_ids(category_keys, result_format.category_ids, truth.category_ids)
        check_category_names(records, used, category_keys, truth.category_names, truth.category_ids, name)

    scores = finite_column(raw_scores, "'score'", name, ResultError)
    if (np.abs(scores) > _LARGEST_SCORE).any():
        row = int(np.argmax(np.abs(scores) > _LARGEST_SCORE))
        raise ResultError(f"{name(row)}: 'score' is {scores[row]:g}; no confidence, logit or percentage is so large")
    scores = convert_scores(scores, result_format.scores)
    images, categories = _index(image_keys, truth.image_ids), _index(category_keys, truth.category_ids)
    boxes = number_rows(raw_boxes, name, ResultError)
    if result_format.box != COCO_FORMAT.box:
        boxes = _converted(boxes, result_format, images, truth, name)
    check_sides(boxes, name, ResultError)
    unknown_images = Counter(str(image_keys[row]) for row in np.flatnonzero(images < 0))
    unknown_categories = Counter(str(category_keys[row]) for row in np.flatnonzero(categories < 0))
    for kind, missing, found, keys, names, ids in (
        ("image", unknown_images, images, image_keys, truth.file_names, truth.image_ids),
        ("category", unknown_categories, categories, category_keys, truth.category_names, truth.category_ids),
    ):
        if missing and unknown == "refuse":
            strange = dict.fromkeys(keys[row] for row in np.flatnonzero(found < 0))
            by_name = isinstance(next(iter(strange)), str) and not any(isinstance(one, str) for one in ids)
            guess = guess_ids(kind, set(keys), names, ids)
            if not guess and all(isinstance(one, str) for one in strange):  # another way to count would change all ids
                guess = guess_ids(kind, set(strange), names, ids)
            raise ResultError(
                f"{where}: {missing.total()} rows are about {len(missing)} {kind} id(s) that the ground truth does not "
                f"list: {few(strange)}; it has {few(names if by_name else ids)}"
                f"{guess or '; from another data set?'}"
            )
    kept = np.flatnonzero((images >= 0) & (categories >= 0))
    if ties == "canonical":
        x, y, w, h = boxes[kept].T
        kept = kept[np.lexsort((categories[kept], h, w, y, x, w * h))]
    order = kept[by_key_and_score(images[kept], scores[kept])]
    return ScoredBoxes(
        images[order],
        categories[order],
        boxes[order],
        scores[order],
        order,
        dict(unknown_images),
        dict(unknown_categories),
    )


def _converted(
    rows: Float64[np.ndarray, "D 4"],
    result_format: ResultFormat,
    images: Int64[np.ndarray, " D"],
    truth: GroundTruth,
    name: RowName,
) -> Float64[np.ndarray, "D 4"]:
    """Boxes of another format as xywh in pixels; those on unknown images, which are left out later, are any."""
    sizes = np.append(truth.sizes, [[1, 1]], axis=0)[images]
    if result_format.needs_sizes and (sizes == 0).any():
        row = int(np.argmax((sizes == 0).any(axis=1)))
        raise ResultError(
            f"{name(row)}: boxes in the format {result_format.box} need the size of their image, which the ground "
            "truth does not state; add width and height to its images"
        )
    return convert_boxes(rows, result_format.box, sizes)


def _index(keys: Sequence[Any], ids: Mapping[Any, Any] | Sequence[Any]) -> np.ndarray:
    """Position of each key among the ids, -1 for the unknown ones."""
    position = {key: k for k, key in enumerate(ids)}
    return np.fromiter(map(position.get, keys, itertools.repeat(-1)), np.int64, len(keys))
