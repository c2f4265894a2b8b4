"""What happens to boxes when the image under them moves."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.structures import Targets

MIN_SIDE = 2.0
MIN_VISIBLE = 0.1


def transform_boxes(boxes: Float[Array, "B M 4"], matrices: Float[Array, "B 2 3"]) -> Float[Array, "B M 4"]:
    """Boxes (xyxy pixels) under affine maps: the tightest axis-parallel boxes around the four mapped corners."""
    x = boxes[..., jnp.array([0, 2, 0, 2])]
    y = boxes[..., jnp.array([1, 1, 3, 3])]
    m = matrices[:, None, None]
    new_x = m[..., 0, 0] * x + m[..., 0, 1] * y + m[..., 0, 2]
    new_y = m[..., 1, 0] * x + m[..., 1, 1] * y + m[..., 1, 2]
    return jnp.stack([new_x.min(-1), new_y.min(-1), new_x.max(-1), new_y.max(-1)], -1)


def project_boxes(boxes: Float[Array, "B M 4"], matrices: Float[Array, "B 3 3"]) -> Float[Array, "B M 4"]:
    """Boxes under perspective maps (homographies): the tightest boxes around the four mapped corners.

    No corner may lie on or beyond the horizon of its map, where the third homogeneous coordinate is 0 or less.
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
    """Moved boxes clipped to a window (xyxy, broadcast against them), and which objects stay.

    An object stays when at least `MIN_VISIBLE` of its moved area and `MIN_SIDE` pixels of each side lie in the window.
    A crowd region stays as long as anything of it is visible, because it must go on shielding what lies there.
    """
    low, high = jnp.broadcast_to(window, moved.shape)[..., :2], jnp.broadcast_to(window, moved.shape)[..., 2:]
    clipped = jnp.concatenate([jnp.clip(moved[..., :2], low, high), jnp.clip(moved[..., 2:], low, high)], -1)
    sides = clipped[..., 2:] - clipped[..., :2]
    area = sides[..., 0] * sides[..., 1]
    whole = (moved[..., 2] - moved[..., 0]) * (moved[..., 3] - moved[..., 1])
    object_stays = (sides.min(-1) >= MIN_SIDE) & (area >= MIN_VISIBLE * whole)
    return clipped, targets.valid & jnp.where(targets.crowd, area > 0, object_stays)


def fit_into_rows(targets: Targets, count: int) -> Targets:
    """Targets of ``N`` rows packed into ``count``: objects before crowd regions, large before small.

    What does not fit is added to ``dropped``.
    """
    order = _strongest_claim(targets.boxes, targets.valid, targets.crowd)[:, :count]

    def take(a: Array) -> Array:
        return jnp.take_along_axis(a, order.reshape(order.shape + (1,) * (a.ndim - 2)), 1)

    overflow = jnp.maximum(targets.valid.sum(1, dtype=jnp.int32) - count, 0)
    packed = (take(a) for a in (targets.boxes, targets.classes, targets.valid, targets.crowd))
    boxes, classes, valid, crowd = packed
    return Targets(boxes, classes, valid, crowd, targets.dropped + overflow)


def _strongest_claim(
    boxes: Float[Array, "B N 4"], valid: Bool[Array, "B N"], crowd: Bool[Array, "B N"]
) -> Int[Array, "B N"]:
    """The order in which objects take the padded rows: valid ones, objects before crowd regions, large before small."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return jnp.lexsort((-sides[..., 0] * sides[..., 1], crowd, ~valid), axis=-1)
