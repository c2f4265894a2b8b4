"""The composed loss of YOLO26: two heads with plain distances, whose weights change places on the way."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign import AnchorFreeAssign, task_aligned_assign
from yolojax.losses._elementwise import BoxLoss, ClassLoss, binary_cross_entropy, complete_box_iou_loss
from yolojax.losses.yolov8 import distance_loss
from yolojax.losses.yolov10 import join_terms
from yolojax.structures import Hyper, Level, LossTerms, Targets

FIRST, LAST = 0.8, 0.1
"""Weight of the one-to-many head's loss at the beginning and at the end of a run; the other head has the rest of 1."""

small_target_assign = partial(task_aligned_assign, smallest=16.0)
"""Task-aligned assignment for small targets: a side below 16 pixels counts as 16 pixels where points are chosen."""

small_target_assign_one = partial(small_target_assign, k=7, keep=1)
"""The same for the one-to-one head: of the seven best points that an object got, it keeps the best."""


def many_weight(progress: float | Float[Array, ""]) -> Float[Array, ""]:
    """The weight of the one-to-many head's loss after a share ``progress`` of the run: from `FIRST` to `LAST`."""
    return jnp.float32(FIRST) + jnp.float32(LAST - FIRST) * jnp.clip(jnp.asarray(progress, jnp.float32), 0.0, 1.0)


def yolo26_loss(
    many_boxes: Sequence[Float[Array, "B _h _w 4"]],
    many_classes: Sequence[Float[Array, "B _h _w C"]],
    one_boxes: Sequence[Float[Array, "B _h _w 4"]],
    one_classes: Sequence[Float[Array, "B _h _w C"]],
    levels: tuple[Level, ...],
    targets: Targets,
    hyper: Hyper,
    *,
    assign: AnchorFreeAssign = small_target_assign,
    assign_one: AnchorFreeAssign = small_target_assign_one,
    box_loss: BoxLoss = complete_box_iou_loss,
    class_loss: ClassLoss = binary_cross_entropy,
) -> LossTerms:
    """Loss of two heads that predict the distances to the four sides in strides, without bins.

    Each head has the parts ``box`` and ``cls`` of `yolojax.losses.yolov8_loss`, and ``l1`` in the place of ``dfl``:
    ``lambda_dfl * t_hat * (mean over the sides of |predicted - true distance|, as a share of the input image's width or
    height)``, over positives. The parts of the one-to-one head begin with ``one_``. The parts of the one-to-many head
    are multiplied by `many_weight` of ``hyper.progress``, those of the other by the rest of 1 (the published
    progressive loss).

    Args:
      many_boxes, many_classes: maps of the one-to-many head, in the order of ``levels``.
      one_boxes, one_classes: likewise of the one-to-one head.
      assign, assign_one: assigners of `yolojax.assign` or your own.
      box_loss, class_loss: see `yolojax.losses.yolov8_loss`.

    The published program gives the same values where assignment is by CIoU: its assigner takes CIoU for ``u``, that of
    TOOD and this library IoU.

    The weights, the smallest side and the choice of one point of seven were read off the published program as it ran,
    not from the text of the paper.

    References: YOLO26, arXiv 2606.03748; YOLOv10, arXiv 2405.14458, section 3.1.
    """
    height, width = levels[0].h * levels[0].stride, levels[0].w * levels[0].stride
    size = jnp.asarray([width, height, width, height], jnp.float32)

    def side_loss(
        raw: Float[Array, "B P 4 1"], sides: Float[Array, "B P 4"], stride: Float[Array, "B P 1"]
    ) -> Float[Array, "B P 4"]:
        return jnp.abs(raw[..., 0] * jnp.broadcast_to(stride, sides.shape) - sides) / size[None, None, :]

    def head_loss(boxes: Sequence[Array], classes: Sequence[Array], rule: AnchorFreeAssign) -> LossTerms:
        return distance_loss(
            boxes,
            classes,
            levels,
            targets,
            hyper,
            distances=lambda raw: raw[..., 0],
            side_loss=side_loss,
            side_part="l1",
            assign=rule,
            box_loss=box_loss,
            class_loss=class_loss,
        )

    weight = many_weight(hyper.progress)
    many = head_loss(many_boxes, many_classes, assign)
    one = head_loss(one_boxes, one_classes, assign_one)
    return join_terms(_weighed(many, weight), _weighed(one, 1.0 - weight))


def _weighed(terms: LossTerms, weight: Float[Array, ""]) -> LossTerms:
    return terms._replace(sums={name: weight * value for name, value in terms.sums.items()})
