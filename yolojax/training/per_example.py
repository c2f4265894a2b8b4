"""The share of each image, and of each object, in the loss. It helps to find labels that do not fit their images.

A wrong label is hard to learn, so its example keeps a high loss and a large gradient. All functions take variables as
trained and no augmentation, and can be compiled. They use the running statistics of BatchNorm, because in training mode
the images of a batch would share statistics. `LossTerms` are per image, so the losses need no second definition.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from yolojax.detector import Detector, Outputs, Variables, freeze_mask, prepare_images
from yolojax.errors import ConfigError
from yolojax.structures import Hyper, LossTerms, Targets


def image_losses(terms: LossTerms) -> Float[Array, " B"]:
    """Returns the loss of each image as if it were alone: every part divided by the image's normaliser, at least 1."""
    return sum(
        (value / jnp.maximum(terms.normalisers[part], 1.0) for part, value in terms.sums.items()),
        start=jnp.zeros(len(next(iter(terms.sums.values())))),
    )


def per_example_loss(
    detector: Detector, variables: Variables, images: UInt8[Array, "B H W 3"], targets: Targets, hyper: Hyper
) -> Float[Array, " B"]:
    """Returns the loss of each image as if it were alone (`image_losses`), from input images 0..255."""
    outputs = detector.forward(variables, prepare_images(images, detector.spec.preprocess))
    return image_losses(detector.loss(outputs, targets, hyper))


def per_example_gradient_norm(
    detector: Detector,
    variables: Variables,
    images: UInt8[Array, "B H W 3"],
    targets: Targets,
    hyper: Hyper,
    *,
    parts: Sequence[str] | None = None,
) -> Float[Array, " B"]:
    """Returns the Euclidean norm of each image's own gradient (Paul et al., arXiv 2107.07075, "GraNd").

    Args:
      detector: that made the variables.
      variables: its parameters and statistics.
      images: input images, 0..255.
      targets: their objects.
      hyper: the weights of the loss.
      parts: what the gradient is taken of, such as ``("head",)`` (see `yolojax.detector.freeze_mask`); by default all
        parameters. The head alone needs no backward pass through the rest, and holds ``B`` copies of the head's
        gradient only.

    Raises:
      ConfigError: no parameter lies below ``parts``.
    """
    pixels = prepare_images(images, detector.spec.preprocess)
    leaves, structure = jax.tree.flatten(variables["params"])
    mask = [True] * len(leaves) if parts is None else jax.tree.leaves(freeze_mask(variables["params"], parts))
    free = [leaf for leaf, is_free in zip(leaves, mask, strict=True) if is_free]
    if not free:
        raise ConfigError(f"parts = {parts!r}: the detector has no parameter there")

    def loss(free: list[Array], image: Array, target: Targets) -> Array:
        rest = iter(free)
        params = jax.tree.unflatten(
            structure, [next(rest) if m else leaf for leaf, m in zip(leaves, mask, strict=True)]
        )
        whole = {**variables, "params": params}
        one = jax.tree.map(lambda a: a[None], (image, target))
        return image_losses(detector.loss(detector.forward(whole, one[0]), one[1], hyper))[0]

    gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(free, pixels, targets)
    squares = [jnp.sum(g.reshape(g.shape[0], -1) ** 2, axis=1) for g in jax.tree.leaves(gradients)]
    return jnp.sqrt(sum(squares, start=jnp.zeros(len(images))))


def per_object_loss(detector: Detector, outputs: Outputs, targets: Targets, hyper: Hyper) -> Float[Array, "B M"]:
    """Returns how much each labelled object raises the loss of its image; 0 in padding rows.

    The value is the loss with the object less the loss without it.

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
