"""Which anchors and proposals learn which object in two-stage detectors and RetinaNet, and how a sample is drawn."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from yolojax.assign._common import inside_crowd, sort_by_content, without_padding
from yolojax.boxes import box_iou
from yolojax.image_wise import image_wise
from yolojax.structures import Targets


class Matched(NamedTuple):
    """The result of `overlap_assign`; a box that is neither positive nor negative carries no loss.

    Attributes:
      objects: the row of the `Targets` that overlaps each box most, 0 where there is no object.
      positive: whether the box learns that object.
      negative: whether the box is background.
    """

    objects: Int[Array, "B N"]
    positive: Bool[Array, "B N"]
    negative: Bool[Array, "B N"]


def overlap_assign(
    targets: Targets, boxes: Float[Array, "B N 4"], *, low: float, high: float, keep_best: bool
) -> Matched:
    """Assign each box to the object of highest IoU (Faster R-CNN, arXiv 1506.01497, section 3.1.2).

    A box is positive if that IoU is at least ``high``, negative if it is below ``low``, and neither in between. With
    ``keep_best`` the boxes that overlap an object more than all other boxes do are positive too, whatever their IoU;
    they learn the object that *they* overlap most, as in torchvision. Negatives inside of a crowd region
    (`yolojax.assign.inside_crowd`) are neither. Of equal overlaps the first object by content is taken.

    Args:
      targets: of each image.
      boxes: anchors or proposals, xyxy in input pixels.
      low, high: overlaps, 0 to 1; the published ones are .3 and .7 for the anchors of a region proposal network, .5 and
        .5 for proposals, .4 and .5 for RetinaNet (arXiv 1708.02002, section 4.1).
      keep_best: on for anchors, off for proposals.
    """
    objects = sort_by_content(targets)
    overlap = jnp.where(objects.assignable[..., None], box_iou(objects.boxes, jax.lax.stop_gradient(boxes)), -1.0)
    best = jnp.max(overlap, axis=1)
    positive = best >= high
    if keep_best:
        highest = jnp.max(overlap, axis=2, keepdims=True)
        positive |= jnp.any((overlap == highest) & (highest > 0), axis=1)
    rows = jnp.take_along_axis(objects.rows, jnp.argmax(overlap, axis=1).astype(jnp.int32), axis=1)
    negative = (best < low) & ~positive & ~inside_crowd(boxes, targets)
    return Matched(jnp.where(positive, rows, 0), positive, negative)


class Sample(NamedTuple):
    """A fixed number of boxes of each image that carry the loss, and what they learn.

    Attributes:
      rows: of the drawn boxes among all.
      positive: whether the box learns an object.
      valid: which of the rows exist; the others repeat the first row.
      boxes: of the object that a positive learns, xyxy in input pixels; arbitrary for others.
      classes: of that object; 0 for others.
    """

    rows: Int[Array, "B S"]
    positive: Bool[Array, "B S"]
    valid: Bool[Array, "B S"]
    boxes: Float[Array, "B S 4"]
    classes: Int[Array, "B S"]


def balanced_sample(key: PRNGKeyArray, matched: Matched, targets: Targets, size: int, positive_share: float) -> Sample:
    """Draw ``size`` boxes of each image without replacement, at most ``positive_share`` of them positives.

    Negatives fill what positives leave (Faster R-CNN, arXiv 1506.01497, section 3.1.3, with 256 and .5; Fast R-CNN,
    arXiv 1504.08083, section 2.3, with 512 and .25). Positives come first.

    Args:
      key: of the draw.
      matched: what each box is.
      targets: of which ``matched`` speaks.
      size: ``S``, static.
      positive_share: 0 to 1, static.
    """
    batch, n = matched.positive.shape
    most = min(round(size * positive_share), n)
    chance = jax.random.uniform(key, (batch, n))

    def draw(mask: Array, count: int) -> tuple[Array, Array]:
        """The first of the mask's rows in an order drawn by chance, and how many rows there are."""
        at = image_wise(lambda chances: jax.lax.top_k(chances, count)[1], jnp.where(mask, chance, -1.0))
        return at, jnp.sum(mask, axis=1, dtype=jnp.int32)[:, None]

    positive_at, positives = draw(matched.positive, most)
    negative_at, negatives = draw(matched.negative, min(size, n))
    positives = jnp.minimum(positives, most)
    slot = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32)[None], (batch, size))
    valid, positive = slot < positives + negatives, slot < positives
    # A row that does not exist repeats the first: what is computed for it, such as statistics, is that of a real box.
    slot = jnp.where(valid, slot, 0)
    positive = slot < positives
    from_positives = jnp.take_along_axis(positive_at, jnp.clip(slot, 0, max(most - 1, 0)), axis=1)
    from_negatives = jnp.take_along_axis(negative_at, jnp.clip(slot - positives, 0, min(size, n) - 1), axis=1)
    index = jnp.where(positive, from_positives, from_negatives)
    return _learned(matched, targets, index, valid)


def every_row(matched: Matched, targets: Targets) -> Sample:
    """All boxes as a `Sample`: ``valid`` are the positives and the negatives."""
    index = jnp.arange(matched.positive.shape[1], dtype=jnp.int32)[None]
    return _learned(
        matched, targets, jnp.broadcast_to(index, matched.positive.shape), matched.positive | matched.negative
    )


def _learned(matched: Matched, targets: Targets, index: Array, valid: Array) -> Sample:
    clean = without_padding(targets)
    rows = jnp.take_along_axis(matched.objects, index, axis=1)
    positive = jnp.take_along_axis(matched.positive, index, axis=1) & valid
    boxes = jnp.take_along_axis(clean.boxes, rows[..., None], axis=1)
    classes = jnp.where(positive, jnp.take_along_axis(clean.classes, rows, axis=1), 0)
    return Sample(index, positive, valid, boxes, classes)
