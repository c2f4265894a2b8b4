"""Element-wise, unreduced losses of logits: binary cross entropy and its focal relatives, in float32."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def binary_cross_entropy(logits: Float[Array, "*n"], targets: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """``-y log sigmoid(x) - (1 - y) log(1 - sigmoid(x))`` for targets ``y`` in [0, 1], exact over all of float32.

    As ``max(x, 0) - x y + log(1 + exp(-|x|))``: `optax.losses.sigmoid_binary_cross_entropy` evaluates a softplus for
    either term and takes several times as long on a CPU.
    """
    logits = logits.astype(jnp.float32)
    return jnp.maximum(logits, 0.0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))
