"""YOLOv10 (Wang et al. 2024, arXiv 2405.14458): YOLOv8 made cheaper, and a second head whose answers need no NMS.

The blocks of some stages are compact inverted blocks, the last convolutions of stride 2 are separable, half of the
channels at stride 32 pass self-attention, and the class branch of the head has depthwise convolutions. The head is
there twice (dual label assignments): one is trained as YOLOv8's, with up to ten points to an object, the other with
one, and none of its gradient reaches backbone and neck. It answers, without suppression: the best 300 pairs of place
and class are the detections.

| scale | parameters, 80 classes | GFLOPs at 640 | AP on COCO val2017 |
|---|---|---|---|
| n | 2.3 M | 6.7 | .385 |
| s | 7.2 M | 21.6 | .463 |
| m | 15.4 M | 59.1 | .511 |
| b | 19.1 M | 92.0 | .525 |
| l | 24.4 M | 120.3 | .532 |
| x | 29.5 M | 160.4 | .544 |

The table counts one of the two heads; with both they are 2.8, 8.1, 16.6, 20.6, 25.9 and 31.8 M.

What differs: nothing in the network. Its two heads start from different random numbers. Published weight files are read
by `yolojax.zoo.from_pytorch`; they are under a licence of their own (AGPL-3.0; docs/licences.md). Their arrays were
compared by names, shapes and outputs; no code of their authors was read.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.coding import levels_of
from yolojax.detector import Decode, Detector, DetectorSpec, Loss, Outputs
from yolojax.errors import ConfigError
from yolojax.losses import BoxLoss, ClassLoss, yolov10_loss
from yolojax.models.heads import PairedHead
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolov10 import YOLOv10Backbone, YOLOv10Neck
from yolojax.structures import Candidates, Hyper, LossTerms, Targets
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import find_scale
from yolojax.zoo.parts import find_loss_parts
from yolojax.zoo.yolov8 import (
    HYPER,
    POSTPROCESS,
    STRIDES,
    check_distribution,
    distance_head,
    distribution_decoder,
    scaled_depths,
    scaled_widths,
)

SUPPRESSION: dict[str, Literal["nms", "none"]] = {"one_to_one": "none", "one_to_many": "nms"}
"""The suppression that the answers of each head need."""

SCALES: dict[str, tuple[float, float, int, tuple[str, ...], bool]] = {
    "n": (1 / 3, 0.25, 1024, ("up2",), True),
    "s": (1 / 3, 0.50, 1024, ("stage4", "up2"), True),
    "m": (2 / 3, 0.75, 768, ("stage4", "up1", "up2"), False),
    "b": (2 / 3, 1.00, 512, ("stage4", "down1", "up1", "up2"), False),
    "l": (1.0, 1.00, 512, ("stage4", "down1", "up1", "up2"), False),
    "x": (1.0, 1.25, 512, ("stage3", "stage4", "down1", "up1", "up2"), False),
}
"""Multiples of depth and width, the widest stage before its width is multiplied, the compact blocks, and whether these
have large kernels."""

WIDTHS, DEPTHS = (64, 128, 256, 512, 1024), (3, 6, 6, 3)

PUBLISHED_NAMES = {
    **{f"backbone/down{i}": (f"model.{layer}", "conv") for i, layer in enumerate((0, 1, 3))},
    "backbone/down3": ("model.5", "scdown"),
    "backbone/down4": ("model.7", "scdown"),
    **{f"backbone/stage{i}": (f"model.{2 * i}", "c2f or c2fcib") for i in (1, 2, 3, 4)},
    "backbone/sppf": ("model.9", "sppf"),
    "backbone/attention": ("model.10", "psa"),
    "neck/down1": ("model.13", "c2f or c2fcib"),
    "neck/down0": ("model.16", "c2f or c2fcib"),
    "neck/reduce1": ("model.17", "conv"),
    "neck/up1": ("model.19", "c2f or c2fcib"),
    "neck/reduce2": ("model.20", "scdown"),
    "neck/up2": ("model.22", "c2f or c2fcib"),
    "head": ("model.23", "pair"),
}
"""Modules here, their names in published files, and how both name what is inside (`yolojax.weights.ultralytics`)."""


def check_answering(head: str) -> None:
    """Raises `ConfigError` unless it is one of the two heads."""
    if head not in SUPPRESSION:
        raise ConfigError(f"head = {head!r}: give {' or '.join(SUPPRESSION)}")


def answers_of(head: str, decode: Decode) -> Decode:
    """The decoder of a `PairedHead` that decodes the predictions of one of its heads with ``decode``."""

    def decode_answers(outputs: Outputs) -> Candidates:
        return decode(getattr(outputs, head))

    return decode_answers


def loss_of_heads(loss: Callable[..., LossTerms]) -> Loss:
    """Returns ``loss`` (such as `yolov10_loss` with its parts) as a function of the outputs of a `PairedHead`."""

    def of_outputs(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        many, one = outputs.one_to_many, outputs.one_to_one
        return loss(
            [level.box for level in many],
            [level.cls for level in many],
            [level.box for level in one],
            [level.cls for level in one],
            levels_of([level.box for level in many], STRIDES),
            targets,
            hyper,
        )

    return of_outputs


def yolov10(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "n",
    head: str = "one_to_one",
    reg_max: int = 16,
    k: int = 10,
    assign: str | AnchorFreeAssign = "task-aligned",
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv10.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: n, s, m, b, l or x.
      head: the head that answers: ``one_to_one``, whose answers need no suppression, or ``one_to_many``, whose answers
        need NMS. Both are trained, whichever answers.
      k, assign: of the one-to-many head; see `yolojax.zoo.yolov8.yolov8`. The one-to-one head always has task-aligned
        assignment, of one point to an object.
      reg_max, box_loss, class_loss: of both heads; see `yolojax.zoo.yolov8.yolov8`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    deep, wide, widest, compact, large = find_scale("yolov10", scale, SCALES)
    widths, depths = scaled_widths(WIDTHS, wide, widest), scaled_depths(DEPTHS, deep)
    check_input_size(input_size, STRIDES[-1])
    check_distribution(reg_max, k)
    check_answering(head)
    parts = find_loss_parts(assign, k, box_loss, class_loss)
    loss = loss_of_heads(
        partial(yolov10_loss, assign=parts.assign, box_loss=parts.box_loss, class_loss=parts.class_loss)
    )
    spec = DetectorSpec(
        "yolov10",
        class_names,
        input_size,
        STRIDES,
        suppression=SUPPRESSION[head],
        hyper=HYPER,
        options={"scale": scale, "head": head, "reg_max": reg_max, "k": k, **parts.names},
        postprocess=POSTPROCESS,
    )
    style = Style(dtype=dtype)
    many, one = (distance_head(spec, widths[2], reg_max, style, depthwise=True) for _ in range(2))
    network = Network(
        YOLOv10Backbone(widths, depths, compact, large, style),
        YOLOv10Neck(widths[2:], depths[-1], compact, large, style),
        PairedHead(many, one),
    )
    return mark_built(flax_detector(spec, network, loss, answers_of(head, distribution_decoder(STRIDES))))
