"""The order in which a network's convolutions run, and their arrays in the layout of Darknet's weight files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.layers import Conv

Path = tuple[str, ...]
"""Names from the part down to the convolution's own parameters."""


def convolutions_in_order(forward: Callable[[Float[Array, "1 H W 3"]], Any], input_size: tuple[int, int]) -> list[Path]:
    """Lists the path of every convolution that ``forward`` runs, in order. Nothing is computed."""
    paths: list[Path] = []

    def note(next_call, args, kwargs, context):
        if isinstance(context.module, Conv) and context.method_name == "__call__":
            paths.append(tuple(context.module.path))
        return next_call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda image: forward(image), jax.ShapeDtypeStruct((1, *input_size, 3), jnp.float32))
    return paths


def in_groups(paths: Sequence[Path], groups: Sequence[str]) -> list[Path]:
    """Sorts paths by group: first those below ``groups[0]``, such as ``neck/set2``, then those below ``groups[1]``.

    Within a group the order stays. Every path must lie below exactly one group.
    """
    sorted_paths = [
        path for group in groups for path in paths if "/".join(path).startswith(f"{group}/") or "/".join(path) == group
    ]
    assert sorted(sorted_paths) == sorted(paths), set(paths) ^ set(sorted_paths)
    return sorted_paths


def _at(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree.get(name, {})
    return tree


def arrays_at(variables: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    """One convolution's arrays as `yolojax.weights.darknet` names and lays them out."""
    own, around = _at(variables["params"], path), _at(variables["params"], path[:-1])
    kernel = np.asarray(own["kernel"]).transpose(3, 2, 0, 1)
    if path[-1] != "conv" or "norm" not in around:
        return {"bias": np.asarray(own["bias"]), "kernel": kernel}
    norm, running = around["norm"], _at(variables["batch_stats"], path[:-1])["norm"]
    stored = {"bias": norm["bias"], "scale": norm["scale"], "mean": running["mean"], "var": running["var"]}
    return {**{name: np.asarray(value) for name, value in stored.items()}, "kernel": kernel}


def put_arrays(variables: dict[str, Any], path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """The inverse of `arrays_at`, into nested dicts that grow as needed."""
    *parents, last = path

    def node(collection: str) -> dict[str, Any]:
        inner = variables.setdefault(collection, {})
        for name in parents:
            inner = inner.setdefault(name, {})
        return inner

    kernel = np.ascontiguousarray(arrays["kernel"].transpose(2, 3, 1, 0))
    if "scale" not in arrays:
        node("params")[last] = {"kernel": kernel, "bias": arrays["bias"]}
        return
    node("params")[last] = {"kernel": kernel}
    node("params")["norm"] = {"scale": arrays["scale"], "bias": arrays["bias"]}
    node("batch_stats")["norm"] = {"mean": arrays["mean"], "var": arrays["var"]}
