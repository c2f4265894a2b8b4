"""Overlaps of boxes on the host, in float64 and without JAX; those of `yolojax.boxes` are compiled."""

import numpy as np
from jaxtyping import Float64


def iou_table(
    rows: Float64[np.ndarray, "i d 4"], objects: Float64[np.ndarray, "i g 4"]
) -> Float64[np.ndarray, "i d g"]:
    """IoU of xywh boxes of each image; 0 with what has no area."""
    # Coordinate by coordinate: an axis of length two or four is slow to loop over.
    x, y, w, h = np.ascontiguousarray(np.moveaxis(rows, -1, 0))[..., :, None]
    gx, gy, gw, gh = np.ascontiguousarray(np.moveaxis(objects, -1, 0))[..., None, :]
    width = np.maximum(np.minimum(x + w, gx + gw) - np.maximum(x, gx), 0)
    height = np.maximum(np.minimum(y + h, gy + gh) - np.maximum(y, gy), 0)
    common = width * height
    union = np.maximum(w, 0) * np.maximum(h, 0) + gw * gh - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
