"""What decoders of queries learn: the cost of a match, and contrastive denoising queries, of a fixed number.

DN-DETR, arXiv 2203.01305; DINO, arXiv 2203.03605, section 3.3; RT-DETR, arXiv 2304.08069.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from yolojax.assign._common import sort_by_content, without_padding
from yolojax.boxes import cxcywh_to_xyxy, generalized_box_iou, xyxy_to_cxcywh
from yolojax.structures import Targets


def query_cost(
    boxes: Float[Array, "B Q 4"],
    logits: Float[Array, "B Q C"],
    targets: Targets,
    size: Float[Array, "B 2"],
    *,
    class_weight: float = 2.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Array, "B M Q"]:
    """The cost of each object and query: focal cost of the class, L1 distance and ``-GIoU``, weighted and summed.

    The focal cost is the focal loss (arXiv 1708.02002) of the object's class as a positive minus that as a negative.
    Without it, and with probabilities in its place, this is `matching_cost`. Read without gradient.

    Args:
      boxes: ``(centre x, centre y, width, height)`` as fractions of the image.
      logits: of the classes.
      targets: boxes in input pixels.
      size: ``(width, height)`` of each image in pixels.

    References: Deformable DETR, arXiv 2010.04159; RT-DETR, arXiv 2304.08069, table 1 of the appendix.
    """
    boxes, logits = jax.lax.stop_gradient((boxes.astype(jnp.float32), logits.astype(jnp.float32)))
    clean = without_padding(targets)
    label = jnp.clip(clean.classes, 0, logits.shape[-1] - 1)
    p = jax.nn.sigmoid(jnp.swapaxes(jnp.take_along_axis(logits, label[:, None, :], axis=2), 1, 2))
    focal = alpha * (1 - p) ** gamma * -jnp.log(p + 1e-8) - (1 - alpha) * p**gamma * -jnp.log(1 - p + 1e-8)
    true = clean.boxes / jnp.concatenate([size, size], axis=-1)[:, None]
    centred = xyxy_to_cxcywh(true)
    distance = sum((jnp.abs(centred[:, :, None, i] - boxes[:, None, :, i]) for i in range(4)), start=jnp.zeros(p.shape))
    overlap = generalized_box_iou(true, cxcywh_to_xyxy(boxes))
    return class_weight * focal + l1_weight * distance - giou_weight * overlap


class DenoisingQueries(NamedTuple):
    """Objects with noise, from which a decoder learns to find the objects again.

    Attributes:
      boxes: of the queries, ``(centre x, centre y, width, height)`` as fractions of the image.
      classes: of the queries; some are wrong.
      objects: the row of the `Targets` that a query comes from.
      positive: whether the query learns its object. The others learn that they are none.
      group: queries see each other within their group only; -1 marks queries that do not exist.
    """

    boxes: Float[Array, "B D 4"]
    classes: Int[Array, "B D"]
    objects: Int[Array, "B D"]
    positive: Bool[Array, "B D"]
    group: Int[Array, "B D"]


def denoising_queries(
    key: PRNGKeyArray,
    targets: Targets,
    input_size: tuple[int, int],
    classes: int,
    *,
    pairs: int = 100,
    label_noise: float = 0.5,
    box_noise: float = 1.0,
) -> DenoisingQueries:
    """Makes ``D = 2 * pairs`` queries for each image: positive ones near the objects, and negative ones further away.

    An image with ``n`` objects gets ``max(1, pairs // n)`` groups, each with every object twice. A positive query's
    corners are moved by up to ``box_noise / 2`` of its object's sides, those of a negative query by once to twice as
    much; all stay in the image. Its class is replaced by a random one with probability ``label_noise / 2``. The number
    of queries does not depend on the objects: those beyond the groups have group -1, and of more than ``pairs`` objects
    only the first ``pairs`` by content (`yolojax.assign.sort_by_content`) are taken.

    Images do not depend on each other, nor on their padding. In the papers' implementations the image with the most
    objects decides the number of groups for its whole batch.

    Args:
      key: of the noise.
      targets: boxes in input pixels; padding and crowd are not taken.
      input_size: ``(height, width)`` in pixels.
      classes: how many there are.
      pairs: of a positive and a negative query.
      label_noise, box_noise: strength of the noise.
    """
    objects = sort_by_content(targets)
    batch = objects.boxes.shape[0]
    count = jnp.sum(objects.assignable, axis=1, dtype=jnp.int32)[:, None]
    size = jnp.asarray([input_size[1], input_size[0]] * 2, jnp.float32)
    slot = jnp.broadcast_to(jnp.arange(pairs, dtype=jnp.int32)[None], (batch, pairs))
    taken = jnp.minimum(count, pairs)
    group, row = slot // jnp.maximum(taken, 1), slot % jnp.maximum(taken, 1)
    group = jnp.where(group < pairs // jnp.maximum(taken, 1), group, -1)
    group = jnp.where(taken > 0, group, -1)

    def twice(x: Array) -> Array:
        return jnp.concatenate([x, x], axis=1)

    row, group = twice(row), twice(group)
    positive = jnp.arange(2 * pairs)[None] < pairs
    boxes = jnp.take_along_axis(objects.boxes, row[..., None], axis=1) / size[None, None]
    labels = jnp.take_along_axis(objects.classes, row, axis=1)

    # One key for each image, so that an image's noise does not depend on how many images there are.
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 4))(jnp.arange(batch))

    def draw(which: int, draw_one: Callable[[PRNGKeyArray], Array]) -> Array:
        return jax.vmap(draw_one)(keys[:, which])

    sign = draw(0, lambda k: jax.random.rademacher(k, (2 * pairs, 4), jnp.float32))
    share = draw(1, lambda k: jax.random.uniform(k, (2 * pairs, 4)))
    share = jnp.where(positive[..., None], share, share + 1)
    half_sides = xyxy_to_cxcywh(boxes)[..., 2:] * (0.5 * box_noise)
    moved = boxes + sign * share * jnp.concatenate([half_sides, half_sides], axis=-1)
    flipped = draw(2, lambda k: jax.random.uniform(k, (2 * pairs,))) < 0.5 * label_noise
    other = draw(3, lambda k: jax.random.randint(k, (2 * pairs,), 0, classes, jnp.int32))
    return DenoisingQueries(
        boxes=xyxy_to_cxcywh(jnp.clip(moved, 0.0, 1.0)),
        classes=jnp.where(flipped, other, jnp.clip(labels, 0, classes - 1)).astype(jnp.int32),
        objects=jnp.take_along_axis(objects.rows, row, axis=1),
        positive=positive & (group >= 0),
        group=group,
    )


def visible_queries(group: Int[Array, "B D"], queries: int) -> Bool[Array, "B N N"]:
    """Which of ``N = D + queries`` queries sees which: ``[b, i, j]`` says that query ``i`` sees query ``j``.

    Denoising queries come first. They see their own group and the ``queries`` others; these see only one another.
    """
    batch, extra = group.shape
    same = (group[:, :, None] == group[:, None, :]) & (group >= 0)[:, None, :]
    top = jnp.concatenate([same, jnp.ones((batch, extra, queries), bool)], axis=2)
    bottom = jnp.concatenate(
        [jnp.zeros((batch, queries, extra), bool), jnp.ones((batch, queries, queries), bool)], axis=2
    )
    return jnp.concatenate([top, bottom], axis=1)
