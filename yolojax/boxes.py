"""Box arithmetic in float32: formats, areas and the IoU family, as matrices and element by element.

Boxes are ``(x1, y1, x2, y2)`` with ``x1 <= x2`` and ``y1 <= y2`` unless a name says otherwise; the unit is free, mostly
input pixels. Three rules hold for every overlap below:

* The result is float32, whatever floating type comes in, and no arithmetic passes through a matrix product.
* An inverted box (``x2 < x1`` or ``y2 < y1``) counts as empty: its right or bottom edge is taken to its left or top.
  A ratio whose denominator vanishes is 0, so two empty boxes have an IoU of 0.
* Areas and overlaps are finite and so are their gradients, whatever the finite boxes. Coordinates beyond 1e18 are taken
  as 1e18, since their products would overflow. A box with a NaN coordinate has an IoU of 0 with every box.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LARGEST = 1e18
"""Sums of four squares of it still fit into float32."""

_SMALLEST = 2.0**-120
"""A denominator below counts as 0: its reciprocal, times a few, still fits into float32."""


@jax.custom_jvp
def _ratio(numerator: Float[Array, "*n"], denominator: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The quotient, and 0 with gradient 0 where the denominator (never negative) vanishes."""
    positive = denominator > _SMALLEST
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1.0), 0.0)


@_ratio.defjvp
def _ratio_jvp(primals, tangents):
    # The usual rule divides by the square of the denominator: areas of areas, which leave float32 at 1e10 pixels and
    # at 1e-10. Dividing once keeps every intermediate value in range.
    (numerator, denominator), (d_numerator, d_denominator) = primals, tangents
    value = _ratio(numerator, denominator)
    return value, _ratio(d_numerator - value * d_denominator, denominator)


class _Sides(NamedTuple):
    """Ordered float32 coordinates of boxes, one array each."""

    x1: Array
    y1: Array
    x2: Array
    y2: Array

    @property
    def width(self) -> Array:
        return self.x2 - self.x1

    @property
    def height(self) -> Array:
        return self.y2 - self.y1

    @property
    def area(self) -> Array:
        # The maximum changes no value: it keeps the compiler from fusing this product into a following sum, which
        # would round differently from one program to the next.
        return jnp.maximum(self.width * self.height, 0.0)


def _sides(boxes: Float[Array, "*n 4"]) -> _Sides:
    x1, y1, x2, y2 = jnp.moveaxis(jnp.clip(boxes.astype(jnp.float32), -LARGEST, LARGEST), -1, 0)
    return _Sides(x1, y1, jnp.maximum(x1, x2), jnp.maximum(y1, y2))


def _crossed(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> tuple[_Sides, _Sides]:
    """Sides that broadcast against each other to ``[..., N, M]``."""
    return _Sides(*(s[..., :, None] for s in _sides(a))), _Sides(*(s[..., None, :] for s in _sides(b)))


def _intersection(a: _Sides, b: _Sides) -> Array:
    width = jnp.minimum(a.x2, b.x2) - jnp.maximum(a.x1, b.x1)
    height = jnp.minimum(a.y2, b.y2) - jnp.maximum(a.y1, b.y1)
    return jnp.where((width > 0) & (height > 0), width * height, 0.0)


def _hull(a: _Sides, b: _Sides) -> _Sides:
    """The smallest box that holds both."""
    return _Sides(jnp.minimum(a.x1, b.x1), jnp.minimum(a.y1, b.y1), jnp.maximum(a.x2, b.x2), jnp.maximum(a.y2, b.y2))


def _centre_offset(a: _Sides, b: _Sides) -> tuple[Array, Array]:
    # Halved before the sum, so that edges of either sign and of any size neither overflow nor cancel early.
    return (b.x1 - a.x1) * 0.5 + (b.x2 - a.x2) * 0.5, (b.y1 - a.y1) * 0.5 + (b.y2 - a.y2) * 0.5


def _iou(a: _Sides, b: _Sides) -> Array:
    inter = _intersection(a, b)
    return _ratio(inter, a.area + b.area - inter)


def _giou(a: _Sides, b: _Sides) -> Array:
    inter = _intersection(a, b)
    union = a.area + b.area - inter
    hull = _hull(a, b).area
    # Rounding can make the hull of nested boxes smaller than their union; GIoU never exceeds IoU.
    return _ratio(inter, union) - _ratio(jnp.maximum(hull - union, 0.0), hull)


def _diou(a: _Sides, b: _Sides) -> Array:
    hull = _hull(a, b)
    dx, dy = _centre_offset(a, b)
    return _iou(a, b) - _ratio(dx**2 + dy**2, hull.width**2 + hull.height**2)


def _aspect_angle(box: _Sides) -> Array:
    """``arctan(width / height)``, 0 for a point, through a quotient that never exceeds 1."""
    wide = box.width > box.height
    # Chosen by `where`: at a tie `minimum` and `maximum` halve the gradient, and square boxes would learn no shape.
    short, long = jnp.where(wide, box.height, box.width), jnp.where(wide, box.width, box.height)
    # A NaN side fails the comparison and counts as no extent.
    angle = jnp.arctan(_ratio(jnp.where(box.width + box.height > 0, short, 0.0), long))
    return jnp.where(wide, math.pi / 2 - angle, angle)


def _ciou(a: _Sides, b: _Sides) -> Array:
    v = (4 / math.pi**2) * (_aspect_angle(b) - _aspect_angle(a)) ** 2
    alpha = jax.lax.stop_gradient(_ratio(v, 1.0 - _iou(a, b) + v))
    return _diou(a, b) - alpha * v


def _siou(a: _Sides, b: _Sides, theta: int | float) -> Array:
    hull = _hull(a, b)
    dx, dy = _centre_offset(a, b)
    # The paper's 1 - 2 sin^2(arcsin(|dy| / s) - pi/4) is sin(2 arcsin(|dy| / s)), that is 2 |dx dy| / s^2.
    angle = _ratio(2.0 * jnp.abs(dx * dy), dx**2 + dy**2)
    gamma = 2.0 - angle
    rho_x, rho_y = _ratio(jnp.abs(dx), hull.width) ** 2, _ratio(jnp.abs(dy), hull.height) ** 2
    distance = -jnp.expm1(-gamma * rho_x) - jnp.expm1(-gamma * rho_y)
    omega_w = _ratio(jnp.abs(a.width - b.width), jnp.maximum(a.width, b.width))
    omega_h = _ratio(jnp.abs(a.height - b.height), jnp.maximum(a.height, b.height))
    shape = (-jnp.expm1(-omega_w)) ** theta + (-jnp.expm1(-omega_h)) ** theta
    return _iou(a, b) - 0.5 * (distance + shape)


def box_area(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Areas of xyxy boxes, in squared units; 0 for empty and for inverted ones."""
    return _sides(boxes).area


def box_iou(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """Intersection over union of every box of ``a`` with every box of ``b``, in [0, 1].

    Args:
      a: xyxy boxes.
      b: xyxy boxes, in the same unit.
    """
    return _iou(*_crossed(a, b))


def generalized_box_iou(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """GIoU of every pair of xyxy boxes, in [-1, 1]: IoU less the empty share of the hull (arXiv 1902.09630, alg. 1)."""
    return _giou(*_crossed(a, b))


def distance_box_iou(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """DIoU of every pair of xyxy boxes, in [-1, 1]: IoU less the squared distance of the centres over the squared
    diagonal of the hull (arXiv 1911.08287, eq. 6 and 7)."""
    return _diou(*_crossed(a, b))


def complete_box_iou(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """CIoU of every pair of xyxy boxes, in [-2, 1]: DIoU less ``alpha * v``, where ``v`` compares the aspect ratios
    (arXiv 1911.08287, eq. 8 to 11). ``alpha`` carries no gradient."""
    return _ciou(*_crossed(a, b))


def paired_box_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """IoU of each xyxy box of ``a`` with the one in the same place of ``b``; see `box_iou`."""
    return _iou(_sides(a), _sides(b))


def paired_generalized_box_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """GIoU of boxes in the same place; see `generalized_box_iou`."""
    return _giou(_sides(a), _sides(b))


def paired_distance_box_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """DIoU of boxes in the same place; see `distance_box_iou`."""
    return _diou(_sides(a), _sides(b))


def paired_complete_box_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """CIoU of boxes in the same place; see `complete_box_iou`."""
    return _ciou(_sides(a), _sides(b))


def paired_scylla_box_iou(
    a: Float[Array, "*n 4"], b: Float[Array, "*n 4"], *, theta: int | float = 4
) -> Float[Array, "*n"]:
    """SIoU of xyxy boxes in the same place: ``IoU - (distance cost + shape cost) / 2``, above -2 and at most 1.

    Symmetric in its arguments; the loss of the paper is ``1 - SIoU`` (Gevorgyan, arXiv 2205.12740; the angle cost
    enters through the exponent of the distance cost).

    Args:
      a: xyxy boxes.
      b: xyxy boxes, in the same unit.
      theta: how much the shape cost attends to large differences; the paper takes a value near 4, from 2 to 6.
    """
    return _siou(_sides(a), _sides(b), theta)


def crowd_iou(detections: Float[Array, "*b N 4"], crowds: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """Intersection over the *detection's* own area, in [0, 1]: the overlap with a crowd region that COCO uses.

    A crowd region outlines many objects, so a small box inside it overlaps it fully. An empty detection gives 0.

    Args:
      detections: xyxy boxes, whose area divides.
      crowds: xyxy crowd regions, in the same unit.
    """
    a, b = _crossed(detections, crowds)
    inter = _intersection(a, b)
    return _ratio(inter, jnp.broadcast_to(a.area, inter.shape))


def xyxy_to_xywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """``(x1, y1, x2, y2)`` to ``(x1, y1, width, height)``; float32."""
    boxes = boxes.astype(jnp.float32)
    return jnp.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def xywh_to_xyxy(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """``(x1, y1, width, height)`` to ``(x1, y1, x2, y2)``; float32."""
    boxes = boxes.astype(jnp.float32)
    return jnp.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_cxcywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """``(x1, y1, x2, y2)`` to ``(centre x, centre y, width, height)``; float32."""
    boxes = boxes.astype(jnp.float32)
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([low * 0.5 + high * 0.5, high - low], axis=-1)


def cxcywh_to_xyxy(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """``(centre x, centre y, width, height)`` to ``(x1, y1, x2, y2)``; float32."""
    boxes = boxes.astype(jnp.float32)
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def xywh_to_cxcywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """``(x1, y1, width, height)`` to ``(centre x, centre y, width, height)``; float32."""
    boxes = boxes.astype(jnp.float32)
    return jnp.concatenate([boxes[..., :2] + boxes[..., 2:] * 0.5, boxes[..., 2:]], axis=-1)


def cxcywh_to_xywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """``(centre x, centre y, width, height)`` to ``(x1, y1, width, height)``; float32."""
    boxes = boxes.astype(jnp.float32)
    return jnp.concatenate([boxes[..., :2] - boxes[..., 2:] * 0.5, boxes[..., 2:]], axis=-1)


def _extent(boxes: Float[Array, "*n 4"], size: tuple[int, int]) -> Float[Array, "*n 4"]:
    h, w = size
    return jnp.broadcast_to(jnp.array([w, h, w, h], jnp.float32), boxes.shape)


def normalise_boxes(boxes: Float[Array, "*n 4"], size: tuple[int, int]) -> Float[Array, "*n 4"]:
    """Boxes in pixels of an image of ``size = (h, w)`` to fractions of it, in any format above; float32."""
    return boxes.astype(jnp.float32) / _extent(boxes, size)


def denormalise_boxes(boxes: Float[Array, "*n 4"], size: tuple[int, int]) -> Float[Array, "*n 4"]:
    """Boxes in fractions (0..1) of an image of ``size = (h, w)`` to pixels, in any format above; float32."""
    return boxes.astype(jnp.float32) * _extent(boxes, size)


def clip_boxes(boxes: Float[Array, "*n 4"], size: tuple[int, int]) -> Float[Array, "*n 4"]:
    """xyxy boxes in pixels, cut to an image of ``size = (h, w)``; a box that lies outside becomes empty; float32."""
    return jnp.clip(boxes.astype(jnp.float32), 0.0, _extent(boxes, size))


def remove_small(boxes: Float[Array, "*n 4"], min_size: float | Float[Array, ""]) -> Bool[Array, "*n"]:
    """The mask of the xyxy boxes whose two sides are at least ``min_size`` (same unit); the boxes stay in place."""
    sides = _sides(boxes)
    return (sides.width >= min_size) & (sides.height >= min_size)


def scale_boxes(
    boxes: Float[Array, "*n 4"], scale: float | Float[Array, ""] | tuple[float, float]
) -> Float[Array, "*n 4"]:
    """Boxes of any format above, times ``scale``: one factor, or ``(vertical, horizontal)``; float32."""
    sy, sx = scale if isinstance(scale, tuple) else (scale, scale)
    factors = jnp.stack([jnp.asarray(s, jnp.float32) for s in (sx, sy, sx, sy)])
    return boxes.astype(jnp.float32) * jnp.broadcast_to(factors, boxes.shape)
