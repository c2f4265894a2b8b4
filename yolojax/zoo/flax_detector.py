"""A detector of any Flax network, and what can be measured of such a detector."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from yolojax.detector import (
    Decode,
    Detector,
    DetectorSpec,
    ForwardTrain,
    Loss,
    Outputs,
    Variables,
    prepare_images,
    variable_shapes,
)
from yolojax.errors import ConfigError
from yolojax.models import Module
from yolojax.models.batch_norm import fold_batch_norm, frozen_statistics, measure_batch_norm, noting_folds
from yolojax.models.heads import PairPrediction
from yolojax.models.network import convolution_flops, init_variables
from yolojax.structures import Targets


def check_input_size(input_size: tuple[int, int], largest_stride: int) -> None:
    """Raises `ConfigError` unless both sides are positive multiples of the largest stride."""
    if min(input_size) < largest_stride or any(side % largest_stride for side in input_size):
        raise ConfigError(
            f"input_size {input_size}: both sides must be multiples of the largest stride, {largest_stride}"
        )


def flax_detector(spec: DetectorSpec, network: Module, loss: Loss, decode: Decode) -> Detector:
    """Makes the record of a Flax network.

    Args:
      spec: what the detector is; ``spec.input_size`` is the size of image that the network is initialised for.
      network: called as ``network(images, train)`` with prepared images ``[B, H, W, 3]`` and a bool. It may have any
        modules and any collections of variables; in training it gets a random key called ``dropout``. The record keeps
        what the modules' own initialisers draw.
      loss: ``(outputs, targets, hyper) -> LossTerms`` of what the network returns.
      decode: ``(outputs) -> Candidates``, in input pixels.

    Returns:
      The record. ``fold`` folds the BatchNorm of the library's own normalised convolutions
      (`yolojax.models.layers.ConvBNAct`) and leaves everything else as it is. ``freeze`` keeps the running statistics
      of the library's BatchNorm and of ``flax.linen.BatchNorm``.
    """

    folds: dict[tuple[str, ...], float] = {}

    @jax.jit
    def init(key: PRNGKeyArray) -> Variables:
        with noting_folds(folds):
            return init_variables(network, key, spec.input_size)

    def forward(variables: Variables, images: Float[Array, "B H W 3"]) -> Outputs:
        return network.apply(variables, images, train=False)

    def forward_train(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]:
        del targets
        state = [name for name in variables if name != "params"]
        outputs, new_state = network.apply(variables, images, train=True, mutable=state, rngs={"dropout": key})
        return outputs, dict(new_state)

    def fold(variables: Variables) -> Variables:
        jax.eval_shape(lambda: init(jax.random.key(0)))  # notes the folds, unless it was traced before
        return fold_batch_norm(variables, folds)

    return Detector(spec, init, forward, forward_train, loss, decode, fold, freeze=freeze_flax)


def freeze_flax(forward_train: ForwardTrain, parts: tuple[str, ...]) -> ForwardTrain:
    """Wraps the ``forward_train`` of a Flax network so that frozen parts normalise as at inference."""

    def frozen_forward_train(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]:
        with frozen_statistics(parts):
            return forward_train(variables, images, targets, key)

    return frozen_forward_train


def forward_flops(detector: Detector) -> int:
    """Counts the floating-point operations of one image's convolutions; a multiplication and an addition are two.

    Of a detector with two heads, those of the head that answers are counted, since a compiled program that decodes one
    head does not compute the other.
    """
    answering = detector.spec.options.get("head")
    unused = tuple(f"head/{name}" for name in PairPrediction._fields if name != answering)
    variables = variable_shapes(detector)

    def forward(image: Float[Array, "1 H W 3"]) -> Outputs:
        return detector.forward(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables), image)

    return convolution_flops(forward, detector.spec.input_size, unused if answering in PairPrediction._fields else ())


def measure_statistics(
    detector: Detector, variables: Variables, batches: Iterable[UInt8[Array, "B H W 3"]]
) -> Variables:
    """Gives every BatchNorm of the library the statistics of its activations on these input images.

    Inference does not change. Fine-tuning of weights whose normalisation was folded away (`from_yolox`) should start
    from the result: their unfolded statistics are those of the identity, and training on them would throw away what
    the network knows; see `yolojax.models.batch_norm.unfold_batch_norm`. Some ten images like those to be trained on
    are enough.
    """
    prepared = (prepare_images(jnp.asarray(images), detector.spec.preprocess) for images in batches)
    return measure_batch_norm(detector.forward, variables, prepared)
