"""What an augmentation is, and how several make one."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array, PRNGKeyArray, UInt8

from yolojax.structures import Targets


@runtime_checkable
class Augmentation(Protocol):
    """A pure function on a batch: uint8 RGB input images ``[B, H, W, 3]`` and their `Targets` in, the same shapes
    out."""

    def __call__(
        self, key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]: ...


def compose(augmentations: Sequence[Augmentation]) -> Augmentation:
    """One augmentation that applies the given ones in order, each with a key of its own."""

    def composed(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        for i, augmentation in enumerate(augmentations):
            images, targets = augmentation(jax.random.fold_in(key, i), images, targets)
        return images, targets

    return composed
