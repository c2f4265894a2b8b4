"""Keeping the arrays of frozen parts (`yolojax.detector.freeze_mask`)."""

import jax
from jaxtyping import PyTree


def keep_frozen(frozen: PyTree, new: PyTree, old: PyTree) -> PyTree:
    """Takes ``old`` where ``frozen``, to the byte, and ``new`` elsewhere."""
    return jax.tree.map(lambda is_frozen, a, b: b if is_frozen else a, frozen, new, old)
