"""Where a photo lies on the input image. Training, validation, prediction and resizing on the device all read this.

`place_on_input` computes the rounded integer sizes once. Both directions of the box mapping use those rounded sizes per
axis (`scale_and_offset`), so that `batch_to_original` is the exact inverse of `to_input`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float32, Float64, Num

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
      border: input pixels at every side that a photo leaves to the padding.
    """

    resize: Literal["letterbox", "stretch"] = "letterbox"
    align: Literal["centre", "topleft"] = "centre"
    pad: int = 114
    channels: Literal["rgb", "bgr"] = "rgb"
    scale: float = 255.0
    filter: Filter = "antialiased"
    border: int = 0


class Placement(NamedTuple):
    """A resized photo on the input image, in integer input pixels: its size and its top-left corner."""

    height: int
    width: int
    top: int
    left: int

    @property
    def content(self) -> tuple[int, int, int, int]:
        """The box ``(x1, y1, x2, y2)`` of the input image that the photo covers."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def place_on_input(size: tuple[int, int], input_size: tuple[int, int], preprocess: Preprocess) -> Placement:
    """Where a photo of ``size = (h, w)`` lies on an input image of ``input_size = (H, W)``, all in pixels.

    A letterboxed photo keeps its aspect ratio: both sides are multiplied by the largest ratio that fits and rounded.
    Raises `ConfigError` when one of the sizes has no pixel.
    """
    (h, w), border = size, preprocess.border
    input_h, input_w = (side - 2 * border for side in input_size)
    if min(h, w, input_h, input_w) < 1:
        raise ConfigError(
            f"cannot place an image of size {size} on an input image of {input_size}: both need at least one pixel"
        )
    if preprocess.resize == "stretch":
        return Placement(input_h, input_w, border, border)
    ratio = min(input_h / h, input_w / w)
    new_h, new_w = (max(1, min(input_h, round(h * ratio))), max(1, min(input_w, round(w * ratio))))
    if preprocess.align == "topleft":
        return Placement(new_h, new_w, border, border)
    return Placement(new_h, new_w, border + (input_h - new_h) // 2, border + (input_w - new_w) // 2)


def scale_and_offset(
    size: Num[np.ndarray, "*b 2"], content: Num[np.ndarray, "*b 4"]
) -> tuple[Float64[np.ndarray, "*b 4"], Float64[np.ndarray, "*b 4"]]:
    """``(scale, offset)`` of xyxy boxes: ``input = original * scale + offset``.

    Args:
      size: ``(height, width)`` of the original photo in pixels.
      content: the box of the input image that the photo covers (`Placement.content`).
    """
    box = np.asarray(content, np.float64)
    sides = np.asarray(size, np.float64)[..., ::-1]
    scale = (box[..., 2:] - box[..., :2]) / sides
    return np.concatenate([scale, scale], -1), np.concatenate([box[..., :2], box[..., :2]], -1)


def to_input(
    boxes: Num[np.ndarray, "*n 4"], size: tuple[int, int], placement: Placement
) -> Float32[np.ndarray, "*n 4"]:
    """Boxes (xyxy) from pixels of the original photo of ``size = (h, w)`` to input pixels."""
    scale, offset = scale_and_offset(np.array(size), np.array(placement.content))
    return (np.asarray(boxes, np.float64) * scale + offset).astype(np.float32)


def batch_to_original(
    boxes: Num[np.ndarray, "b k 4"],
    content: Num[np.ndarray, "b 4"],
    original_size: Num[np.ndarray, "b 2"],
    *,
    clip: bool = True,
) -> Float32[np.ndarray, "b k 4"]:
    """The inverse of `to_input` for every image of a batch, then by choice clipping to the photo.

    Networks that predict the sides of a box by themselves, such as YOLO26 and D-FINE, may put the right one left of the
    left one. Clipped, such a box has no extent: it stays a detection, which meets no object.

    Args:
      boxes: xyxy in input pixels.
      content: the box of the input image that each photo covers (`Placement.content`).
      original_size: ``(height, width)`` of each photo in pixels.
      clip: whether boxes are clipped to their photo.
    """
    scale, offset = scale_and_offset(original_size, content)
    out = (np.asarray(boxes, np.float64) - offset[:, None]) / scale[:, None]
    if clip:
        sides = np.asarray(original_size, np.float64)[:, ::-1]
        out = np.clip(out, 0.0, np.concatenate([sides, sides], -1)[:, None])
        out[..., 2:] = np.maximum(out[..., 2:], out[..., :2])
    return out.astype(np.float32)
