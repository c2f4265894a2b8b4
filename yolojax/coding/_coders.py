"""The box coders of YOLOv2 to v4, of YOLOv5 and v7, of YOLOX, and of YOLOv8.

For the first three, raw predictions are ``(tx, ty, tw, th)``, a cell is its ``(column, row)``, and anchors are
``(width, height)`` in input pixels, as are boxes (xyxy) and strides. Every array has the leading shape of the boxes,
where a size of 1 broadcasts. A stride may also be one number.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_OFFSET_MARGIN = 1e-5
"""Encoded offsets keep this distance from the limits of the sigmoid: 0.0003 pixel at a stride of 32."""

_SIZE_MARGIN = 1e-6
"""The same for the sides of `encode_yolov5`."""

_LARGEST_LOG_RATIO = 10.0
"""``tw`` and ``th`` are clipped to +-10 before ``exp``: sides reach from 1/22026 to 22026 times the anchor."""


def decode(
    raw: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
    *,
    scale_x_y: float | Float[Array, "*#n"] = 1.0,
) -> Float[Array, "*n 4"]:
    """Decode the raw predictions of YOLOv2, v3 and v4 to boxes (xyxy, input pixels).

    The centre is ``(sigmoid(t) * s - (s - 1) / 2 + cell) * stride`` and the size ``anchor * exp(t)``, where ``tw`` and
    ``th`` are clipped to +-10 (YOLOv3, arXiv 1804.02767, section 2.1).

    Args:
      raw: ``(tx, ty, tw, th)``.
      cells: ``(column, row)`` of the cell of each prediction.
      stride: input pixels of a cell, one number or one for each prediction.
      anchors: ``(width, height)`` in input pixels.
      scale_x_y: the ``s`` above, one number or one for each prediction. It is 1 up to YOLOv3. YOLOv4 (arXiv 2004.10934,
        section 3.4, "eliminate grid sensitivity") uses 1.05 to 1.2, so that a finite ``t`` reaches the border of the
        cell.
    """
    raw = raw.astype(jnp.float32)
    scale = _per_box(scale_x_y, raw)
    offset = jax.nn.sigmoid(raw[..., :2]) * scale - (scale - 1.0) / 2.0
    centre = (offset + cells) * _per_box(stride, raw)
    half = 0.5 * anchors * jnp.exp(jnp.clip(raw[..., 2:], -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO))
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def encode(
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
    *,
    scale_x_y: float = 1.0,
) -> Float[Array, "*n 4"]:
    """The inverse of `decode`: the raw predictions that decode to these boxes (xyxy, input pixels).

    It is exact to 1e-3 pixel for boxes whose centre lies in their cell and whose sides are between 1/22026 and 22026
    times the anchor's. A centre outside the cell is moved to the nearest point of the cell that a sigmoid reaches.
    """
    offset, log_ratio = cell_offsets(boxes, cells, stride, anchors)
    share = jnp.clip((offset + (scale_x_y - 1.0) / 2.0) / scale_x_y, _OFFSET_MARGIN, 1.0 - _OFFSET_MARGIN)
    return jnp.concatenate([jnp.log(share) - jnp.log1p(-share), log_ratio], axis=-1)


def cell_offsets(
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
) -> tuple[Float[Array, "*n 2"], Float[Array, "*n 2"]]:
    """The offset of each centre from its cell's corner, in strides, and ``log(size / anchor)``.

    The offset lies in [0, 1] for a centre inside the cell. These are the targets that a loss compares with
    ``sigmoid(tx), sigmoid(ty)`` and with ``tw, th``. The logarithm is clipped to +-10, as in `decode`.
    """
    boxes = boxes.astype(jnp.float32)
    low, high = boxes[..., :2], boxes[..., 2:]
    smallest = jnp.exp(-_LARGEST_LOG_RATIO)
    log_ratio = jnp.minimum(jnp.log(jnp.maximum((high - low) / anchors, smallest)), _LARGEST_LOG_RATIO)
    return _centres(boxes) / _per_box(stride, boxes) - cells, log_ratio


def decode_yolov5(
    raw: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
    *,
    scale_x_y: float | Float[Array, "*#n"] = 2.0,
) -> Float[Array, "*n 4"]:
    """Decode the raw predictions of YOLOv5 and v7 to boxes (xyxy, input pixels).

    The centre is ``(2 sigmoid(t) - 1/2 + cell) * stride`` and the size ``anchor * (2 sigmoid(t))^2``. A centre lies at
    most half a cell outside its cell, and a side is at most 4 times the anchor's.

    Arguments are those of `decode`. ``scale_x_y`` is the first 2 in the formula of the centre; some Darknet files state
    another number.
    """
    share, scale = jax.nn.sigmoid(raw.astype(jnp.float32)), _per_box(scale_x_y, raw)
    centre = (scale * share[..., :2] - (scale - 1.0) / 2.0 + cells) * _per_box(stride, raw)
    half = 0.5 * anchors * (2.0 * share[..., 2:]) ** 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def encode_yolov5(
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
) -> Float[Array, "*n 4"]:
    """The inverse of `decode_yolov5`: the raw predictions that decode to these boxes (xyxy, input pixels).

    It is exact to 1e-3 pixel for centres at most half a cell outside their cell and sides up to 3.99 times the
    anchor's. Other boxes are moved to the nearest one that can be decoded.
    """
    boxes = boxes.astype(jnp.float32)
    low, high = boxes[..., :2], boxes[..., 2:]
    offset = _centres(boxes) / _per_box(stride, boxes) - cells
    share_xy = jnp.clip((offset + 0.5) / 2.0, _OFFSET_MARGIN, 1.0 - _OFFSET_MARGIN)
    share_wh = jnp.clip(0.5 * jnp.sqrt(jnp.maximum((high - low) / anchors, 0.0)), _SIZE_MARGIN, 1.0 - _SIZE_MARGIN)
    share = jnp.concatenate([share_xy, share_wh], axis=-1)
    return jnp.log(share) - jnp.log1p(-share)


def decode_yolox(
    raw: Float[Array, "*n 4"], cells: Float[Array, "*#n 2"], stride: float | int | Float[Array, "*#n"]
) -> Float[Array, "*n 4"]:
    """Decode the raw predictions of YOLOX, which has no anchors, to boxes (xyxy, input pixels).

    The centre is ``(t + cell) * stride`` and the size ``exp(t) * stride``, with ``t`` clipped to +-10 (YOLOX, arXiv
    2107.08430, section 2.1, "anchor-free"). Arguments are those of `decode`.
    """
    raw = raw.astype(jnp.float32)
    stride = _per_box(stride, raw)
    centre = (raw[..., :2] + cells) * stride
    half = 0.5 * stride * jnp.exp(jnp.clip(raw[..., 2:], -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO))
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def encode_yolox(
    boxes: Float[Array, "*n 4"], cells: Float[Array, "*#n 2"], stride: float | int | Float[Array, "*#n"]
) -> Float[Array, "*n 4"]:
    """The inverse of `decode_yolox`, exact to 1e-3 pixel for sides between 1/22026 and 22026 strides."""
    boxes = boxes.astype(jnp.float32)
    low, high = boxes[..., :2], boxes[..., 2:]
    stride = _per_box(stride, boxes)
    smallest = jnp.exp(-_LARGEST_LOG_RATIO)
    log_ratio = jnp.minimum(jnp.log(jnp.maximum((high - low) / stride, smallest)), _LARGEST_LOG_RATIO)
    return jnp.concatenate([_centres(boxes) / stride - cells, log_ratio], axis=-1)


def decode_yolov1(
    raw: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    input_size: tuple[int, int],
    *,
    sqrt: bool = True,
) -> Float[Array, "*n 4"]:
    """Decode the raw predictions of YOLOv1 to boxes (xyxy, input pixels).

    The centre is ``(t + cell) * stride`` and the size ``input size * t^2``, or ``input size * t`` without ``sqrt``
    (arXiv 1506.02640, section 2.2, which predicts the square roots of the sides). ``input_size`` is ``(height, width)``
    in pixels. Other arguments are those of `decode`.
    """
    raw = raw.astype(jnp.float32)
    sides = jnp.asarray(input_size[::-1], jnp.float32).reshape((1,) * (raw.ndim - 1) + (2,))
    centre = (raw[..., :2] + cells) * _per_box(stride, raw)
    half = 0.5 * sides * (raw[..., 2:] ** 2 if sqrt else raw[..., 2:])
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def encode_yolov1(
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    input_size: tuple[int, int],
    *,
    sqrt: bool = True,
) -> Float[Array, "*n 4"]:
    """The inverse of `decode_yolov1`, exact to 1e-3 pixel for boxes with positive sides."""
    boxes = boxes.astype(jnp.float32)
    sides = jnp.asarray(input_size[::-1], jnp.float32).reshape((1,) * (boxes.ndim - 1) + (2,))
    shares = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0) / sides
    offsets = _centres(boxes) / _per_box(stride, boxes) - cells
    return jnp.concatenate([offsets, jnp.sqrt(shares) if sqrt else shares], axis=-1)


def distances_to_boxes(
    points: Float[Array, "*#batch N 2"], distances: Float[Array, "*batch N 4"]
) -> Float[Array, "*batch N 4"]:
    """Boxes (xyxy) from points and their distances to the left, top, right and bottom side, in input pixels.

    Reference: FCOS, arXiv 1904.01355, section 3.1.
    """
    points = jnp.broadcast_to(points, (*distances.shape[:-1], 2))
    return jnp.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1)


def boxes_to_distances(
    points: Float[Array, "*#batch N 2"], boxes: Float[Array, "*batch N 4"]
) -> Float[Array, "*batch N 4"]:
    """The inverse of `distances_to_boxes`. A distance is negative where the point lies outside its box."""
    points = jnp.broadcast_to(points, (*boxes.shape[:-1], 2))
    return jnp.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)


def dfl_expectation(logits: Float[Array, "*batch bins"]) -> Float[Array, "*batch"]:
    """The expected bin ``sum_i i * softmax(logits)_i``, in ``[0, bins - 1]``.

    Reference: Generalized Focal Loss, Li et al. 2020, arXiv 2006.04388, equation 5.
    """
    # A sum of products, because accelerators compute a matrix product in lower precision.
    bins = jnp.arange(logits.shape[-1], dtype=jnp.float32)
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.sum(probabilities * jnp.broadcast_to(bins, logits.shape), axis=-1)


def decode_distributions(
    logits: Float[Array, "*batch N sides_bins"], points: Float[Array, "N 2"], strides: Float[Array, " N"]
) -> Float[Array, "*batch N 4"]:
    """Decode the predictions of YOLOv8 to boxes (xyxy, input pixels).

    Each point has ``4 * reg_max`` logits: the distances to the left, top, right and bottom side, each as a distribution
    over ``reg_max`` bins that are one stride wide. ``points`` and ``strides`` come from `cell_centres`.
    """
    distances = dfl_expectation(logits.reshape(*logits.shape[:-1], 4, -1))
    return distances_to_boxes(points, distances * jnp.broadcast_to(strides[:, None], distances.shape))


def _per_box(stride: float | int | Float[Array, "*#n"], boxes: Float[Array, "*n 4"]) -> Float[Array, "*#n 1"]:
    """A stride as an array that broadcasts against coordinates of boxes without a change of rank."""
    stride = jnp.asarray(stride, jnp.float32)
    return stride.reshape((1,) * boxes.ndim) if stride.ndim == 0 else stride[..., None]


def _centres(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 2"]:
    # The coordinates are halved before they are added, so that two large ones do not overflow.
    return 0.5 * boxes[..., :2] + 0.5 * boxes[..., 2:]
