"""The box coder of YOLOX: no anchor, an unbounded offset from the cell's corner, and a size in strides."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.coding.anchored import LARGEST_LOG_RATIO, per_box


def decode_yolox(
    raw: Float[Array, "*n 4"], cells: Float[Array, "*#n 2"], stride: float | int | Float[Array, "*#n"]
) -> Float[Array, "*n 4"]:
    """Boxes (xyxy, input pixels): centre ``(t + cell) * stride``, size ``exp(t) * stride`` with ``t`` bounded to +-10.

    YOLOX, arXiv 2107.08430, section 2.1, "anchor-free"; shapes and units as in `yolojax.coding.decode`.
    """
    raw = raw.astype(jnp.float32)
    stride = per_box(stride, raw)
    centre = (raw[..., :2] + cells) * stride
    half = 0.5 * stride * jnp.exp(jnp.clip(raw[..., 2:], -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO))
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def encode_yolox(
    boxes: Float[Array, "*n 4"], cells: Float[Array, "*#n 2"], stride: float | int | Float[Array, "*#n"]
) -> Float[Array, "*n 4"]:
    """The inverse of `decode_yolox`, exact to 1e-3 pixel; sides at least 1/22026 of a stride."""
    boxes = boxes.astype(jnp.float32)
    low, high = boxes[..., :2], boxes[..., 2:]
    stride = per_box(stride, boxes)
    smallest = jnp.exp(-LARGEST_LOG_RATIO)
    log_ratio = jnp.minimum(jnp.log(jnp.maximum((high - low) / stride, smallest)), LARGEST_LOG_RATIO)
    return jnp.concatenate([(0.5 * low + 0.5 * high) / stride - cells, log_ratio], axis=-1)
