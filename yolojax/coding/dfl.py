"""Boxes as distances from a point to their four sides, each distance a distribution over integer bins.

Generalized Focal Loss (Li et al. 2020, arXiv 2006.04388), section 3.2; the box coder of YOLOv8 and later. Sides are
ordered left, top, right, bottom, and the ``reg_max`` logits of one side lie together.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def dfl_expectation(logits: Float[Array, "*batch bins"]) -> Float[Array, "*batch"]:
    """Expected bin ``sum_i i * softmax(logits)_i`` in ``[0, bins - 1]`` (arXiv 2006.04388, equation 5).

    Summed element by element rather than as a matrix product, which accelerators would round to a lower precision.
    """
    bins = jnp.arange(logits.shape[-1], dtype=jnp.float32)
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.sum(probabilities * jnp.broadcast_to(bins, logits.shape), axis=-1)


def distances_to_boxes(
    points: Float[Array, "*#batch N 2"], distances: Float[Array, "*batch N 4"]
) -> Float[Array, "*batch N 4"]:
    """Boxes (xyxy) around points from distances to the left, top, right and bottom side; all in input pixels."""
    points = jnp.broadcast_to(points, (*distances.shape[:-1], 2))
    return jnp.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1)


def boxes_to_distances(
    points: Float[Array, "*#batch N 2"], boxes: Float[Array, "*batch N 4"]
) -> Float[Array, "*batch N 4"]:
    """The inverse of `distances_to_boxes`: negative where a point lies outside of its box."""
    points = jnp.broadcast_to(points, (*boxes.shape[:-1], 2))
    return jnp.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)


def decode_distributions(
    logits: Float[Array, "*batch N sides_bins"], points: Float[Array, "N 2"], strides: Float[Array, " N"]
) -> Float[Array, "*batch N 4"]:
    """Boxes (xyxy, input pixels) from ``4 * reg_max`` logits a point; bins are counted in strides of the level."""
    distances = dfl_expectation(logits.reshape(*logits.shape[:-1], 4, -1))
    return distances_to_boxes(points, distances * jnp.broadcast_to(strides[:, None], distances.shape))
