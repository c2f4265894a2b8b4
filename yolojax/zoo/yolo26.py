"""YOLO26 (Ultralytics 2026, arXiv 2606.03748): YOLO11's network, two heads as in YOLOv10, and plain distances.

The backbone is YOLO11's with the identity around its pyramid pooling; the blocks of the neck are nested in every scale,
and the coarsest one ends in attention. The head is there twice, as in `yolojax.zoo.yolov10`: the one-to-one head
answers without suppression. A distance is one number instead of a distribution over bins, so its range has no bound.

| scale | parameters, 80 classes | GFLOPs at 640 |
|---|---|---|
| n | 2.4 M | 5.4 |
| s | 9.5 M | 20.7 |
| m | 20.4 M | 68.2 |
| l | 24.8 M | 86.4 |
| x | 55.7 M | 193.9 |

The table counts one of the two heads; with both they are 2.6, 10.0, 21.9, 26.3 and 59.0 M. The published AP on COCO
val2017 is .409 (n) to .575 (x).

What differs: nothing in the network. Its two heads start from different random numbers. The published optimiser (MuSGD)
is not part of this library. Published weight files are read by `yolojax.zoo.from_pytorch`; they are under a licence of
their own (AGPL-3.0; docs/licences.md). Their arrays were compared by names, shapes and outputs; no code of their
authors was read.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.coding import cell_centres, distances_to_boxes, flatten_levels, levels_of
from yolojax.detector import Detector, DetectorSpec, Outputs
from yolojax.losses import BoxLoss, ClassLoss, yolo26_loss
from yolojax.losses.yolo26 import small_target_assign
from yolojax.models.heads import PairedHead
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolo11 import YOLO11Backbone
from yolojax.models.yolo26 import YOLO26Neck
from yolojax.structures import Candidates
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts, find_scale
from yolojax.zoo.parts import LossParts, find_loss_parts
from yolojax.zoo.yolo11 import DEPTH, SCALES, WIDTHS
from yolojax.zoo.yolov8 import (
    HYPER,
    POSTPROCESS,
    STRIDES,
    distance_head,
    scaled_depths,
    scaled_widths,
)
from yolojax.zoo.yolov10 import SUPPRESSION, answers_of, check_answering, loss_of_heads

PUBLISHED_NAMES = {
    **{f"backbone/down{i}": (f"model.{layer}", "conv") for i, layer in enumerate((0, 1, 3, 5, 7))},
    **{f"backbone/stage{i}": (f"model.{2 * i}", "c3k2") for i in (1, 2, 3, 4)},
    "backbone/sppf": ("model.9", "sppf"),
    "backbone/attention": ("model.10", "c2psa"),
    "neck/down1": ("model.13", "c3k2"),
    "neck/down0": ("model.16", "c3k2"),
    "neck/reduce1": ("model.17", "conv"),
    "neck/up1": ("model.19", "c3k2"),
    "neck/reduce2": ("model.20", "conv"),
    "neck/up2": ("model.22", "c3k2 with attention"),
    "head": ("model.23", "pair"),
}
"""Modules here, their names in published files, and how both name what is inside (`yolojax.weights.ultralytics`)."""


def decode_distances(outputs: Outputs) -> Candidates:
    """Decodes one `yolojax.models.heads.LevelPrediction` for each of `STRIDES`, whose distances are in strides."""
    boxes, classes = [level.box for level in outputs], [level.cls for level in outputs]
    points, strides = cell_centres(levels_of(boxes, STRIDES))
    distances = flatten_levels(boxes)
    distances = distances * jnp.broadcast_to(strides[:, None], distances.shape)
    return Candidates(distances_to_boxes(points, distances), jax.nn.sigmoid(flatten_levels(classes)))


def small_target_assigner(parts: LossParts, k: int) -> AnchorFreeAssign:
    """The assigner of the parts, or the assignment for small targets in the place of task-aligned."""
    return partial(small_target_assign, k=k) if parts.names["assign"] == "task-aligned" else parts.assign


def yolo26(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "n",
    head: str = "one_to_one",
    k: int = 10,
    assign: str | AnchorFreeAssign = "task-aligned",
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLO26.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: n, s, m, l or x.
      head: the head that answers: ``one_to_one``, whose answers need no suppression, or ``one_to_many``, whose answers
        need NMS. Both are trained, whichever answers.
      k, assign: of the one-to-many head; see `yolojax.zoo.yolov8.yolov8`. Task-aligned assignment is that for small
        targets here. The one-to-one head always has it, with one point to an object.
      box_loss, class_loss: of both heads; see `yolojax.zoo.yolov8.yolov8`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    deep, wide, widest, nested = find_scale("yolo26", scale, SCALES)
    widths, (depth,) = scaled_widths(WIDTHS, wide, widest), scaled_depths((DEPTH,), deep)
    levels = scaled_widths((256, 512, 1024), wide, widest)
    check_input_size(input_size, STRIDES[-1])
    check_counts(1, k=k)
    check_answering(head)
    parts = find_loss_parts(assign, k, box_loss, class_loss)
    assigner = small_target_assigner(parts, k)
    loss = loss_of_heads(partial(yolo26_loss, assign=assigner, box_loss=parts.box_loss, class_loss=parts.class_loss))
    spec = DetectorSpec(
        "yolo26",
        class_names,
        input_size,
        STRIDES,
        suppression=SUPPRESSION[head],
        hyper=HYPER,
        options={"scale": scale, "head": head, "k": k, **parts.names},
        postprocess=POSTPROCESS,
    )
    style = Style(dtype=dtype)
    heads = (distance_head(spec, levels[0], 1, style, depthwise=True) for _ in range(2))
    network = Network(
        YOLO11Backbone(widths, depth, nested, style, residual_pooling=True),
        YOLO26Neck(levels, depth, style),
        PairedHead(*heads),
    )
    return mark_built(flax_detector(spec, network, loss, answers_of(head, decode_distances)))
