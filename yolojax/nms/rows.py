"""Candidates sorted for greedy suppression, one array per coordinate, and the overlap test on them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.boxes import LARGEST, box_area


class Rows(NamedTuple):
    """Boxes in the order in which they are considered. Coordinates lie in separate arrays: they fill vector lanes.

    ``classes`` is None where boxes suppress each other whatever their class.
    """

    x1: Float[Array, "*n"]
    y1: Float[Array, "*n"]
    x2: Float[Array, "*n"]
    y2: Float[Array, "*n"]
    area: Float[Array, "*n"]
    classes: Int[Array, "*n"] | None

    @classmethod
    def of(cls, boxes: Float[Array, "*n 4"], classes: Int[Array, "*n"] | None) -> Rows:
        boxes = jnp.clip(boxes.astype(jnp.float32), -LARGEST, LARGEST)
        x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
        return cls(x1, y1, x2, y2, box_area(boxes), classes)

    def map(self, f) -> Rows:
        """``f`` of every array."""
        return jax.tree.map(f, self)


def suppresses(a: Rows, b: Rows, threshold: Float[Array, "*t"]) -> Bool[Array, "*n"]:
    """Whether ``IoU(a, b) > threshold``, and the classes agree; arguments broadcast. Coordinates must be finite.

    The arithmetic is that of `yolojax.boxes.box_iou` on areas computed beforehand: a correctly rounded quotient, so
    that an IoU that equals the threshold as a number also equals it in float32 and suppresses nothing.
    """
    # Selects instead of jnp.minimum and jnp.maximum, which take half as long again on a CPU to pass on NaN.
    width = jnp.where(a.x2 < b.x2, a.x2, b.x2) - jnp.where(a.x1 > b.x1, a.x1, b.x1)
    height = jnp.where(a.y2 < b.y2, a.y2, b.y2) - jnp.where(a.y1 > b.y1, a.y1, b.y1)
    # This one also keeps compilers from fusing the product into the difference below (see yolojax.boxes).
    inter = jnp.where((width > 0) & (height > 0), width * height, 0.0)
    union = a.area + b.area - inter
    over = inter / jnp.where(union > 0, union, 1.0) > threshold
    return over if a.classes is None else over & (a.classes == b.classes)
