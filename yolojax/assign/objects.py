"""What assigners read of `Targets`: padding made harmless, and an order of the objects that their content decides."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.errors import ConfigError
from yolojax.structures import Targets

# Where a row is padding: finite, ordered, of positive area, so that no formula of an assigner divides by zero.
DUMMY_BOX = (0.0, 0.0, 1.0, 1.0)


class Objects(NamedTuple):
    """Objects of a batch, sorted by content. ``rows`` tells the row of the `Targets` that each came from.

    ``assignable`` objects may own predictions: valid, not crowd, finite, with positive width and height. Boxes of
    padding rows are a harmless unit box and their class 0.
    """

    boxes: Float[Array, "B M 4"]
    classes: Int[Array, "B M"]
    assignable: Bool[Array, "B M"]
    rows: Int[Array, "B M"]


def well_formed(boxes: Float[Array, "*batch 4"]) -> Bool[Array, "*batch"]:
    """Finite boxes (xyxy) of positive width and height."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return jnp.all(jnp.isfinite(boxes), axis=-1) & jnp.all(sizes > 0, axis=-1)


def without_padding(targets: Targets) -> Targets:
    """The same targets with a harmless box and class 0 in every row whose content may not be read.

    Raises `ConfigError` for targets without an image or without a row: no object is told by the mask.
    """
    if 0 in targets.valid.shape:
        images, rows = targets.valid.shape
        raise ConfigError(
            f"targets of {images} images with {rows} rows each: assignment needs at least one of both; where there is "
            "no object, give a row that is not valid"
        )
    boxes = jnp.asarray(targets.boxes, jnp.float32)
    harmless = jnp.broadcast_to(jnp.asarray(DUMMY_BOX, jnp.float32), boxes.shape)
    usable = targets.valid & well_formed(boxes)
    return targets._replace(
        boxes=jnp.where(usable[..., None], boxes, harmless),
        classes=jnp.where(usable, targets.classes, 0),
        valid=usable,
    )


def sort_by_content(targets: Targets) -> Objects:
    """Objects ordered by (assignable first, smaller area, x1, y1, x2, y2, class).

    An assigner that breaks ties by the first object in this order gives the same answer however the objects were
    listed. Objects that agree in everything are interchangeable.
    """
    clean = without_padding(targets)
    assignable = clean.valid & ~targets.crowd
    x1, y1, x2, y2 = (clean.boxes[..., i] for i in range(4))
    # lexsort: the last key is the most significant one.
    rows = jnp.lexsort((clean.classes, y2, x2, y1, x1, (x2 - x1) * (y2 - y1), ~assignable), axis=-1)
    rows = rows.astype(jnp.int32)
    return Objects(
        jnp.take_along_axis(clean.boxes, rows[..., None], axis=1),
        jnp.take_along_axis(clean.classes, rows, axis=1),
        jnp.take_along_axis(assignable, rows, axis=1),
        rows,
    )
