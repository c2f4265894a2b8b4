"""Measured BatchNorm statistics for a network whose normalisation was folded away."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from yolojax.models.layers import BatchNorm


def measure_batch_norm(
    forward: Callable[[dict[str, Any], Float[Array, "B H W 3"]], Any],
    variables: dict[str, Any],
    batches: Iterable[Float[Array, "B H W 3"]],
) -> dict[str, Any]:
    """Variables that compute the same in inference, with the statistics that ``batches`` of images give.

    A normalisation ``x * gain + shift`` becomes one by the measured mean and variance, whose scale and bias undo just
    that: ``scale = gain * sqrt(var + epsilon)``, ``bias = shift + mean * gain``. Training, which normalises with the
    statistics of its batch, then starts from what the network computes already.

    Args:
      forward: inference, ``(variables, images) -> outputs``.
      variables: unfolded, e.g. by `unfold_batch_norm`.
      batches: images as ``forward`` takes them, each batch of the same weight; at least one.
    """
    epsilons: dict[tuple[str, ...], float] = {}

    @jax.jit
    def moments(variables: dict[str, Any], images: Float[Array, "B H W 3"]) -> dict[str, tuple[Array, Array]]:
        seen = {}

        def record(next_call, args, kwargs, context):
            if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
                path, x = context.module.path, args[0].astype(jnp.float32)
                epsilons[path] = context.module.epsilon
                seen["/".join(path)] = jnp.mean(x, (0, 1, 2)), jnp.mean(lax.square(x), (0, 1, 2))
            return next_call(*args, **kwargs)

        with nn.intercept_methods(record):
            forward(variables, images)
        return seen

    found = [moments(variables, images) for images in batches]
    mean_moments = jax.tree.map(lambda *values: sum(values) / len(values), *found)

    def measured(params: dict[str, Any], stats: dict[str, Any], path: tuple[str, ...]) -> tuple[Any, Any]:
        if path in epsilons:
            epsilon = epsilons[path]
            gain = params["scale"] * lax.rsqrt(stats["var"] + epsilon)
            shift = params["bias"] - stats["mean"] * gain
            mean, square = mean_moments["/".join(path)]
            var = jnp.maximum(square - lax.square(mean), 0.0)
            own = {"scale": gain * jnp.sqrt(var + epsilon), "bias": shift + mean * gain}
            return own, {"mean": mean, "var": var}
        new_params, new_stats = {}, {}
        for name, value in params.items():
            if isinstance(value, dict):
                new_params[name], own = measured(value, stats.get(name, {}), (*path, name))
                if own:
                    new_stats[name] = own
            else:
                new_params[name] = value
        return new_params, new_stats

    params, stats = measured(variables["params"], variables["batch_stats"], ())
    return {"params": params, "batch_stats": stats}
