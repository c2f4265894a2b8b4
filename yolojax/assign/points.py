"""What the assigners of anchor-free detectors share: points, candidates of each object, and who wins a point."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class PointAssignment(NamedTuple):
    """Which object each of ``N`` points answers for.

    ``objects`` are rows of the `Targets` (0 where ``positive`` is False); ``scores`` the class target of a positive in
    ``[0, 1]``, 0 elsewhere.
    """

    objects: Int[Array, "B N"]
    positive: Bool[Array, "B N"]
    scores: Float[Array, "B N"]


def points_inside(objects: Float[Array, "B M 4"], points: Float[Array, "N 2"]) -> Bool[Array, "B M N"]:
    """Whether a point lies strictly inside of an object's box (xyxy)."""
    # Coordinates apart, so that no [B, M, N, 4] array is ever made.
    x1, y1, x2, y2 = (objects[:, :, None, i] for i in range(4))
    x, y = (points[None, None, :, i] for i in range(2))
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)
