"""Candidates sorted for greedy suppression, one array per coordinate, and the overlap tests on them."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
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
        # Which boxes are kept has no gradient; loops could not pass one back.
        boxes = jnp.clip(lax.stop_gradient(boxes).astype(jnp.float32), -LARGEST, LARGEST)
        x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
        return cls(x1, y1, x2, y2, box_area(boxes), classes)

    def map(self, f) -> Rows:
        """``f`` of every array."""
        return jax.tree.map(f, self)


@runtime_checkable
class Overlap(Protocol):
    """Whether a pair overlaps by more than the threshold. Classes apart; arguments broadcast."""

    def __call__(self, a: Rows, b: Rows, threshold: Float[Array, "*_b"]) -> Bool[Array, "*_b"]: ...


def suppresses(a: Rows, b: Rows, threshold: Float[Array, "*_b"], overlaps: Overlap) -> Bool[Array, "*_b"]:
    """Whether each pair overlaps too much and is of one class; arguments broadcast. Coordinates must be finite."""
    over = overlaps(a, b, threshold)
    return over if a.classes is None else over & (a.classes == b.classes)


def overlaps_by_area(a: Rows, b: Rows, threshold: Float[Array, "*_b"]) -> Bool[Array, "*_b"]:
    """``IoU > threshold``.

    The arithmetic is that of `yolojax.boxes.box_iou` on areas computed beforehand: a correctly rounded quotient, so
    that an IoU that equals the threshold as a number also equals it in float32 and suppresses nothing.
    """
    return _iou(a, b) > threshold


def overlaps_by_distance(a: Rows, b: Rows, threshold: Float[Array, "*_b"]) -> Bool[Array, "*_b"]:
    """``DIoU > threshold``: IoU less the squared distance of the centres over the squared diagonal of the hull."""
    dx, dy = a.x1 - b.x1 + (a.x2 - b.x2), a.y1 - b.y1 + (a.y2 - b.y2)
    width, height = _larger(a.x2, b.x2) - _smaller(a.x1, b.x1), _larger(a.y2, b.y2) - _smaller(a.y1, b.y1)
    diagonal = width * width + height * height
    return _iou(a, b) - 0.25 * (dx * dx + dy * dy) / jnp.where(diagonal > 0, diagonal, 1.0) > threshold


def _iou(a: Rows, b: Rows) -> Float[Array, "*_b"]:
    width, height = _smaller(a.x2, b.x2) - _larger(a.x1, b.x1), _smaller(a.y2, b.y2) - _larger(a.y1, b.y1)
    # The select keeps compilers from fusing the product into the difference below (see yolojax.boxes).
    inter = jnp.where((width > 0) & (height > 0), width * height, 0.0)
    union = a.area + b.area - inter
    return inter / jnp.where(union > 0, union, 1.0)


# Selects instead of jnp.minimum and jnp.maximum, which take half as long again on a CPU to pass on NaN.


def _smaller(a: Float[Array, "*_b"], b: Float[Array, "*_b"]) -> Float[Array, "*_b"]:
    return jnp.where(a < b, a, b)


def _larger(a: Float[Array, "*_b"], b: Float[Array, "*_b"]) -> Float[Array, "*_b"]:
    return jnp.where(a > b, a, b)
