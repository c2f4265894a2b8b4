"""Where a photo lies on the input image: one pure geometry, read alike by training, validation and prediction.

`place_on_input` computes the rounded integer sizes once; both directions of the box mapping use those rounded sizes per
axis, so that `to_original` is the exact inverse of `to_input`.
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
      resize: ``letterbox`` keeps the aspect ratio and pads; ``stretch`` fills the input image.
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
    """A resized photo on the input image, in integer input pixels: its size and its top-left corner."""

    height: int
    width: int
    top: int
    left: int

    @property
    def content(self) -> tuple[int, int, int, int]:
        """The box ``(x1, y1, x2, y2)`` of the input image that the photo covers: `Batch.content` of its image."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def place_on_input(size: tuple[int, int], input_size: tuple[int, int], preprocess: Preprocess) -> Placement:
    """Placement of a photo of ``size = (h, w)`` on a ``input_size = (h, w)``; raises `ConfigError` on an empty one."""
    (h, w), (input_h, input_w) = size, input_size
    if min(h, w, input_h, input_w) < 1:
        raise ConfigError(
            f"cannot place an image of size {size} on an input image of {input_size}: both need at least one pixel"
        )
    if preprocess.resize == "stretch":
        return Placement(input_h, input_w, 0, 0)
    ratio = min(input_h / h, input_w / w)
    new_h, new_w = (max(1, min(input_h, round(h * ratio))), max(1, min(input_w, round(w * ratio))))
    if preprocess.align == "topleft":
        return Placement(new_h, new_w, 0, 0)
    return Placement(new_h, new_w, (input_h - new_h) // 2, (input_w - new_w) // 2)


def _affine(size: tuple[int, int], placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    scale = np.array([placement.width / size[1], placement.height / size[0]] * 2, np.float64)
    offset = np.array([placement.left, placement.top] * 2, np.float64)
    return scale, offset


def to_input(
    boxes: Num[np.ndarray, "*n 4"], size: tuple[int, int], placement: Placement
) -> Float32[np.ndarray, "*n 4"]:
    """Boxes (xyxy) from pixels of the original photo of ``size = (h, w)`` to input pixels."""
    scale, offset = _affine(size, placement)
    return (np.asarray(boxes, np.float64) * scale + offset).astype(np.float32)


def to_original(
    boxes: Num[np.ndarray, "*n 4"], size: tuple[int, int], placement: Placement, *, clip: bool = True
) -> Float32[np.ndarray, "*n 4"]:
    """The inverse of `to_input`, then by choice clipping to the photo."""
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
