"""The BatchNorm of a whole network: folded into kernels, unfolded again, measured on images, frozen in training."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from yolojax.models.layers import BatchNorm

Path = tuple[str, ...]


@contextmanager
def noting_folds(found: dict[Path, float]) -> Iterator[None]:
    """Notes what `fold_batch_norm` can fold, while a network is traced: paths of normalised convolutions, and epsilons.

    Those are modules such as `yolojax.models.layers.ConvBNAct`, whose ``norm`` follows their ``conv`` directly. A
    compiled function that was traced before is not traced again, and nothing is noted.
    """

    def note(next_call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if (
            isinstance(module, BatchNorm)
            and context.method_name == "__call__"
            and getattr(type(module.parent), "folds_norm", False)
        ):
            found[tuple(module.path[:-1])] = module.epsilon
        return next_call(*args, **kwargs)

    with nn.intercept_methods(note):
        yield


def norm_gain(norm: Mapping[str, Any], running: Mapping[str, Any], epsilon: float) -> Any:
    """What folding multiplies each channel by, ``scale / sqrt(var + epsilon)``; NumPy's arrays stay NumPy's."""
    variance = running["var"] + np.float32(epsilon)
    return norm["scale"] / (np.sqrt(variance) if isinstance(variance, np.ndarray) else jnp.sqrt(variance))


def fold_batch_norm(variables: dict[str, Any], folds: Mapping[Path, float]) -> dict[str, Any]:
    """Folds batch normalisation into the convolutions before it.

    ``{"conv", "norm"}`` at each path of ``folds`` becomes ``{"conv": {"kernel", "bias"}}`` with
    ``kernel' = kernel * scale / sqrt(var + epsilon)`` and ``bias' = bias - mean * scale / sqrt(var + epsilon)``, and
    its running statistics go. Everything else stays, including variables that are folded already. Arrays of NumPy are
    folded by NumPy, so that nothing is compiled.

    Args:
      variables: nested dicts with ``params`` and ``batch_stats``.
      folds: paths and epsilons, from `noting_folds`.
    """
    params, stats = _fold(variables["params"], variables.get("batch_stats", {}), folds, ())
    return {**variables, "params": params, "batch_stats": stats}


def _fold(
    params: dict[str, Any], stats: dict[str, Any], folds: Mapping[Path, float], path: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    if path in folds and "norm" in params:
        norm, running = params["norm"], stats["norm"]
        gain = norm_gain(norm, running, folds[path])
        kernel = params["conv"]["kernel"] * gain.reshape(1, 1, 1, -1)
        return {"conv": {"kernel": kernel, "bias": norm["bias"] - running["mean"] * gain}}, {}
    new_params, new_stats = dict(params), dict(stats)
    for name, value in params.items():
        if isinstance(value, dict):
            new_params[name], own = _fold(value, stats.get(name, {}), folds, (*path, name))
            if own:
                new_stats[name] = own
            else:
                new_stats.pop(name, None)
    return new_params, new_stats


def unfold_batch_norm(variables: dict[str, Any], epsilon: float) -> dict[str, Any]:
    """Turns folded variables back into trainable ones that compute the same: the inverse of `fold_batch_norm`.

    Every ``{"conv": {"kernel", "bias"}}`` gets a ``norm`` that is the identity but for the bias: scale 1, mean 0,
    variance ``1 - epsilon``. `fold_batch_norm` then gives the same values back bit for bit. Which part of a kernel was
    once a scale cannot be recovered.

    Inference is unchanged, but these are not the statistics of the network's activations. Training normalises with
    the statistics of the batch, so its first step computes something else than the published network does, and loses
    what that network knew. Before training on, therefore, either measure the statistics
    (`yolojax.zoo.measure_statistics`), or freeze the parts.
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


def measure_batch_norm(
    forward: Callable[[dict[str, Any], Float[Array, "B H W 3"]], Any],
    variables: dict[str, Any],
    batches: Iterable[Float[Array, "B H W 3"]],
) -> dict[str, Any]:
    """Gives every BatchNorm the statistics of its activations on ``batches`` of images; inference stays the same.

    A normalisation ``x * gain + shift`` becomes one by the measured mean and variance, whose scale and bias undo
    exactly that: ``scale = gain * sqrt(var + epsilon)``, ``bias = shift + mean * gain``. Training, which normalises
    with the statistics of its batch, then starts from what the network computes already.

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
        # What inference does not run, such as an auxiliary branch, keeps its statistics.
        new_params, new_stats = {}, dict(stats)
        for name, value in params.items():
            if isinstance(value, dict):
                new_params[name], own = measured(value, stats.get(name, {}), (*path, name))
                if own:
                    new_stats[name] = own
            else:
                new_params[name] = value
        return new_params, new_stats

    params, stats = measured(variables["params"], variables["batch_stats"], ())
    return {**variables, "params": params, "batch_stats": stats}


@contextmanager
def frozen_statistics(parts: Sequence[str]) -> Iterator[None]:
    """Within the block, batch normalisation below these parts works as at inference, whatever ``train`` says.

    A frozen part that went on normalising with the statistics of each batch would compute another function in training
    than afterwards. This holds for the library's own `BatchNorm` and for ``flax.linen.BatchNorm``. The block must
    surround the tracing of ``network.apply``.

    Args:
      parts: paths of modules, such as ``backbone`` or ``neck/down0``.
    """
    wanted = [tuple(part.split("/")) for part in parts]

    def intercept(
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module, path = context.module, context.module.path
        below = context.method_name == "__call__" and any(path[: len(part)] == part for part in wanted)
        if below and isinstance(module, BatchNorm):
            return next_call(args[0] if args else kwargs["x"], train=False)
        if below and isinstance(module, nn.BatchNorm):
            own = module.use_running_average
            # Flax refuses the argument where the attribute is set as well, so the attribute carries it.
            object.__setattr__(module, "use_running_average", True)
            try:
                return next_call(*args[:1], **{k: v for k, v in kwargs.items() if k != "use_running_average"})
            finally:
                object.__setattr__(module, "use_running_average", own)
        return next_call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield
