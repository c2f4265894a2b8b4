"""The generated data set *shapes*: drawn geometric figures on textured backgrounds, with exact boxes.

It lets every part be tried, trained and tested without a download: any number of images from a seed, in memory, and
image ``i`` of a split depends on nothing but ``(seed, split, size, i)``.

- Six classes, each stretched (sides up to 1:1.7) and turned by any angle, coloured and striped at random; from .15 to
  .5 of the image's shorter side.
- Backgrounds are smooth noise of several scales with pixel noise, and strokes that belong to no class. One image in
  ten has no object.
- Later figures lie over earlier ones and the image cuts figures off at its edge, but of every figure at least .75 of
  its area stays visible.
- More figures, more of them hidden, make crowded scenes: ``objects`` and ``visible``. Smaller ones make large scenes
  of small objects: ``smallest`` and ``largest``.
- A box encloses what is visible of its figure. Figures are drawn on a grid four times as fine as the pixels (that is
  the antialiasing) and boxes read off that grid, so they are exact to a quarter of a pixel.
"""

from typing import NamedTuple
from urllib.parse import parse_qsl

import numpy as np
from jaxtyping import Bool, Float, Int8, UInt8
from PIL import Image, ImageDraw

from yolojax.data.dataset import Dataset, ImageRecord
from yolojax.errors import DataError
from yolojax.settings import shown

CLASS_NAMES = ("cross", "ellipse", "rectangle", "ring", "star", "triangle")
MIN_VISIBLE = 0.75
SIZES = (0.15, 0.5)
LARGEST_ASPECT = 1.7
MOST_OBJECTS = 6
BACKGROUND_SHARE = 0.1

_FINE = 4

LARGEST_SIDE = 4096
"""Pixels; figures are drawn at four times the size."""
_STREAMS = {"train": 0, "val": 1, "test": 2}
SPLITS = tuple(_STREAMS)
_DEFAULT_COUNTS = {"train": 500, "val": 100, "test": 100}
_ATTEMPTS = 2  # for each figure wanted at most
_MOST = 100  # figures are told apart by an int8
_CONTRAST = 200.0  # summed over the three channels, of 765


class Figure(NamedTuple):
    """A figure placed on the fine grid: its mask, and the corner ``(top, left)`` of the mask there."""

    class_index: int
    mask: Bool[np.ndarray, "h w"]
    top: int
    left: int
    area: int


MOST_IMAGES, MOST_PIXELS = 1_000_000, 10_000_000_000


def shapes_dataset(
    count: int,
    seed: int = 0,
    size: tuple[int, int] = (160, 160),
    *,
    split: str = "train",
    start: int = 0,
    objects: int = MOST_OBJECTS,
    visible: float = MIN_VISIBLE,
    figures: tuple[float, float] = SIZES,
) -> Dataset:
    """Images ``start`` to ``start + count - 1`` of a split of *shapes*, in memory.

    Args:
      count: number of images, at least 1.
      seed: at least 0; another seed is another data set.
      size: ``(height, width)`` of every image in pixels, each at least 32.
      split: ``train``, ``val`` or ``test``: independent streams of images.
      start: index of the first image.
      objects: most figures on an image, from 1 to 100; fewer are drawn where there is no room for more.
      visible: least share of every figure that is not hidden or cut off, above 0, at most 1.
      figures: the smallest and the largest size of a figure, as shares of the image's shorter side.

    Raises:
      DataError: an argument is out of range.
    """
    if count < 1 or seed < 0 or start < 0 or min(size) < 32 or max(size) > LARGEST_SIDE:
        raise DataError(
            f"shapes: count {count}, seed {seed}, start {start}, size {size}: needs at least 1 image of at least "
            f"32 x 32 pixels, at most {LARGEST_SIDE} a side, and a seed and start of at least 0"
        )
    if count > MOST_IMAGES or count * size[0] * size[1] > MOST_PIXELS or max(seed, start) >= 2**63:
        raise DataError(
            f"shapes: count {shown(count)}, seed {shown(seed)}, start {shown(start)}: give at most {MOST_IMAGES:,} "
            f"images of at most {MOST_PIXELS:,} pixels together (they are kept in memory), "
            "and a seed and start below 2^63"
        )
    if not (1 <= objects <= _MOST and 0 < visible <= 1):
        raise DataError(
            f"shapes: objects {objects}, visible {visible:g}: give 1 to {_MOST} objects, of which a share above 0 and "
            "at most 1 is visible"
        )
    if not 1 / min(size) <= figures[0] <= figures[1] <= 1:
        raise DataError(
            f"shapes: smallest {figures[0]:g}, largest {figures[1]:g}: give rising shares of the image's shorter side, "
            "from one pixel to 1"
        )
    if split not in _STREAMS:
        raise DataError(f"shapes: there is no split {split!r}; the splits there: {', '.join(_STREAMS)}")
    records: list[ImageRecord] = []
    annotations = 0
    for i in range(start, start + count):
        picture, boxes, classes = draw_shapes(
            np.random.default_rng([seed, _STREAMS[split], i]), size, objects=objects, visible=visible, sizes=figures
        )
        n = len(boxes)
        extent = boxes.astype(np.float64)
        records.append(
            ImageRecord(
                image_id=i + 1,
                file_name=f"{split}_{i:06d}.png",
                source=picture,
                size=size,
                boxes=boxes,
                classes=classes,
                crowd=np.zeros(n, bool),
                difficult=np.zeros(n, bool),
                areas=(extent[:, 2] - extent[:, 0]) * (extent[:, 3] - extent[:, 1]),
                annotation_ids=np.arange(annotations + 1, annotations + n + 1),
            )
        )
        annotations += n
    return Dataset(
        class_names=CLASS_NAMES,
        category_ids=tuple(range(1, len(CLASS_NAMES) + 1)),
        records=tuple(records),
        split=split,
        format="shapes",
    )


def open_shapes(address: str, split: str | None = None) -> Dataset:
    """*shapes* by an address, as the command line takes it: ``shapes``, ``shapes:val``, ``shapes:?count=64&seed=1``.

    The keys are ``count`` (500 for train, else 100), ``seed`` (0), ``size`` (``160`` or ``HEIGHTxWIDTH``), ``start``
    (0), for crowded scenes ``objects`` (6) and ``visible`` (.75), and for figures of other sizes ``smallest`` (.15) and
    ``largest`` (.5), see `shapes_dataset`. The split is the one in the address, or else ``split``, or else ``train``.
    Raises `DataError` on anything else.
    """
    name, _, query = address.removeprefix("shapes").removeprefix(":").partition("?")
    if name and split and name != split:
        raise DataError(f"{address}: names the split {name!r}, but {split!r} is asked for; leave one of them out")
    split = name or split or "train"
    try:
        pairs = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        sides = [int(s) for s in pairs.pop("size", "160").split("x")]
        h, w = (sides[0], sides[-1]) if len(sides) <= 2 else (0, 0)
        count = int(pairs.pop("count", str(_DEFAULT_COUNTS.get(split, 1))))
        seed, start = int(pairs.pop("seed", "0")), int(pairs.pop("start", "0"))
        objects, visible = int(pairs.pop("objects", str(MOST_OBJECTS))), float(pairs.pop("visible", str(MIN_VISIBLE)))
        figures = float(pairs.pop("smallest", str(SIZES[0]))), float(pairs.pop("largest", str(SIZES[1])))
    except ValueError:
        raise DataError(
            f"{address}: expected shapes:SPLIT?count=64&seed=0&size=160 with whole numbers (visible, smallest and "
            "largest: shares)"
        ) from None
    if pairs:
        raise DataError(
            f"{address}: unknown key {', '.join(pairs)}; the keys are count, seed, size, start, objects, visible, "
            "smallest, largest"
        )
    more = {"objects": objects, "visible": visible, "figures": figures}
    return shapes_dataset(count, seed, (h, w), split=split, start=start, **more)


def draw_shapes(
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    objects: int = MOST_OBJECTS,
    visible: float = MIN_VISIBLE,
    sizes: tuple[float, float] = SIZES,
) -> tuple[UInt8[np.ndarray, "h w 3"], np.ndarray, np.ndarray]:
    """One image of ``size = (h, w)``: its pixels, boxes float32 ``[n, 4]`` (xyxy, pixels) and classes int32 ``[n]``."""
    figures, owners = _place_figures(rng, size, objects, visible, sizes)
    picture = _background(rng, size)
    for figure in figures:
        _paint(rng, picture, figure)
    boxes = np.array([_visible_box(owners, k, f) for k, f in enumerate(figures)], np.float32).reshape(-1, 4)
    noisy = picture + rng.uniform(2, 7) * rng.standard_normal(size, np.float32)[:, :, None]
    pixels = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    return pixels, boxes, np.array([f.class_index for f in figures], np.int32)


def _outlines(name: str) -> list[Float[np.ndarray, "k 2"]]:
    """The polygons of a figure in [-1, 1]; a second one is a hole."""

    def around(count: int, radii: list[float]) -> Float[np.ndarray, "k 2"]:
        angles = np.arange(count) * (2 * np.pi / count)
        return np.stack([np.cos(angles), np.sin(angles)], 1) * np.resize(radii, count)[:, None]

    if name == "ellipse":
        return [around(48, [1.0])]
    if name == "ring":
        return [around(48, [1.0]), around(48, [0.52])]
    if name == "triangle":
        return [around(3, [1.0])]
    if name == "star":
        return [around(10, [1.0, 0.42])]
    if name == "rectangle":
        return [np.array([[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]])]
    arm = 0.3
    corner = np.array([[1, -arm], [1, arm], [arm, arm]])
    turns = [np.array([[0, 1], [-1, 0]]), np.array([[-1, 0], [0, -1]]), np.array([[0, -1], [1, 0]])]
    return [np.concatenate([corner, *(corner @ t for t in turns)])]


def _propose(rng: np.random.Generator, size: tuple[int, int], sizes: tuple[float, float] = SIZES) -> Figure:
    """A random figure on the fine grid; its mask may reach beyond the image."""
    class_index = int(rng.integers(len(CLASS_NAMES)))
    smallest, largest = sizes
    extent = _FINE * min(size) * np.exp(rng.uniform(np.log(smallest), np.log(largest)))
    aspect = LARGEST_ASPECT ** rng.uniform(-0.5, 0.5)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outlines = [o * [aspect, 1 / aspect] @ turn for o in _outlines(CLASS_NAMES[class_index])]
    low, high = outlines[0].min(0), outlines[0].max(0)
    scale = extent / np.sqrt(np.prod(high - low))  # the geometric mean of the box's sides is the size drawn
    w, h = np.ceil((high - low) * scale).astype(int) + 1
    picture = Image.new("1", (int(w), int(h)))
    draw = ImageDraw.Draw(picture)
    for ink, outline in zip((1, 0), outlines, strict=False):
        draw.polygon([tuple(p) for p in ((outline - low) * scale).tolist()], fill=ink)
    mask = np.asarray(picture)
    top = int(rng.integers(-h // 4, _FINE * size[0] - 3 * h // 4))
    left = int(rng.integers(-w // 4, _FINE * size[1] - 3 * w // 4))
    return Figure(class_index, mask, top, left, int(mask.sum()))


def _window(figure: Figure, shape: tuple[int, ...]) -> tuple[slice, slice, Bool[np.ndarray, "h w"]]:
    """Rows and columns of the grid that a figure's mask covers, and the part of the mask inside the grid."""
    h, w = figure.mask.shape
    top, left = max(figure.top, 0), max(figure.left, 0)
    bottom, right = min(figure.top + h, shape[0]), min(figure.left + w, shape[1])
    part = figure.mask[top - figure.top : bottom - figure.top, left - figure.left : right - figure.left]
    return slice(top, bottom), slice(left, right), part


def _place_figures(
    rng: np.random.Generator,
    size: tuple[int, int],
    most: int = MOST_OBJECTS,
    least_visible: float = MIN_VISIBLE,
    sizes: tuple[float, float] = SIZES,
) -> tuple[list[Figure], Int8[np.ndarray, "fine_h fine_w"]]:
    """Figures from the lowest to the topmost, and which of them is seen at each place of the grid (-1: none)."""
    owners = np.full((_FINE * size[0], _FINE * size[1]), -1, np.int8)
    wanted = 0 if rng.random() < BACKGROUND_SHARE else int(rng.integers(1, most + 1))
    figures: list[Figure] = []
    visible: list[int] = []
    for _ in range(_ATTEMPTS * most):
        if len(figures) == wanted:
            break
        figure = _propose(rng, size, sizes)
        rows, columns, mask = _window(figure, owners.shape)
        if mask.sum() < least_visible * figure.area:
            continue
        hidden = np.bincount(owners[rows, columns][mask] + 1, minlength=len(figures) + 1)[1:]
        if any(v - lost < least_visible * f.area for v, lost, f in zip(visible, hidden, figures, strict=True)):
            continue
        owners[rows, columns][mask] = len(figures)
        visible = [v - int(lost) for v, lost in zip(visible, hidden, strict=True)] + [int(mask.sum())]
        figures.append(figure)
    return figures, owners


def _visible_box(owners: Int8[np.ndarray, "fine_h fine_w"], k: int, figure: Figure) -> list[float]:
    rows, columns, _ = _window(figure, owners.shape)
    seen = owners[rows, columns] == k
    ys, xs = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    left, top = columns.start, rows.start
    return [float(v) / _FINE for v in (left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1)]


def _smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Float[np.ndarray, "h w 3"]:
    """Noise in [-1, 1] that varies over a ``cells``-th of the image."""
    small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
    large = small.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(large, np.float32) / 127.5 - 1


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Float[np.ndarray, "h w 3"]:
    picture = np.full((*size, 3), rng.uniform(50, 205, 3), np.float32)
    for cells, strength in ((3, 45), (8, 25), (24, 14)):
        picture += rng.uniform(0.3, 1.0) * strength * _smooth_noise(rng, size, cells)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 6))):
        corners = (rng.uniform(-0.1, 1.1, (3, 2)) * [size[1], size[0]]).ravel().tolist()
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        draw.line(corners, fill=colour, width=int(rng.integers(1, 4)), joint="curve")
    return np.asarray(image, np.float32).copy()


def _paint(rng: np.random.Generator, picture: Float[np.ndarray, "h w 3"], figure: Figure) -> None:
    """Draws a figure over the picture in place, in a colour that contrasts with what it covers."""
    fine = (_FINE * picture.shape[0], _FINE * picture.shape[1])
    rows, columns, mask = _window(figure, fine)
    top, left = rows.start // _FINE, columns.start // _FINE
    bottom, right = -(-rows.stop // _FINE), -(-columns.stop // _FINE)
    padded = np.zeros((_FINE * (bottom - top), _FINE * (right - left)), np.float32)
    y, x = rows.start - _FINE * top, columns.start - _FINE * left
    padded[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    cover = padded.reshape(bottom - top, _FINE, right - left, _FINE).mean((1, 3))[:, :, None]
    below = picture[top:bottom, left:right]
    beneath = (below * cover).sum((0, 1)) / cover.sum()
    candidates = rng.uniform(0, 255, (8, 3)).astype(np.float32)
    distance = np.abs(candidates - beneath).sum(1)
    apart = distance > _CONTRAST
    colour = candidates[np.argmax(apart) if apart.any() else np.argmax(distance)]
    ys, xs = np.mgrid[top:bottom, left:right].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 14)
    stripes = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * (2 * np.pi / period))[:, :, None]
    texture = rng.uniform(0, 28) * stripes * rng.uniform(-1, 1, 3).astype(np.float32)
    picture[top:bottom, left:right] = below + cover * (np.clip(colour + texture, 0, 255) - below)
