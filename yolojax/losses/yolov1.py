"""The composed loss of YOLOv1: sums of squared errors of boxes, confidences and class scores."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.assign import (
    AnchorFreeAssign,
    Predictions,
    count_assigned,
    inside_crowd,
    positives,
    responsible_assign,
    without_padding,
)
from yolojax.coding import cell_centres, decode_yolov1, encode_yolov1
from yolojax.structures import Hyper, Level, LossTerms, Targets


def yolov1_loss(
    classes: Float[Array, "B h w C"],
    confidences: Float[Array, "B h w n"],
    boxes: Float[Array, "B h w n 4"],
    level: Level,
    targets: Targets,
    hyper: Hyper,
    *,
    assign: AnchorFreeAssign = responsible_assign,
    sqrt: bool = True,
    rescore: bool = True,
) -> LossTerms:
    """Loss of one grid of cells, each with ``C`` class scores and ``n`` boxes with confidences (equation 3).

    ``assign`` decides, without gradient, which boxes are responsible for an object. Each part is a sum over an image:

    - ``box``: ``lambda_coord`` times the squared error of ``(x, y)`` in the cell and of the square roots of width and
      height as shares of the input image, over responsible boxes;
    - ``obj``: ``lambda_obj * (confidence - IoU)^2`` over responsible boxes, the IoU being that of the decoded box,
      without gradient; without ``rescore`` the target is 1;
    - ``noobj``: ``lambda_noobj * confidence^2`` over all other boxes, except those that lie in a crowd region;
    - ``cls``: ``lambda_cls`` times the squared error of the class scores against one and zeros, over the cells of
      responsible boxes.

    Every normaliser is 1, so that `LossTerms.reduce` gives the mean over images. The paper's gains are coord 5, noobj
    .5 and the others 1, which are `Hyper`'s defaults. Counts: ``positives``, ``unassigned`` (objects whose cell learns
    another one) and ``ignored``.

    Args:
      classes, confidences, boxes: raw, linear outputs of the last layer; see `yolojax.coding.decode_yolov1`.
      level: the grid; ``h * stride`` by ``w * stride`` pixels are the input image.
      assign: an assigner of `yolojax.assign` for several predictions a cell, or your own.
      sqrt: whether sides are predicted as their square roots.
      rescore: whether confidences learn the IoU.

    Reference: Redmon et al. 2016, arXiv 1506.02640, section 2.2.
    """
    batch, per_cell = confidences.shape[0], confidences.shape[-1]
    points, strides = cell_centres((level,), per_cell)
    cells = points / strides[:, None] - 0.5
    size = level.h * level.stride, level.w * level.stride
    raw, confidence = boxes.reshape(batch, -1, 4).astype(jnp.float32), confidences.reshape(batch, -1)
    scores = classes.reshape(batch, -1, classes.shape[-1]).astype(jnp.float32)

    decoded = decode_yolov1(jax.lax.stop_gradient(raw), cells[None], strides[None], size, sqrt=sqrt)
    repeated = jax.lax.stop_gradient(jnp.repeat(scores, per_cell, axis=1))
    assigned = assign(targets, (level,), Predictions(decoded, repeated, jax.lax.stop_gradient(confidence)))
    ignored = inside_crowd(decoded, targets) & ~assigned.positive
    objects = without_padding(targets)

    aim = jnp.where(assigned.positive, assigned.scores if rescore else 1.0, 0.0)
    error = (confidence.astype(jnp.float32) - aim) ** 2
    obj = jnp.sum(jnp.where(assigned.positive, error, 0.0), axis=-1)
    noobj = jnp.sum(jnp.where(assigned.positive | ignored, 0.0, error), axis=-1)

    listed, real = positives(assigned)
    owner = jnp.take_along_axis(assigned.objects, listed, axis=1)
    truth = jnp.take_along_axis(objects.boxes, owner[..., None], axis=1)
    label = jnp.take_along_axis(objects.classes, owner, axis=1)
    own = jnp.take_along_axis(raw, listed[..., None], axis=1)
    wanted = encode_yolov1(truth, cells[listed], strides[listed], size, sqrt=sqrt)
    box = jnp.where(real, jnp.sum((own - wanted) ** 2, axis=-1), 0.0)
    own_scores = jnp.take_along_axis(scores, (listed // per_cell)[..., None], axis=1)
    one_hot = (jnp.arange(scores.shape[-1])[None, None, :] == label[..., None]).astype(jnp.float32)
    cls = jnp.where(real, jnp.sum((own_scores - one_hot) ** 2, axis=-1), 0.0)

    return LossTerms(
        sums={
            "box": hyper.lambda_coord * jnp.sum(box, axis=-1),
            "obj": hyper.lambda_obj * obj,
            "noobj": hyper.lambda_noobj * noobj,
            "cls": hyper.lambda_cls * jnp.sum(cls, axis=-1),
        },
        normalisers=dict.fromkeys(("box", "obj", "noobj", "cls"), jnp.ones(batch)),
        counts=count_assigned(assigned, targets, ignored),
    )
