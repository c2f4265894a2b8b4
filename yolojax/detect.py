"""From an input image to detections: preprocessing, network, decoding and suppression as one pure function."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from yolojax.detector import Detector, Variables, prepare_images
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates, Detections


def detect(
    detector: Detector,
    variables: Variables,
    images: UInt8[Array, "B H W 3"],
    confidence: float | Float[Array, ""],
    iou: float | Float[Array, ""],
    wanted: Bool[Array, " C"] | None = None,
    *,
    max_detections: int,
) -> Detections:
    """Detections on input images (RGB, uint8) in input pixels, with the suppression that the detector's ``spec`` names.

    Compiled whole by its users; fold the detector first (``detector.fold``), inside the program or before it.

    Args:
      detector: closed over, never traced.
      variables: its own.
      images: as `yolojax.data.make_input_image` lays them out.
      confidence, iou: thresholds of `postprocess`, traced.
      wanted: classes to report; None reports all. What is reported under them is the same as without it.
      max_detections: rows an image, static.
    """
    spec = detector.spec
    outputs = detector.forward(variables, prepare_images(images, spec.preprocess))
    candidates = detector.decode(outputs)
    if wanted is not None:
        candidates = only_classes(candidates, wanted, multi_label=spec.multi_label)
    return postprocess(
        candidates,
        confidence,
        iou,
        max_detections=max_detections,
        suppression=spec.suppression,
        multi_label=spec.multi_label,
    )


def only_classes(candidates: Candidates, wanted: Bool[Array, " C"], *, multi_label: bool) -> Candidates:
    """The candidates without those of other classes, whose scores become minus infinity.

    Where a box is reported under its best class alone, one whose best class is not wanted goes as a whole: it must not
    come back under its second best.
    """
    scores, lowest = candidates.scores, -jnp.inf
    kept = jnp.where(wanted[None, None], scores, lowest)
    if not multi_label:
        other = jnp.where(wanted[None, None], lowest, scores).max(-1, keepdims=True)
        kept = jnp.where(kept.max(-1, keepdims=True) >= other, kept, lowest)
    return candidates._replace(scores=kept)
