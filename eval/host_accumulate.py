"""From matched detections to average precision on the host, in float64, for one list at one IoU.

VOC's metric and the breakdown of errors read it; nothing is compiled, and JAX is not needed.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int

from yolojax.eval.ordering import by_key_and_score

Interpolation = Literal["coco", "all_points", "eleven_points"]
"""How precision is averaged over recall: at 101 recalls, as the area under the curve, or at 11 recalls."""

RECALL_POINTS = {"coco": np.linspace(0.0, 1.0, 101), "eleven_points": np.linspace(0.0, 1.0, 11)}


def class_average_precision(
    classes: Int[np.ndarray, " D"],
    scores: Float64[np.ndarray, " D"],
    hit: Bool[np.ndarray, " D"],
    miss: Bool[np.ndarray, " D"],
    objects: Int[np.ndarray, " C"],
    interpolation: Interpolation = "coco",
    order: Int[np.ndarray, " D"] | None = None,
) -> Float64[np.ndarray, " C"]:
    """Average precision of each class at one IoU, in float64, on the host; NaN for a class without an object.

    Nothing is compiled, so that lists of any length take only the time of their rows.

    Args:
      classes: of the detections, in 0..C-1.
      scores: of the detections; equal scores keep their order.
      hit, miss: true and false positives; a detection that is neither does not count.
      objects: that count, of each class.
      interpolation: see `accumulate`.
      order: the detections by class and falling score, where it is at hand (`by_key_and_score`).
    """
    order = by_key_and_score(classes, scores) if order is None else order
    order = order[(hit | miss)[order]]
    edges = np.searchsorted(classes[order], np.arange(len(objects) + 1))
    found = np.full(len(objects), np.nan)
    for c in np.flatnonzero(objects).tolist():
        own = hit[order[edges[c] : edges[c + 1]]]
        at = np.flatnonzero(own)
        true = np.arange(1, len(at) + 1)
        best = np.maximum.accumulate((true / (at + 1))[::-1])[::-1]
        if interpolation == "all_points":
            found[c] = best.sum() / objects[c]
        else:
            grid = RECALL_POINTS[interpolation]
            reached = np.searchsorted(grid, true / objects[c], side="right")
            found[c] = best @ np.diff(reached, prepend=0) / len(grid)
    return found
