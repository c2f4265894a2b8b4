"""Crowd regions are neither object nor background."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from yolojax.assign.objects import without_padding
from yolojax.boxes import crowd_iou
from yolojax.structures import Targets

CROWD_SHARE = 0.5


def inside_crowd(boxes: Float[Array, "B N 4"], targets: Targets) -> Bool[Array, "B N"]:
    """Whether at least half of a predicted box's own area (xyxy, input pixels) lies in one crowd box.

    Such a prediction, when it is a negative, carries no objectness or class loss: COCO's evaluation forgives it by the
    same intersection over the detection's own area. A box without area lies in no crowd.
    """
    clean = without_padding(targets)
    crowd = (clean.valid & targets.crowd)[:, :, None]
    share = jnp.swapaxes(crowd_iou(boxes, clean.boxes), 1, 2)
    return jnp.any(crowd & (share >= CROWD_SHARE), axis=1)
