"""Arrays in, pictures out: labelled boxes, contact sheets, and ground truth beside prediction.

Images are RGB uint8 ``[h, w, 3]``; boxes are ``(x1, y1, x2, y2)`` in pixels of the image that they are drawn on.
Nothing here is resized: for large text on small photos enlarge the photo and its boxes first (`enlarge`).
"""

import colorsys
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw

from yolojax.errors import ConfigError
from yolojax.fonts import Font, font_for

Colour = tuple[int, int, int]

_FIRST_COLOUR: Colour = (255, 64, 64)

_RGB_TO_LMS = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
_LMS_TO_OKLAB = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])


class Objects(NamedTuple):
    """What is drawn on one image: ``n`` boxes with their class indices, and scores or crowd marks where there are any.

    Crowd regions are drawn dashed. An object with an identity (from 0 on; -1 is none) has a colour of its own and its
    number in the label. Rows with a non-finite box are not drawn.
    """

    boxes: Float[np.ndarray, "n 4"]
    classes: Int[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"] | None = None
    crowd: Bool[np.ndarray, " n"] | None = None
    identities: Int[np.ndarray, " n"] | None = None


_MOST_LABELS = 1000
_MOST_BOXES = 20_000


def class_colour(index: int) -> Colour:
    """The colour of a class, the same in every picture; RGB. The first hundred or so are all distinct."""
    colours = _colours()
    return colours[index % len(colours)]


@functools.cache
def _colours() -> tuple[Colour, ...]:
    """Bright colours in an order in which each is as far as can be from those before it, as the eye sees distance.

    Farthest-point selection (Gonzalez 1985) in Oklab (Ottosson 2020, https://bottosson.github.io/posts/oklab).
    """
    steps = [(h / 24, s, v) for h in range(24) for s in (0.4, 0.7, 1.0) for v in (0.65, 0.82, 1.0)]
    rgb = np.array([_FIRST_COLOUR, *(np.array(colorsys.hsv_to_rgb(*step)) * 255 for step in steps)]).round()
    linear = (rgb / 255) ** 2.2
    cones = np.cbrt(linear @ _RGB_TO_LMS.T)
    lab = cones @ _LMS_TO_OKLAB.T
    bright = lab[:, 0] > 0.55  # a thin dark line is lost on a photo
    rgb, lab = rgb[bright], lab[bright]
    chosen = [0]
    nearest = np.linalg.norm(lab - lab[0], axis=1)
    for _ in range(119):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return tuple((int(r), int(g), int(b)) for r, g, b in rgb[chosen])


def draw_boxes(
    image: UInt8[np.ndarray, "h w 3"], objects: Objects, class_names: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the image with every box and, where it fits, its class name and score.

    Labels stay inside the image and avoid each other where there is room; the highest scores are placed first. A class
    index without a name is shown as its number. Of more than 1000 objects those with the highest scores get labels,
    and of more than 20,000 they alone are drawn: nobody could tell the others apart.
    """
    return np.array(draw_picture(image, objects, class_names), np.uint8)


def draw_picture(image: UInt8[np.ndarray, "h w 3"], objects: Objects, class_names: Sequence[str]) -> Image.Image:
    """`draw_boxes` as a new `PIL.Image`."""
    h, w = image.shape[:2]
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    width = max(1, round(min(h, w) / 150))
    finite = np.all(np.isfinite(objects.boxes), axis=1)
    n = len(objects.boxes)
    scores = objects.scores if objects.scores is not None else np.ones(n, np.float32)
    extent = (objects.boxes[:, 2] - objects.boxes[:, 0]) * (objects.boxes[:, 3] - objects.boxes[:, 1])
    # The best last, so that it lies on top; among equals the smaller, which would else be covered.
    order = [int(i) for i in np.lexsort((-extent, scores)) if finite[i]][-_MOST_BOXES:]
    known = objects.identities if objects.identities is not None else np.full(n, -1)
    colours = np.where(known >= 0, known, objects.classes)
    for i in order:
        colour = class_colour(int(colours[i]))
        dashed = objects.crowd is not None and bool(objects.crowd[i])
        _outline(draw, _pixel_box(objects.boxes[i], h, w), colour, width, dashed)
    size = _font_size(h, w)
    taken = np.zeros((min(n, _MOST_LABELS), 4), np.int64)
    for number, i in enumerate(reversed(order[-_MOST_LABELS:])):
        index = int(objects.classes[i])
        name = class_names[index] if 0 <= index < len(class_names) else str(index)
        name = f"{name} #{known[i]}" if known[i] >= 0 else name
        texts = [name] if objects.scores is None else [f"{name} {objects.scores[i]:.2f}", name]
        box = _pixel_box(objects.boxes[i], h, w)
        taken[number] = _label(draw, texts, box, class_colour(int(colours[i])), size, (h, w), taken[:number])
    return picture


def _pixel_box(box: Float[np.ndarray, " 4"], h: int, w: int) -> tuple[int, int, int, int]:
    """First and last column and row that a box touches, inside the image."""
    left, top, right, bottom = box.tolist()
    x1, x2 = _clip(math.floor(left), w - 1), _clip(math.ceil(right) - 1, w - 1)
    y1, y2 = _clip(math.floor(top), h - 1), _clip(math.ceil(bottom) - 1, h - 1)
    return x1, y1, max(x1, x2), max(y1, y2)


def _clip(value: int, most: int) -> int:
    """The nearest number from 0 to ``most``; `numpy.clip` takes twenty times as long for one."""
    return max(0, min(value, most))


def _outline(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: Colour, width: int, dashed: bool
) -> None:
    x1, y1, x2, y2 = box
    if width > 1:  # a dark rim, so that the line shows on a background of its own colour
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0))
    if not dashed:
        draw.rectangle(box, outline=colour, width=width)
        return
    dash = 3 * width + 2
    for x in range(x1, x2 + 1, 2 * dash):
        for y in (y1, max(y1, y2 - width + 1)):
            draw.rectangle((x, y, min(x + dash, x2), min(y + width - 1, y2)), fill=colour)
    for y in range(y1, y2 + 1, 2 * dash):
        for x in (x1, max(x1, x2 - width + 1)):
            draw.rectangle((x, y, min(x + width - 1, x2), min(y + dash, y2)), fill=colour)


def _font_size(h: int, w: int) -> int:
    """A font size in pixels that can be read when the whole picture is shown on a screen, whatever its size."""
    shown = min((h * w) ** 0.5, 3 * min(h, w))  # a strip is shown as wide as a square
    return int(max(np.clip(min(h, w) / 30, 9, 22), shown / 45))


def _text_size(font: Font, text: str) -> tuple[int, int]:
    """Width of a text and height of a line (the same for every text, so that labels look alike) with margins."""
    return math.ceil(font.getbbox(text)[2]) + 4, _line_height(font) + 2


@functools.lru_cache(maxsize=64)
def _line_height(font: Font) -> int:
    return math.ceil(font.getbbox("Ajgy|")[3])


def _label(
    draw: ImageDraw.ImageDraw,
    texts: list[str],
    box: tuple[int, int, int, int],
    colour: Colour,
    font_size: int,
    size: tuple[int, int],
    taken: Int[np.ndarray, "n 4"],
) -> tuple[int, int, int, int]:
    """Writes the first text that fits into the image where it covers the labels written before it the least.

    Returns where it is written: x1, y1, x2, y2, all 0 where no text fits.
    """
    h, w = size
    x1, y1, x2, y2 = box
    for font, text in (font_for(text, font_size) for text in texts):
        tw, th = _text_size(font, text)
        if tw > w or th > h:
            continue
        spots = [(x1, y1 - th), (x1, y1), (x1, y2 + 1), (x2 - tw + 1, y1 - th), (x2 - tw + 1, y2 + 1), (x1, y2 - th)]
        spots = [(_clip(x, w - tw), _clip(y, h - th)) for x, y in spots]
        x, y = spots[int(np.argmin(_covered(np.array(spots), (tw, th), taken)))]
        draw.rectangle((x, y, x + tw - 1, y + th - 1), fill=colour)
        luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        draw.text((x + 2, y + 1), text, fill=(0, 0, 0) if luminance > 120 else (255, 255, 255), font=font)
        return x, y, x + tw, y + th
    return 0, 0, 0, 0


def _covered(
    spots: Int[np.ndarray, "s 2"], extent: tuple[int, int], taken: Int[np.ndarray, "n 4"]
) -> Int[np.ndarray, " s"]:
    """How many pixels of the rectangles ``taken`` a label of ``extent = (width, height)`` covers at each spot."""
    first = np.maximum(spots[:, None], taken[None, :, :2])
    last = np.minimum(spots[:, None] + np.array(extent), taken[None, :, 2:])
    return np.maximum(last - first, 0).prod(2).sum(1)


def draw_assignment(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "n 4"],
    points: Float[np.ndarray, "p 2"],
    owners: Int[np.ndarray, " p"],
    strides: Float[np.ndarray, " p"],
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the image with each object in a colour of its own, and a disc of that colour where it is learnt.

    Args:
      image: RGB.
      boxes: of the objects, xyxy.
      points: ``(x, y)`` of the cells that are positive for an object; several may coincide.
      owners: the object of each point, as an index into ``boxes``.
      strides: of each point's level: the coarser, the larger its disc.
    """
    h, w = image.shape[:2]
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    width = max(1, round(min(h, w) / 200))
    for i in np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable"):
        if np.isfinite(boxes[i]).all():
            _outline(draw, _pixel_box(boxes[i], h, w), class_colour(int(i)), width, dashed=False)
    for i in np.argsort(-strides, kind="stable"):
        (x, y), radius = points[i], max(2.0, 0.14 * float(strides[i]))
        for r, colour in ((radius + 1, (0, 0, 0)), (radius, class_colour(int(owners[i])))):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    return np.array(picture, np.uint8)


LARGEST_SIDE = 4096
"""Pixels of the longer side up to which a drawing is enlarged."""


def enlarge(
    image: UInt8[np.ndarray, "h w 3"], objects: Objects, shorter_side: int
) -> tuple[UInt8[np.ndarray, "H W 3"], Objects]:
    """An image and its boxes, enlarged by a whole factor until its shorter side has at least this many pixels.

    A strip is enlarged less: its longer side stays within `LARGEST_SIDE`, unless it is longer already.
    """
    factor = max(1, min(-(-shorter_side // min(image.shape[:2])), LARGEST_SIDE // max(image.shape[:2])))
    large = image.repeat(factor, 0).repeat(factor, 1)
    return large, objects._replace(boxes=objects.boxes * np.float32(factor))


def caption(image: UInt8[np.ndarray, "h w 3"], text: str) -> UInt8[np.ndarray, "H w 3"]:
    """The image under a line of text, cut to the width of the image."""
    h, w = image.shape[:2]
    font, text = font_for(text, _font_size(h, w))
    while text and _text_size(font, text)[0] > w:
        text = text[:-1]
    strip = Image.new("RGB", (w, _text_size(font, "A")[1] + 2), (255, 255, 255))
    ImageDraw.Draw(strip).text((2, 2), text, fill=(0, 0, 0), font=font)
    return np.concatenate([np.array(strip, np.uint8), image])


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], columns: int, gap: int = 4
) -> UInt8[np.ndarray, "H W 3"]:
    """Images in rows of ``columns`` on white, each centred in a cell as high as its row and as wide as the widest.

    Raises `ConfigError` without an image or a column.
    """
    if not images or columns < 1:
        raise ConfigError(f"a sheet of {len(images)} images in {columns} columns: needs at least one of both")
    columns = min(columns, len(images))
    rows = [images[k : k + columns] for k in range(0, len(images), columns)]
    heights = [max(i.shape[0] for i in row) for row in rows]
    cell_w = max(i.shape[1] for i in images)
    sheet = np.full((sum(heights) + gap * (len(rows) + 1), columns * (cell_w + gap) + gap, 3), 255, np.uint8)
    y = gap
    for row, height in zip(rows, heights, strict=True):
        for k, image in enumerate(row):
            h, w = image.shape[:2]
            top, left = y + (height - h) // 2, gap + k * (cell_w + gap) + (cell_w - w) // 2
            sheet[top : top + h, left : left + w] = image
        y += height + gap
    return sheet


def compare(
    image: UInt8[np.ndarray, "h w 3"], truth: Objects, predicted: Objects, class_names: Sequence[str]
) -> UInt8[np.ndarray, "H W 3"]:
    """The image twice, side by side: with its ground truth, and with what was predicted."""
    left = caption(draw_boxes(image, truth, class_names), f"ground truth: {len(truth.boxes)}")
    right = caption(draw_boxes(image, predicted, class_names), f"predicted: {len(predicted.boxes)}")
    return contact_sheet([left, right], 2)
