"""Boxes as distributions over unequal steps around a first box: D-FINE's fine-grained distribution refinement.

D-FINE, arXiv 2410.13842, section 4.1. Boxes here are ``(centre x, centre y, width, height)`` as fractions of the image,
as in all transformers that descend from DETR.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from yolojax.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh


def refinement_steps(bins: int, limit: float = 0.5, scale: float = 4.0) -> Float[np.ndarray, " bins"]:
    """The value of each bin: small steps near 0, large ones far away (arXiv 2410.13842, equation 3).

    Args:
      bins: how many; odd, at least 5. The middle one is 0, the values are symmetric.
      limit: ``a`` in the paper: the last but one bin is about ``limit * scale``, the last twice that.
      scale: ``c`` in the paper: the larger, the more equal the steps.

    Raises:
      ValueError: an even number of bins, or fewer than 5.
    """
    if bins < 5 or bins % 2 == 0:
        raise ValueError(f"{bins} bins: give an odd number of at least 5")
    top = abs(limit) * abs(scale)
    half = (bins - 1) // 2
    inner = (top + 1) ** (np.arange(1, half) / (half - 1)) - 1
    right = np.concatenate([inner, [2 * top]])
    return np.concatenate([-right[::-1], [0.0], right]).astype(np.float32)


def refinement_offsets(logits: Float[Array, "*b _n"], steps: Float[np.ndarray, " K"]) -> Float[Array, "*b 4"]:
    """The mean step of each side's distribution, left, top, right, bottom (arXiv 2410.13842, equation 2)."""
    shares = jax.nn.softmax(logits.astype(jnp.float32).reshape(*logits.shape[:-1], 4, len(steps)), axis=-1)
    return jnp.einsum("...k,k->...", shares, jnp.asarray(steps))


def refine_boxes(
    references: Float[Array, "*b 4"], offsets: Float[Array, "*b 4"], scale: float = 4.0
) -> Float[Array, "*b 4"]:
    """Moves each side of a reference box by ``offset / scale`` of its width or height (arXiv 2410.13842, equation 1).

    Positive offsets move a side outwards. Boxes are ``(centre x, centre y, width, height)``.
    """
    references, offsets = references.astype(jnp.float32), offsets.astype(jnp.float32)
    centre, unit = references[..., :2], references[..., 2:] / scale
    low = centre - (0.5 * scale + offsets[..., :2]) * unit
    high = centre + (0.5 * scale + offsets[..., 2:]) * unit
    return xyxy_to_cxcywh(jnp.concatenate([low, high], axis=-1))


def encode_refinement(
    references: Float[Array, "*b 4"],
    boxes: Float[Array, "*b 4"],
    steps: Float[np.ndarray, " K"],
    scale: float = 4.0,
) -> tuple[Int[Array, "*b 4"], Float[Array, "*b 4"]]:
    """The inverse of `refine_boxes`, as targets of distributions: two neighbouring bins for each side.

    Args:
      references, boxes: ``(centre x, centre y, width, height)``.
      steps: of the bins (`refinement_steps`).
      scale: as in `refine_boxes`.

    Returns:
      The lower bin of each side (left, top, right, bottom), at most ``K - 2``, and the share of the upper one, such
      that ``(1 - share) * steps[lower] + share * steps[lower + 1]`` is the offset. Offsets beyond the steps take the
      first or the last of them. Reference: arXiv 2410.13842, equation 6.
    """
    references = references.astype(jnp.float32)
    unit = references[..., 2:] / scale + 1e-16
    corners = cxcywh_to_xyxy(boxes)
    low = (references[..., :2] - corners[..., :2]) / unit - 0.5 * scale
    high = (corners[..., 2:] - references[..., :2]) / unit - 0.5 * scale
    offsets = jnp.clip(jnp.concatenate([low, high], axis=-1), steps[0], steps[-1])
    values = jnp.asarray(steps)
    # Compared with each of the few steps: bisection would be a loop, each turn of which an accelerator starts anew.
    found = jnp.searchsorted(values, offsets, side="right", method="compare_all").astype(jnp.int32)
    lower = jnp.clip(found - 1, 0, len(steps) - 2)
    share = (offsets - values[lower]) / (values[lower + 1] - values[lower])
    return lower, share
