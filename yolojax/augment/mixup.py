"""MixUp for detection: two images laid over each other, with the objects of both."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8

from yolojax.augment.boxes import fit_into_rows
from yolojax.augment.compose import Augmentation
from yolojax.augment.warp import to_uint8
from yolojax.errors import ConfigError
from yolojax.structures import Targets


def mixup(probability: float, *, alpha: float = 32.0) -> Augmentation:
    """With this probability an image is blended with another of the batch; the objects and crowd regions of both stay.

    The share of the image itself is drawn from ``Beta(alpha, alpha)``: near a half for a large ``alpha`` (32, as the
    trainers of the YOLO line have it), and nearly one of the two for a small one (1.5 in the paper). As there, objects
    count in full however faint they are. Of the up to ``2 M`` objects only ``M`` fit: what is left out, crowd regions
    first and then the smallest objects, is added to ``dropped``.

    Reference: Zhang et al. 2019, arXiv 1902.04103, section 3.1.
    """
    if not alpha > 0:
        raise ConfigError(f"mixup alpha = {alpha}: give a positive number")

    def mix(
        key: PRNGKeyArray, images: UInt8[Array, "B H W 3"], targets: Targets
    ) -> tuple[UInt8[Array, "B H W 3"], Targets]:
        batch, count = targets.valid.shape
        keys = jax.random.split(key, 3)
        chosen = jax.random.bernoulli(keys[0], probability, (batch,)) & (batch > 1)
        other = (jnp.arange(batch) + jax.random.randint(keys[1], (batch,), 1, max(batch, 2))) % batch
        share = jax.random.beta(keys[2], alpha, alpha, (batch, 1, 1, 1))
        blended = to_uint8(share * images.astype(jnp.float32) + (1 - share) * images[other].astype(jnp.float32))
        boxes, classes, valid, crowd = (jnp.concatenate([a, a[other]], 1) for a in targets[:4])
        both = Targets(boxes, classes, valid, crowd, targets.dropped + targets.dropped[other])
        mixed = fit_into_rows(both, count)

        def select(new: Array, old: Array) -> Array:
            return jnp.where(chosen.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

        return select(blended, images), jax.tree.map(select, mixed, targets)

    return mix
