"""A data set whose images are the tiles of another's, for training detectors that see large photos in tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Int, UInt8

from yolojax.data.dataset import Dataset, ImageRecord
from yolojax.data.summary import Finding, Summary
from yolojax.errors import ConfigError
from yolojax.tiling import Tiling, check_tiling, tile_boxes

SMALLEST_SIDE = 2.0
"""Pixels: of an object that a seam cuts, a part that is narrower is no object."""


def tile_dataset(dataset: Dataset, tiling: Tiling, *, visible: float = 0.4, backgrounds: bool = True) -> Dataset:
    """Cuts every image into tiles, with the boxes of each tile clipped to it.

    An object belongs to every tile that shows at least the share ``visible`` of its box. A tile that shows less of it
    has a crowd region there, which is neither object nor background in training, because a piece can be seen that is
    not labelled. A piece that is narrower than `SMALLEST_SIDE` is left out. Crowd regions are clipped and stay crowd
    regions.

    Args:
      dataset: what to cut. Its images are decoded when the pixels of a tile are needed, one at a time.
      tiling: how images are cut. ``whole`` adds each image that is larger than a tile, as it is.
      visible: share of the area of a box, above 0 and at most 1.
      backgrounds: whether tiles without any object are kept.

    Returns:
      a data set whose ids count from 1; tiles are named after their image, with the corner ``_X_Y``. The summary says
      how many objects became crowd regions or were left out.

    Raises:
      ConfigError: a setting is out of range, or no tile has an object where backgrounds are left out.
    """
    check_tiling(tiling)
    if not 0 < visible <= 1:
        raise ConfigError(f"visible = {visible:g}: give a share above 0, at most 1")

    @lru_cache(maxsize=1)
    def pixels_of(index: int) -> UInt8[np.ndarray, "h w 3"]:
        return dataset.records[index].pixels()

    records: list[ImageRecord] = []
    pieces = slivers = objects = 0
    for index, record in enumerate(dataset.records):
        boxes = list(tile_boxes(record.size, tiling))
        height, width = record.size
        if tiling.whole and len(boxes) > 1:
            boxes.append(np.array([0, 0, width, height], np.int64))
        for box in boxes:
            tile, hidden, narrow = _tile_record(record, box, visible)
            pieces, slivers = pieces + hidden, slivers + narrow
            if not backgrounds and not (~tile.crowd | tile.difficult).any():
                continue
            whole = (int(box[2] - box[0]), int(box[3] - box[1])) == (width, height)
            path = PurePosixPath(record.file_name)
            name = path.name if whole else f"{path.stem}_{box[0]}_{box[1]}{path.suffix}"
            records.append(
                replace(
                    tile,
                    image_id=len(records) + 1,
                    file_name=str(path.with_name(name)),
                    source=partial(_part, pixels_of, index, box),
                    annotation_ids=np.arange(objects + 1, objects + len(tile.boxes) + 1),
                )
            )
            objects += len(tile.boxes)
    if not records:
        raise ConfigError("no tile shows an object; keep tiles without objects, or give a lower share to be visible")
    findings = []
    if pieces:
        detail = f"{pieces} pieces of objects, of which less than {visible:g} is on their tile, became crowd regions"
        findings.append(Finding("note", "tiles", detail))
    if slivers:
        detail = f"{slivers} pieces of objects are narrower than {SMALLEST_SIDE:g} pixels and were left out"
        findings.append(Finding("note", "tiles", detail))
    return replace(
        dataset, records=tuple(records), summary=dataset.summary + Summary(tuple(findings)), coco=None, root=None
    )


def _part(
    pixels_of: Callable[[int], UInt8[np.ndarray, "_ _ 3"]], index: int, box: Int[np.ndarray, " 4"]
) -> UInt8[np.ndarray, "h w 3"]:
    x1, y1, x2, y2 = box.tolist()
    return pixels_of(index)[y1:y2, x1:x2]


def _tile_record(record: ImageRecord, tile: np.ndarray, visible: float) -> tuple[ImageRecord, int, int]:
    """The objects of one tile, how many of them became crowd regions, and how many were too narrow to stay."""
    x1, y1, x2, y2 = (int(side) for side in tile)
    low, high = np.array([x1, y1], np.float64), np.array([x2, y2], np.float64)
    boxes = record.boxes.astype(np.float64)
    corners = np.clip(boxes[:, :2], low, high), np.clip(boxes[:, 2:], low, high)
    sides, whole = corners[1] - corners[0], boxes[:, 2:] - boxes[:, :2]
    share = sides.prod(1) / whole.prod(1)
    there = (sides > 0).all(1)
    # What was that narrow before is an object of its own size.
    narrow = there & (share < 1) & (sides < SMALLEST_SIDE).any(1)
    keep = there & ~narrow
    hidden = keep & (share < visible) & ~record.crowd
    clipped = (np.concatenate(corners, 1) - np.tile(low, 2))[keep]
    result = replace(
        record,
        size=(y2 - y1, x2 - x1),
        boxes=clipped.astype(np.float32),
        classes=record.classes[keep],
        crowd=(record.crowd | hidden)[keep],
        difficult=(record.difficult & ~hidden)[keep],
        areas=(record.areas * share)[keep],
        annotation_ids=record.annotation_ids[keep],
        upright=True,
    )
    return result, int(hidden.sum()), int(narrow.sum())
