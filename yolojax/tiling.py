"""Large photos in tiles: how a photo is cut into equal parts, and how what is found on them is put together.

A photo that shrinks to the input size loses its small objects. Cut into overlapping tiles it keeps them; an object that
a seam cuts is then found several times, whole on one tile and in part on another (arXiv 2202.06934 calls this sliced
inference). Two steps put it together:

1. Where one of two boxes of a class lies against a seam, so that its object was cut, their overlap is the intersection
   over the *smaller* box, because a part of an object has a small IoU with the whole. Above `SEAM_OVERLAP` the box of
   lower score is removed.
2. The suppression of the user's choice goes over what remains on all tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from yolojax.errors import ConfigError
from yolojax.settings import is_number, shown

SEAM_OVERLAP = 0.5
"""Intersection over the smaller box above which two boxes, one of them cut by a seam, are of one object."""

SEAM_SHARE = 0.01
"""A box is cut where it comes nearer than this share of the tile's side to a side that is not the photo's own."""

LARGEST_OVERLAP, LARGEST_TILE = 0.9, 1_000_000


@dataclass(frozen=True)
class Tiling:
    """How a photo is cut; static.

    Attributes:
      size: side of a tile in pixels of the photo. A photo that is smaller is one tile.
      overlap: least share of a tile's side that neighbours have in common, from 0 to .9.
      whole: also detect on the whole photo, which finds what is larger than a tile.
    """

    size: int = 640
    overlap: float = 0.2
    whole: bool = False


def check_tiling(tiling: Tiling) -> Tiling:
    """The same tiling; raises `ConfigError` where it is none, or a setting is out of range."""
    if not isinstance(tiling, Tiling):
        raise ConfigError(f"tiling = {shown(tiling)}: give a Tiling, such as Tiling(640)")
    if not is_number(int, tiling.size):
        raise ConfigError(f"tile size = {shown(tiling.size)}: give whole pixels")
    if not is_number(float, tiling.overlap):
        raise ConfigError(f"tile overlap = {shown(tiling.overlap)}: give a share from 0 to {LARGEST_OVERLAP:g}")
    if tiling.size < 32:
        raise ConfigError(f"tile size = {tiling.size}: give at least 32 pixels")
    if tiling.size > LARGEST_TILE:
        raise ConfigError(f"tile size = {tiling.size}: give at most {LARGEST_TILE:,} pixels")
    if not 0 <= tiling.overlap <= LARGEST_OVERLAP:
        raise ConfigError(f"tile overlap = {tiling.overlap:g}: give a share from 0 to {LARGEST_OVERLAP:g}")
    return tiling


def tile_boxes(size: tuple[int, int], tiling: Tiling) -> Int[np.ndarray, "n 4"]:
    """The tiles of a photo of ``size = (h, w)``: boxes ``(x1, y1, x2, y2)`` in its pixels, row by row.

    All have the same size, the first begins and the last ends at a side of the photo, and the others lie as evenly
    between them as whole pixels allow.
    """
    rows, columns = (_starts(side, tiling) for side in size)
    height, width = (min(side, tiling.size) for side in size)
    return np.array([(x, y, x + width, y + height) for y in rows for x in columns], np.int64)


def _starts(side: int, tiling: Tiling) -> Int[np.ndarray, " n"]:
    """Where tiles begin along one side."""
    room = side - tiling.size
    if room <= 0:
        return np.zeros(1, np.int64)
    step = max(1, math.floor(tiling.size * (1 - tiling.overlap)))
    return np.round(np.linspace(0, room, -(-room // step) + 1)).astype(np.int64)


def cut_by_seam(
    boxes: Float[np.ndarray, "n 4"], tile: Int[np.ndarray, " 4"], size: tuple[int, int]
) -> Bool[np.ndarray, " n"]:
    """Which boxes, found on a tile of a photo of ``size = (h, w)``, lie against a side that is not the photo's own.

    All boxes are xyxy in pixels of the photo.
    """
    x1, y1, x2, y2 = (int(side) for side in tile)
    near = SEAM_SHARE * max(x2 - x1, y2 - y1)
    inner = np.array([x1 > 0, y1 > 0, x2 < size[1], y2 < size[0]])
    distance = np.abs(boxes - np.array([x1, y1, x2, y2], boxes.dtype))
    return np.asarray(((distance < near) & inner).any(-1))


def join_seams(
    boxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    classes: Int[np.ndarray, " n"],
    tiles: Int[np.ndarray, " n"],
    cut: Bool[np.ndarray, " n"],
) -> Bool[np.ndarray, " n"]:
    """Which boxes remain after the first step of this module: a greedy suppression of pairs of which one was cut.

    Boxes of the same tile, or of different classes, do not influence each other; nor do two that are whole. Equal
    scores keep the lower index.

    Args:
      boxes: xyxy, in pixels of the photo.
      scores: of each box.
      classes: of each box.
      tiles: the tile on which each box was found.
      cut: see `cut_by_seam`.
    """
    n = len(boxes)
    alive = np.ones(n, bool)
    if not cut.any():
        return alive
    order = np.argsort(-scores, kind="stable")
    area = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1)
    for place, i in enumerate(order):
        if not alive[i]:
            continue
        rest = order[place + 1 :]
        rest = rest[alive[rest] & (cut[i] | cut[rest]) & (tiles[rest] != tiles[i]) & (classes[rest] == classes[i])]
        if not len(rest):
            continue
        sides = np.minimum(boxes[i, 2:], boxes[rest, 2:]) - np.maximum(boxes[i, :2], boxes[rest, :2])
        smaller = np.minimum(area[i], area[rest])
        alive[rest[np.maximum(sides, 0).prod(1) > SEAM_OVERLAP * smaller]] = False
    return alive
