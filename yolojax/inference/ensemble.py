"""Ensembles: several sets of variables of one detector as one program, and how far they disagree about each box.

    members = stack_members([variables_of_seed_0, variables_of_seed_1, variables_of_seed_2])
    found = jax.jit(lambda m, images: detect_ensemble(detector, m, images, 0.25, 0.45, max_detections=100))(members, x)
    found.detections.boxes, found.spread, found.agree

Members are stacked along a first axis and mapped by `jax.vmap`. Weighted box fusion (arXiv 1910.13302) combines their
detections; its scores count how many members agree. Members that differ by their seed alone express their uncertainty
by their disagreement (deep ensembles, B. Lakshminarayanan et al., arXiv 1612.01474).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from yolojax.boxes import box_iou
from yolojax.detector import Detector, Variables, prepare_images
from yolojax.errors import ConfigError
from yolojax.inference.tta import FUSION_IOU, fuse_detections
from yolojax.nms import Suppression
from yolojax.nms.named import BuiltIn
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates, Detections


class EnsembleDetections(NamedTuple):
    """Fused detections, and how far the members agree about each.

    ``spread`` is the sample standard deviation of the members' boxes for a row, for each of x1, y1, x2, y2 in input
    pixels; it is 0 where fewer than two members have a box for it. ``agree`` counts the members that have one.
    """

    detections: Detections
    spread: Float[Array, "B K 4"]
    agree: Int[Array, "B K"]


def stack_members(members: Sequence[Variables]) -> Variables:
    """The variables of several members as one pytree whose leaves have a first axis over the members.

    Raises `ConfigError` when there is none, or when their arrays differ in name or shape.
    """
    if not members:
        raise ConfigError("an ensemble needs at least one member")
    kinds = [jax.tree.map(jnp.shape, member) for member in members]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ConfigError(f"member {i} has other arrays than member 0; give members of one architecture")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def detect_members(
    detector: Detector,
    members: Variables,
    images: UInt8[Array, "B H W 3"],
    confidence: float | Float[Array, ""],
    iou: float | Float[Array, ""] | None = None,
    *,
    max_detections: int,
    suppress: Suppression | BuiltIn | None = None,
) -> Detections:
    """The detections of each member by itself, as `yolojax.detect.detect` gives them: arrays with a first axis ``S``.

    BatchNorm is folded inside; see `detect_ensemble` for the arguments.
    """
    spec = detector.spec
    prepared = prepare_images(images, spec.preprocess)

    def one(variables: Variables) -> Candidates:
        return detector.decode(detector.forward(detector.fold(variables), prepared))

    candidates = jax.vmap(one)(members)
    count, batch = candidates.boxes.shape[:2]
    # The images of all members as one batch, which post-processing treats one by one where that is faster.
    found = postprocess(
        Candidates(*(x.reshape(count * batch, *x.shape[2:]) for x in candidates)),
        confidence,
        iou,
        suppress=spec.suppression if suppress is None else suppress,
        max_detections=max_detections,
        multi_label=spec.multi_label,
    )
    return Detections(*(x.reshape(count, batch, *x.shape[1:]) for x in found))


def fuse_members(own: Detections, confidence: float | Float[Array, ""], *, max_detections: int) -> EnsembleDetections:
    """Combines the detections of ``S`` members (arrays with a first axis over them) and computes their spread.

    The box that a member has for a fused box is the one of the same class that overlaps it most, by an IoU above
    `FUSION_IOU`.
    """
    count = own.boxes.shape[0]
    fused = fuse_detections(
        [Detections(*(x[i] for x in own)) for i in range(count)], confidence, max_detections=max_detections
    )

    def match(
        box: Float[Array, "K 4"], label: Int[Array, " K"], member: Detections
    ) -> tuple[Float[Array, "K 4"], Array]:
        iou = box_iou(box, member.boxes)
        usable = member.valid[None] & (label[:, None] == member.classes[None])
        iou = jnp.where(usable, iou, -1.0)
        return member.boxes[iou.argmax(1)], iou.max(1) > FUSION_IOU

    by_image = jax.vmap(match, in_axes=(0, 0, 0))
    boxes, has = jax.vmap(by_image, in_axes=(None, None, 0))(fused.boxes, fused.classes, own)  # [S, B, K, 4], [S, B, K]
    has = has & fused.valid[None]
    agree = has.sum(0, dtype=jnp.int32)
    weight = has[..., None].astype(jnp.float32)
    mean = (boxes * weight).sum(0) / jnp.maximum(agree, 1)[..., None]
    squares = ((boxes - mean[None]) ** 2 * weight).sum(0)
    spread = jnp.sqrt(squares / jnp.maximum(agree - 1, 1)[..., None])
    return EnsembleDetections(fused, spread, agree)


def detect_ensemble(
    detector: Detector,
    members: Variables,
    images: UInt8[Array, "B H W 3"],
    confidence: float | Float[Array, ""],
    iou: float | Float[Array, ""] | None = None,
    *,
    max_detections: int,
    suppress: Suppression | BuiltIn | None = None,
) -> EnsembleDetections:
    """Images to fused detections of all members; a pure function that its users compile as a whole.

    Args:
      detector: the members' detector, closed over.
      members: see `stack_members`.
      images: as for `yolojax.detect.detect`; boxes are in input pixels.
      confidence: a detection scores at least this, in its member and after fusion.
      iou: of greedy suppression within each member; None for every other kind.
      max_detections: rows an image, of each member and of the whole.
      suppress: within each member, see `yolojax.postprocess.postprocess`; None takes what ``detector.spec`` names.
    """
    own = detect_members(detector, members, images, confidence, iou, max_detections=max_detections, suppress=suppress)
    return fuse_members(own, confidence, max_detections=max_detections)


def box_uncertainty(found: EnsembleDetections) -> Float[Array, "B K"]:
    """The spread of each box relative to its size: the mean over the four sides, divided by the square root of the
    area.

    It is 0 where the spread is 0, and means something where ``agree`` is at least 2.
    """
    x1, y1, x2, y2 = (found.detections.boxes[..., i] for i in range(4))
    size = jnp.sqrt(jnp.maximum((x2 - x1) * (y2 - y1), 0.0))
    return jnp.where(size > 0, found.spread.mean(-1) / jnp.where(size > 0, size, 1.0), 0.0)
