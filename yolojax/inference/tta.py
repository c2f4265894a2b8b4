"""Test-time augmentation: one image detected on at several sizes and mirrored, and all that is found made into one.

Everything is one pure function, `detect_views`, compiled whole by its users like `yolojax.detect.detect`: the input
image is shrunk and mirrored, the network runs once for each size, the candidates of all views come back to the input
image, and one suppression or fusion goes over their union. What it gains and what it costs:
``experiments/multi_scale/study.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from yolojax.augment.letterbox import letterbox
from yolojax.detect import only_classes
from yolojax.detector import Detector, DetectorSpec, Variables, prepare_images
from yolojax.errors import ConfigError
from yolojax.nms import soft_nms_gaussian, weighted_box_fusion
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates, Detections

LARGEST_SCALE = 4.0
FUSION_IOU = 0.55
"""Overlap from which weighted box fusion takes boxes for one object: that of its paper (arXiv 1910.13302)."""
SOFT_ROWS = 2000
"""How many of the strongest candidates of an image enter soft-NMS, which goes over all of them for each it takes."""

Fusion = Literal["nms", "soft", "wbf"]


@dataclass(frozen=True)
class TTA:
    """Which views of an image are detected on, and how what they show becomes one; static.

    Attributes:
      scales: sizes of the image, as multiples of the detector's own input image, above 0 and at most 4. Each is rounded
        to what the largest stride divides; `view_sizes` says to what.
      flip: also mirror each view left to right.
      fusion: what becomes of the union: ``nms``, greedy suppression; ``soft``, Gaussian soft-NMS with sigma .5
        (arXiv 1704.04503); ``wbf``, weighted box fusion at IoU .55 of what suppression leaves of each view
        (arXiv 1910.13302), whose scores count how many views agree.
    """

    scales: tuple[float, ...] = (0.8, 1.0, 1.2)
    flip: bool = True
    fusion: Fusion = "nms"


class View(NamedTuple):
    """One look at an image: the size of its input image ``(height, width)``, and whether it is mirrored."""

    input_size: tuple[int, int]
    mirrored: bool


def view_sizes(spec: DetectorSpec, tta: TTA) -> tuple[tuple[int, int], ...]:
    """The input images ``(height, width)`` of the scales, in their order: multiples of the largest stride.

    Raises `ConfigError` for no scale, one out of range, two that come to the same input image, or an unknown fusion.
    """
    if tta.fusion not in ("nms", "soft", "wbf"):
        raise ConfigError(f"tta fusion = {tta.fusion!r}: choose nms, soft or wbf")
    if not tta.scales:
        raise ConfigError("tta scales: none given; give at least one, such as 1")
    stride, found = max(spec.strides), {}
    for scale in tta.scales:
        if not (math.isfinite(scale) and 0 < scale <= LARGEST_SCALE):
            raise ConfigError(f"tta scales: {scale:g} is out of range; give numbers above 0, at most {LARGEST_SCALE:g}")
        h, w = (max(1, round(side * scale / stride)) * stride for side in spec.input_size)
        if (h, w) in found:
            raise ConfigError(
                f"tta scales: {found[h, w]:g} and {scale:g} both come to {w} x {h} pixels, in multiples of {stride}; "
                "leave one out"
            )
        found[h, w] = scale
    return tuple(found)


def views_of(spec: DetectorSpec, tta: TTA) -> tuple[View, ...]:
    """All views, each size with its mirror image after it; raises as `view_sizes` does."""
    mirrored = (False, True) if tta.flip else (False,)
    return tuple(View(input_size, m) for input_size in view_sizes(spec, tta) for m in mirrored)


def with_tta(spec: DetectorSpec, tta: TTA | None) -> DetectorSpec:
    """The description by which photos are laid out for `detect_views`: its input image is the largest of the views.

    So the largest view has all the detail of the photo; the others are shrunk from it by an antialiased filter.
    """
    if tta is None:
        return spec
    return replace(spec, input_size=max(view_sizes(spec, tta), key=math.prod))


def describe_views(spec: DetectorSpec, tta: TTA) -> str:
    """One line that says what is done, with the sizes after rounding."""
    sizes = ", ".join(f"{w} x {h}" for h, w in view_sizes(spec, tta))
    mirrored = ", each also mirrored" if tta.flip else ""
    count = len(views_of(spec, tta))
    plural = "" if count == 1 else "s"
    return f"test-time augmentation: {count} view{plural}, {sizes} pixels{mirrored}, made one by {tta.fusion}"


def candidates_of_views(
    detector: Detector, variables: Variables, images: UInt8[Array, "B H W 3"], tta: TTA
) -> tuple[Candidates, ...]:
    """The candidates of every view (`views_of`), in pixels of the input image that ``images`` are on.

    ``images`` are laid out by `with_tta`, of any size: a view is the whole input image, padding included, at its own
    size.
    """
    batch, height, width = images.shape[:3]
    found: list[Candidates] = []
    for h, w in view_sizes(detector.spec, tta):
        view = images
        if (h, w) != (height, width):
            whole = jnp.broadcast_to(jnp.array([0, 0, w, h], jnp.float32), (batch, 4))
            sizes = jnp.broadcast_to(jnp.array([height, width], jnp.int32), (batch, 2))
            view = letterbox(images, sizes, whole, (h, w), detector.spec.preprocess.pad)
        if tta.flip:
            view = jnp.concatenate([view, view[:, :, ::-1]])
        outputs = detector.forward(variables, prepare_images(view, detector.spec.preprocess))
        boxes, scores = detector.decode(outputs)
        if (h, w) != (height, width):
            boxes = boxes * jnp.array([[[width / w, height / h] * 2]], jnp.float32)
        found.append(Candidates(boxes[:batch], scores[:batch]))
        if tta.flip:
            x1, y1, x2, y2 = jnp.split(boxes[batch:], 4, axis=-1)
            found.append(Candidates(jnp.concatenate([width - x2, y1, width - x1, y2], -1), scores[batch:]))
    return tuple(found)


def detect_views(
    detector: Detector,
    variables: Variables,
    images: UInt8[Array, "B H W 3"],
    confidence: float | Float[Array, ""],
    iou: float | Float[Array, ""],
    wanted: Bool[Array, " C"] | None = None,
    *,
    tta: TTA,
    max_detections: int,
) -> Detections:
    """As `yolojax.detect.detect`, from all views of ``tta``; with the scale 1 alone, unmirrored, exactly that.

    Args:
      detector, variables, wanted, max_detections: as there.
      images: on the input image of `with_tta`; detections are in its pixels.
      confidence: a detection scores at least this, before and after its views are made one.
      iou: of greedy suppression, in the union (``nms``) or within each view (``wbf``); ``soft`` has none.
      tta: static.

    Raises:
      ConfigError: see `view_sizes`.
    """
    spec = detector.spec
    views = candidates_of_views(detector, variables, images, tta)
    if wanted is not None:
        views = tuple(only_classes(view, wanted, multi_label=spec.multi_label) for view in views)
    if tta.fusion == "wbf":
        own = [
            postprocess(
                view,
                confidence,
                iou,
                max_detections=max_detections,
                suppression=spec.suppression,
                multi_label=spec.multi_label,
            )
            for view in views
        ]
        return fuse_detections(own, confidence, max_detections=max_detections)
    union = Candidates(*(jnp.concatenate(parts, 1) for parts in zip(*views, strict=True)))
    if tta.fusion == "soft":
        return _soften(union, confidence, max_detections=max_detections, multi_label=spec.multi_label)
    return postprocess(
        union,
        confidence,
        iou,
        max_detections=max_detections,
        suppression=spec.suppression if len(views) == 1 else "nms",
        multi_label=spec.multi_label,
    )


def fuse_detections(own: list[Detections], confidence: float | Float[Array, ""], *, max_detections: int) -> Detections:
    """Detections of several views or models of the same images as one, by weighted box fusion at `FUSION_IOU`.

    What scores less than ``confidence`` afterwards is left out. ``truncated`` also counts what the inputs left out.
    """
    boxes, scores, classes, valid = (jnp.stack(x, 1) for x in list(zip(*own, strict=True))[:4])  # [B, S, K, ...]
    rows = scores.shape[1] * scores.shape[2]

    def fuse(boxes: Array, scores: Array, classes: Array, valid: Array):
        return weighted_box_fusion(boxes, scores, classes, FUSION_IOU, rows, valid=valid)

    fused = jax.vmap(fuse)(boxes, scores, classes, valid)
    dropped = (jnp.stack([getattr(x, name) for x in own]).sum(0) for name in ("truncated_candidates", "truncated"))
    return _strongest(Detections(*fused, *dropped), confidence, max_detections)


def _soften(
    union: Candidates, confidence: float | Float[Array, ""], *, max_detections: int, multi_label: bool
) -> Detections:
    found = postprocess(union, confidence, 0.5, max_detections=SOFT_ROWS, suppression="none", multi_label=multi_label)

    def soften(boxes: Array, scores: Array, classes: Array, valid: Array):
        return soft_nms_gaussian(boxes, scores, classes, SOFT_ROWS, score_threshold=confidence, valid=valid)

    kept = jax.vmap(soften)(found.boxes, found.scores, found.classes, found.valid)
    boxes, classes = (
        jnp.take_along_axis(x, kept.indices.reshape(kept.indices.shape + (1,) * (x.ndim - 2)), 1)
        for x in (found.boxes, found.classes)
    )
    after = Detections(
        boxes,
        kept.scores,
        classes,
        kept.valid,
        truncated_candidates=found.truncated_candidates + found.truncated,  # beyond `SOFT_ROWS` they stay candidates
        truncated=jnp.zeros_like(found.truncated),
    )
    return _strongest(after, confidence, max_detections)


def _strongest(found: Detections, confidence: float | Float[Array, ""], max_detections: int) -> Detections:
    """The first ``max_detections`` rows of those of at least ``confidence``, which come by falling score already."""
    valid = found.valid & (found.scores >= jnp.float32(confidence))
    missing = max(0, max_detections - valid.shape[1])

    def cut(x: Array) -> Array:
        return jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))[:, :max_detections]

    kept = cut(valid)
    return Detections(
        jnp.where(kept[..., None], cut(found.boxes), 0.0),
        jnp.where(kept, cut(found.scores), 0.0),
        jnp.where(kept, cut(found.classes), -1),
        kept,
        found.truncated_candidates,
        found.truncated + valid.sum(1, dtype=jnp.int32) - kept.sum(1, dtype=jnp.int32),
    )
