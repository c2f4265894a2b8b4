"""The box coder of YOLOv2, v3 and v4: an offset inside a cell, and a size relative to an anchor.

Raw predictions are ``(tx, ty, tw, th)``; a cell is its ``(column, row)``; anchors are ``(width, height)`` in input
image pixels, as are boxes (xyxy) and strides. Every array has the leading shape of the boxes (a size of 1 broadcasts);
a stride may also be one number.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

OFFSET_MARGIN = 1e-5
"""An offset is kept this far from the borders of what a sigmoid reaches: at a stride of 32, 0.0003 pixel."""

LARGEST_LOG_RATIO = 10.0
"""``tw`` and ``th`` are bounded to +-10 before ``exp``: from 1/22026 to 22026 times the anchor."""


def per_box(stride: float | int | Float[Array, "*#n"], boxes: Float[Array, "*n 4"]) -> Float[Array, "*#n 1"]:
    """A stride as an array that broadcasts against coordinates of boxes without changing rank."""
    stride = jnp.asarray(stride, jnp.float32)
    return stride.reshape((1,) * boxes.ndim) if stride.ndim == 0 else stride[..., None]


def decode(
    raw: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
    *,
    scale_x_y: float | Float[Array, "*#n"] = 1.0,
) -> Float[Array, "*n 4"]:
    """Boxes (xyxy, input pixels) from raw predictions; YOLOv3, arXiv 1804.02767, section 2.1.

    Centre ``(sigmoid(t) * s - (s - 1) / 2 + cell) * stride``, size ``anchor * exp(t)`` with ``t`` bounded. ``s`` is
    ``scale_x_y``, 1 up to YOLOv3; YOLOv4 (arXiv 2004.10934, section 3.4, "eliminate grid sensitivity") takes 1.05 to
    1.2 so that a finite ``t`` reaches the border of the cell; it may differ from box to box, as levels do.
    """
    raw = raw.astype(jnp.float32)
    scale = per_box(scale_x_y, raw)
    offset = jax.nn.sigmoid(raw[..., :2]) * scale - (scale - 1.0) / 2.0
    centre = (offset + cells) * per_box(stride, raw)
    half = 0.5 * anchors * jnp.exp(jnp.clip(raw[..., 2:], -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO))
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def encode(
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
    *,
    scale_x_y: float = 1.0,
) -> Float[Array, "*n 4"]:
    """The inverse of `decode`: the raw prediction that yields each box (xyxy, input pixels).

    Exact to 1e-3 pixel for boxes whose centre lies in their cell and whose sides lie between 1/22026 and 22026 times
    the anchor's. A centre outside is taken to the nearest point of the cell that a sigmoid reaches.
    """
    offset, log_ratio = cell_offsets(boxes, cells, stride, anchors)
    share = jnp.clip((offset + (scale_x_y - 1.0) / 2.0) / scale_x_y, OFFSET_MARGIN, 1.0 - OFFSET_MARGIN)
    return jnp.concatenate([jnp.log(share) - jnp.log1p(-share), log_ratio], axis=-1)


def cell_offsets(
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
) -> tuple[Float[Array, "*n 2"], Float[Array, "*n 2"]]:
    """Offset of the centre from the cell's corner in strides, in [0, 1] inside of the cell, and ``log(size / anchor)``.

    What a loss compares ``sigmoid(tx), sigmoid(ty)`` and ``tw, th`` with. The logarithm is bounded like `decode`'s.
    """
    boxes = boxes.astype(jnp.float32)
    low, high = boxes[..., :2], boxes[..., 2:]
    # Halved before the sum: two large coordinates do not overflow.
    offset = (0.5 * low + 0.5 * high) / per_box(stride, boxes) - cells
    smallest = jnp.exp(-LARGEST_LOG_RATIO)
    return offset, jnp.minimum(jnp.log(jnp.maximum((high - low) / anchors, smallest)), LARGEST_LOG_RATIO)
