"""YOLOv1 and YOLOv1-tiny (Redmon et al. 2016, arXiv 1506.02640): one grid of 7 by 7 cells over the whole image.

Convolutions halve the image six times; the last layer reads all of the map at once and gives for each cell the class
scores, and for each of its boxes a confidence, the centre in the cell and the square roots of width and height. All of
these are linear outputs that learn by squared errors. Scores are confidence times class.

The networks are those of the published files ``yolov1.cfg`` and ``yolov1-tiny.cfg`` (pjreddie/darknet, public domain),
whose weights load by `yolojax.zoo.load_darknet`, or with their ``.cfg`` by `yolojax.zoo.from_darknet`. They differ from
the paper's: three boxes a cell in the larger one, batch normalisation, and a local layer in place of the first of two
connected layers. Published on Pascal VOC 2007: AP50 .634 (the paper's network, table 1) and .527 (Fast YOLO, with 9
convolutional layers).

What differs from the published training: augmentation and schedule are the trainer's, and of several objects whose
centres lie in one cell the first by content is learned.
"""

from collections.abc import Iterable
from dataclasses import replace

import jax
from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign, responsible_assign
from yolojax.coding import cell_centres, decode_yolov1
from yolojax.detector import Decode, Detector, DetectorSpec, Loss, Outputs, Postprocess, Thresholds
from yolojax.errors import ConfigError
from yolojax.geometry import Preprocess
from yolojax.losses import yolov1_loss
from yolojax.models.darknet import darknet_network
from yolojax.models.darknet_parts import backbone_length, split_parts
from yolojax.models.layers import Style
from yolojax.structures import Candidates, Hyper, Level, LossTerms, Targets
from yolojax.weights.darknet import Cfg, parse_cfg
from yolojax.weights.darknet_layers import Detection
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts, check_momentum, check_width
from yolojax.zoo.parts import check_anchor_free, find_part

STRIDE = 64
"""Input pixels of a cell."""

POSTPROCESS = Postprocess(Thresholds(0.001, 0.5, 300), Thresholds(0.2, 0.4, 100))
"""Those of Darknet's own commands for YOLOv1: validation and test."""

ASSIGNERS: dict[str, AnchorFreeAssign] = {"responsible": responsible_assign}

_TINY = ("16 3", "M", "32 3", "M", "64 3", "M", "128 3", "M", "256 3", "M", "512 3", "M", "1024 3", "256 3")
_FULL = (
    *("64 7 2", "M", "192 3", "M", "128 1", "256 3", "256 1", "512 3", "M"),
    *("256 1", "512 3") * 4,
    *("512 1", "1024 3", "M", "512 1", "1024 3", "512 1", "1024 3"),
    *("1024 3", "1024 3 2", "1024 3", "1024 3", "local 256 3", "dropout"),
)
"""Layers: filters, size and stride of a convolution, ``M`` for a 2x2 max pool."""


def grid_detection(
    detection: Detection, input_size: tuple[int, int], assign: AnchorFreeAssign = responsible_assign
) -> tuple[Loss, Decode]:
    """Loss and decoder of a network whose output is one `yolojax.models.yolov1.GridPrediction`.

    Raises `ConfigError` for an input image that is not square or that the grid's side does not divide.
    """
    stride, rest = divmod(input_size[1], detection.side)
    if rest or input_size[0] != input_size[1]:
        raise ConfigError(
            f"input_size {input_size}: a grid of {detection.side} x {detection.side} cells needs a square whose sides "
            f"are a multiple of {detection.side}"
        )
    level = Level(detection.side, detection.side, stride)

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        classes, confidences, boxes = outputs[0]
        classes = jax.nn.softmax(classes, axis=-1) if detection.softmax else classes
        return yolov1_loss(
            classes,
            confidences,
            boxes,
            level,
            targets,
            hyper,
            assign=assign,
            sqrt=detection.sqrt,
            rescore=detection.rescore,
        )

    def decode(outputs: Outputs) -> Candidates:
        classes, confidences, boxes = outputs[0]
        classes = jax.nn.softmax(classes, axis=-1) if detection.softmax else classes
        points, strides = cell_centres((level,), detection.boxes)
        cells = points / strides[:, None] - 0.5
        raw = boxes.reshape(boxes.shape[0], -1, 4)
        decoded = decode_yolov1(raw, cells[None], strides[None], input_size, sqrt=detection.sqrt)
        scores = confidences[..., None] * classes[:, :, :, None, :]
        return Candidates(decoded, scores.reshape(scores.shape[0], -1, scores.shape[-1]))

    return loss, decode


def grid_hyper(detection: Detection) -> dict[str, float]:
    """The gains of the loss that a ``[detection]`` layer states."""
    return {
        "lambda_coord": detection.coord_scale,
        "lambda_obj": detection.object_scale,
        "lambda_noobj": detection.noobject_scale,
        "lambda_cls": detection.class_scale,
    }


def yolov1_cfg(spec: DetectorSpec) -> Cfg:
    """The network of a detector of `yolov1` or `yolov1_tiny`, as Darknet's file describes it."""
    tiny, options = spec.name == "yolov1-tiny", spec.options
    side, classes, boxes = spec.input_size[0] // STRIDE, len(spec.class_names), options["boxes"]
    values = side**2 * (classes + 5 * boxes)
    layers = _sections(_TINY if tiny else _FULL, options["width"])
    text = f"""
[net]
height={spec.input_size[0]}
width={spec.input_size[1]}
channels=3
{"".join(layers)}
[connected]
output={values}
activation=linear
[detection]
classes={classes}
coords=4
rescore=1
side={side}
num={boxes}
softmax=0
sqrt=1
object_scale=1
noobject_scale=.5
class_scale=1
coord_scale=5
"""
    return parse_cfg(text, spec.name)


def _sections(layers: Iterable[str], width: float) -> Iterable[str]:
    for layer in layers:
        kind, *numbers = layer.split()
        if kind == "M":
            yield "[maxpool]\nsize=2\nstride=2\n"
        elif kind == "dropout":
            yield "[dropout]\nprobability=.5\n"
        else:
            local = kind == "local"
            filters, size, stride = (*(numbers if local else (kind, *numbers)), "1")[:3]
            yield f"[{'local' if local else 'convolutional'}]\nfilters={max(2, round(int(filters) * width))}\n"
            yield f"size={size}\nstride={stride}\npad=1\nactivation=leaky\n" + ("" if local else "batch_normalize=1\n")


def yolov1(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    boxes: int = 3,
    width: float = 1.0,
    assign: str | AnchorFreeAssign = "responsible",
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv1; the published size is 448 by 448 pixels.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, a square whose side is a multiple of 64: a cell has 64 pixels. Weights
        of another size do not fit.
      boxes: of each cell; 2 in the paper, 3 in the published weights.
      width: of the network, as a share of the published channels.
      assign: ``responsible`` (the paper's rule), or an `AnchorFreeAssign` for several predictions a cell.
      momentum: of the running BatchNorm statistics.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input image that is no square of whole cells.
    """
    return _yolov1("yolov1", class_names, input_size, boxes, width, assign, momentum, dtype)


def yolov1_tiny(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    boxes: int = 2,
    width: float = 1.0,
    assign: str | AnchorFreeAssign = "responsible",
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLOv1-tiny, with eight convolutions; arguments and errors are those of `yolov1`."""
    return _yolov1("yolov1-tiny", class_names, input_size, boxes, width, assign, momentum, dtype)


def _yolov1(
    name: str,
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    boxes: int,
    width: float,
    assign: str | AnchorFreeAssign,
    momentum: float,
    dtype: DTypeLike,
) -> Detector:
    check_counts(1, boxes=boxes)
    check_width(width)
    check_momentum(momentum)
    check_input_size(input_size, STRIDE)
    check_anchor_free(assign, ASSIGNERS)
    assigner, assign_name = find_part("assign", assign, ASSIGNERS)
    options = {"boxes": boxes, "width": width, "assign": assign_name, "momentum": momentum}
    spec = DetectorSpec(
        name,
        class_names,
        input_size,
        (STRIDE,),
        Preprocess("stretch", pad=128, filter="bilinear"),
        options=options,
        postprocess=POSTPROCESS,
    )
    if input_size[0] != input_size[1]:
        raise ConfigError(f"input_size {input_size}: {name} needs a square, such as 448 by 448")
    cfg = yolov1_cfg(spec)
    detection = cfg.layers[-1]
    assert isinstance(detection, Detection)
    spec = replace(spec, hyper=grid_hyper(detection))
    loss, decode = grid_detection(detection, input_size, assigner)
    style = Style(activation="leaky_relu", momentum=momentum, epsilon=1e-5, dtype=dtype)
    network = darknet_network(cfg, split_parts(cfg, backbone_length(cfg)), style)
    return mark_built(flax_detector(spec, network, loss, decode))
