"""Loss and decoder of heads that predict distances as distributions: what the detectors after YOLOv8 share."""

from functools import partial

import jax

from yolojax.assign import task_aligned_assign
from yolojax.coding import cell_centres, decode_distributions, flatten_levels, levels_of
from yolojax.detector import Decode, Loss, Outputs
from yolojax.losses import yolov8_loss
from yolojax.structures import Candidates, Hyper, LossTerms, Targets
from yolojax.zoo.options import check_counts

HYPER = {"lambda_coord": 7.5, "lambda_cls": 0.5, "lambda_dfl": 1.5}
"""The gains of YOLOv8's published recipe."""


def check_distribution(reg_max: int, k: int) -> None:
    """Raises `ConfigError` unless a distance has at least the bins 0 and 1, and an object a point."""
    check_counts(2, reg_max=reg_max)
    check_counts(1, k=k)


def distribution_loss_and_decode(strides: tuple[int, ...], k: int) -> tuple[Loss, Decode]:
    """The two functions of a detector whose outputs are one `LevelPrediction` for each stride.

    ``k``: most points that task-aligned assignment gives to an object.
    """

    assign = partial(task_aligned_assign, k=k)

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        boxes, classes = [level.box for level in outputs], [level.cls for level in outputs]
        return yolov8_loss(boxes, classes, levels_of(boxes, strides), targets, hyper, assign=assign)

    def decode(outputs: Outputs) -> Candidates:
        boxes, classes = [level.box for level in outputs], [level.cls for level in outputs]
        points, point_strides = cell_centres(levels_of(boxes, strides))
        return Candidates(
            decode_distributions(flatten_levels(boxes), points, point_strides),
            jax.nn.sigmoid(flatten_levels(classes)),
        )

    return loss, decode
