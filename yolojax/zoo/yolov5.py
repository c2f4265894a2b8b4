"""YOLOv5 (Ultralytics, 2020; here its versions 6.0 to 7.0; there is no paper): anchors, cross-stage blocks, SPPF.

A 6x6 stem and four stages of cross-stage partial layers with three convolutions; path aggregation with the same layers
(YOLOX's neck, which took it from here); three anchors a cell at strides 8, 16 and 32. Centres reach half a cell beyond
their own, sides four times the anchor's (`yolojax.coding.decode_yolov5`); scores are objectness times class. An object
is learnt by all anchors whose sides fit, in three cells (`yolojax.assign.ratio_assign`); the loss is
`yolojax.losses.yolov5_loss`.

| scale | parameters, 80 classes | GFLOPs at 640 | AP on COCO val2017 |
|---|---|---|---|
| n | 1.9 M | 4.5 | .280 |
| s | 7.2 M | 16.5 | .374 |
| m | 21.2 M | 49.0 | .454 |
| l | 46.5 M | 109.1 | .490 |
| x | 86.7 M | 205.7 | .507 |

What differs: nothing in the network; in training a prediction learns one object, not several at once. Published weight
files are read by `yolojax.zoo.from_pytorch`; they are under a licence of their own. Their arrays were compared by
names, shapes and outputs; no code of their authors was read.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import DTypeLike

from yolojax.coding import levels_of
from yolojax.detector import Detector, DetectorSpec, Outputs, Postprocess, Thresholds
from yolojax.errors import ConfigError
from yolojax.losses import BoxLoss, ClassLoss, yolov5_loss
from yolojax.models.heads import YOLOHead
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.structures import Hyper, LossTerms, Targets
from yolojax.zoo.anchored import AnchoredLevel, anchored_detection, check_anchors
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.parts import BOX_LOSSES, CLASS_LOSSES, find_part
from yolojax.zoo.yolov5u import BODY_NAMES, yolov5_body
from yolojax.zoo.yolov8 import STRIDES

ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
"""The published anchors, ``(width, height)`` in input pixels, finest level first; YOLOv3's."""

POSTPROCESS = Postprocess(Thresholds(0.001, 0.6, 300), Thresholds(0.25, 0.45, 1000))
"""The published thresholds of validation and of prediction."""

PUBLISHED_NAMES = {**BODY_NAMES, "head": ("model.24", "anchors")}


def published_gains(classes: int, input_size: tuple[int, int]) -> dict[str, float]:
    """The gains of the published recipe, stated for 80 classes and 640 pixels, for these classes and this size."""
    pixels = input_size[0] * input_size[1]
    return {"lambda_coord": 0.05, "lambda_obj": pixels / 640**2, "lambda_cls": 0.5 * classes / 80}


def yolov5(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "n",
    anchors: Sequence[Sequence[Sequence[float]]] = ANCHORS,
    box_loss: str | BoxLoss = "ciou",
    class_loss: str | ClassLoss = "bce",
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv5.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: n, s, m, l or x.
      anchors: ``(width, height)`` in input pixels of equally many anchors at each of the three levels, finest first.
      box_loss: of the positives' boxes: a key of `yolojax.zoo.parts.BOX_LOSSES`, or a `BoxLoss`.
      class_loss: a key of `yolojax.zoo.parts.CLASS_LOSSES`, or a `ClassLoss`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    style = Style(dtype=dtype)
    backbone, neck, _ = yolov5_body(scale, "yolov5", style)
    check_input_size(input_size, STRIDES[-1])
    check_anchors(anchors)
    if len(anchors) != len(STRIDES) or len({len(level) for level in anchors}) != 1:
        raise ConfigError(f"anchors: yolov5 has 3 levels, each with equally many, not {[len(one) for one in anchors]}")
    box_part, box_name = find_part("box_loss", box_loss, BOX_LOSSES)
    class_part, class_name = find_part("class_loss", class_loss, CLASS_LOSSES)
    sizes = tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors)
    levels = [AnchoredLevel(stride, own, 2.0, True) for stride, own in zip(STRIDES, sizes, strict=True)]
    _, decode, _ = anchored_detection(levels)

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        grids, boxes = levels_of(outputs, STRIDES), jnp.asarray(sizes, jnp.float32)
        return yolov5_loss(outputs, grids, boxes, targets, hyper, box_loss=box_part, class_loss=class_part)

    options = {
        "scale": scale,
        "anchors": [[list(one) for one in level] for level in sizes],
        "box_loss": box_name,
        "class_loss": class_name,
    }
    gains = published_gains(len(class_names), input_size)
    spec = DetectorSpec(
        "yolov5", class_names, input_size, STRIDES, hyper=gains, options=options, postprocess=POSTPROCESS
    )
    network = Network(backbone, neck, YOLOHead(len(sizes[0]), len(class_names), style=style))
    return mark_built(flax_detector(spec, network, loss, decode))
