"""A detector applied to tiles of large photos (`yolojax.tiling`), with results in pixels of the photos."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from yolojax.detector import Detector
from yolojax.errors import DataError
from yolojax.inference.pipeline import batches_ahead
from yolojax.inference.predict import Predictor
from yolojax.inference.results import Result
from yolojax.nms import Suppression
from yolojax.nms.named import BuiltIn
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates, Detections
from yolojax.tiling import Tiling, check_tiling, cut_by_seam, join_seams, tile_boxes

T = TypeVar("T")


class Tile(NamedTuple):
    """A part of a photo: its number, its box, and its pixels."""

    number: int
    box: Int[np.ndarray, " 4"]
    pixels: UInt8[np.ndarray, "h w 3"]


@dataclass
class _Photo:
    """A photo whose tiles are being looked at."""

    item: Any
    image: UInt8[np.ndarray, "h w 3"] | DataError
    tiles: list[Tile] = field(default_factory=list)
    found: list[Result] = field(default_factory=list)


class TiledPredictor(Predictor):
    """A `Predictor` that cuts every photo into tiles; `Result`s are those of the photos.

    One program detects on all tiles, ``batch_size`` of them at a time, of whichever photos they are. ``max_detections``
    holds for a tile and for a photo.

    Args:
      predictor: its program is shared. Its suppression goes over each tile, and then over what is left of all of them;
        where the detector needs none, greedy suppression goes over the tiles.
      tiling: how photos are cut.

    Raises:
      ConfigError: see `yolojax.tiling.check_tiling`.
    """

    join_seams = staticmethod(join_seams)
    """The first step of `yolojax.tiling`."""

    def __init__(self, predictor: Predictor, tiling: Tiling) -> None:
        vars(self).update(vars(predictor))
        self._predictor = predictor
        self.tiling = check_tiling(tiling)

    @property
    def detector(self) -> Detector:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The record."""
        return self._predictor.detector

    def _each(
        self, items: Iterable[T], read: Callable[[T], UInt8[np.ndarray, "_ _ 3"]], settings: tuple[Any, ...]
    ) -> Iterator[tuple[T, Result | DataError]]:
        waiting: deque[_Photo] = deque()

        def attempt(item: T) -> UInt8[np.ndarray, "_ _ 3"] | DataError:
            try:
                return read(item)
            except DataError as error:
                return error

        def tiles() -> Iterator[tuple[_Photo, Tile]]:
            for ((item, image),), _ in batches_ahead(attempt, items, 1):
                photo = _Photo(item, image)
                waiting.append(photo)
                if not isinstance(image, DataError):
                    photo.tiles = cut_photo(image, self.tiling)
                    yield from ((photo, tile) for tile in photo.tiles)

        def finished() -> Iterator[tuple[T, Result | DataError]]:
            while waiting and (isinstance(waiting[0].image, DataError) or _is_complete(waiting[0])):
                photo = waiting.popleft()
                yield photo.item, photo.image if isinstance(photo.image, DataError) else self._join(photo, settings)

        for (photo, _), result in super()._each(tiles(), lambda pair: pair[1].pixels, settings):
            assert isinstance(result, Result)  # pixels in memory can be read
            photo.found.append(result)
            yield from finished()
        yield from finished()

    def _join(self, photo: _Photo, settings: tuple[Any, ...]) -> Result:
        """The detections of all tiles of a photo, in its pixels, as one result."""
        confidence, iou, _ = settings
        image = photo.image
        assert isinstance(image, np.ndarray)
        size = image.shape[0], image.shape[1]
        first = replace(photo.found[0], image=image)
        if len(photo.found) == 1:
            return first
        pairs = list(zip(photo.tiles, photo.found, strict=True))
        shifted = [found.boxes + np.tile(tile.box[:2], 2).astype(np.float32) for tile, found in pairs]
        boxes = np.concatenate(shifted)
        scores = np.concatenate([result.scores for result in photo.found])
        classes = np.concatenate([result.classes for result in photo.found])
        numbers = np.repeat([tile.number for tile in photo.tiles], [len(result) for result in photo.found])
        cut = np.concatenate([cut_by_seam(own, tile.box, size) for tile, own in zip(photo.tiles, shifted, strict=True)])
        keep = self.join_seams(boxes, scores, classes, numbers, cut)
        suppress: Suppression | BuiltIn = "nms" if self.suppress == "none" else self.suppress
        if suppress == "nms" and iou is None:
            iou = np.float32(self._defaults.iou)
        program = partial(_suppression_program(suppress, self.max_detections), confidence=confidence, iou=iou)
        boxes, scores, classes, dropped = _suppress(
            program, boxes[keep], scores[keep], classes[keep], len(self.spec.class_names)
        )
        truncated = dropped + sum(result.truncated for result in photo.found)
        return replace(first, boxes=boxes, scores=scores, classes=classes, truncated=truncated)


def _is_complete(photo: _Photo) -> bool:
    return len(photo.found) == len(photo.tiles)


def cut_photo(image: UInt8[np.ndarray, "h w 3"], tiling: Tiling) -> list[Tile]:
    """The tiles of a photo, without copying its pixels; with ``tiling.whole`` also the photo itself, as the last."""
    size = image.shape[0], image.shape[1]
    boxes = list(tile_boxes(size, tiling))
    if tiling.whole and len(boxes) > 1:
        boxes.append(np.array([0, 0, size[1], size[0]], np.int64))
    return [Tile(number, box, image[box[1] : box[3], box[0] : box[2]]) for number, box in enumerate(boxes)]


SMALLEST_ROOM = 128
"""Boxes for which the joining suppression is compiled at least; it is compiled for powers of two."""


def _suppress(
    program: Callable[[Candidates], Detections],
    boxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    classes: Int[np.ndarray, " n"],
    n_classes: int,
) -> tuple[Float[np.ndarray, "k 4"], Float[np.ndarray, " k"], Int[np.ndarray, " k"], int]:
    """The boxes, scores and classes that a suppression keeps, and how many more it would have kept."""
    room = max(SMALLEST_ROOM, 2 ** math.ceil(math.log2(max(1, len(boxes)))))
    padded = np.zeros((1, room, 4), np.float32)
    by_class = np.full((1, room, n_classes), -np.inf, np.float32)
    padded[0, : len(boxes)] = boxes
    by_class[0, np.arange(len(boxes)), classes] = scores
    found = jax.device_get(program(Candidates(jnp.asarray(padded), jnp.asarray(by_class))))
    keep = found.valid[0]
    dropped = int(found.truncated[0] + found.truncated_candidates[0])
    return found.boxes[0][keep], found.scores[0][keep], found.classes[0][keep], dropped


@lru_cache(maxsize=8)
def _suppression_program(suppress: Suppression | BuiltIn, max_detections: int) -> Callable[..., Any]:
    """Compiled for one device: it is little work."""

    def run(candidates: Candidates, confidence: Any, iou: Any) -> Detections:
        return postprocess(candidates, confidence, iou, suppress=suppress, max_detections=max_detections)

    return jax.jit(run)
