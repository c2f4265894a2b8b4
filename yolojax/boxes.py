"""Box arithmetic in float32: formats, areas and the IoU family, as matrices and element by element.

Boxes are ``(x1, y1, x2, y2)`` with ``x1 <= x2`` and ``y1 <= y2`` unless a name says otherwise. Any unit may be used;
most callers use input pixels. Three rules hold for every overlap below:

* The result is float32 for every floating type, and no arithmetic passes through a matrix product.
* An inverted box (``x2 < x1`` or ``y2 < y1``) counts as empty: its right or bottom edge moves to its left or top edge.
  A ratio whose denominator vanishes is 0, so two empty boxes have an IoU of 0.
* Areas, overlaps and their gradients are finite for all finite boxes. Coordinates beyond 1e18 count as 1e18, since
  their products would overflow. A box with a NaN coordinate has an IoU of 0 with every box.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LARGEST = 1e18
"""The largest coordinate. The sum of four of its squares fits into float32."""

_SMALLEST = 2.0**-120
"""A smaller denominator counts as 0. The reciprocal of this one fits into float32, with room to spare."""


@jax.custom_jvp
def _ratio(numerator: Float[Array, "*n"], denominator: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The quotient, or 0 with gradient 0 where the denominator vanishes. The denominator is never negative."""
    positive = denominator > _SMALLEST
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1.0), 0.0)


@_ratio.defjvp
def _ratio_jvp(primals, tangents):
    # The usual rule divides by the square of the denominator. The square of an area leaves the range of float32 at
    # sides of 1e10 and of 1e-10. Dividing once keeps every intermediate value in range.
    (numerator, denominator), (d_numerator, d_denominator) = primals, tangents
    value = _ratio(numerator, denominator)
    return value, _ratio(d_numerator - value * d_denominator, denominator)


class _Sides(NamedTuple):
    """The coordinates of boxes in float32, one array each, with ``x1 <= x2`` and ``y1 <= y2``."""

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
        # The maximum changes no value. It keeps the compiler from fusing this product into a following sum, which would
        # round differently from one program to the next.
        return jnp.maximum(self.width * self.height, 0.0)


def _sides(boxes: Float[Array, "*n 4"]) -> _Sides:
    x1, y1, x2, y2 = jnp.moveaxis(jnp.clip(boxes.astype(jnp.float32), -LARGEST, LARGEST), -1, 0)
    return _Sides(x1, y1, jnp.maximum(x1, x2), jnp.maximum(y1, y2))


def _crossed(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> tuple[_Sides, _Sides]:
    """Coordinates that broadcast against each other to ``[..., N, M]``."""
    return _Sides(*(s[..., :, None] for s in _sides(a))), _Sides(*(s[..., None, :] for s in _sides(b)))


def _intersection(a: _Sides, b: _Sides) -> Array:
    width = jnp.minimum(a.x2, b.x2) - jnp.maximum(a.x1, b.x1)
    height = jnp.minimum(a.y2, b.y2) - jnp.maximum(a.y1, b.y1)
    return jnp.where((width > 0) & (height > 0), width * height, 0.0)


def _hull(a: _Sides, b: _Sides) -> _Sides:
    """The smallest box that contains both boxes."""
    return _Sides(jnp.minimum(a.x1, b.x1), jnp.minimum(a.y1, b.y1), jnp.maximum(a.x2, b.x2), jnp.maximum(a.y2, b.y2))


def _centre_offset(a: _Sides, b: _Sides) -> tuple[Array, Array]:
    # Each difference is halved before the sum, so that large coordinates neither overflow nor cancel.
    return (b.x1 - a.x1) * 0.5 + (b.x2 - a.x2) * 0.5, (b.y1 - a.y1) * 0.5 + (b.y2 - a.y2) * 0.5


def _iou(a: _Sides, b: _Sides) -> Array:
    inter = _intersection(a, b)
    return _ratio(inter, a.area + b.area - inter)


def _giou(a: _Sides, b: _Sides) -> Array:
    inter = _intersection(a, b)
    union = a.area + b.area - inter
    hull = _hull(a, b).area
    # Rounding can make the hull of nested boxes smaller than their union. The maximum keeps GIoU at most IoU.
    return _ratio(inter, union) - _ratio(jnp.maximum(hull - union, 0.0), hull)


def _diou(a: _Sides, b: _Sides) -> Array:
    hull = _hull(a, b)
    dx, dy = _centre_offset(a, b)
    return _iou(a, b) - _ratio(dx**2 + dy**2, hull.width**2 + hull.height**2)


def _aspect_angle(box: _Sides) -> Array:
    """``arctan(width / height)``, and 0 for a point. The quotient that is computed never exceeds 1."""
    wide = box.width > box.height
    # At a tie `minimum` and `maximum` halve the gradient, so that square boxes would learn no shape; `where` does not.
    short, long = jnp.where(wide, box.height, box.width), jnp.where(wide, box.width, box.height)
    # A NaN side fails the comparison and counts as 0.
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
    """Areas of xyxy boxes in squared units. Empty and inverted boxes have area 0."""
    return _sides(boxes).area


def box_iou(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """Intersection over union of every box of ``a`` with every box of ``b``, in [0, 1].

    Args:
      a: xyxy boxes.
      b: xyxy boxes, in the same unit.

    Example::

        box_iou(jnp.array([[0.0, 0, 10, 10]]), jnp.array([[5.0, 0, 15, 10]]))  # [[0.333]]
    """
    return _iou(*_crossed(a, b))


def generalized_box_iou(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """GIoU of every pair of xyxy boxes, in [-1, 1]: the IoU minus the share of the hull that neither box covers.

    Reference: arXiv 1902.09630, algorithm 1.
    """
    return _giou(*_crossed(a, b))


def distance_box_iou(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """DIoU of every pair of xyxy boxes, in [-1, 1].

    It is the IoU minus the squared distance of the centres over the squared diagonal of the hull (arXiv 1911.08287,
    equations 6 and 7).
    """
    return _diou(*_crossed(a, b))


def complete_box_iou(a: Float[Array, "*b N 4"], b: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """CIoU of every pair of xyxy boxes, in [-2, 1].

    It is the DIoU minus ``alpha * v``, where ``v`` compares the aspect ratios and ``alpha`` carries no gradient (arXiv
    1911.08287, equations 8 to 11).
    """
    return _ciou(*_crossed(a, b))


def paired_box_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """IoU of each xyxy box of ``a`` with the box at the same index of ``b``. See `box_iou`."""
    return _iou(_sides(a), _sides(b))


def paired_generalized_box_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """GIoU of the boxes at each index. See `generalized_box_iou`."""
    return _giou(_sides(a), _sides(b))


def paired_distance_box_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """DIoU of the boxes at each index. See `distance_box_iou`."""
    return _diou(_sides(a), _sides(b))


def paired_complete_box_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """CIoU of the boxes at each index. See `complete_box_iou`."""
    return _ciou(_sides(a), _sides(b))


def paired_scylla_box_iou(
    a: Float[Array, "*n 4"], b: Float[Array, "*n 4"], *, theta: int | float = 4
) -> Float[Array, "*n"]:
    """SIoU of the xyxy boxes at each index: ``IoU - (distance cost + shape cost) / 2``, above -2 and at most 1.

    SIoU is symmetric in its arguments. The loss of the paper is ``1 - SIoU`` (Gevorgyan, arXiv 2205.12740). The angle
    cost enters through the exponent of the distance cost.

    Args:
      a: xyxy boxes.
      b: xyxy boxes, in the same unit.
      theta: exponent of the shape cost. The paper uses a value near 4, from 2 to 6.
    """
    return _siou(_sides(a), _sides(b), theta)


def crowd_iou(detections: Float[Array, "*b N 4"], crowds: Float[Array, "*b M 4"]) -> Float[Array, "*b N M"]:
    """Intersection over the *detection's* own area, in [0, 1], which COCO uses for crowd regions.

    A crowd region outlines many objects, so a small box inside it should overlap it fully. An empty detection has an
    overlap of 0.

    Args:
      detections: xyxy boxes, whose area is the divisor.
      crowds: xyxy crowd regions, in the same unit.
    """
    a, b = _crossed(detections, crowds)
    inter = _intersection(a, b)
    return _ratio(inter, jnp.broadcast_to(a.area, inter.shape))


def xyxy_to_xywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Convert ``(x1, y1, x2, y2)`` to ``(x1, y1, width, height)``, in float32."""
    boxes = boxes.astype(jnp.float32)
    return jnp.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def xywh_to_xyxy(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Convert ``(x1, y1, width, height)`` to ``(x1, y1, x2, y2)``, in float32."""
    boxes = boxes.astype(jnp.float32)
    return jnp.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_cxcywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Convert ``(x1, y1, x2, y2)`` to ``(centre x, centre y, width, height)``, in float32."""
    boxes = boxes.astype(jnp.float32)
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([low * 0.5 + high * 0.5, high - low], axis=-1)


def cxcywh_to_xyxy(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Convert ``(centre x, centre y, width, height)`` to ``(x1, y1, x2, y2)``, in float32."""
    boxes = boxes.astype(jnp.float32)
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def xywh_to_cxcywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Convert ``(x1, y1, width, height)`` to ``(centre x, centre y, width, height)``, in float32."""
    boxes = boxes.astype(jnp.float32)
    return jnp.concatenate([boxes[..., :2] + boxes[..., 2:] * 0.5, boxes[..., 2:]], axis=-1)


def cxcywh_to_xywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Convert ``(centre x, centre y, width, height)`` to ``(x1, y1, width, height)``, in float32."""
    boxes = boxes.astype(jnp.float32)
    return jnp.concatenate([boxes[..., :2] - boxes[..., 2:] * 0.5, boxes[..., 2:]], axis=-1)


def _extent(boxes: Float[Array, "*n 4"], size: tuple[int, int]) -> Float[Array, "*n 4"]:
    h, w = size
    return jnp.broadcast_to(jnp.array([w, h, w, h], jnp.float32), boxes.shape)


def normalise_boxes(boxes: Float[Array, "*n 4"], size: tuple[int, int]) -> Float[Array, "*n 4"]:
    """Convert boxes of any format above from pixels of an image of ``size = (h, w)`` to fractions of it, in float32."""
    return boxes.astype(jnp.float32) / _extent(boxes, size)


def denormalise_boxes(boxes: Float[Array, "*n 4"], size: tuple[int, int]) -> Float[Array, "*n 4"]:
    """Convert boxes of any format above from fractions of an image of ``size = (h, w)`` to pixels, in float32."""
    return boxes.astype(jnp.float32) * _extent(boxes, size)


def clip_boxes(boxes: Float[Array, "*n 4"], size: tuple[int, int]) -> Float[Array, "*n 4"]:
    """Clip xyxy boxes in pixels to an image of ``size = (h, w)``, in float32. A box outside of it becomes empty."""
    return jnp.clip(boxes.astype(jnp.float32), 0.0, _extent(boxes, size))


def remove_small(boxes: Float[Array, "*n 4"], min_size: float | Float[Array, ""]) -> Bool[Array, "*n"]:
    """The mask of the xyxy boxes whose two sides are at least ``min_size`` (in the same unit).

    A mask keeps shapes fixed, so that the function can be compiled.
    """
    sides = _sides(boxes)
    return (sides.width >= min_size) & (sides.height >= min_size)


def scale_boxes(
    boxes: Float[Array, "*n 4"], scale: float | Float[Array, ""] | tuple[float, float]
) -> Float[Array, "*n 4"]:
    """Multiply boxes of any format above by ``scale``, one factor or ``(vertical, horizontal)``, in float32."""
    sy, sx = scale if isinstance(scale, tuple) else (scale, scale)
    factors = jnp.stack([jnp.asarray(s, jnp.float32) for s in (sx, sy, sx, sy)])
    return boxes.astype(jnp.float32) * jnp.broadcast_to(factors, boxes.shape)
