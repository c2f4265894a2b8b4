"""Folding batch normalisation into the convolution before it, for inference."""

from typing import Any

import jax.numpy as jnp
import numpy as np
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


def unfold_batch_norm(variables: dict[str, Any], epsilon: float) -> dict[str, Any]:
    """The variables of the unfolded network that computes the same as these folded ones: the inverse of folding.

    Every ``{"conv": {"kernel", "bias"}}`` gets a ``norm`` that is the identity but for the bias: scale 1, mean 0,
    variance ``1 - epsilon``. `fold_batch_norm` then gives the same values back bit for bit. Which part of a kernel was
    once a scale is not recoverable.

    Inference is unchanged, but these are not the statistics of the network's activations. Training normalises with
    those of the batch, so its first step computes something else than the published network does, and loses what that
    knew. So before training on, either measure the statistics (`yolojax.zoo.measure_statistics`), or keep the
    running statistics frozen.
    """
    params, stats = _unfold(variables["params"], epsilon)
    return {"params": params, "batch_stats": stats}


def _unfold(params: dict[str, Any], epsilon: float) -> tuple[dict[str, Any], dict[str, Any]]:
    if set(params) == {"conv"} and set(params["conv"]) == {"kernel", "bias"}:
        bias = params["conv"]["bias"]
        norm = {"scale": np.ones_like(bias), "bias": bias}
        running = {"mean": np.zeros_like(bias), "var": np.full_like(bias, np.float32(1) - np.float32(epsilon))}
        return {"conv": {"kernel": params["conv"]["kernel"]}, "norm": norm}, {"norm": running}
    new_params, stats = {}, {}
    for name, value in params.items():
        if isinstance(value, dict):
            new_params[name], own = _unfold(value, epsilon)
            if own:
                stats[name] = own
        else:
            new_params[name] = value
    return new_params, stats
