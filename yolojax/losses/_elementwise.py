"""Element-wise, unreduced losses in float32: of class logits, of boxes, and of distances as distributions."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.boxes import (
    paired_box_iou,
    paired_complete_box_iou,
    paired_distance_box_iou,
    paired_generalized_box_iou,
    paired_scylla_box_iou,
)
from yolojax.errors import ConfigError


@runtime_checkable
class ClassLoss(Protocol):
    """``(logits, targets) -> losses``, all of one shape whose last axis is the classes. Targets lie in [0, 1].

    `functools.partial` sets the constants of a loss, as in ``partial(focal_loss, gamma=1.5)``.
    """

    def __call__(self, logits: Float[Array, "*n C"], targets: Float[Array, "*n C"], /) -> Float[Array, "*n C"]: ...


@runtime_checkable
class BoxLoss(Protocol):
    """``(predicted [..., 4], target [..., 4]) -> losses [...]``. Boxes are xyxy in input pixels."""

    def __call__(self, predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"], /) -> Float[Array, "*n"]: ...


def unreduced(part: str, losses: Array, shape: tuple[int, ...]) -> Array:
    """Returns losses as they are; raises `ConfigError` where their shape is another one.

    A loss that takes the mean by itself would be broadcast, and every prediction would learn the mean without a word.
    ``part`` is the argument that gave the losses, such as ``box_loss``.
    """
    if jnp.shape(losses) != shape:
        each = "box" if part == "box_loss" else "logit"
        raise ConfigError(
            f"{part} returns shape {list(jnp.shape(losses))}, not {list(shape)}: give a number for each {each}, "
            "without mean or sum"
        )
    return losses


def binary_cross_entropy(logits: Float[Array, "*n"], targets: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """``-y log sigmoid(x) - (1 - y) log(1 - sigmoid(x))``, exact to rounding over the range of float32.

    Logits must be finite. The loss evaluates one softplus, and its derivative is defined as ``sigmoid(x) - y``.
    `optax.losses.sigmoid_binary_cross_entropy` evaluates two softplus and took 2.6 times as long with its gradient on
    two CPU cores (13.8 against 5.3 ms for 2 million logits).
    """
    return _binary_cross_entropy(logits.astype(jnp.float32), targets.astype(jnp.float32))


@jax.custom_jvp
def _binary_cross_entropy(x: Array, y: Array) -> Array:
    return jnp.maximum(x, 0.0) - x * y + jnp.log1p(jnp.exp(-jnp.abs(x)))


@_binary_cross_entropy.defjvp
def _binary_cross_entropy_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # The derivatives that JAX defines for `maximum` and `abs` at 0 do not add up to sigmoid(0) = 1/2, and a head whose
    # weights start at zero begins exactly there. This derivative also takes half of the time.
    x, y = primals
    return _binary_cross_entropy(x, y), (jax.nn.sigmoid(x) - y) * tangents[0] - x * tangents[1]


def focal_loss(
    logits: Float[Array, "*n"], targets: Float[Array, "*n"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Array, "*n"]:
    """``alpha_t (1 - p_t)^gamma BCE`` (Lin et al. 2017, arXiv 1708.02002, equation 5), with ``gamma`` at least 1.

    ``p_t = p y + (1 - p)(1 - y)``, and ``alpha_t`` likewise, so that the loss interpolates between hard targets.
    """
    p = jax.nn.sigmoid(logits.astype(jnp.float32))
    wrong = p * (1.0 - targets) + (1.0 - p) * targets
    balance = alpha * targets + (1.0 - alpha) * (1.0 - targets)
    return balance * wrong**gamma * binary_cross_entropy(logits, targets)


def quality_focal_loss(
    logits: Float[Array, "*n"], targets: Float[Array, "*n"], *, beta: float = 2.0
) -> Float[Array, "*n"]:
    """``|y - sigmoid(x)|^beta BCE`` for soft targets ``y`` (Li et al. 2020, arXiv 2006.04388, equation 2)."""
    distance = jnp.abs(targets - jax.nn.sigmoid(logits.astype(jnp.float32)))
    return distance**beta * binary_cross_entropy(logits, targets)


def varifocal_loss(
    logits: Float[Array, "*n"], targets: Float[Array, "*n"], *, alpha: float = 0.75, gamma: float = 2.0
) -> Float[Array, "*n"]:
    """``y BCE`` where the target ``y > 0``, and ``alpha p^gamma BCE`` where it is 0.

    Negatives are weighed down and positives, which are rare, keep their weight (Zhang et al. 2020, arXiv 2008.13367,
    equation 2).
    """
    p = jax.nn.sigmoid(logits.astype(jnp.float32))
    weight = jnp.where(targets > 0, targets, alpha * p**gamma)
    return weight * binary_cross_entropy(logits, targets)


def with_class_weights(class_loss: ClassLoss, weights: Float[Array, " C"]) -> ClassLoss:
    """The same loss with each class (the last axis) multiplied by its weight."""

    def weighted(logits: Float[Array, "*n C"], targets: Float[Array, "*n C"], /) -> Float[Array, "*n C"]:
        return class_loss(logits, targets) * jnp.broadcast_to(weights, logits.shape)

    return weighted


def with_label_smoothing(class_loss: ClassLoss, epsilon: float) -> ClassLoss:
    """The same loss against targets ``y (1 - epsilon) + epsilon / 2``.

    Each class is a decision between yes and no, so this is the smoothing of Szegedy et al. (arXiv 1512.00567, section
    7) for two outcomes.
    """

    def smoothed(logits: Float[Array, "*n C"], targets: Float[Array, "*n C"], /) -> Float[Array, "*n C"]:
        return class_loss(logits, targets * (1.0 - epsilon) + 0.5 * epsilon)

    return smoothed


# Losses of boxes. They are 0 for identical boxes and bounded, so that no box dominates by its size. Values and
# gradients are finite for empty, inverted and huge boxes.


def box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - IoU`` of boxes (xyxy, any unit), in [0, 1].

    There is no gradient where the boxes do not meet. UnitBox (arXiv 1608.01471) takes ``-log IoU`` instead.
    """
    return 1.0 - paired_box_iou(predicted, target)


def squared_box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - IoU^2`` of boxes (xyxy, any unit), in [0, 1]: the box loss that YOLOX's authors published.

    There is no gradient where the boxes do not meet.
    """
    return 1.0 - paired_box_iou(predicted, target) ** 2


def generalized_box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - GIoU`` of boxes (xyxy, any unit), in [0, 2] (arXiv 1902.09630, algorithm 2)."""
    return 1.0 - paired_generalized_box_iou(predicted, target)


def distance_box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - DIoU`` of boxes (xyxy, any unit), in [0, 2] (arXiv 1911.08287, equation 7)."""
    return 1.0 - paired_distance_box_iou(predicted, target)


def complete_box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - CIoU`` of boxes (xyxy, any unit), in [0, 3] (arXiv 1911.08287, equation 10).

    The trade-off alpha carries no gradient.
    """
    return 1.0 - paired_complete_box_iou(predicted, target)


def scylla_box_iou_loss(predicted: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """``1 - SIoU`` of boxes (xyxy, any unit), in [0, 3] (arXiv 2205.12740, equation 16), with shape exponent 4."""
    return 1.0 - paired_scylla_box_iou(predicted, target)


def distribution_focal_loss(
    logits: Float[Array, "*batch bins"], targets: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """``-((y_{i+1} - y) log S_i + (y - y_i) log S_{i+1})`` with ``S = softmax(logits)``.

    ``targets`` are distances in bins (strides of the level), clipped to ``[0, bins - 1]``; ``y_i`` and ``y_{i+1}`` are
    the bins on either side. Reference: Li et al. 2020, arXiv 2006.04388, equation 6.
    """
    logits = logits.astype(jnp.float32)
    last = logits.shape[-1] - 1
    bins = jnp.broadcast_to(jnp.arange(last + 1, dtype=jnp.float32), logits.shape)
    # The weights max(0, 1 - |y - bin|) are the paper's two and 0 for all other bins, so nothing has to be gathered.
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(jnp.clip(targets, 0.0, last)[..., None] - bins))
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(weights * logits, axis=-1)
