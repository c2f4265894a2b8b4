"""A network is a backbone, a neck and a head. Its initial variables, and their number and operations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from yolojax.models.layers import BatchNorm, Conv, kernel_bound, kernel_init


class Network(nn.Module):
    """Maps images ``[B, H, W, 3]`` to what the head returns. ``train`` normalises with the batch's own statistics.

    The parameters lie under ``backbone``, ``neck`` and ``head``.
    """

    backbone: nn.Module
    neck: nn.Module
    head: nn.Module

    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> Any:
        return self.head(self.neck(self.backbone(images, train), train), train)


def init_variables(network: nn.Module, key: PRNGKeyArray, input_size: tuple[int, int]) -> dict[str, Any]:
    """Draws the initial variables of a network for images of ``input_size = (h, w)``; the network is not run.

    Every parameter has the value that its module's initialiser gives it. The kernels of `Conv` with its default
    initialiser, and of ``flax.linen.Dense`` with the same one, follow the law of `kernel_init`, but come from one call
    of the generator for all of them: XLA compiles the generator anew for every call, which took 20 s of processor time
    for a small detector. The arithmetic of `Conv` and `BatchNorm` is not traced either (a `Conv` answers with zeros):
    it took half of the time. A module whose initial values depend on its input therefore sees zeros.

    Args:
      network: called as ``network(images, train=...)``.
      key: for the parameters.
      input_size: ``(height, width)`` in pixels.

    Returns:
      ``{"params": ..., "batch_stats": ...}`` and whatever other collections the network has. A `Network` without
      parameters in one of its three parts has an empty dict there.
    """
    deferred: dict[tuple[str, ...], tuple[int, ...]] = {}

    def defer(next_call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if (answer := _shape_alone(context, args)) is not None:
            return answer
        if (
            not isinstance(module, Conv | nn.Dense)
            or context.method_name != "__call__"
            or module.kernel_init is not kernel_init
        ):
            return next_call(*args, **kwargs)

        def placeholder(_: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
            deferred[module.path] = shape
            return jnp.zeros(shape, dtype)

        object.__setattr__(module, "kernel_init", placeholder)
        try:
            return next_call(*args, **kwargs)
        finally:
            object.__setattr__(module, "kernel_init", kernel_init)

    @jax.jit  # what follows from the image is not returned, and therefore not compiled
    def init(key: PRNGKeyArray) -> Any:
        return network.init(key, jnp.zeros((1, *input_size, 3)), train=True)

    with nn.intercept_methods(defer):
        variables = dict(init(key))
    params = _draw_kernels(variables.pop("params", {}), deferred, key)
    if isinstance(network, Network):
        params = {part: params.get(part, {}) for part in ("backbone", "neck", "head")}
    return {**variables, "params": params, "batch_stats": variables.get("batch_stats", {})}


def _shape_alone(context: nn.module.InterceptorContext, args: Any) -> Array | None:
    """Answers the arithmetic of `Conv` and `BatchNorm` with an array of the right shape; None for any other method."""
    module, method = context.module, context.method_name
    if isinstance(module, BatchNorm) and method == "normalise":
        return args[0]
    if isinstance(module, Conv) and method == "apply_kernel":
        return jnp.zeros(module.output_shape(args[0].shape), module.dtype)
    return None


def _draw_kernels(params: Any, deferred: dict[tuple[str, ...], tuple[int, ...]], key: PRNGKeyArray) -> Any:
    """Puts kernels by the law of `kernel_init` in the places of those that were deferred, all from one draw.

    ``deferred`` has the shape that each `Conv` asked for; a lifted module (`flax.linen.vmap`) has several of it.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    names = [tuple(jax.tree_util.keystr((one,), simple=True) for one in path) for path, _ in leaves]
    shapes = [deferred.get(path[:-1]) if path[-1] == "kernel" else None for path in names]
    total = sum(x.size for (_, x), shape in zip(leaves, shapes, strict=True) if shape is not None)
    drawn, start, values = jax.random.uniform(key, (total,), minval=-1.0, maxval=1.0), 0, []
    for (_, x), shape in zip(leaves, shapes, strict=True):
        if shape is None:
            values.append(x)
        else:
            values.append(drawn[start : start + x.size].reshape(x.shape) * kernel_bound(shape))
            start += x.size
    return jax.tree.unflatten(tree, values)


def parameter_count(variables: dict[str, Any]) -> int:
    """Counts the trained values; running statistics do not count."""
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def convolution_flops(
    forward: Callable[[Float[Array, "1 H W 3"]], Any], input_size: tuple[int, int], unused: tuple[str, ...] = ()
) -> int:
    """Counts the floating-point operations of the convolutions and linear layers in ``forward`` on one image.

    A multiplication and an addition count as two; products of attention are not counted. This is the definition of
    published tables; it does not depend on how a convolution is lowered. Modules below the paths in ``unused``, such as
    ``head/one_to_many``, are not counted.
    """
    skipped = [tuple(path.split("/")) for path in unused]
    total = 0

    def count(next_call, args, kwargs, context):
        nonlocal total
        if (answer := _shape_alone(context, args)) is not None:
            return answer
        out = next_call(*args, **kwargs)
        path = context.module.path
        counted = not any(path[: len(one)] == one for one in skipped)
        if counted and isinstance(context.module, Conv) and context.method_name == "__call__":
            conv = context.module
            per_value = conv.kernel_size**2 * (args[0].shape[-1] // conv.groups)
            total += 2 * per_value * out.size
        elif counted and isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            total += 2 * args[0].shape[-1] * out.size
        return out

    image = jax.ShapeDtypeStruct((1, *input_size, 3), jnp.float32)
    with nn.intercept_methods(count):
        # A function of its own each time: one that had been traced before would not be run again.
        jax.eval_shape(lambda image: forward(image), image)
    return total
