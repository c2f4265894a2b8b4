"""The conventions of a result file: its boxes, its class ids and its scores, converted into COCO's.

COCO's convention is the default everywhere. `ResultFormat` states another one; `yolojax.eval.mistakes` proposes it
where the rows themselves give the evidence, and nothing is ever converted without being asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float64, Int64

from yolojax.errors import ConfigError

CategoryIds = Literal["given", "less-one", "plus-one", "from-zero", "from-one"]
ImageIds = Literal["given", "names"]
Scores = Literal["given", "percent", "logit"]

BOX_FORMATS = ("xywh", "xyxy", "cxcywh", "yxhw", "yxyx", "xywhn", "xyxyn", "cxcywhn", "yxhwn", "yxyxn")
_ON_SQUARE = re.compile(r"(letterbox|corner|stretch)(\d{1,5})(?:-(xyxy|cxcywh))?")


@dataclass(frozen=True)
class ResultFormat:
    """The conventions of a result file; the defaults are COCO's.

    Attributes:
      box: ``xywh`` (left, top, width, height in pixels), ``xyxy`` (two corners), ``cxcywh`` (centre and size), ``yxhw``
        and ``yxyx`` (x and y swapped); the same with ``n`` at the end in parts of the image's width and height;
        ``letterbox640``, ``corner640`` and ``stretch640`` (any size): xywh in pixels of a square input image onto which
        the photo was scaled and centred, scaled and put into the top left corner, or stretched; with ``-xyxy`` or
        ``-cxcywh`` at the end corners, or centre and size, there. A size of 1 means parts of that square, and
        ``stretch100`` percent of the image.
      category_ids: ``given`` are the ground truth's; ``less-one`` and ``plus-one``: one is taken from them, or added;
        ``from-zero`` and ``from-one``: positions among the ground truth's categories in the order of their ids.
      image_ids: ``given`` are the ground truth's; with ``names`` an integer is the number in an image's file name.
      scores: ``given`` in 0..1, in ``percent``, or ``logit`` (the sigmoid is taken).
    """

    box: str = "xywh"
    category_ids: CategoryIds = "given"
    image_ids: ImageIds = "given"
    scores: Scores = "given"

    def __post_init__(self) -> None:
        square = _ON_SQUARE.fullmatch(self.box)
        if self.box not in BOX_FORMATS and (square is None or int(square[2]) == 0):
            raise ConfigError(
                f"box format {self.box[:40]!r} is unknown; give one of {', '.join(BOX_FORMATS)}, or letterbox640, "
                "corner640 or stretch640 (any size), each also with -xyxy or -cxcywh at the end"
            )
        for value, kind in ((self.category_ids, CategoryIds), (self.image_ids, ImageIds), (self.scores, Scores)):
            if value not in get_args(kind):
                raise ConfigError(f"{value!r} is unknown; give one of {', '.join(get_args(kind))}")

    @property
    def needs_sizes(self) -> bool:
        """Whether boxes cannot be converted without the size of their image."""
        return self.box.endswith("n") or _ON_SQUARE.fullmatch(self.box) is not None


COCO_FORMAT = ResultFormat()


def convert_boxes(
    rows: Float64[np.ndarray, "*N 4"], box: str, sizes: Int64[np.ndarray, "*N 2"]
) -> Float64[np.ndarray, "*N 4"]:
    """Boxes of a format as xywh in pixels of the image, whose ``sizes`` are ``(height, width)``.

    Inverted corners give negative sides, as they should: the caller refuses them.
    """
    square = _ON_SQUARE.fullmatch(box)
    if square is not None:
        rows = convert_boxes(rows, square[3], sizes) if square[3] else rows
        return _from_square(rows, square[1], int(square[2]), sizes)
    layout = box.removesuffix("n")
    a, b, c, d = np.moveaxis(rows, -1, 0)
    if box.startswith("y"):
        a, b, c, d = b, a, d, c
    layout = {"yxhw": "xywh", "yxyx": "xyxy"}.get(layout, layout)
    if layout == "xyxy":
        c, d = c - a, d - b
    elif layout == "cxcywh":
        a, b = a - c / 2, b - d / 2
    found = np.stack([a, b, c, d], axis=-1)
    return found * np.concatenate([sizes[..., ::-1], sizes[..., ::-1]], axis=-1) if box.endswith("n") else found


def _from_square(rows: np.ndarray, how: str, side: int, sizes: np.ndarray) -> np.ndarray:
    height, width = np.moveaxis(np.maximum(sizes, 1).astype(np.float64), -1, 0)
    if how == "stretch":
        x, y = width / side, height / side
        return rows * np.stack([x, y, x, y], axis=-1)
    longest = np.maximum(height, width)
    scale = longest / side  # pixels of the photo for a pixel of the square
    zero = np.zeros_like(scale)
    left, top = ((longest - width) / 2, (longest - height) / 2) if how == "letterbox" else (zero, zero)
    return rows * scale[..., None] - np.stack([left, top, zero, zero], axis=-1)


def convert_scores(scores: Float64[np.ndarray, " N"], how: Scores) -> Float64[np.ndarray, " N"]:
    """Scores in 0..1."""
    if how == "percent":
        return scores / 100
    return 1 / (1 + np.exp(-np.clip(scores, -700, 700))) if how == "logit" else scores


def convert_category_ids(keys: list[Any], how: CategoryIds, ids: Sequence[Any]) -> list[Any]:
    """The ground truth's ids for integer keys of another convention; names and what is out of range stay."""
    if how in ("less-one", "plus-one"):
        step = 1 if how == "plus-one" else -1
        return [key if isinstance(key, str) else key + step for key in keys]
    if how == "given":
        return keys
    first = 0 if how == "from-zero" else 1
    at = {first + k: one for k, one in enumerate(ids)}
    return [at.get(key, Absent(str(key))) if not isinstance(key, str) else key for key in keys]


class Absent(NamedTuple):
    """A name in place of an id that there is not."""

    name: str

    def __str__(self) -> str:
        return self.name
