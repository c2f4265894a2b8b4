"""What each image, and each object, contributes to the loss: to find labels that do not fit their images.

A wrong label is hard to learn, so its example keeps a high loss and pulls strongly at the parameters. All functions
take variables as trained, use the running statistics of BatchNorm (in training mode, the images of a batch would share
theirs) and no augmentation, and can be compiled. `LossTerms` are per image, so the losses need no second definition.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from yolojax.detector import Detector, Outputs, Variables, prepare_images
from yolojax.structures import Hyper, LossTerms, Targets

PARTS = ("backbone", "neck", "head")


def image_losses(terms: LossTerms) -> Float[Array, " B"]:
    """The loss of each image as if it were alone: every part divided by the image's own normaliser, at least 1."""
    return sum(
        (value / jnp.maximum(terms.normalisers[part], 1.0) for part, value in terms.sums.items()),
        start=jnp.zeros(len(next(iter(terms.sums.values())))),
    )


def per_example_loss(
    detector: Detector, variables: Variables, images: UInt8[Array, "B H W 3"], targets: Targets, hyper: Hyper
) -> Float[Array, " B"]:
    """The loss of each image as if it were alone (`image_losses`), from input images 0..255."""
    outputs = detector.forward(variables, prepare_images(images, detector.spec.preprocess))
    return image_losses(detector.loss(outputs, targets, hyper))


def per_example_gradient_norm(
    detector: Detector,
    variables: Variables,
    images: UInt8[Array, "B H W 3"],
    targets: Targets,
    hyper: Hyper,
    *,
    parts: Sequence[str] = PARTS,
) -> Float[Array, " B"]:
    """The Euclidean norm of each image's own gradient, mapped over the images (Paul et al., arXiv 2107.07075, "GraNd").

    Args:
      detector: that made the variables.
      variables: its parameters and statistics.
      images: input images, 0..255.
      targets: their objects.
      hyper: the weights of the loss.
      parts: which of ``backbone``, ``neck`` and ``head`` the gradient is taken of. The head alone needs no backward
        pass through the rest, and holds ``B`` copies of the head's gradient only.
    """
    pixels = prepare_images(images, detector.spec.preprocess)
    free = {part: variables["params"][part] for part in parts if part in variables["params"]}

    def loss(params: Variables, image: Array, target: Targets) -> Array:
        whole = {**variables, "params": {**variables["params"], **params}}
        one = jax.tree.map(lambda a: a[None], (image, target))
        return image_losses(detector.loss(detector.forward(whole, one[0]), one[1], hyper))[0]

    gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(free, pixels, targets)
    squares = [jnp.sum(g.reshape(g.shape[0], -1) ** 2, axis=1) for g in jax.tree.leaves(gradients)]
    return jnp.sqrt(sum(squares, start=jnp.zeros(len(images))))


def per_object_loss(detector: Detector, outputs: Outputs, targets: Targets, hyper: Hyper) -> Float[Array, "B M"]:
    """How much the loss of its image rises through each labelled object: with it, less without it; 0 in padding rows.

    Sums are compared, not quotients, so that an object does not change the weight of its neighbours. An object that the
    network sees costs less as a positive than its prediction would as a negative, so a good label has a value below
    zero and a suspicious one above. The network runs once; only the loss is mapped over the ``M`` objects.

    Args:
      detector: whose loss it is.
      outputs: of ``detector.forward``.
      targets: the labels to judge.
      hyper: the weights of the loss.
    """

    def total(valid: Array) -> Array:
        terms = detector.loss(outputs, targets._replace(valid=valid), hyper)
        return sum(terms.sums.values(), start=jnp.zeros(valid.shape[0]))

    def without(place: Array) -> Array:
        return total(targets.valid & (jnp.arange(targets.valid.shape[1]) != place)[None, :])

    rest = jax.lax.map(without, jnp.arange(targets.valid.shape[1]))
    return jnp.where(targets.valid, total(targets.valid)[:, None] - rest.T, 0.0)
