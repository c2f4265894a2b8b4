"""The lesson's network as an anchor-free detector for any assigner. Used by `experiments.assigners`."""

from typing import Any

import jax
import jax.numpy as jnp

from yolojax.assign import (
    AnchoredAssign,
    AnchorFreeAssign,
    Assigned,
    Predictions,
    atss_assign,
    best_anchor_assign,
    one_to_one_assign,
    ratio_assign,
    simota_assign,
    task_aligned_assign,
)
from yolojax.coding import cell_centres, decode_yolox, flatten_levels, levels_of
from yolojax.detector import Detector
from yolojax.losses import complete_box_iou_loss, yolox_loss
from yolojax.structures import Candidates, Hyper, Level, LossTerms, Targets

ASSIGNERS = ("best shape", "side ratio", "ATSS", "SimOTA", "task-aligned", "one-to-one")


def assigner_of(name: str, detector: Detector) -> AnchorFreeAssign:
    """The assigner of this name; the two that compare shapes do so with the anchors of ``detector``."""
    anchors = jnp.asarray(detector.spec.options["anchors"], jnp.float32)

    def by_shape(assign: AnchoredAssign) -> AnchorFreeAssign:
        def by_anchors(targets: Targets, levels: tuple[Level, ...], predictions: Predictions, /) -> Assigned:
            return assign(targets, levels, anchors)

        return by_anchors

    by_shapes = (by_shape(best_anchor_assign), by_shape(ratio_assign))
    return (*by_shapes, atss_assign, simota_assign, task_aligned_assign, one_to_one_assign)[ASSIGNERS.index(name)]


def with_assigner(detector: Detector, assign: AnchorFreeAssign) -> Detector:
    """The lesson's detector of one anchor a cell, with YOLOX's coder and loss and an assigner of one's own.

    The box loss is CIoU, and the class targets of positives are 1 whatever score the assigner gives.
    """
    strides = detector.spec.strides

    def without_scores(targets: Targets, levels: tuple[Level, ...], predictions: Predictions, /) -> Assigned:
        assigned = assign(targets, levels, predictions)
        return assigned._replace(scores=assigned.positive.astype(jnp.float32))

    def loss(outputs: Any, targets: Targets, hyper: Hyper) -> LossTerms:
        maps = [x[..., 0, :] for x in outputs]
        return yolox_loss(
            [x[..., :4] for x in maps],
            [x[..., 4:5] for x in maps],
            [x[..., 5:] for x in maps],
            levels_of(outputs, strides),
            targets,
            hyper,
            assign=without_scores,
            box_loss=complete_box_iou_loss,
        )

    def decode(outputs: Any) -> Candidates:
        points, steps = cell_centres(levels_of(outputs, strides))
        raw = flatten_levels(outputs)
        boxes = decode_yolox(raw[..., :4], (points / steps[:, None] - 0.5)[None], steps[None])
        return Candidates(boxes, jax.nn.sigmoid(raw[..., 4:5]) * jax.nn.sigmoid(raw[..., 5:]))

    return detector._replace(loss=loss, decode=decode)
