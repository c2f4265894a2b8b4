"""The losses of decoders of queries: every layer is matched to the objects one to one, and learns from its match.

RT-DETR, arXiv 2304.08069; D-FINE, arXiv 2410.13842; DEIM, arXiv 2412.04234; all after DETR, arXiv 2005.12872.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.assign import Assigned, hungarian_assign, inside_crowd, query_cost, without_padding
from yolojax.boxes import cxcywh_to_xyxy, paired_box_iou, paired_generalized_box_iou, xyxy_to_cxcywh
from yolojax.coding import encode_refinement, refinement_steps
from yolojax.losses._elementwise import binary_cross_entropy, unreduced
from yolojax.losses._queries import QueryOutputs, QuerySet
from yolojax.structures import Hyper, LossTerms, Targets

QueryClassLoss = Callable[[Float[Array, "*n C"], Float[Array, "*n C"], Bool[Array, "*n C"]], Float[Array, "*n C"]]
"""``(class logits, IoU with the object at its class, whether it is the class of a positive)``, unreduced."""


def query_varifocal_loss(
    logits: Float[Array, "*n C"],
    overlaps: Float[Array, "*n C"],
    positive: Bool[Array, "*n C"],
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> Float[Array, "*n C"]:
    """BCE of the target ``overlaps``, times ``overlaps`` for positives and ``alpha p^gamma`` for negatives.

    The values are those of `yolojax.losses.varifocal_loss`, but no gradient flows through ``p^gamma``, which would push
    a negative of low score down three times as hard. A positive that does not meet its object carries nothing.
    Reference: RT-DETR, arXiv 2304.08069, section 4.3, and its authors' program.
    """
    score = jax.nn.sigmoid(jax.lax.stop_gradient(logits.astype(jnp.float32)))
    return jnp.where(positive, overlaps, alpha * score**gamma) * binary_cross_entropy(logits, overlaps)


def matching_aware_loss(
    logits: Float[Array, "*n C"],
    overlaps: Float[Array, "*n C"],
    positive: Bool[Array, "*n C"],
    *,
    gamma: float = 1.5,
) -> Float[Array, "*n C"]:
    """BCE of the target ``IoU^gamma``; negatives are weighed by ``p^gamma`` (DEIM, arXiv 2412.04234, equation 4).

    Other than with the varifocal loss, a match of little overlap carries its whole weight.
    """
    weight = jnp.where(positive, 1.0, jax.nn.sigmoid(jax.lax.stop_gradient(logits.astype(jnp.float32))) ** gamma)
    return weight * binary_cross_entropy(logits, jnp.where(positive, overlaps**gamma, 0.0))


class Matches(NamedTuple):
    """Which queries of one prediction learn which object: rows of the `Targets`, and a mask."""

    objects: Int[Array, "B Q"]
    positive: Bool[Array, "B Q"]


def rtdetr_loss(
    outputs: QueryOutputs, targets: Targets, hyper: Hyper, *, class_loss: QueryClassLoss = query_varifocal_loss
) -> LossTerms:
    """The loss of RT-DETR: of all layers, of the places that became queries, and of the denoising queries.

    Each layer, and the places, are matched by `yolojax.assign.query_cost` and `yolojax.assign.hungarian_assign`. Parts:

    - ``cls``: ``lambda_cls * class_loss``, of all queries but negatives in a crowd region, summed over classes;
    - ``l1``: ``lambda_l1 * |box - object|``, summed over the four numbers as fractions of the image, over positives;
    - ``giou``: ``lambda_coord * (1 - GIoU)``, over positives;

    and the same of the denoising queries, whose names begin with ``denoise_``. Layers are added. The first three are
    divided by the number of objects in the batch, those of denoising queries by that of their positives; each at least
    1. The published weights are cls 1, l1 5, giou 2. Counts: ``positives`` of the last layer and ``ignored``.

    Args:
      outputs: at inference they have fewer parts, and so does the loss.
      targets: boxes in input pixels.
      class_loss: `query_varifocal_loss`, `matching_aware_loss` or your own.
    """
    objects = _fractions(targets, outputs.size)
    layers = outputs.queries.logits.shape[1]
    sets = [_layer(outputs.queries, i) for i in range(layers)]
    if outputs.places is not None:
        sets.append(_layer(outputs.places, 0))
    matches = match_queries(sets, targets, outputs.size)
    ignored = _in_crowds(sets, matches, targets, outputs.size)
    parts = _sum_parts(sets, matches, ignored, objects, hyper, class_loss)
    count = jnp.sum(objects.valid & ~targets.crowd, axis=1).astype(jnp.float32)
    sums, normalisers = dict(parts), dict.fromkeys(parts, count)
    if outputs.denoised is not None:
        denoised, _, divisor = _denoising_parts(outputs, objects, hyper, class_loss)
        sums |= denoised
        normalisers |= dict.fromkeys(denoised, divisor)
    return LossTerms(sums, normalisers, _counts(matches[layers - 1], ignored[layers - 1]))


def dfine_loss(
    outputs: QueryOutputs,
    targets: Targets,
    hyper: Hyper,
    *,
    class_loss: QueryClassLoss = query_varifocal_loss,
    scale: float = 4.0,
    local: bool = True,
    union: bool = True,
) -> LossTerms:
    """The loss of D-FINE and DEIMv2: `rtdetr_loss`, and losses of the distributions of the box's sides.

    What the first layer predicts by itself is one more set of queries. In addition to the parts of `rtdetr_loss`:

    - ``fgl``: ``lambda_dfl *`` `fine_grained_localisation_loss` of every layer, over positives;
    - ``ddf``: ``10 lambda_dfl *`` `decoupled_distillation_loss` of every layer but the last, which teaches the others;

    and both of the denoising queries. The published weights are those of RT-DETR, fgl .15 and ddf 1.5.

    Args:
      outputs, targets, class_loss: see `rtdetr_loss`.
      scale: of the distributions' steps (`yolojax.coding.refinement_steps`).
      local: whether there are ``fgl`` and ``ddf``. The three smallest DEIMv2 do without.
      union: whether boxes and distributions of all sets learn the union of all matches: each query the object that most
        sets give it, the first by row where several are equal (arXiv 2410.13842, section 4.2, GO-LSD).
    """
    objects = _fractions(targets, outputs.size)
    layers = outputs.queries.logits.shape[1]
    sets = [_layer(outputs.queries, i) for i in range(layers)]
    for extra in (_first(outputs.queries), None if outputs.places is None else _layer(outputs.places, 0)):
        sets += [] if extra is None else [extra]
    matches = match_queries(sets, targets, outputs.size)
    shared = union_of_matches(matches, targets.valid.shape[1]) if union else None
    ignored = _in_crowds(sets, matches, targets, outputs.size)
    parts = _sum_parts(sets, matches, ignored, objects, hyper, class_loss, shared)
    count = jnp.sum(objects.valid & ~targets.crowd, axis=1).astype(jnp.float32)
    box_count = count if shared is None else jnp.sum(shared.positive, axis=1).astype(jnp.float32)
    sums: dict[str, Float[Array, " B"]] = dict(parts)
    normalisers = {name: count if name == "cls" else box_count for name in parts}
    image = jnp.ones_like(count)
    if local:
        owners = [shared or one for one in matches[:layers]]
        sums["fgl"], sums["ddf"] = _local_parts(outputs.queries, owners, objects, hyper, scale)
        normalisers |= {"fgl": box_count, "ddf": image}
    if outputs.denoised is not None:
        denoised, own, divisor = _denoising_parts(outputs, objects, hyper, class_loss)
        sums |= denoised
        normalisers |= dict.fromkeys(denoised, divisor)
        if local:
            present = None if outputs.denoising is None else outputs.denoising.group >= 0
            sums["denoise_fgl"], sums["denoise_ddf"] = _local_parts(
                outputs.denoised, [own] * layers, objects, hyper, scale, present
            )
            normalisers |= {"denoise_fgl": divisor, "denoise_ddf": image}
    return LossTerms(sums, normalisers, _counts(matches[layers - 1], ignored[layers - 1]))


def match_queries(sets: list[QuerySet], targets: Targets, size: Float[Array, "B 2"]) -> list[Matches]:
    """The one-to-one match of least cost between the objects and the queries of each set of one layer (``L`` = 1).

    All sets are matched by one call, as images of a larger batch: the Hungarian algorithm is a loop whose steps wait
    for each other, so that many matches at once take little longer than one. The sets have equally many queries.
    """

    def repeated(x: Array) -> Array:
        return jnp.concatenate([x] * len(sets))

    boxes = jnp.concatenate([one.boxes[:, 0] for one in sets])
    logits = jnp.concatenate([one.logits[:, 0] for one in sets])
    several = jax.tree.map(repeated, targets)
    assigned: Assigned = hungarian_assign(query_cost(boxes, logits, several, repeated(size)), several)
    split = (jnp.split(x, len(sets)) for x in (assigned.objects, assigned.positive))
    return [Matches(*one) for one in zip(*split, strict=True)]


def union_of_matches(matches: list[Matches], rows: int) -> Matches:
    """Every query gets the object that most matches give it; the first by row where several are equal.

    ``rows`` is the padded number of objects of an image. Reference: arXiv 2410.13842, section 4.2.
    """
    row = jnp.arange(rows, dtype=jnp.int32)
    votes = sum(
        ((one.objects[..., None] == row[None, None]) & one.positive[..., None]).astype(jnp.int32) for one in matches
    )
    votes = jnp.asarray(votes)
    return Matches(jnp.argmax(votes, axis=-1).astype(jnp.int32), jnp.max(votes, axis=-1) > 0)


def fine_grained_localisation_loss(
    corners: Float[Array, "*b K"],
    references: Float[Array, "*b 4"],
    boxes: Float[Array, "*b 4"],
    overlaps: Float[Array, "*b"],
    *,
    scale: float = 4.0,
) -> Float[Array, "*b"]:
    """Cross-entropy of each side's distribution with its two nearest bins, weighed by the IoU and summed over sides.

    Args:
      corners: logits of the distributions of left, top, right and bottom side.
      references: the boxes that they refine, ``(centre x, centre y, width, height)``.
      boxes: the objects, likewise.
      overlaps: IoU of the refined box with its object, which carries no gradient.
      scale: of the steps (`yolojax.coding.refinement_steps`).

    Reference: D-FINE, arXiv 2410.13842, equation 6 (FGL).
    """
    bins = corners.shape[-1] // 4
    lower, share = encode_refinement(references, boxes, refinement_steps(bins, scale=scale), scale)
    lower, share = jax.lax.stop_gradient((lower, share))
    logs = jax.nn.log_softmax(corners.astype(jnp.float32).reshape(*corners.shape[:-1], 4, bins), axis=-1)
    low = jnp.take_along_axis(logs, lower[..., None], axis=-1)[..., 0]
    high = jnp.take_along_axis(logs, lower[..., None] + 1, axis=-1)[..., 0]
    return -jnp.sum((1 - share) * low + share * high, axis=-1) * jax.lax.stop_gradient(overlaps)


def decoupled_distillation_loss(
    corners: Float[Array, "B Q K"],
    teacher: Float[Array, "B Q K"],
    weights: Float[Array, "B Q"],
    positive: Bool[Array, "B Q"],
    present: Bool[Array, "B Q"] | None = None,
    *,
    temperature: float = 5.0,
) -> Float[Array, " B"]:
    """How far the distributions of a layer are from those of the last one: their KL divergence, for each image.

    The means over positives and over all other queries are added in the ratio of the roots of their numbers, so that
    the many others do not outweigh the positives.

    Args:
      corners, teacher: logits of the distributions of both layers; the teacher carries no gradient.
      weights: of the queries: IoU of positives, best class score of the others.
      positive: which queries have an object.
      present: which queries exist; all by default.
      temperature: of both distributions; the divergence is multiplied by its square.

    Reference: D-FINE, arXiv 2410.13842, equation 7 (DDF).
    """
    bins = corners.shape[-1] // 4
    shape = (*corners.shape[:-1], 4, bins)
    own = jax.nn.log_softmax(corners.astype(jnp.float32).reshape(shape) / temperature, axis=-1)
    target = jax.lax.stop_gradient(teacher.astype(jnp.float32)).reshape(shape) / temperature
    logs = jax.nn.log_softmax(target, axis=-1)
    divergence = jnp.sum(jnp.exp(logs) * (logs - own), axis=(-1, -2)) / 4
    divergence *= jax.lax.stop_gradient(weights) * temperature**2
    there = jnp.ones_like(positive) if present is None else present

    def mean_and_root(mask: Bool[Array, "B Q"]) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        number = jnp.sum(mask, axis=1).astype(jnp.float32)
        return jnp.sum(jnp.where(mask, divergence, 0.0), axis=1) / jnp.maximum(number, 1), jnp.sqrt(number)

    (matched, few), (other, many) = mean_and_root(positive & there), mean_and_root(~positive & there)
    return (matched * few + other * many) / jnp.maximum(few + many, 1)


def _layer(queries: QuerySet, index: int) -> QuerySet:
    """The predictions of one layer."""
    return QuerySet(queries.logits[:, index : index + 1], queries.boxes[:, index : index + 1])


def _first(queries: QuerySet) -> QuerySet | None:
    """What the first layer predicts by itself, as a layer."""
    if queries.first_logits is None or queries.first_boxes is None:
        return None
    return QuerySet(queries.first_logits[:, None], queries.first_boxes[:, None])


def _fractions(targets: Targets, size: Float[Array, "B 2"]) -> Targets:
    """The targets with boxes ``(centre x, centre y, width, height)`` as fractions of the image, without padding."""
    clean = without_padding(targets)
    whole = jnp.concatenate([size, size], axis=-1)[:, None]
    return clean._replace(boxes=xyxy_to_cxcywh(clean.boxes / whole))


def _sum_parts(
    sets: list[QuerySet],
    matches: list[Matches],
    ignored: list[Bool[Array, "B Q"]],
    objects: Targets,
    hyper: Hyper,
    class_loss: QueryClassLoss,
    shared: Matches | None = None,
) -> dict[str, Float[Array, " B"]]:
    """The parts of all sets, added. Of each set ``ignored`` queries carry no loss of classes."""
    total: dict[str, Float[Array, " B"]] = {}
    for one, own, without in zip(sets, matches, ignored, strict=True):
        boxes, logits = one.boxes[:, 0], one.logits[:, 0]
        parts = {
            "cls": hyper.lambda_cls * _class_part(logits, boxes, own, objects, without, class_loss),
            **_box_parts(boxes, shared or own, objects, hyper),
        }
        total = {name: total[name] + value if total else value for name, value in parts.items()}
    return total


def _in_crowds(
    sets: list[QuerySet], matches: list[Matches], targets: Targets, size: Float[Array, "B 2"]
) -> list[Bool[Array, "B Q"]]:
    """Which negatives of each set lie in a crowd region."""
    whole = jnp.concatenate([size, size], axis=-1)[:, None]
    return [
        ~own.positive & inside_crowd(jax.lax.stop_gradient(cxcywh_to_xyxy(one.boxes[:, 0]) * whole), targets)
        for one, own in zip(sets, matches, strict=True)
    ]


def _class_part(
    logits: Float[Array, "B Q C"],
    boxes: Float[Array, "B Q 4"],
    own: Matches,
    objects: Targets,
    ignored: Bool[Array, "B Q"],
    class_loss: QueryClassLoss,
) -> Float[Array, " B"]:
    label = jnp.take_along_axis(objects.classes, own.objects, axis=1)
    is_label = (jnp.arange(logits.shape[-1])[None, None] == label[..., None]) & own.positive[..., None]
    overlap = jnp.where(is_label, _overlaps(boxes, own, objects)[..., None], 0.0)
    losses = unreduced("class_loss", class_loss(logits, overlap, is_label), logits.shape)
    return jnp.sum(jnp.where(ignored, 0.0, jnp.sum(losses, axis=-1)), axis=1)


def _overlaps(boxes: Float[Array, "B Q 4"], own: Matches, objects: Targets) -> Float[Array, "B Q"]:
    """The IoU of every positive with its object, without gradient; of the others with some object."""
    truth = jnp.take_along_axis(objects.boxes, own.objects[..., None], axis=1)
    return paired_box_iou(*(cxcywh_to_xyxy(jax.lax.stop_gradient(one)) for one in (boxes, truth)))


def _box_parts(
    boxes: Float[Array, "B Q 4"], own: Matches, objects: Targets, hyper: Hyper
) -> dict[str, Float[Array, " B"]]:
    truth = jnp.take_along_axis(objects.boxes, own.objects[..., None], axis=1)
    # Queries without an object compare an object with itself. A weight of 0 alone would not stop a NaN gradient.
    boxes = jnp.where(own.positive[..., None], boxes, truth)
    l1 = jnp.sum(jnp.abs(boxes - truth), axis=-1)
    giou = 1.0 - paired_generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(truth))
    return {
        "l1": hyper.lambda_l1 * jnp.sum(jnp.where(own.positive, l1, 0.0), axis=1),
        "giou": hyper.lambda_coord * jnp.sum(jnp.where(own.positive, giou, 0.0), axis=1),
    }


def _denoising_parts(
    outputs: QueryOutputs, objects: Targets, hyper: Hyper, class_loss: QueryClassLoss
) -> tuple[dict[str, Float[Array, " B"]], Matches, Float[Array, " B"]]:
    """The parts of the denoising queries of every layer, their matches, and the number of positives of each image."""
    denoised, denoising = outputs.denoised, outputs.denoising
    assert denoised is not None and denoising is not None
    own = Matches(denoising.objects, denoising.positive)
    sets = [_layer(denoised, i) for i in range(denoised.logits.shape[1])]
    extra = _first(denoised)
    sets += [] if extra is None else [extra]
    absent = denoising.group < 0
    total = _sum_parts(sets, [own] * len(sets), [absent] * len(sets), objects, hyper, class_loss)
    return (
        {f"denoise_{name}": value for name, value in total.items()},
        own,
        jnp.sum(own.positive, axis=1).astype(jnp.float32),
    )


def _local_parts(
    queries: QuerySet,
    owners: list[Matches],
    objects: Targets,
    hyper: Hyper,
    scale: float,
    present: Bool[Array, "B Q"] | None = None,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """FGL and DDF of all layers, weighed and added."""
    zero = jnp.zeros(objects.valid.shape[0], jnp.float32)
    if queries.corners is None or queries.references is None:
        return zero, zero
    layers = queries.corners.shape[1]
    teacher = queries.corners[:, layers - 1]
    best = jnp.max(jax.nn.sigmoid(jax.lax.stop_gradient(queries.logits[:, layers - 1])), axis=-1)
    fine, distilled = zero, zero
    for i, own in enumerate(owners):
        truth = jnp.take_along_axis(objects.boxes, own.objects[..., None], axis=1)
        overlaps = _overlaps(queries.boxes[:, i], own, objects)
        one = fine_grained_localisation_loss(queries.corners[:, i], queries.references, truth, overlaps, scale=scale)
        fine += jnp.sum(jnp.where(own.positive, one, 0.0), axis=1)
        if i < layers - 1:
            weights = jnp.where(own.positive, overlaps, best)
            distilled += decoupled_distillation_loss(queries.corners[:, i], teacher, weights, own.positive, present)
    return hyper.lambda_dfl * fine, 10.0 * hyper.lambda_dfl * distilled


def _counts(matches: Matches, ignored: Bool[Array, "B Q"]) -> dict[str, Float[Array, " B"]]:
    return {
        "positives": jnp.sum(matches.positive, axis=1).astype(jnp.float32),
        "ignored": jnp.sum(ignored, axis=1).astype(jnp.float32),
    }
