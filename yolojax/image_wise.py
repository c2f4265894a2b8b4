"""Functions that treat every image by itself, run without communication where a batch is split over devices.

XLA's partitioner does not see that top-k, scatters and loops over a batch touch one image at a time. It collects the
whole batch on every device first (for `lax.top_k` and scatters) or synchronises every round (for a vmapped loop).
Inside `jax.shard_map` each device sees its own images only.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

_split = jax.make_user_context(None)
"""How the batches of the program that is being traced lie on devices; None where that is not known."""


def by_image(function: Callable[..., Any], split: NamedSharding, *, shared: int = 0) -> Callable[..., Any]:
    """Returns the same function, run by each device on its own images.

    Args:
      function: of pytrees with a leading batch axis, to pytrees with one; no image may influence another.
      split: how a batch lies on the devices.
      shared: how many of the last arguments belong to no image and are the same for all.
    """
    rows, whole = split.spec, PartitionSpec()

    def split_up(*arguments: Any) -> Any:
        specs = (rows,) * (len(arguments) - shared) + (whole,) * shared
        # The check of what varies between devices is off, because loops that begin with a constant would fail it.
        return jax.shard_map(function, mesh=split.mesh, in_specs=specs, out_specs=rows, check_vma=False)(*arguments)

    return split_up


def split_over(split: NamedSharding) -> AbstractContextManager[None]:
    """Within this context programs are traced for batches that lie on devices so, which `image_wise` heeds."""
    return _split(split)


def image_wise(function: Callable[..., Any], *arguments: Any, shared: int = 0) -> Any:
    """Returns ``function(*arguments)``; within `split_over` each device computes its own images (`by_image`).

    For parts of a network whose other parts must see the whole batch, such as BatchNorm. The arguments are as for
    `by_image`; the function must not close over arrays that are traced.
    """
    split = _split.value
    return function(*arguments) if split is None else by_image(function, split, shared=shared)(*arguments)
