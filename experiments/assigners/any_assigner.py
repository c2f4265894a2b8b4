"""One detector, six assigners: which one trains it is a traced number. Used by `experiments.assigners`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from yolojax.assign import (
    DUMMY_BOX,
    Predictions,
    atss_assign,
    best_anchor_assign,
    one_to_one_assign,
    ratio_assign,
    simota_assign,
    task_aligned_assign,
    without_padding,
)
from yolojax.coding import cell_centres, decode_yolox, flatten_levels, levels_of
from yolojax.detector import Detector
from yolojax.losses import binary_cross_entropy, complete_box_iou_loss
from yolojax.structures import Candidates, Hyper, LossTerms, Targets

ASSIGNERS = ("best shape", "side ratio", "ATSS", "SimOTA", "task-aligned", "one-to-one")


def with_assigner(detector: Detector, choice: jax.Array | int) -> Detector:
    """The lesson's network as an anchor-free detector that is trained with the assigner of a traced number."""
    anchors, strides = jnp.asarray(detector.spec.options["anchors"], jnp.float32), detector.spec.strides

    def parts(outputs: Any) -> tuple[Any, ...]:
        levels, flat = levels_of(outputs, strides), flatten_levels(outputs)
        points, steps = cell_centres(levels)
        boxes = decode_yolox(flat[..., :4], (points / steps[:, None] - 0.5)[None], steps[None])
        return levels, boxes, flat[..., 4], flat[..., 5:]

    def loss(outputs: Any, targets: Targets, hyper: Hyper) -> LossTerms:
        levels, boxes, objectness, classes = parts(outputs)
        predictions = Predictions(boxes, classes, objectness)
        rules = [
            partial(best_anchor_assign, targets, levels, anchors),
            partial(ratio_assign, targets, levels, anchors),
            *(
                partial(rule, targets, levels, predictions)
                for rule in (atss_assign, simota_assign, task_aligned_assign, one_to_one_assign)
            ),
        ]
        # The branches of a switch have one shape, and the lists of positives differ in length.
        branches = [lambda rule=rule: rule()._replace(listed=None) for rule in rules]
        assigned = jax.lax.stop_gradient(jax.lax.switch(choice, branches))
        positive, objects = assigned.positive, without_padding(targets)
        truth = jnp.take_along_axis(objects.boxes, assigned.objects[..., None], axis=1)
        dummy = jnp.broadcast_to(jnp.asarray(DUMMY_BOX, jnp.float32), truth.shape)
        apart = complete_box_iou_loss(
            jnp.where(positive[..., None], boxes, dummy), jnp.where(positive[..., None], truth, dummy)
        )
        label = jnp.take_along_axis(objects.classes, assigned.objects, axis=1)
        wanted = (jnp.arange(classes.shape[-1])[None, None, :] == label[..., None]).astype(jnp.float32)
        of_class = jnp.sum(binary_cross_entropy(classes, wanted), axis=-1)
        present = binary_cross_entropy(objectness, positive.astype(jnp.float32))
        sums = {
            "box": hyper.lambda_coord * jnp.where(positive, apart, 0.0),
            "obj": jnp.where(positive, hyper.lambda_obj, hyper.lambda_noobj) * present,
            "cls": hyper.lambda_cls * jnp.where(positive, of_class, 0.0),
        }
        count = jnp.sum(positive, axis=1).astype(jnp.float32)
        summed = {name: jnp.sum(value, axis=1) for name, value in sums.items()}
        return LossTerms(summed, dict.fromkeys(sums, count), {"positives": count})

    def decode(outputs: Any) -> Candidates:
        _, boxes, objectness, classes = parts(outputs)
        return Candidates(boxes, jax.nn.sigmoid(objectness)[..., None] * jax.nn.sigmoid(classes))

    return detector._replace(loss=loss, decode=decode)
