"""Lesson: the detector of a first lesson on YOLO, a 1x1 head with anchors on a backbone, trained with YOLO's losses.

A backbone (a small Darknet or ResNet-18), a feature pyramid of two or three levels, one 1x1 convolution a level that
gives ``tx, ty, tw, th, objectness, classes`` for each anchor, best-shape-IoU assignment over all levels' anchors
(YOLOv3, arXiv 1804.02767), box, objectness and class losses with the weights of YOLOv1 (arXiv 1506.02640). Scores are
objectness times class. There is no published accuracy.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from yolojax.coding import anchor_grid, decode, flatten_levels, levels_of
from yolojax.detector import Detector, DetectorSpec, Outputs
from yolojax.errors import ConfigError
from yolojax.losses import BoxLoss, ClassLoss, squared_offset_loss, yolov3_loss
from yolojax.models.backbones import DarknetTiny
from yolojax.models.heads import YOLOHead
from yolojax.models.layers import Style
from yolojax.models.necks import FPN
from yolojax.models.network import Network
from yolojax.models.resnet import ResNet18
from yolojax.structures import Candidates, Hyper, LossTerms, Targets
from yolojax.zoo.anchored import check_anchors, find_box_loss
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts, check_momentum
from yolojax.zoo.parts import CLASS_LOSSES, find_part


def lesson(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    anchors: Sequence[Sequence[Sequence[float]]],
    backbone: str = "darknet",
    widths: Sequence[int] = (16, 32, 64, 128, 192),
    depths: Sequence[int] = (0, 1, 1, 2, 1),
    neck_width: int = 96,
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds the lesson's detector.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of the largest stride.
      anchors: ``(width, height)`` in input pixels, ``[levels, anchors per level, 2]``; one level is the coarsest
        stride, 32, two are 16 and 32, three 8, 16 and 32.
      backbone: ``darknet``, or ``resnet18``.
      widths: of the Darknet at strides 2, 4, 8, 16, 32; a 0 leaves that resolution out, see `DarknetTiny`.
      depths: residual blocks of each stage of the Darknet.
      neck_width: channels of the feature pyramid.
      box_loss: ``mse`` in offset space, as the lesson has it, or a loss of decoded boxes: a key of
        `yolojax.zoo.parts.BOX_LOSSES`, or a `BoxLoss`.
      class_loss: a key of `yolojax.zoo.parts.CLASS_LOSSES`, or a `ClassLoss`.
      momentum: of the running BatchNorm statistics.
      dtype: of the network's computation.
    """
    check_anchors(anchors)
    anchors = tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors)
    levels, per_level = len(anchors), len(anchors[0]) if anchors else 0
    if not 1 <= levels <= 3 or not per_level or any(len(level) != per_level for level in anchors):
        raise ConfigError(f"anchors: give one to three levels with equally many each, not {[len(a) for a in anchors]}")
    if len(widths) != 5 or len(depths) != 5:
        raise ConfigError(
            f"widths and depths: give five of each, for strides 2 to 32, not {len(widths)} and {len(depths)}"
        )
    if backbone not in ("darknet", "resnet18"):
        raise ConfigError(f"backbone = {backbone!r}: give darknet or resnet18")
    raw_box_loss, box_name = find_box_loss(box_loss, squared_offset_loss, decode)
    class_part, class_name = find_part("class_loss", class_loss, CLASS_LOSSES)
    check_counts(1, widths=widths[5 - levels :], neck_width=neck_width)
    check_counts(0, widths=widths, depths=depths)
    check_momentum(momentum)
    strides = (8, 16, 32)[3 - levels :]
    check_input_size(input_size, 32)
    options: dict[str, Any] = {
        "anchors": anchors,
        "backbone": backbone,
        "widths": tuple(widths),
        "depths": tuple(depths),
        "neck_width": neck_width,
        "box_loss": box_name,
        "class_loss": class_name,
        "momentum": momentum,
    }
    spec = DetectorSpec("lesson", class_names, input_size, strides, options=options)
    sizes = jnp.asarray(anchors, jnp.float32)

    activation = "relu" if backbone == "resnet18" else "leaky_relu"
    style = Style(activation=activation, momentum=momentum, epsilon=1e-5, dtype=dtype)
    features = (
        DarknetTiny(tuple(widths), tuple(depths), csp=False, levels=levels, style=style)
        if backbone == "darknet"
        else ResNet18(levels=levels, style=style)
    )
    network = Network(features, FPN(neck_width, style=style), YOLOHead(per_level, len(class_names), style=style))

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        levels = levels_of(outputs, strides)
        return yolov3_loss(outputs, levels, sizes, targets, hyper, box_loss=raw_box_loss, class_loss=class_part)

    def decode_outputs(outputs: Outputs) -> Candidates:
        cells, steps, shapes = anchor_grid(levels_of(outputs, strides), sizes)
        raw = flatten_levels(outputs)
        boxes = decode(raw[..., :4], cells[None], steps[None], shapes[None])
        return Candidates(boxes, jax.nn.sigmoid(raw[..., 4:5]) * jax.nn.sigmoid(raw[..., 5:]))

    return mark_built(flax_detector(spec, network, loss, decode_outputs))
