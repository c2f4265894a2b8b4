"""Loss and gradient of a batch, computed in one pass or in several equal parts with the same result."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from yolojax.detector import Detector, Variables
from yolojax.processor.platform import by_platform
from yolojax.structures import Hyper, LossTerms, Targets


class Gradient(NamedTuple):
    """Loss and gradient of one batch.

    Attributes:
      loss: ``terms.reduce()``: one number.
      parts: the parts of the loss by name; they add up to ``loss``.
      terms: the unreduced loss.
      parameters: the gradient of ``loss`` with respect to ``params``.
      state: the new collections beside ``params``, such as ``{"batch_stats": ...}``.
    """

    loss: Float[Array, ""]
    parts: dict[str, Float[Array, ""]]
    terms: LossTerms
    parameters: PyTree
    state: Variables


GradientOf = Callable[[Detector, Variables, Float[Array, "B H W 3"], Targets, PRNGKeyArray, Hyper], Gradient]


def whole_gradient(
    detector: Detector,
    variables: Variables,
    images: Float[Array, "B H W 3"],
    targets: Targets,
    key: PRNGKeyArray,
    hyper: Hyper,
) -> Gradient:
    """Computes loss and gradient of the whole batch in one forward and backward pass."""
    carried = {name: value for name, value in variables.items() if name != "params"}

    def loss_of(params: PyTree) -> tuple[Float[Array, ""], tuple[LossTerms, dict, Variables]]:
        outputs, state = detector.forward_train({**variables, "params": params}, images, targets, key)
        with jax.named_scope("loss"):
            terms = detector.loss(outputs, targets, hyper)
            loss, parts = terms.reduce()
        return loss, (terms, parts, {**carried, **state})

    (loss, (terms, parts, state)), gradient = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
    return Gradient(loss, parts, terms, gradient, state)


def accumulated_gradient(count: int) -> GradientOf:
    """Returns a function that computes loss and gradient in ``count`` equal parts of the batch, one after the other.

    Only the activations of one part are in memory at a time. The result equals `whole_gradient` up to rounding where
    the network treats each image by itself; BatchNorm does not, and normalises each part by the part's own statistics.

    The divisor of a loss is known only after the last part. Therefore the gradients of undivided sums are added up,
    one for each *different* divisor among the parts of the loss. Detectors whose parts share a divisor, as most do,
    pay nothing for it.

    A part takes every ``count``-th image. Of a batch that is split over devices each device so keeps its own images.
    """

    def gradient_of(
        detector: Detector,
        variables: Variables,
        images: Float[Array, "B H W 3"],
        targets: Targets,
        key: PRNGKeyArray,
        hyper: Hyper,
    ) -> Gradient:
        def split(x: Array) -> Array:
            return jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)

        def join(x: Array) -> Array:
            return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])

        groups: dict[str, int] = {}  # for each part of the loss, the index of its divisor among the different ones

        @jax.jit  # traced once, though both the shapes and the loop ask for it
        def one(state: Variables, images: Array, targets: Targets, key: PRNGKeyArray, hyper: Hyper) -> tuple:
            def sums_of(params: PyTree) -> tuple[list[Array], tuple[LossTerms, Variables]]:
                outputs, new = detector.forward_train({**state, "params": params}, images, targets, key)
                with jax.named_scope("loss"):
                    terms = detector.loss(outputs, targets, hyper)
                divisors: list[Array] = []
                for name, divisor in terms.normalisers.items():
                    known = [i for i, other in enumerate(divisors) if other is divisor]
                    groups[name] = known[0] if known else len(divisors)
                    divisors += [] if known else [divisor]
                sums = [
                    sum((jnp.sum(terms.sums[n]) for n in groups if groups[n] == i), start=jnp.float32(0))
                    for i in range(len(divisors))
                ]
                return sums, (terms, new)

            sums, pull_back, (terms, new) = jax.vjp(sums_of, variables["params"], has_aux=True)
            units = [[jnp.float32(i == j) for j in range(len(sums))] for i in range(len(sums))]
            return [pull_back(unit)[0] for unit in units], terms, {**state, **new}

        def step(carry: tuple[list[PyTree], Variables], part: tuple) -> tuple[tuple, LossTerms]:
            gradients, state = carry
            more, terms, new = one(state, *part, hyper)
            return (jax.tree.map(jnp.add, gradients, more), new), terms

        state = {name: value for name, value in variables.items() if name != "params"}
        parts = (split(images), jax.tree.map(split, targets), jax.random.split(key, count))
        shapes = jax.eval_shape(one, state, *jax.tree.map(lambda x: x[0], parts), hyper)[0]
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        # A rolled loop around convolutions is some twenty times slower on XLA's CPU backend (jax issue 12868).
        loop = partial(jax.lax.scan, step)
        (gradients, state), stacked = by_platform((zero, state), parts, cpu=partial(loop, unroll=count), default=loop)
        terms: LossTerms = jax.tree.map(join, stacked)
        loss, of_parts = terms.reduce()
        first = {index: name for name, index in reversed(groups.items())}
        divisors = [jnp.maximum(jnp.sum(terms.normalisers[first[i]]), 1.0) for i in range(len(first))]
        total = jax.tree.map(lambda *of_groups: sum(g / divisors[i] for i, g in enumerate(of_groups)), *gradients)
        return Gradient(loss, of_parts, terms, total, state)

    return gradient_of
