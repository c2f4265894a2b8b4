"""What an augmentation is, how several make one, and what happens to boxes when the image under them moves."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from yolojax.structures import Targets


@runtime_checkable
class Augmentation(Protocol):
    """``(key, images, targets) -> (images, targets)``: a pure function of a batch of uint8 RGB input images.

    The targets' boxes are xyxy in input pixels. All shapes stay the same (except in `resize_to`).
    """

    def __call__(
        self, key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]: ...


def compose(augmentations: Sequence[Augmentation]) -> Augmentation:
    """The augmentation that applies the given ones in order, each with a key of its own."""

    def composed(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        for i, augmentation in enumerate(augmentations):
            with jax.named_scope(name_of(augmentation)):  # what a compiler or a profile says of an operation
                images, targets = augmentation(jax.random.fold_in(key, i), images, targets)
        return images, targets

    return composed


def name_of(augmentation: Augmentation) -> str:
    """The name of the function that made an augmentation, such as ``mosaic``."""
    return getattr(augmentation, "__qualname__", type(augmentation).__name__).partition(".")[0]


MIN_SIDE = 2.0
"""An object stays only if each of its sides has this many pixels in the window."""

MIN_VISIBLE = 0.1
"""An object stays only if this share of its area lies in the window."""


def transform_boxes(boxes: Float[Array, "B M 4"], matrices: Float[Array, "B 2 3"]) -> Float[Array, "B M 4"]:
    """Map boxes (xyxy, input pixels) by one affine map for each image.

    The result is the smallest axis-parallel box around the four mapped corners.
    """
    x = boxes[..., jnp.array([0, 2, 0, 2])]
    y = boxes[..., jnp.array([1, 1, 3, 3])]
    m = matrices[:, None, None]
    new_x = m[..., 0, 0] * x + m[..., 0, 1] * y + m[..., 0, 2]
    new_y = m[..., 1, 0] * x + m[..., 1, 1] * y + m[..., 1, 2]
    return jnp.stack([new_x.min(-1), new_y.min(-1), new_x.max(-1), new_y.max(-1)], -1)


def project_boxes(boxes: Float[Array, "B M 4"], matrices: Float[Array, "B 3 3"]) -> Float[Array, "B M 4"]:
    """Map boxes (xyxy, input pixels) by one perspective map (homography) for each image.

    The result is the smallest axis-parallel box around the four mapped corners. Every corner must have a positive
    third homogeneous coordinate under its map, that is, lie before the horizon.
    """
    x = boxes[..., jnp.array([0, 2, 0, 2])]
    y = boxes[..., jnp.array([1, 1, 3, 3])]
    m = matrices[:, None, None]
    depth = m[..., 2, 0] * x + m[..., 2, 1] * y + m[..., 2, 2]
    new_x = (m[..., 0, 0] * x + m[..., 0, 1] * y + m[..., 0, 2]) / depth
    new_y = (m[..., 1, 0] * x + m[..., 1, 1] * y + m[..., 1, 2]) / depth
    return jnp.stack([new_x.min(-1), new_y.min(-1), new_x.max(-1), new_y.max(-1)], -1)


def keep_visible(
    targets: Targets, moved: Float[Array, "B M 4"], window: Float[Array, "... 4"]
) -> tuple[Float[Array, "B M 4"], Bool[Array, "B M"]]:
    """Clip moved boxes to a window, and decide which objects stay. Returns the boxes and the new ``valid``.

    An object stays if at least `MIN_VISIBLE` (.1) of its moved area and `MIN_SIDE` (2) pixels of each of its sides lie
    in the window. A crowd region stays as long as any part of it is visible, because predictions in that part must
    still be ignored. The window is xyxy and broadcasts against the boxes.
    """
    low, high = jnp.broadcast_to(window, moved.shape)[..., :2], jnp.broadcast_to(window, moved.shape)[..., 2:]
    clipped = jnp.concatenate([jnp.clip(moved[..., :2], low, high), jnp.clip(moved[..., 2:], low, high)], -1)
    sides = clipped[..., 2:] - clipped[..., :2]
    area = sides[..., 0] * sides[..., 1]
    whole = (moved[..., 2] - moved[..., 0]) * (moved[..., 3] - moved[..., 1])
    object_stays = (sides.min(-1) >= MIN_SIDE) & (area >= MIN_VISIBLE * whole)
    return clipped, targets.valid & jnp.where(targets.crowd, area > 0, object_stays)


def fit_into_rows(targets: Targets, count: int) -> Targets:
    """Pack the targets into ``count`` rows, objects before crowd regions and large before small ones.

    The number of those that do not fit is added to ``dropped``.
    """
    order = _by_priority(targets.boxes, targets.valid, targets.crowd)[:, :count]

    def take(a: Array) -> Array:
        return jnp.take_along_axis(a, order.reshape(order.shape + (1,) * (a.ndim - 2)), 1)

    overflow = jnp.maximum(targets.valid.sum(1, dtype=jnp.int32) - count, 0)
    packed = (take(a) for a in (targets.boxes, targets.classes, targets.valid, targets.crowd))
    boxes, classes, valid, crowd = packed
    return Targets(boxes, classes, valid, crowd, targets.dropped + overflow)


def _by_priority(
    boxes: Float[Array, "B N 4"], valid: Bool[Array, "B N"], crowd: Bool[Array, "B N"]
) -> Int[Array, "B N"]:
    """The order in which rows are kept: valid ones first, objects before crowd regions, large before small ones."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return jnp.lexsort((-sides[..., 0] * sides[..., 1], crowd, ~valid), axis=-1)
