"""The box coder of YOLOv5 and v7: bounded sizes, and centres that reach half a cell beyond their own."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.coding.anchored import OFFSET_MARGIN, per_box

_SIZE_MARGIN = 1e-6


def decode_yolov5(
    raw: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
    *,
    scale_x_y: float | Float[Array, "*#n"] = 2.0,
) -> Float[Array, "*n 4"]:
    """Boxes (xyxy, input pixels): centre ``(2 sigmoid(t) - 1/2 + cell) * stride``, size ``anchor (2 sigmoid(t))^2``.

    Centres lie from half a cell before the cell to half a cell after it, sides from 0 to 4 times the anchor's. Shapes
    and units as in `yolojax.coding.decode`. The first 2 is Darknet's ``scale_x_y``, which some files state otherwise.
    """
    share, scale = jax.nn.sigmoid(raw.astype(jnp.float32)), per_box(scale_x_y, raw)
    centre = (scale * share[..., :2] - (scale - 1.0) / 2.0 + cells) * per_box(stride, raw)
    half = 0.5 * anchors * (2.0 * share[..., 2:]) ** 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def encode_yolov5(
    boxes: Float[Array, "*n 4"],
    cells: Float[Array, "*#n 2"],
    stride: float | int | Float[Array, "*#n"],
    anchors: Float[Array, "*#n 2"],
) -> Float[Array, "*n 4"]:
    """The inverse of `decode_yolov5`, exact to 1e-3 pixel within its reach; beyond it, the nearest that it reaches.

    Within 1e-3 pixel for centres over the whole reach and sides up to 3.99 times the anchor's.
    """
    boxes = boxes.astype(jnp.float32)
    low, high = boxes[..., :2], boxes[..., 2:]
    offset = (0.5 * low + 0.5 * high) / per_box(stride, boxes) - cells
    share_xy = jnp.clip((offset + 0.5) / 2.0, OFFSET_MARGIN, 1.0 - OFFSET_MARGIN)
    share_wh = jnp.clip(0.5 * jnp.sqrt(jnp.maximum((high - low) / anchors, 0.0)), _SIZE_MARGIN, 1.0 - _SIZE_MARGIN)
    share = jnp.concatenate([share_xy, share_wh], axis=-1)
    return jnp.log(share) - jnp.log1p(-share)
