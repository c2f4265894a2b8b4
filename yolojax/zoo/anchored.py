"""The anchor-based detectors YOLOv2, v3 and v4: their loss, their decoder and their record, from their anchors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from yolojax.assign import best_anchor_assign
from yolojax.boxes import xyxy_to_cxcywh
from yolojax.coding import anchor_grid, decode, decode_yolov5, flatten_levels
from yolojax.detector import Decode, Detector, DetectorSpec, Loss, Outputs, Postprocess, Thresholds
from yolojax.errors import ConfigError
from yolojax.geometry import Preprocess
from yolojax.losses import (
    BoxLoss,
    ClassLoss,
    RawBoxLoss,
    on_decoded_boxes,
    yolov3_loss,
)
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolo_necks import ConvYOLOHead
from yolojax.structures import Candidates, Hyper, Level, LossTerms, Targets
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts, check_momentum, check_width
from yolojax.zoo.parts import BOX_LOSSES, CLASS_LOSSES, find_part

PREPROCESS = Preprocess("stretch", filter="bilinear")
"""Darknet stretches the photo to the input image; RGB from 0 to 1."""

POSTPROCESS = Postprocess(validation=Thresholds(confidence=0.005, iou=0.45, max_detections=300))
"""Darknet's: the thresholds of its validation."""

_NO_PREDICTION = -1e4


@dataclass(frozen=True)
class AnchoredLevel:
    """How one prediction map ``[B, h, w, A, 5 + C]`` is read.

    Attributes:
      stride: input pixels of a cell.
      anchors: ``(width, height)`` of each of the A anchors, in input pixels.
      scale_x_y: how far centres reach beyond their cell; see `yolojax.coding.decode`.
      squared: sides are ``anchor (2 sigmoid)^2`` instead of ``anchor exp`` (scaled YOLOv4, v7); scores are the same.
    """

    stride: int
    anchors: tuple[tuple[float, float], ...]
    scale_x_y: float = 1.0
    squared: bool = False


def find_box_loss(box_loss: str | BoxLoss, mse: RawBoxLoss, decoder: Callable[..., Array]) -> tuple[RawBoxLoss, str]:
    """The box loss of an anchor-based detector, and its name in a description.

    Args:
      box_loss: ``mse``, a key of `yolojax.zoo.parts.BOX_LOSSES`, or a `BoxLoss`.
      mse: what ``mse`` means.
      decoder: gives the boxes that the other losses compare.

    Raises:
      ConfigError: see `yolojax.zoo.parts.find_part`.
    """
    function, name = find_part("box_loss", box_loss, {"mse": mse, **BOX_LOSSES})
    return mse if name == "mse" else on_decoded_boxes(function, decoder), name


def anchored_detection(
    levels: Sequence[AnchoredLevel],
    *,
    box_loss: str | BoxLoss = "mse",
    class_loss: str | ClassLoss = "bce",
    softmax: bool = False,
    iou_thresh: float = 1.0,
) -> tuple[Loss, Decode, dict[str, str]]:
    """Makes loss and decoder of a network with these levels, finest first.

    Scores are objectness times class. The loss is `yolov3_loss`: each object has one positive prediction, and with
    ``iou_thresh`` further ones. Where two levels have the same anchor, the finer level has the object's best.

    Args:
      levels: how each map is read.
      box_loss: ``mse``, which compares offsets and logarithms of sides, or a loss of decoded boxes: a key of
        `yolojax.zoo.parts.BOX_LOSSES`, or a `BoxLoss`.
      class_loss: a key of `yolojax.zoo.parts.CLASS_LOSSES`, or a `ClassLoss`.
      softmax: classes exclude each other (YOLOv2): scores by softmax, and cross entropy in the place of ``bce``.
      iou_thresh: shape IoU above which an anchor learns an object although another one fits it better (a cfg's own
        ``iou_thresh``).

    Returns:
      The loss, the decoder, and the names of both losses for the description.

    Raises:
      ConfigError: levels that share a stride, or that mix both forms of sides; an unknown loss.
    """
    levels = tuple(levels)
    strides = [level.stride for level in levels]
    if len(set(strides)) < len(strides) or len({level.squared for level in levels}) > 1:
        raise ConfigError(f"prediction levels of strides {strides}: each needs its own, and all the same coder")
    squared = levels[0].squared

    def decode_boxes(
        raw: Float[Array, "*n 4"],
        cells: Float[Array, "*#n 2"],
        stride: Float[Array, "*#n"],
        anchors: Float[Array, "*#n 2"],
    ) -> Float[Array, "*n 4"]:
        reach = sum((jnp.where(stride == one.stride, one.scale_x_y, 0.0) for one in levels), start=jnp.zeros(()))
        if squared:
            return decode_yolov5(raw, cells, stride, anchors, scale_x_y=reach)
        return decode(raw, cells, stride, anchors, scale_x_y=reach)

    def squared_error(raw: Array, boxes: Array, cells: Array, stride: Array, anchors: Array) -> Array:
        """`squared_offset_loss` for any coder: squared errors of centres in strides and of logarithms of sides."""
        found, wanted = (xyxy_to_cxcywh(b) for b in (decode_boxes(raw, cells, stride, anchors), boxes))
        centres = jnp.square((found[..., :2] - wanted[..., :2]) / stride[..., None])
        found_sides, sides = (jnp.log(jnp.maximum(b[..., 2:], 1e-3)) for b in (found, wanted))
        return jnp.sum(centres + jnp.square(found_sides - sides), axis=-1)

    def class_scores(logits: Float[Array, "*n C"]) -> Float[Array, "*n C"]:
        return jax.nn.softmax(logits, axis=-1) if softmax else jax.nn.sigmoid(logits)

    def cross_entropy(logits: Float[Array, "*n C"], labels: Float[Array, "*n C"]) -> Float[Array, "*n C"]:
        return -labels * jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)

    raw_box_loss, box_name = find_box_loss(box_loss, squared_error, decode_boxes)
    class_part, class_name = find_part("class_loss", class_loss, CLASS_LOSSES)
    if softmax and class_name == "bce":
        class_part = cross_entropy

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        most = max(len(level.anchors) for level in levels)
        maps, sizes = [], []
        for one, level in zip(outputs, levels, strict=True):
            # Anchors without area fill up a level with fewer of them. No object prefers them, and they predict nothing.
            missing = most - len(level.anchors)
            spare = jnp.zeros((*one.shape[:3], missing, one.shape[-1])).at[..., 4].set(_NO_PREDICTION)
            maps.append(jnp.concatenate([one, spare], axis=3) if missing else one)
            sizes.append((*level.anchors, *[(0.0, 0.0)] * missing))
        return yolov3_loss(
            maps,
            grids(outputs),
            jnp.asarray(sizes, jnp.float32),
            targets,
            hyper,
            assign=partial(best_anchor_assign, iou_thresh=iou_thresh),
            box_loss=raw_box_loss,
            class_loss=class_part,
            decoder=decode_boxes,
        )

    def grids(outputs: Outputs) -> tuple[Level, ...]:
        return tuple(Level(m.shape[1], m.shape[2], level.stride) for m, level in zip(outputs, levels, strict=True))

    def decode_outputs(outputs: Outputs) -> Candidates:
        boxes, scores = [], []
        for one, grid, level in zip(outputs, grids(outputs), levels, strict=True):
            cells, stride, sizes = anchor_grid((grid,), jnp.asarray([level.anchors], jnp.float32))
            raw = flatten_levels([one])
            boxes.append(decode_boxes(raw[..., :4], cells[None], stride[None], sizes[None]))
            scores.append(jax.nn.sigmoid(raw[..., 4:5]) * class_scores(raw[..., 5:]))
        return Candidates(jnp.concatenate(boxes, axis=1), jnp.concatenate(scores, axis=1))

    return loss, decode_outputs, {"box_loss": box_name, "class_loss": class_name}


def check_anchors(anchors: Sequence[Sequence[Sequence[float]]]) -> None:
    """Raises `ConfigError` naming the first anchor that is not a positive width and height."""
    for one in (anchor for level in anchors for anchor in level):
        if len(one) != 2 or not all(0 < side < float("inf") for side in one):
            raise ConfigError(f"anchors: {list(one)} is no width and height in pixels; give two positive numbers")


def anchored_detector(
    spec: DetectorSpec,
    anchors: Sequence[Sequence[Sequence[float]]],
    make_network: Callable[[Style], Network],
    *,
    momentum: float,
    dtype: DTypeLike,
    box_loss: str | BoxLoss,
    class_loss: str | ClassLoss,
    scales: Sequence[float] | None = None,
    softmax: bool = False,
    iou_thresh: float = 1.0,
) -> Detector:
    """Makes the record of an anchor-based detector.

    Args:
      spec: its options are completed by the names of the two losses.
      anchors: ``(width, height)`` in input pixels, equally many for each of ``spec.strides``, finest first.
      make_network: makes the network in Darknet's style of layers.
      momentum: of the running BatchNorm statistics.
      dtype: of the network's computation.
      box_loss, class_loss, softmax, iou_thresh: see `anchored_detection`.
      scales: ``scale_x_y`` of each level, 1 by default.

    Raises:
      ConfigError: the anchors are not equally many for each level, or the input size does not fit.
    """
    check_input_size(spec.input_size, 32)
    check_momentum(momentum)
    if len(anchors) != len(spec.strides) or len({len(level) for level in anchors}) != 1 or not anchors[0]:
        raise ConfigError(
            f"anchors: {spec.name} has {len(spec.strides)} levels, each with equally many, not "
            f"{[len(level) for level in anchors]}"
        )
    check_anchors(anchors)
    levels = [
        AnchoredLevel(stride, tuple((float(w), float(h)) for w, h in level), scale)
        for stride, level, scale in zip(spec.strides, anchors, scales or [1.0] * len(anchors), strict=True)
    ]
    loss, decode_outputs, names = anchored_detection(
        levels, box_loss=box_loss, class_loss=class_loss, softmax=softmax, iou_thresh=iou_thresh
    )
    spec = replace(spec, options={**spec.options, **names})
    style = Style("leaky_relu", momentum=momentum, epsilon=1e-5, dtype=dtype)
    return mark_built(flax_detector(spec, make_network(style), loss, decode_outputs))


def pyramid_detector(
    name: str,
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    body: Callable[[Style], tuple[Any, Any]],
    head_widths: tuple[int, ...],
    options: dict[str, Any],
    *,
    dtype: DTypeLike,
    scales: Sequence[float] | None = None,
    iou_thresh: float = 1.0,
) -> Detector:
    """Makes a YOLOv3 or v4: the coarsest levels up to stride 32, each with a convolution before its prediction.

    Args:
      name, class_names, input_size: of the detector.
      body: gives backbone and neck.
      head_widths: channels of that convolution, one a level, finest first.
      options: those of the builder: ``anchors``, ``width``, ``box_loss``, ``class_loss``, ``momentum``, and its own.
      dtype, scales, iou_thresh: see `anchored_detector`.
    """
    anchors = options["anchors"]
    spec = DetectorSpec(
        name,
        class_names,
        input_size,
        (8, 16, 32)[3 - len(head_widths) :],
        PREPROCESS,
        hyper={"ignore_iou": 0.7},
        options=options,
        postprocess=POSTPROCESS,
    )

    def make_network(style: Style) -> Network:
        return Network(*body(style), ConvYOLOHead(head_widths, len(anchors[0]), len(class_names), style))

    return anchored_detector(
        spec,
        anchors,
        make_network,
        momentum=options["momentum"],
        dtype=dtype,
        box_loss=options["box_loss"],
        class_loss=options["class_loss"],
        scales=scales,
        iou_thresh=iou_thresh,
    )


def check_backbone(width: Any, depths: Any = (0,) * 5) -> None:
    """Raises `ConfigError` unless ``width`` is a positive factor and ``depths`` are those of five stages."""
    check_width(width)
    check_counts(0, depths=depths)
    if len(depths) != 5:
        raise ConfigError(f"depths = {depths!r}: give five, one a stage")
