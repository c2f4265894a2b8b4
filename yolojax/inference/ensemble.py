"""Ensembles: several trained members of one architecture as one program, and how far they disagree about each box.

    members = stack_members([variables_of_seed_0, variables_of_seed_1, variables_of_seed_2])
    found = jax.jit(lambda m, images: detect_ensemble(detector, m, images, 0.25, 0.45, max_detections=100))(members, x)
    found.detections.boxes, found.spread, found.agree

Members are stacked along a first axis and mapped by `jax.vmap`; what they find is made one by weighted box fusion
(arXiv 1910.13302), whose scores count how many agree. That members which differ by nothing but their seed tell
their uncertainty by their disagreement is Lakshminarayanan et al. 2017 (deep ensembles, arXiv 1612.01474).
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
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates, Detections


class EnsembleDetections(NamedTuple):
    """Fused detections and what the members say about each.

    ``spread`` is the standard deviation (of a sample) of the boxes that the members have for a row, for each of x1, y1,
    x2, y2 in input pixels; 0 where fewer than two members have one. ``agree`` counts the members that have one.
    """

    detections: Detections
    spread: Float[Array, "B K 4"]
    agree: Int[Array, "B K"]


def stack_members(members: Sequence[Variables]) -> Variables:
    """Variables of one architecture as one pytree whose leaves have a first axis over the members.

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
    iou: float | Float[Array, ""],
    *,
    max_detections: int,
) -> Detections:
    """What each member finds by itself (as `yolojax.detect.detect`, BatchNorm folded): arrays with a first axis S."""
    spec = detector.spec
    prepared = prepare_images(images, spec.preprocess)

    def one(variables: Variables) -> Candidates:
        folded, folded_variables = detector.fold(variables)
        return folded.decode(folded.forward(folded_variables, prepared))

    candidates = jax.vmap(one)(members)
    count, batch = candidates.boxes.shape[:2]
    # The images of all members as one batch, which post-processing treats one by one where that is faster.
    found = postprocess(
        Candidates(*(x.reshape(count * batch, *x.shape[2:]) for x in candidates)),
        confidence,
        iou,
        max_detections=max_detections,
        suppression=spec.suppression,
        multi_label=spec.multi_label,
    )
    return Detections(*(x.reshape(count, batch, *x.shape[1:]) for x in found))


def fuse_members(own: Detections, confidence: float | Float[Array, ""], *, max_detections: int) -> EnsembleDetections:
    """Detections of ``S`` members, every array with a first axis over them, as one, with the spread of their boxes.

    A member's box for a fused one is that of its class which overlaps it most, by an IoU above `FUSION_IOU`.
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
    iou: float | Float[Array, ""],
    *,
    max_detections: int,
) -> EnsembleDetections:
    """Images to fused detections of all members; compiled whole by its users.

    Args:
      detector: the members' architecture, closed over, not folded.
      members: see `stack_members`.
      images: as for `yolojax.detect.detect`; boxes are in input pixels.
      confidence: a detection scores at least this, in its member and after fusion.
      iou: of the suppression within each member.
      max_detections: rows an image, of each member and of the whole.
    """
    own = detect_members(detector, members, images, confidence, iou, max_detections=max_detections)
    return fuse_members(own, confidence, max_detections=max_detections)


def box_uncertainty(found: EnsembleDetections) -> Float[Array, "B K"]:
    """The spread of each box as a share of its size: the mean over the sides, by the square root of the area.

    0 where the spread is; read it where ``agree`` is at least 2.
    """
    x1, y1, x2, y2 = (found.detections.boxes[..., i] for i in range(4))
    size = jnp.sqrt(jnp.maximum((x2 - x1) * (y2 - y1), 0.0))
    return jnp.where(size > 0, found.spread.mean(-1) / jnp.where(size > 0, size, 1.0), 0.0)
