"""A network is a backbone, a neck and a head; its parameters lie under exactly these three names."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from yolojax.models.layers import Conv, kernel_bound


class Network(nn.Module):
    """Images ``[B, H, W, 3]`` to whatever the head gives. ``train`` normalises with the batch's own statistics."""

    backbone: nn.Module
    neck: nn.Module
    head: nn.Module

    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> Any:
        return self.head(self.neck(self.backbone(images, train), train), train)


def init_variables(network: Network, key: PRNGKeyArray, input_size: tuple[int, int]) -> dict[str, Any]:
    """``{"params": {"backbone", "neck", "head"}, "batch_stats": ...}`` for images of ``input_size = (h, w)``.

    Nothing is computed but the parameters. A part without parameters is an empty dict.
    """
    image = jax.ShapeDtypeStruct((1, *input_size, 3), jnp.float32)

    @jax.jit
    def init(key: PRNGKeyArray) -> dict[str, Any]:
        variables = network.lazy_init(key, image, train=True)
        return {**variables, "params": _draw_kernels(dict(variables["params"]), key)}

    variables = init(key)
    params = {part: variables["params"].get(part, {}) for part in ("backbone", "neck", "head")}
    return {"params": params, "batch_stats": variables.get("batch_stats", {})}


def _draw_kernels(params: dict[str, Any], key: PRNGKeyArray) -> dict[str, Any]:
    """Every kernel drawn by the law of `kernel_init`, but all from one call of the generator.

    XLA compiles the generator anew for every call: at one for each kernel that took 20 s of processor time for a small
    detector, and takes a second so. What the modules drew themselves is then unused and never computed.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    is_kernel = [path[-1].key == "kernel" for path, _ in leaves]
    total = sum(x.size for (_, x), kernel in zip(leaves, is_kernel, strict=True) if kernel)
    drawn, start, values = jax.random.uniform(key, (total,), minval=-1.0, maxval=1.0), 0, []
    for (_, x), kernel in zip(leaves, is_kernel, strict=True):
        if kernel:
            values.append(drawn[start : start + x.size].reshape(x.shape) * kernel_bound(x.shape))
            start += x.size
        else:
            values.append(x)
    return jax.tree.unflatten(tree, values)


def parameter_count(variables: dict[str, Any]) -> int:
    """Number of trained values; running statistics do not count."""
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def convolution_flops(forward: Callable[[Float[Array, "1 H W 3"]], Any], input_size: tuple[int, int]) -> int:
    """Floating-point operations of the convolutions in ``forward``, a multiplication and an addition counting as two.

    This is the definition of published tables; it does not depend on how a convolution is lowered.
    """
    total = 0

    def count(next_call, args, kwargs, context):
        nonlocal total
        out = next_call(*args, **kwargs)
        if isinstance(context.module, Conv) and context.method_name == "__call__":
            conv = context.module
            per_value = conv.kernel_size**2 * (args[0].shape[-1] // conv.groups)
            total += 2 * per_value * out.size
        return out

    image = jax.ShapeDtypeStruct((1, *input_size, 3), jnp.float32)
    with nn.intercept_methods(count):
        # A function of its own each time: one that had been traced before would not be run again.
        jax.eval_shape(lambda image: forward(image), image)
    return total
