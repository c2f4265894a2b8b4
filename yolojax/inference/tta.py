"""Test-time augmentation: a detector applied to an image at several sizes and mirrored, and the results combined.

`detect_augmented` is one pure function that its users compile as a whole, like `yolojax.detect.detect`. The input image
is resized and mirrored, the network runs once for each size, and the candidates of all augmentations are mapped back to
the input image. One suppression then goes over their union, or weighted box fusion averages what each augmentation
gives. `TTA.fusion` chooses between the two. What each gains and costs: ``experiments/multi_scale/study.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from yolojax.augment import letterbox
from yolojax.detect import network_outputs, only_classes
from yolojax.detector import Detector, DetectorSpec, Variables
from yolojax.errors import ConfigError
from yolojax.nms import Suppression, weighted_box_fusion
from yolojax.nms.named import BuiltIn
from yolojax.postprocess import check_suppression, postprocess
from yolojax.settings import shown
from yolojax.structures import Candidates, Detections

LARGEST_SCALE = 4.0
FUSION_IOU = 0.55
"""Overlap above which weighted box fusion takes boxes for one object: that of its paper (arXiv 1910.13302)."""

Fusion = Literal["suppress", "wbf"]


@dataclass(frozen=True)
class TTA:
    """The augmentations of an image, and how their results are combined; static.

    Attributes:
      scales: sizes of the image, as multiples of the detector's own input size, above 0 and at most 4. Each is rounded
        to a multiple of the largest stride; `augmented_sizes` gives the results.
      flip: also mirror the image left to right, at each size.
      fusion: ``suppress``, one suppression over the union of all candidates; ``wbf``, weighted box fusion at IoU .55 of
        the detections that suppression leaves of each augmentation (arXiv 1910.13302), whose scores count how many
        augmentations agree.
    """

    scales: tuple[float, ...] = (0.8, 1.0, 1.2)
    flip: bool = True
    fusion: Fusion = "suppress"


class Augmentation(NamedTuple):
    """One augmentation of an image: its input size ``(height, width)``, and whether it is mirrored."""

    input_size: tuple[int, int]
    mirrored: bool


def augmented_sizes(spec: DetectorSpec, tta: TTA) -> tuple[tuple[int, int], ...]:
    """The input sizes ``(height, width)`` of the scales, in their order: multiples of the largest stride.

    Raises `ConfigError` for what is no `TTA`, for no scale, one out of range, two that give the same input size, or an
    unknown fusion.
    """
    if not isinstance(tta, TTA):
        raise ConfigError(f"tta = {shown(tta)}: give a TTA, such as TTA()")
    if tta.fusion not in ("suppress", "wbf"):
        raise ConfigError(f"tta fusion = {tta.fusion!r}: choose suppress or wbf")
    if not isinstance(tta.scales, Sequence) or not all(isinstance(scale, Real) for scale in tta.scales):
        raise ConfigError(f"tta scales = {shown(tta.scales)}: give several numbers, such as (0.8, 1.0, 1.2)")
    if not tta.scales:
        raise ConfigError("tta scales: none given; give at least one, such as 1")
    stride, found = max(spec.strides), {}
    for scale in tta.scales:
        if not (math.isfinite(scale) and 0 < scale <= LARGEST_SCALE):
            raise ConfigError(f"tta scales: {scale:g} is out of range; give numbers above 0, at most {LARGEST_SCALE:g}")
        h, w = (max(1, round(side * scale / stride)) * stride for side in spec.input_size)
        if (h, w) in found:
            raise ConfigError(
                f"tta scales: {found[h, w]:g} and {scale:g} both give {w} x {h} pixels, in multiples of {stride}; "
                "leave one out"
            )
        found[h, w] = scale
    return tuple(found)


def augmentations_of(spec: DetectorSpec, tta: TTA) -> tuple[Augmentation, ...]:
    """All augmentations, each size with its mirror image after it; raises as `augmented_sizes` does."""
    mirrored = (False, True) if tta.flip else (False,)
    return tuple(Augmentation(input_size, m) for input_size in augmented_sizes(spec, tta) for m in mirrored)


def with_tta(spec: DetectorSpec, tta: TTA | None) -> DetectorSpec:
    """The description for which images are prepared for `detect_augmented`: its input size is the largest of all.

    The largest augmentation then has all the detail of the photo; the others are shrunk from it by an antialiased
    filter. Only the input size of the result differs from ``spec``.
    """
    if tta is None:
        return spec
    return replace(spec, input_size=max(augmented_sizes(spec, tta), key=math.prod))


def describe_tta(spec: DetectorSpec, tta: TTA) -> str:
    """One line for people that names the augmentations, with their sizes after rounding, and the fusion."""
    sizes = ", ".join(f"{w} x {h}" for h, w in augmented_sizes(spec, tta))
    mirrored = ", each also mirrored" if tta.flip else ""
    count = len(augmentations_of(spec, tta))
    plural = "" if count == 1 else "s"
    how = "weighted box fusion" if tta.fusion == "wbf" else "one suppression"
    return f"test-time augmentation: {count} augmentation{plural}, {sizes} pixels{mirrored}, combined by {how}"


def augmented_candidates(
    detector: Detector, variables: Variables, images: UInt8[Array, "B H W 3"], tta: TTA
) -> tuple[Candidates, ...]:
    """The candidates of every augmentation (`augmentations_of`), in pixels of the input image that is given.

    ``images`` are prepared for the description of `with_tta`, or of any size: an augmentation is the whole input image,
    padding included, at its own size.
    """
    batch, height, width = images.shape[:3]
    found: list[Candidates] = []
    for h, w in augmented_sizes(detector.spec, tta):
        resized = images
        if (h, w) != (height, width):
            whole = jnp.broadcast_to(jnp.array([0, 0, w, h], jnp.float32), (batch, 4))
            sizes = jnp.broadcast_to(jnp.array([height, width], jnp.int32), (batch, 2))
            resized = letterbox(images, sizes, whole, (h, w), detector.spec.preprocess.pad)
        if tta.flip:
            resized = jnp.concatenate([resized, resized[:, :, ::-1]])
        boxes, scores = detector.decode(network_outputs(detector, variables, resized))
        if (h, w) != (height, width):
            boxes = boxes * jnp.array([[[width / w, height / h] * 2]], jnp.float32)
        found.append(Candidates(boxes[:batch], scores[:batch]))
        if tta.flip:
            x1, y1, x2, y2 = jnp.split(boxes[batch:], 4, axis=-1)
            found.append(Candidates(jnp.concatenate([width - x2, y1, width - x1, y2], -1), scores[batch:]))
    return tuple(found)


def union_suppression(
    spec: DetectorSpec, tta: TTA | None, suppress: Suppression | BuiltIn | None
) -> Suppression | BuiltIn:
    """The suppression that a detector needs with these augmentations: ``suppress``, or else what ``spec`` names.

    A detector that needs no suppression does need it (``nms``) where one suppression goes over several augmentations,
    because each of them finds the same objects. Raises `ConfigError` for what is no suppression.
    """
    if suppress is not None:
        check_suppression(suppress)
        return suppress
    if tta is not None and tta.fusion == "suppress" and len(augmentations_of(spec, tta)) > 1:
        return "nms"
    return spec.suppression


def detect_augmented(
    detector: Detector,
    variables: Variables,
    images: UInt8[Array, "B H W 3"],
    confidence: float | Float[Array, ""],
    iou: float | Float[Array, ""] | None = None,
    wanted: Bool[Array, " C"] | None = None,
    *,
    tta: TTA,
    max_detections: int,
    suppress: Suppression | BuiltIn | None = None,
) -> Detections:
    """As `yolojax.detect.detect`, from all augmentations of ``tta``; with the scale 1 alone, unmirrored, exactly that.

    Args:
      detector, variables, wanted, max_detections: as there.
      images: prepared for the description of `with_tta`; detections are in their pixels.
      confidence: a detection has at least this score, before and after fusion.
      iou: of greedy suppression, over the union or within each augmentation; None for every other kind.
      tta: static.
      suppress: goes over the union of all augmentations, or with the fusion ``wbf`` over each of them; None takes
        `union_suppression`.

    Raises:
      ConfigError: see `augmented_sizes` and `yolojax.postprocess.postprocess`.
    """
    spec = detector.spec
    suppress = union_suppression(spec, tta, suppress)
    augmented = augmented_candidates(detector, variables, images, tta)
    if wanted is not None:
        augmented = tuple(only_classes(x, wanted, multi_label=spec.multi_label) for x in augmented)

    def suppressed(candidates: Candidates) -> Detections:
        return postprocess(
            candidates,
            confidence,
            iou,
            suppress=suppress,
            max_detections=max_detections,
            multi_label=spec.multi_label,
        )

    if tta.fusion == "wbf":
        return fuse_detections([suppressed(x) for x in augmented], confidence, max_detections=max_detections)
    return suppressed(Candidates(*(jnp.concatenate(parts, 1) for parts in zip(*augmented, strict=True))))


def fuse_detections(own: list[Detections], confidence: float | Float[Array, ""], *, max_detections: int) -> Detections:
    """Combines the detections of several augmentations or models of the same images by weighted box fusion.

    The overlap from which boxes are averaged is `FUSION_IOU`. What scores less than ``confidence`` afterwards is left
    out. ``truncated`` also counts what the inputs left out.
    """
    boxes, scores, classes, valid = (jnp.stack(x, 1) for x in list(zip(*own, strict=True))[:4])  # [B, S, K, ...]
    rows = scores.shape[1] * scores.shape[2]

    def fuse(boxes: Array, scores: Array, classes: Array, valid: Array):
        return weighted_box_fusion(boxes, scores, classes, FUSION_IOU, rows, valid=valid)

    fused = jax.vmap(fuse)(boxes, scores, classes, valid)
    dropped = (jnp.stack([getattr(x, name) for x in own]).sum(0) for name in ("truncated_candidates", "truncated"))
    found = Detections(*fused, *dropped)
    enough = found.valid & (found.scores >= jnp.float32(confidence))
    missing = max(0, max_detections - rows)

    def first(x: Array) -> Array:
        """The first ``max_detections`` rows; they lie by falling score already."""
        return jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))[:, :max_detections]

    kept = first(enough)
    return Detections(
        jnp.where(kept[..., None], first(found.boxes), 0.0),
        jnp.where(kept, first(found.scores), 0.0),
        jnp.where(kept, first(found.classes), -1),
        kept,
        found.truncated_candidates,
        found.truncated + enough.sum(1, dtype=jnp.int32) - kept.sum(1, dtype=jnp.int32),
    )
