"""YOLOX (Ge et al. 2021, arXiv 2107.08430): anchor-free, a decoupled head, SimOTA.

CSPDarknet with a Focus stem, PAFPN, one prediction a cell: an unbounded offset and a log size in strides, objectness,
classes. Scores are objectness times class, one class a box. Images are letterboxed to the top left by OpenCV's bilinear
filter and padded with 114; BGR, 0..255. What differs from the published training: augmentation and schedule are the
trainer's; L1 is off unless ``lambda_l1`` is set (the paper: 1 in the last 15 epochs).

Published COCO val2017 AP: Nano 25.8 and Tiny 32.8 at 416 pixels; S 40.5, M 46.9, L 49.7, X 51.1 at 640
(Megvii's README).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign
from yolojax.coding import cell_centres, decode_yolox, flatten_levels, levels_of
from yolojax.detector import Detector, DetectorSpec, Outputs, Postprocess, Thresholds, Variables, variable_shapes
from yolojax.errors import ConfigError
from yolojax.geometry import Preprocess
from yolojax.losses import BoxLoss, ClassLoss, yolox_loss
from yolojax.models.batch_norm import unfold_batch_norm
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolox import PAFPN, CSPDarknet, DecoupledHead
from yolojax.structures import Candidates, Hyper, LossTerms, Targets
from yolojax.weights.ultralytics import give_tensors, take_tensors
from yolojax.weights.yolox import YOLOX_NAMES, YOLOXWeights, read_yolox
from yolojax.zoo.coco import classes_of_file
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts, check_momentum, options_of_file
from yolojax.zoo.parts import BOX_LOSSES, CLASS_LOSSES, find_assigner, find_part

STRIDES = (8, 16, 32)
HYPER = {"lambda_coord": 5.0, "lambda_obj": 1.0, "lambda_noobj": 1.0, "lambda_cls": 1.0, "lambda_l1": 0.0}
PREPROCESS = Preprocess(align="topleft", channels="bgr", scale=1.0, filter="bilinear")
POSTPROCESS = Postprocess(validation=Thresholds(confidence=0.01, iou=0.65, max_detections=300))
"""The thresholds at which its published average precisions were measured."""

EPSILON = 1e-3


def yolox(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    depth: float = 0.33,
    width: float = 0.5,
    depthwise: bool = False,
    k: int = 10,
    momentum: float = 0.97,
    assign: str | AnchorFreeAssign = "simota",
    box_loss: str | BoxLoss = "squared-iou",
    class_loss: str | ClassLoss = "bce",
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOX; by default YOLOX-S.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      depth: multiplies the three bottlenecks of a layer.
      width: multiplies the 64 channels of the stem and all others with them.
      depthwise: split every 3x3 convolution but the stem into a depthwise and a pointwise one.
      k: the most points that SimOTA and task-aligned assignment give to an object.
      momentum: of the running BatchNorm statistics.
      assign: the assigner: a key of `yolojax.assign.ANCHOR_FREE_ASSIGNERS`, or an `AnchorFreeAssign`.
      box_loss: of the positives' boxes: a key of `yolojax.zoo.parts.BOX_LOSSES`, or a `BoxLoss`.
      class_loss: a key of `yolojax.zoo.parts.CLASS_LOSSES`, or a `ClassLoss`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    stem, blocks = int(width * 64), max(round(depth * 3), 1)
    if stem < 1 or depth <= 0:
        raise ConfigError(f"depth = {depth}, width = {width}: give a positive depth and a width of at least 1/64")
    check_input_size(input_size, STRIDES[-1])
    check_counts(1, k=k)
    check_momentum(momentum)
    assigner, assign_name = find_assigner(assign, k)
    box_part, box_name = find_part("box_loss", box_loss, BOX_LOSSES)
    class_part, class_name = find_part("class_loss", class_loss, CLASS_LOSSES)
    options: dict[str, Any] = {
        "depth": depth,
        "width": width,
        "depthwise": depthwise,
        "k": k,
        "momentum": momentum,
        "assign": assign_name,
        "box_loss": box_name,
        "class_loss": class_name,
    }
    spec = DetectorSpec(
        "yolox",
        class_names,
        input_size,
        STRIDES,
        PREPROCESS,
        multi_label=False,
        hyper=HYPER,
        options=options,
        postprocess=POSTPROCESS,
    )

    style = Style(activation="silu", momentum=momentum, epsilon=EPSILON, dtype=dtype)
    network = Network(
        CSPDarknet(stem, blocks, depthwise, style=style),
        PAFPN(blocks, depthwise, style=style),
        DecoupledHead(len(class_names), 4 * stem, depthwise, style=style),
    )

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        boxes, objectness, classes = zip(*outputs, strict=True)
        return yolox_loss(
            boxes,
            objectness,
            classes,
            levels_of(boxes, STRIDES),
            targets,
            hyper,
            assign=assigner,
            box_loss=box_part,
            class_loss=class_part,
        )

    def decode(outputs: Outputs) -> Candidates:
        boxes, objectness, classes = zip(*outputs, strict=True)
        points, strides = cell_centres(levels_of(boxes, STRIDES))
        cells = points / strides[:, None] - 0.5
        scores = jax.nn.sigmoid(flatten_levels(objectness)) * jax.nn.sigmoid(flatten_levels(classes))
        return Candidates(decode_yolox(flatten_levels(boxes), cells[None], strides[None]), scores)

    return mark_built(flax_detector(spec, network, loss, decode))


yolox_nano = partial(yolox, depth=0.33, width=0.25, depthwise=True)
yolox_tiny = partial(yolox, depth=0.33, width=0.375)
yolox_s = partial(yolox, depth=0.33, width=0.5)
yolox_m = partial(yolox, depth=0.67, width=0.75)
yolox_l = partial(yolox, depth=1.0, width=1.0)
yolox_x = partial(yolox, depth=1.33, width=1.25)


SCALES: dict[tuple[int, int, bool], str] = {
    (1, 16, True): "nano",
    (1, 24, False): "tiny",
    (1, 32, False): "s",
    (2, 48, False): "m",
    (3, 64, False): "l",
    (4, 80, False): "x",
}
"""The published sizes by bottlenecks of the first stage, channels of the stem, and depthwise convolutions."""


def from_yolox(
    path: str | Path,
    *,
    class_names: tuple[str, ...] | None = None,
    input_size: tuple[int, int] | None = None,
    dtype: DTypeLike = "float32",
) -> tuple[Detector, Variables]:
    """A detector and its variables from published YOLOX weights, whatever their size; see `weights.yolox.read_yolox`.

    Weights whose normalisation is folded in get it back by `unfold_batch_norm`: the detector computes the same, and
    ``detector.fold`` returns the file's arrays bit for bit. What that means for fine-tuning is said there.

    Args:
      path: a ``.pth`` of Megvii's, a ``.safetensors`` or an ``.npz`` with the same names, or an ``.onnx`` that was
        exported of one.
      class_names: in the order of the class scores; by default the file's, or COCO's where it names none and has 80.
      input_size: ``(height, width)`` in pixels. By default that of an ``.onnx``, or 416 for networks as narrow as Nano
        and Tiny and 640 for the others, for which they were trained.
      dtype: of the network's computation.

    Raises:
      CheckpointError: unreadable, or not a whole YOLOX.
      ConfigError: names that are not as many as the classes, or an input image that is no multiple of 32.
    """
    return build_yolox(read_yolox(path), class_names, input_size, dtype)


def yolox_scale(weights: YOLOXWeights) -> str:
    """The published scale of these weights; an empty text for a network of a size of its own."""
    return SCALES.get((weights.blocks, weights.stem, weights.depthwise), "")


def build_yolox(
    weights: YOLOXWeights,
    class_names: tuple[str, ...] | None,
    input_size: tuple[int, int] | None,
    dtype: DTypeLike,
    options: Mapping[str, Any] | None = None,
) -> tuple[Detector, Variables]:
    """`from_yolox` of weights that are read already, with ``options`` as in `yolojax.zoo.from_pytorch`."""
    side = 416 if weights.width < 0.5 else 640
    decided = {"depth": weights.depth, "width": weights.width, "depthwise": weights.depthwise}
    detector = yolox(
        classes_of_file(weights.source, weights.num_classes, class_names or weights.class_names),
        input_size or weights.input_size or (side, side),
        dtype=dtype,
        **options_of_file("YOLOX", yolox, decided, options),
    )
    expected = variable_shapes(detector)
    shapes = jax.eval_shape(detector.fold, expected) if weights.folded else expected
    variables: Variables = take_tensors(
        weights.tensors, shapes, YOLOX_NAMES, r".*\.num_batches_tracked", weights.source
    )
    if weights.folded:
        variables = unfold_batch_norm(variables, EPSILON)
    return detector, jax.device_put({name: variables[name] for name in expected})


def yolox_tensors(detector: Detector, variables: Variables) -> dict[str, np.ndarray]:
    """Tensors by Megvii's names."""
    del detector
    return give_tensors(variables, YOLOX_NAMES)
