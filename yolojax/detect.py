"""From an input image to detections: preprocessing, network, decoding and suppression as one pure function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from yolojax.detector import FILE_CONFIDENCE, Detector, DetectorSpec, Outputs, Variables, prepare_images
from yolojax.errors import ConfigError
from yolojax.nms import Suppression
from yolojax.nms.named import BuiltIn
from yolojax.postprocess import best_class, postprocess
from yolojax.structures import Candidates, Detections


def detect(
    detector: Detector,
    variables: Variables,
    images: UInt8[Array, "B H W 3"],
    confidence: float | Float[Array, ""],
    iou: float | Float[Array, ""] | None = None,
    wanted: Bool[Array, " C"] | None = None,
    *,
    max_detections: int,
    suppress: Suppression | BuiltIn | None = None,
    capacity: int | None = None,
) -> Detections:
    """Detections on input images (RGB, uint8), in input pixels; a pure function that its users compile as a whole.

    Args:
      detector: closed over, never traced.
      variables: those of the detector, as trained or as ``detector.fold`` returns them.
      images: as `yolojax.data.input_images.make_input_image` makes them.
      confidence, iou: thresholds of `yolojax.postprocess.postprocess`, traced. ``iou`` belongs to greedy suppression;
        it is None for every other kind.
      wanted: classes to report; None reports all. What is reported under them is the same as without it.
      max_detections: rows an image, static.
      suppress: see `yolojax.postprocess.postprocess`; None takes what the detector's ``spec`` names.
      capacity: see there.

    Raises:
      ConfigError: as `yolojax.postprocess.postprocess` does.
    """
    outputs = network_outputs(detector, variables, images)
    settings = {"max_detections": max_detections, "suppress": suppress, "capacity": capacity}
    return postprocess_outputs(detector, outputs, confidence, iou, wanted, **settings)


def network_outputs(detector: Detector, variables: Variables, images: UInt8[Array, "B H W 3"]) -> Outputs:
    """The first half of `detect`: what the network returns for input images (RGB, uint8)."""
    return detector.forward(variables, prepare_images(images, detector.spec.preprocess))


def postprocess_outputs(
    detector: Detector,
    outputs: Outputs,
    confidence: float | Float[Array, ""],
    iou: float | Float[Array, ""] | None = None,
    wanted: Bool[Array, " C"] | None = None,
    *,
    max_detections: int,
    suppress: Suppression | BuiltIn | None = None,
    capacity: int | None = None,
) -> Detections:
    """The second half of `detect`, whose arguments these are: decoding, score threshold and suppression."""
    spec = detector.spec
    with jax.named_scope("decode"):
        candidates = detector.decode(outputs)
        if wanted is not None:
            candidates = only_classes(candidates, wanted, multi_label=spec.multi_label)
    with jax.named_scope("postprocess"):
        return postprocess(
            candidates,
            confidence,
            iou,
            suppress=spec.suppression if suppress is None else suppress,
            max_detections=max_detections,
            multi_label=spec.multi_label,
            capacity=capacity,
        )


def only_classes(candidates: Candidates, wanted: Bool[Array, " C"], *, multi_label: bool) -> Candidates:
    """The candidates with the scores of all other classes set to minus infinity.

    Without ``multi_label`` a box is reported under its best class alone: the class of the highest finite score, and the
    first of these where scores are equal. A box whose best class is not wanted loses all scores, because it must not be
    reported under its second best.
    """
    kept = jnp.where(wanted[None, None], candidates.scores, -jnp.inf)
    if not multi_label:
        batch, n, n_classes = candidates.scores.shape
        _, best = best_class(candidates.scores.reshape(batch * n, n_classes))
        kept = jnp.where(wanted[best].reshape(batch, n, 1), kept, -jnp.inf)
    return candidates._replace(scores=kept)


def check_confidence(spec: DetectorSpec, confidence: float) -> None:
    """Raises `ConfigError` for a confidence below the one from which an exported file keeps its detections."""
    least = float(spec.options.get(FILE_CONFIDENCE, 0.0))
    if confidence < least:
        raise ConfigError(
            f"confidence = {confidence:g}: the exported file holds its suppression and gives detections from {least:g} "
            "on; export it again with a lower confidence, or with raw"
        )


def choose_iou(
    spec: DetectorSpec, suppress: Suppression | BuiltIn | None, iou: float | None, default: float
) -> float | None:
    """The IoU threshold that belongs to a suppression: ``iou`` or the default for greedy suppression, otherwise None.

    Raises `ConfigError` for an ``iou`` that nothing would read.
    """
    suppress = spec.suppression if suppress is None else suppress
    if suppress == "nms":
        return default if iou is None else iou
    if iou is not None:
        if FILE_CONFIDENCE in spec.options:
            raise ConfigError(f"iou = {iou:g}: the exported file suppresses by itself; export it again, or with raw")
        unneeded = suppress == spec.suppression == "none"
        who = f"{spec.name} needs no suppression" if unneeded else "another suppression is chosen"
        raise ConfigError(f"iou = {iou:g} is the threshold of greedy suppression (nms), but {who}; leave iou out")
    return None
