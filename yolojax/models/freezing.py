"""Normalisation of frozen parts of a network: with their running statistics, which then do not move."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flax import linen as nn

from yolojax.models.layers import BatchNorm


@contextmanager
def frozen_statistics(parts: Sequence[str]) -> Iterator[None]:
    """Within the block, `BatchNorm` below these parts normalises as at inference, whatever ``train`` says.

    ``parts`` are paths of modules, such as ``backbone`` or ``neck/top_down0``. A frozen part that went on normalising
    with each batch's own statistics would compute another function in training than afterwards. For use around
    `Network.apply`, while it is traced.
    """
    wanted = [tuple(part.split("/")) for part in parts]

    def intercept(
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        path = context.module.path
        if (
            isinstance(context.module, BatchNorm)
            and context.method_name == "__call__"
            and any(path[: len(part)] == part for part in wanted)
        ):
            return next_call(args[0] if args else kwargs["x"], train=False)
        return next_call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield
