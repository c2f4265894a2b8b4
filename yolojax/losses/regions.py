"""The composed losses of Faster R-CNN (a first stage that proposes and a second that decides) and of RetinaNet."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from yolojax.assign import Sample, every_row, overlap_assign
from yolojax.coding import decode_regions, encode_regions
from yolojax.losses._elementwise import (
    BoxLoss,
    ClassLoss,
    binary_cross_entropy,
    focal_loss,
    generalized_box_iou_loss,
    unreduced,
)
from yolojax.structures import Hyper, LossTerms, Targets

PROPOSAL_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of the box coder of the second stage (`yolojax.coding.decode_regions`)."""

BETA = 1.0 / 9.0
"""Below this error the box loss is quadratic."""


def smooth_l1_loss(
    predicted: Float[Array, "*n"], target: Float[Array, "*n"], *, beta: float = 1.0
) -> Float[Array, "*n"]:
    """``d^2 / (2 beta)`` for errors ``d`` below ``beta``, else ``d - beta / 2`` (arXiv 1504.08083, equation 3)."""
    return optax.losses.huber_loss(predicted.astype(jnp.float32), target.astype(jnp.float32), delta=beta) / beta


def faster_rcnn_loss(
    objectness: Float[Array, "B S"],
    anchor_deltas: Float[Array, "B S 4"],
    anchors: Float[Array, "B S 4"],
    first: Sample,
    class_logits: Float[Array, "B R K"],
    box_deltas: Float[Array, "B R K 4"],
    proposals: Float[Array, "B R 4"],
    second: Sample,
    hyper: Hyper,
) -> LossTerms:
    """Loss of both stages (Faster R-CNN, arXiv 1506.01497, equation 1; Fast R-CNN, arXiv 1504.08083, equation 1).

    Row ``i`` of the first four arrays belongs to one another, and so does row ``i`` of the last four. The parts are
    sums over the rows of an image that exist:

    - ``objectness``: ``lambda_obj`` * BCE of the anchor's logit;
    - ``anchor``: ``lambda_coord`` * `smooth_l1_loss` with beta 1/9 of each positive anchor's four numbers;
    - ``cls``: ``lambda_cls`` * cross-entropy over the classes and background;
    - ``box``: ``lambda_coord`` * `smooth_l1_loss` with beta 1/9 of the four numbers that a positive proposal has for
      its class.

    The divisor is the number of rows, of anchors for the first two and of proposals for the others, as in torchvision.
    Counts: ``positives`` and ``anchors`` are the positive rows of the second and the first stage.

    Args:
      objectness: logits of the drawn anchors.
      anchor_deltas: their predictions, see `yolojax.coding.decode_regions`.
      anchors: xyxy in input pixels.
      first: what the anchors learn.
      class_logits: of the drawn proposals; ``K`` is the number of classes and one, background first.
      box_deltas: their predictions for each class, coded with `PROPOSAL_WEIGHTS`; those of background are not read.
      proposals: xyxy in input pixels.
      second: what the proposals learn.
      hyper: the weights above.
    """
    obj = binary_cross_entropy(objectness, first.positive.astype(jnp.float32))
    anchor = _sum_l1(anchor_deltas, encode_regions(first.boxes, anchors))
    label = jnp.where(second.positive, second.classes + 1, 0)
    cls = optax.losses.softmax_cross_entropy_with_integer_labels(class_logits.astype(jnp.float32), label)
    own = jnp.take_along_axis(box_deltas, label[..., None, None], axis=2)[:, :, 0]
    box = _sum_l1(own, encode_regions(second.boxes, proposals, PROPOSAL_WEIGHTS))

    def total(value: Array, mask: Array) -> Array:
        return jnp.sum(jnp.where(mask, value, 0.0), axis=1)

    rows = {"first": jnp.sum(first.valid, axis=1), "second": jnp.sum(second.valid, axis=1)}
    rows = {name: count.astype(jnp.float32) for name, count in rows.items()}
    return LossTerms(
        sums={
            "objectness": hyper.lambda_obj * total(obj, first.valid),
            "anchor": hyper.lambda_coord * total(anchor, first.positive),
            "cls": hyper.lambda_cls * total(cls, second.valid),
            "box": hyper.lambda_coord * total(box, second.positive),
        },
        normalisers={
            "objectness": rows["first"],
            "anchor": rows["first"],
            "cls": rows["second"],
            "box": rows["second"],
        },
        counts={
            "positives": jnp.sum(second.positive, axis=1).astype(jnp.float32),
            "anchors": jnp.sum(first.positive, axis=1).astype(jnp.float32),
        },
    )


def _sum_l1(predicted: Float[Array, "B n 4"], target: Float[Array, "B n 4"]) -> Float[Array, "B n"]:
    return jnp.sum(smooth_l1_loss(predicted, jax.lax.stop_gradient(target), beta=BETA), axis=-1)


def retinanet_loss(
    class_logits: Float[Array, "B N C"],
    deltas: Float[Array, "B N 4"],
    anchors: Float[Array, "N 4"],
    targets: Targets,
    hyper: Hyper,
    *,
    box_loss: BoxLoss | None = generalized_box_iou_loss,
    class_loss: ClassLoss = focal_loss,
) -> LossTerms:
    """Loss of RetinaNet (arXiv 1708.02002, sections 3 and 4) with the matching of `yolojax.assign.overlap_assign`.

    - ``cls``: ``lambda_cls`` * ``class_loss``, summed over the classes of all positives and negatives;
    - ``box``: ``lambda_coord`` * ``box_loss`` of each positive.

    Both are divided by the positives of *each* image, at least 1, and then averaged over images, as in torchvision.
    Counts: ``positives``.

    Args:
      class_logits: of all anchors.
      deltas: their predictions, see `yolojax.coding.decode_regions`.
      anchors: xyxy in input pixels.
      targets: of each image.
      hyper: the weights above.
      box_loss: of decoded boxes; None compares the four coded numbers by their absolute errors, as the paper's
        implementation in torchvision (version 1) does.
      class_loss: compares class logits with one-hot targets.
    """
    batch, n, classes = class_logits.shape
    references = jnp.broadcast_to(anchors[None], (batch, n, 4))
    learned = every_row(overlap_assign(targets, references, low=0.4, high=0.5, keep_best=True), targets)
    wanted = jax.nn.one_hot(learned.classes, classes) * learned.positive[..., None].astype(jnp.float32)
    cls = unreduced("class_loss", class_loss(class_logits.astype(jnp.float32), wanted), wanted.shape)
    cls = jnp.sum(cls, axis=-1)
    if box_loss is None:
        box = jnp.sum(jnp.abs(deltas - encode_regions(learned.boxes, references)), axis=-1)
    else:
        box = unreduced("box_loss", box_loss(decode_regions(deltas, references), learned.boxes), (batch, n))
    positives = jnp.sum(learned.positive, axis=1).astype(jnp.float32)
    share = jnp.maximum(positives, 1.0)
    one = jnp.ones(batch)
    return LossTerms(
        sums={
            "cls": hyper.lambda_cls * jnp.sum(jnp.where(learned.valid, cls, 0.0), axis=1) / share,
            "box": hyper.lambda_coord * jnp.sum(jnp.where(learned.positive, box, 0.0), axis=1) / share,
        },
        normalisers={"cls": one, "box": one},
        counts={"positives": positives},
    )
