"""Folding batch normalisation into the convolution before it, for inference."""

from typing import Any

import jax.numpy as jnp
from jax import lax


def fold_batch_norm(variables: dict[str, Any], epsilon: float) -> dict[str, Any]:
    """The variables of the same network built with ``Style(folded=True)``.

    Every ``{"conv", "norm"}`` pair becomes ``{"conv": {"kernel", "bias"}}`` with
    ``kernel' = kernel * scale / sqrt(var + epsilon)`` and ``bias' = bias - mean * scale / sqrt(var + epsilon)``.
    ``epsilon`` must be the one the network was built with. ``batch_stats`` is empty afterwards.
    """
    return {"params": _fold(variables["params"], variables["batch_stats"], epsilon), "batch_stats": {}}


def _fold(params: dict[str, Any], stats: dict[str, Any], epsilon: float) -> dict[str, Any]:
    if "conv" in params and "norm" in params:
        norm, running = params["norm"], stats["norm"]
        gain = norm["scale"] * lax.rsqrt(running["var"] + jnp.float32(epsilon))
        return {
            "conv": {
                "kernel": params["conv"]["kernel"] * gain.reshape(1, 1, 1, -1),
                "bias": norm["bias"] - running["mean"] * gain,
            }
        }
    return {
        name: _fold(value, stats.get(name, {}), epsilon) if isinstance(value, dict) else value
        for name, value in params.items()
    }
