"""Measured BatchNorm statistics for published weights that come without."""

from collections.abc import Iterable

import jax
from jaxtyping import Array, UInt8

from yolojax.detector import Detector, Variables, prepare_images
from yolojax.models.statistics import measure_batch_norm


def measure_statistics(
    detector: Detector, variables: Variables, batches: Iterable[UInt8[Array, "B H W 3"]]
) -> Variables:
    """The same detector with the statistics of its activations on these input images: what fine-tuning should start
    from.

    Inference does not change. For weights whose normalisation was folded away (`from_yolox`), the unfolded statistics
    are the identity's, and training on them would throw away what the network knows; see
    `yolojax.models.fold.unfold_batch_norm`. Some ten images like those to be trained on are enough.
    """
    prepared = (prepare_images(jax.numpy.asarray(images), detector.spec.preprocess) for images in batches)
    return measure_batch_norm(detector.forward, variables, prepared)
