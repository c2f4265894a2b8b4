"""Distribution focal loss (Li et al. 2020, arXiv 2006.04388): a distance learnt as a distribution over bins."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def distribution_focal_loss(
    logits: Float[Array, "*batch bins"], targets: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """``-((y_{i+1} - y) log S_i + (y - y_i) log S_{i+1})`` with ``S = softmax(logits)``, unreduced (equation 6).

    ``targets`` are distances in bins (strides of the level), clipped to ``[0, bins - 1]``. Written with the weights
    ``max(0, 1 - |y - bin|)``, which are the paper's two and 0 elsewhere, so that nothing is gathered.
    """
    logits = logits.astype(jnp.float32)
    last = logits.shape[-1] - 1
    bins = jnp.broadcast_to(jnp.arange(last + 1, dtype=jnp.float32), logits.shape)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(jnp.clip(targets, 0.0, last)[..., None] - bins))
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(weights * logits, axis=-1)
