"""One detector, six assigners: which one trains it is a traced number. Used by `experiments.assigners`."""

from typing import Any

import jax
import jax.numpy as jnp

from yolojax.assign import (
    PredictionAssignment,
    atss_assign,
    match_best_anchor,
    matching_cost,
    one_to_one_assign,
    ratio_assign,
    simota_assign,
    sort_by_content,
    task_aligned_assign,
    without_padding,
)
from yolojax.coding import cell_centres, decode_yolox, flatten_levels, levels_of
from yolojax.detector import Detector
from yolojax.losses import binary_cross_entropy, complete_box_iou_loss
from yolojax.structures import Candidates, Hyper, LossTerms, Targets

ASSIGNERS = ("best shape", "side ratio", "ATSS", "SimOTA", "task-aligned", "one-to-one")
HARMLESS = (0.0, 0.0, 1.0, 1.0)


def best_shape(targets: Targets, anchors: jax.Array, levels: Any, n: int) -> PredictionAssignment:
    objects = sort_by_content(targets)
    found = match_best_anchor(objects, anchors, levels)
    image = jnp.broadcast_to(jnp.arange(found.owns.shape[0])[:, None], found.owns.shape)
    place = jnp.where(found.owns, found.prediction, n)
    owner = jnp.zeros((found.owns.shape[0], n), jnp.int32).at[image, place].set(objects.rows, mode="drop")
    positive = jnp.zeros(owner.shape, bool).at[image, place].set(True, mode="drop")
    return PredictionAssignment(owner, positive, positive.astype(jnp.float32))


def with_assigner(detector: Detector, choice: jax.Array | int) -> Detector:
    """The lesson's network as an anchor-free detector that is trained with the assigner of a traced number."""
    anchors, strides = jnp.asarray(detector.spec.options["anchors"], jnp.float32), detector.spec.strides

    def parts(outputs: Any) -> tuple[Any, ...]:
        levels, flat = levels_of(outputs, strides), flatten_levels(outputs)
        points, steps = cell_centres(levels)
        boxes = decode_yolox(flat[..., :4], (points / steps[:, None] - 0.5)[None], steps[None])
        return levels, points, steps, boxes, flat[..., 4], flat[..., 5:]

    def loss(outputs: Any, targets: Targets, hyper: Hyper) -> LossTerms:
        levels, points, steps, boxes, objectness, classes = parts(outputs)
        scores = jax.nn.sigmoid(classes) * jax.nn.sigmoid(objectness)[..., None]
        rules = [
            lambda: best_shape(targets, anchors, levels, len(points)),
            lambda: ratio_assign(targets, anchors, levels),
            lambda: atss_assign(targets, levels),
            lambda: simota_assign(points, steps, boxes, classes, objectness, targets),
            lambda: task_aligned_assign(points, boxes, jax.scipy.special.logit(scores), targets),
            lambda: one_to_one_assign(matching_cost(boxes, scores, targets, detector.spec.input_size), targets),
        ]
        assigned = jax.lax.stop_gradient(jax.lax.switch(choice, rules))
        positive, objects = assigned.positive, without_padding(targets)
        truth = jnp.take_along_axis(objects.boxes, assigned.objects[..., None], axis=1)
        harmless = jnp.broadcast_to(jnp.asarray(HARMLESS, jnp.float32), truth.shape)
        apart = complete_box_iou_loss(
            jnp.where(positive[..., None], boxes, harmless), jnp.where(positive[..., None], truth, harmless)
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
        _, _, _, boxes, objectness, classes = parts(outputs)
        return Candidates(boxes, jax.nn.sigmoid(objectness)[..., None] * jax.nn.sigmoid(classes))

    def fold(variables: Any) -> Any:
        folded, its = detector.fold(variables)
        return folded._replace(decode=decode), its

    return detector._replace(loss=loss, decode=decode, fold=fold)
