"""Which parameters do not move."""

from collections.abc import Sequence

import jax
from jaxtyping import PyTree

from yolojax.errors import ConfigError


def frozen_leaves(tree: PyTree, parts: Sequence[str]) -> PyTree:
    """True for every leaf below one of the ``parts``, such as ``backbone`` or ``head/level0``: paths, whole names only.

    ``tree`` is the ``params`` or the ``batch_stats`` of a detector; both have the same module names.
    """
    prefixes = [tuple(part.split("/")) for part in parts]

    def is_frozen(path: tuple, _: object) -> bool:
        names = _names(path)
        return any(names[: len(prefix)] == prefix for prefix in prefixes)

    return jax.tree_util.tree_map_with_path(is_frozen, tree)


def check_parts(params: PyTree, parts: Sequence[str]) -> None:
    """Raises `ConfigError` for a part that holds no parameter, and when nothing is left to train."""
    paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for part in parts:
        prefix = tuple(part.split("/"))
        depth = next(n for n in range(len(prefix), -1, -1) if any(p[:n] == prefix[:n] for p in paths))
        if depth < len(prefix):
            known = sorted({"/".join(p[: depth + 1]) for p in paths if p[:depth] == prefix[:depth]})
            raise ConfigError(f"freeze = {part!r}: the detector has no such part; there are {', '.join(known)}")
    if all(jax.tree.leaves(frozen_leaves(params, parts))):
        raise ConfigError(f"freeze = {', '.join(parts)}: nothing is left to train")


def keep_frozen(frozen: PyTree, new: PyTree, old: PyTree) -> PyTree:
    """``new``, but ``old`` where ``frozen``, to the byte."""
    return jax.tree.map(lambda is_frozen, a, b: b if is_frozen else a, frozen, new, old)


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
