"""Where a photo lies on the canvas: one pure geometry, read alike by training, validation and prediction.

`fit_to_canvas` computes the rounded integer sizes once; both directions of the box mapping use those rounded sizes per
axis, so that `to_original` is the exact inverse of `to_canvas`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float32, Num

from yolojax.errors import ConfigError

Filter = Literal["antialiased", "bilinear"]
FILTERS: tuple[Filter, ...] = get_args(Filter)


@dataclass(frozen=True)
class Preprocess:
    """How pixels reach the network; data on the detector, so that every user of the detector prepares alike.

    Attributes:
      resize: ``letterbox`` keeps the aspect ratio and pads; ``stretch`` fills the canvas.
      align: where a letterboxed photo lies: ``centre`` or ``topleft``.
      pad: grey value of the padding, 0..255.
      channels: order that the network expects, ``rgb`` or ``bgr``.
      scale: pixels are divided by this (255 gives 0..1; 1 leaves 0..255).
      filter: how a photo shrinks: ``antialiased`` (Pillow's bilinear, which loses no small object), or ``bilinear``
        (OpenCV's, for detectors that were trained with it).
    """

    resize: Literal["letterbox", "stretch"] = "letterbox"
    align: Literal["centre", "topleft"] = "centre"
    pad: int = 114
    channels: Literal["rgb", "bgr"] = "rgb"
    scale: float = 255.0
    filter: Filter = "antialiased"


class Placement(NamedTuple):
    """A resized photo on the canvas, in integer canvas pixels: its size and its top-left corner."""

    height: int
    width: int
    top: int
    left: int

    @property
    def content(self) -> tuple[int, int, int, int]:
        """The box ``(x1, y1, x2, y2)`` of the canvas that the photo covers: `Batch.content` of its image."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def fit_to_canvas(size: tuple[int, int], canvas: tuple[int, int], preprocess: Preprocess) -> Placement:
    """Placement of a photo of ``size = (h, w)`` on a ``canvas = (h, w)``; raises `ConfigError` on an empty one."""
    (h, w), (canvas_h, canvas_w) = size, canvas
    if min(h, w, canvas_h, canvas_w) < 1:
        raise ConfigError(f"cannot place an image of size {size} on a canvas of {canvas}: both need at least one pixel")
    if preprocess.resize == "stretch":
        return Placement(canvas_h, canvas_w, 0, 0)
    ratio = min(canvas_h / h, canvas_w / w)
    new_h, new_w = (max(1, min(canvas_h, round(h * ratio))), max(1, min(canvas_w, round(w * ratio))))
    if preprocess.align == "topleft":
        return Placement(new_h, new_w, 0, 0)
    return Placement(new_h, new_w, (canvas_h - new_h) // 2, (canvas_w - new_w) // 2)


def _affine(size: tuple[int, int], placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    scale = np.array([placement.width / size[1], placement.height / size[0]] * 2, np.float64)
    offset = np.array([placement.left, placement.top] * 2, np.float64)
    return scale, offset


def to_canvas(
    boxes: Num[np.ndarray, "*n 4"], size: tuple[int, int], placement: Placement
) -> Float32[np.ndarray, "*n 4"]:
    """Boxes (xyxy) from pixels of the original photo of ``size = (h, w)`` to canvas pixels."""
    scale, offset = _affine(size, placement)
    return (np.asarray(boxes, np.float64) * scale + offset).astype(np.float32)


def to_original(
    boxes: Num[np.ndarray, "*n 4"], size: tuple[int, int], placement: Placement, *, clip: bool = True
) -> Float32[np.ndarray, "*n 4"]:
    """The inverse of `to_canvas`, then by choice clipping to the photo."""
    scale, offset = _affine(size, placement)
    boxes = (np.asarray(boxes, np.float64) - offset) / scale
    if clip:
        boxes = np.clip(boxes, 0.0, np.array([size[1], size[0]] * 2, np.float64))
    return boxes.astype(np.float32)


def batch_to_original(
    boxes: Num[np.ndarray, "b k 4"],
    content: Num[np.ndarray, "b 4"],
    original_size: Num[np.ndarray, "b 2"],
    *,
    clip: bool = True,
) -> Float32[np.ndarray, "b k 4"]:
    """`to_original` for every image of a batch, from what `Batch` carries: ``content`` and ``original_size``."""
    content = np.asarray(content, np.float64)[:, None]
    offset = np.concatenate([content[..., :2]] * 2, -1)
    sides = np.concatenate([np.asarray(original_size, np.float64)[:, None, ::-1]] * 2, -1)  # w, h, w, h
    extent = np.concatenate([content[..., 2:] - content[..., :2]] * 2, -1)
    out = (np.asarray(boxes, np.float64) - offset) / (extent / sides)
    return (np.clip(out, 0.0, sides) if clip else out).astype(np.float32)
