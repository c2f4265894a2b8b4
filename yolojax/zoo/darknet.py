"""Darknet's files: any detector that a ``.cfg`` describes, and published weights for the zoo's own YOLOv1 to v4.

YOLOv1 to v4, v7-tiny, Yolo-Fastest, MobileNet-YOLO and others come as a pair of files; `from_darknet` makes a detector
and its variables of them, `to_darknet` writes such a pair. Accuracy is the published one, on Darknet's own
preprocessing: the photo stretched to the input image (letterboxed where the file says ``letter_box=1``) by OpenCV's
bilinear filter, RGB, 0..1.

The file's layers become a backbone, a neck and a head (`yolojax.models.darknet`). What a file says about Darknet's
training does not enter: the loss is that of `anchored_detection`, with the file's ``iou_loss``,
``iou_thresh`` and ``ignore_thresh``, or YOLOv1's with the scales of its ``[detection]`` layer.

`load_darknet` and `save_darknet` read and write the weight file alone, for the detectors of `yolojax.zoo.yolov1`, and
of `yolov2`, `yolov3` and `yolov4`, whose networks are written out as modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from yolojax.detector import Decode, Detector, DetectorSpec, Loss, Variables, variable_shapes
from yolojax.errors import ConfigError
from yolojax.files import write_together
from yolojax.geometry import Preprocess
from yolojax.models.convolution_order import Path as ConvolutionPath
from yolojax.models.convolution_order import arrays_at, convolutions_in_order, in_groups, put_arrays
from yolojax.models.darknet import arrays_from_variables, darknet_network, variables_from_arrays
from yolojax.models.darknet_parts import backbone_length, by_stride, split_parts
from yolojax.models.layers import Style
from yolojax.paths import user_path
from yolojax.weights.class_names import read_class_names
from yolojax.weights.darknet import (
    Cfg,
    Header,
    Shape,
    Stored,
    format_cfg,
    layer_shapes,
    parse_cfg,
    read_cfg,
    read_stored,
    read_weights,
    weights_bytes,
    write_stored,
    write_weights,
)
from yolojax.weights.darknet_layers import Detection, Region, Yolo
from yolojax.weights.darknet_write import with_classes
from yolojax.weights.released import fit_tree
from yolojax.zoo.anchored import POSTPROCESS, AnchoredLevel, anchored_detection
from yolojax.zoo.coco import COCO_CLASSES
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import flax_detector
from yolojax.zoo.options import check_momentum
from yolojax.zoo.yolov1 import POSTPROCESS as GRID_POSTPROCESS
from yolojax.zoo.yolov1 import grid_detection, grid_hyper, yolov1_cfg
from yolojax.zoo.yolov2 import DARKNET_ORDER as V2_ORDER
from yolojax.zoo.yolov3 import DARKNET_ORDER as V3_ORDER
from yolojax.zoo.yolov3 import TINY_DARKNET_ORDER as V3_TINY_ORDER
from yolojax.zoo.yolov4 import DARKNET_ORDER as V4_ORDER
from yolojax.zoo.yolov4 import TINY_DARKNET_ORDER as V4_TINY_ORDER

ORDERS = {
    "yolov2": V2_ORDER,
    "yolov3": V3_ORDER,
    "yolov3-tiny": V3_TINY_ORDER,
    "yolov4": V4_ORDER,
    "yolov4-tiny": V4_TINY_ORDER,
}
"""The order of the convolutions of each detector in its weight file, by the parts that they belong to."""

GRIDS = ("yolov1", "yolov1-tiny")
"""Detectors of the zoo that are made of Darknet's layers, in the order of its file."""


def darknet(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    cfg: str,
    backbone_layers: int | None = None,
    epsilon: float = 1e-5,
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds the detector of a cfg, without weights.

    Args:
      class_names: in the order of the class scores; the prediction layers are made for as many.
      input_size: ``(height, width)`` in pixels, whatever the file says.
      cfg: the text of the file.
      backbone_layers: how many of the first layers are the backbone; by default what
        `yolojax.models.darknet_parts.backbone_length` finds.
      epsilon: of batch normalisation: 1e-5 in Darknet, 1e-6 in OpenCV.
      momentum: of the running BatchNorm statistics.
      dtype: of the network's computation.

    Raises:
      ConfigError: the text describes no network that is supported, naming the line, or the input image does not fit it.
    """
    check_momentum(momentum)
    if not 0 < epsilon < 1:
        raise ConfigError(f"epsilon = {epsilon!r}: give a positive number below 1, such as 1e-5")
    network = with_classes(parse_cfg(cfg), len(class_names))
    length = backbone_length(network) if backbone_layers is None else backbone_layers
    if not 1 <= length <= len(network.layers):
        raise ConfigError(f"backbone_layers = {length}: give 1 to {len(network.layers)}, the layers of the cfg")
    return _build(tuple(class_names), network, (input_size[0], input_size[1]), length, epsilon, momentum, dtype)


def from_darknet(
    cfg: str | Path,
    weights: str | Path,
    *,
    class_names: str | Path | Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    backbone_layers: int | None = None,
    epsilon: float | None = None,
    momentum: float = 0.97,
    dtype: DTypeLike = "float32",
) -> tuple[Detector, Variables]:
    """Reads a published detector and its variables.

    Args:
      cfg: the ``.cfg`` file.
      weights: the ``.weights`` file that belongs to it.
      class_names: in the order of the class scores, or the ``.names`` file that lists them. Without it 80 classes are
        taken for COCO's, others are ``class0``, ``class1``, ...
      size: side of the square input image, or ``(height, width)``, instead of the file's. A network with connected or
        local layers, such as YOLOv1, has the file's alone.
      epsilon: see `darknet`. For a YOLOv1, whose Darknet adds 1e-6 to the deviation and nothing to the variance, it is
        by default 1e-12, which gives the same numbers; fine-tuning wants 1e-5.
      backbone_layers, momentum, dtype: see `darknet`.

    Raises:
      ConfigError: the cfg, the size or the number of names is wrong, naming the line where there is one.
      CheckpointError: the weights do not belong to the cfg, or a file cannot be read.
    """
    network = read_cfg(cfg)
    if class_names is None:
        coco = network.classes == len(COCO_CLASSES)
        class_names = COCO_CLASSES if coco else tuple(f"class{i}" for i in range(network.classes))
    class_names = read_class_names(class_names) if isinstance(class_names, str | Path) else tuple(class_names)
    if len(class_names) != network.classes:
        raise ConfigError(f"{cfg} has {network.classes} classes, but {len(class_names)} class names are given")
    input_size = (network.height, network.width) if size is None else (size, size) if isinstance(size, int) else size
    if network.fixed_size and tuple(input_size) != (network.height, network.width):
        raise ConfigError(
            f"{cfg}: size = {size}: some of its weights differ from place to place, so that they fit an input of "
            f"{network.width} x {network.height} alone; leave size out"
        )
    if epsilon is None:
        epsilon = 1e-12 if any(isinstance(layer, Detection) for layer in network.layers) else 1e-5
    length = backbone_length(network) if backbone_layers is None else backbone_layers
    detector = darknet(
        class_names,
        input_size,
        cfg=format_cfg(network),
        backbone_layers=length,
        epsilon=epsilon,
        momentum=momentum,
        dtype=dtype,
    )
    arrays = read_weights(weights, network).layers
    given = variables_from_arrays(split_parts(network, length), arrays)
    wanted = variable_shapes(detector)
    return detector, jax.device_put(fit_tree(given, wanted, str(weights)))


def to_darknet(
    detector: Detector, variables: Variables, cfg: str | Path, weights: str | Path, *, header: Header | None = None
) -> None:
    """Write a `darknet` detector as the pair of files that Darknet and OpenCV read.

    Args:
      detector: made by `darknet`, `from_darknet`, `yolov1` or `yolov1_tiny`; not folded.
      variables: its variables.
      cfg: the file to write the network to, without settings of training.
      weights: the file to write the parameters to.
      header: version and number of images seen; by default version 0.2.5 and none.

    Raises:
      ConfigError: the detector comes from no cfg.
      CheckpointError: the variables are another detector's, or a file cannot be written; then there is neither file, or
        both old ones.
    """
    spec = detector.spec
    if spec.name != "darknet" and spec.name not in GRIDS:
        raise ConfigError(
            f"{spec.name} comes from no cfg; only {', '.join(('darknet', *GRIDS))} detectors can be written as one"
        )
    if user_path(cfg) == user_path(weights):
        raise ConfigError(f"cfg and weights are both {cfg}: give two files")
    network, length = _network_of(spec)
    arrays = arrays_from_variables(network, split_parts(network, length), jax.device_get(variables))
    content = weights_bytes(network, arrays, header or Header())
    write_together({cfg: format_cfg(network).encode(), weights: content})


def load_darknet(detector: Detector, weights: str | Path) -> Variables:
    """Reads the variables of a YOLOv1, v2, v3 or v4 of the zoo from a Darknet ``.weights`` file.

    Raises:
      ConfigError: the detector is none of them (`from_darknet` reads any network together with its cfg).
      CheckpointError: the file holds another network, naming the convolution.
    """
    wanted = variable_shapes(detector)
    if detector.spec.name in GRIDS:
        network, length = _network_of(detector.spec)
        given = variables_from_arrays(split_parts(network, length), read_weights(weights, network).layers)
        return jax.device_put(fit_tree(given, wanted, str(weights)))
    paths = _paths(detector)
    found = read_stored(weights, _stored(wanted, paths), lambda i: _title(paths, i))
    variables: Variables = {"params": {}, "batch_stats": {}}
    for i, path in enumerate(paths):
        put_arrays(variables, path, found.layers[i])
    return jax.device_put(fit_tree(variables, wanted, str(weights)))


def save_darknet(
    detector: Detector, variables: Variables, weights: str | Path, *, header: Header | None = None
) -> None:
    """Writes variables as `load_darknet` reads them.

    The header states version 0.2.5 and no image seen, unless another one is given.
    """
    variables = jax.device_get(variables)
    if detector.spec.name in GRIDS:
        network, length = _network_of(detector.spec)
        arrays = arrays_from_variables(network, split_parts(network, length), variables)
        return write_weights(weights, network, arrays, header or Header())
    paths = _paths(detector)
    arrays = {i: arrays_at(variables, path) for i, path in enumerate(paths)}
    stored = _stored(variable_shapes(detector), paths)
    write_stored(weights, stored, lambda i: _title(paths, i), arrays, header or Header())


def _network_of(spec: DetectorSpec) -> tuple[Cfg, int]:
    """The network of a detector that a cfg describes, for its input size, and the number of backbone layers."""
    if spec.name in GRIDS:
        cfg = yolov1_cfg(spec)
        return cfg, backbone_length(cfg)
    height, width = spec.input_size
    return replace(parse_cfg(spec.options["cfg"]), height=height, width=width), spec.options["backbone_layers"]


def _paths(detector: Detector) -> list[ConvolutionPath]:
    name = detector.spec.name
    if name not in ORDERS:
        raise ConfigError(f"{name} has no published Darknet weights; known are {', '.join((*GRIDS, *ORDERS))}")
    variables = variable_shapes(detector)

    def forward(image: jax.Array) -> object:
        return detector.forward(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables), image)

    return in_groups(convolutions_in_order(forward, detector.spec.input_size), ORDERS[name])


def _stored(variables: Variables, paths: list[ConvolutionPath]) -> list[Stored]:
    stored: list[Stored] = []
    for i, path in enumerate(paths):
        own = variables["params"]
        for name in path[:-1]:
            own = own[name]
        height, width, channels, filters = own[path[-1]]["kernel"].shape
        names = ("bias", "scale", "mean", "var") if path[-1] == "conv" and "norm" in own else ("bias",)
        stored += [Stored(i, name, (filters,)) for name in names]
        stored.append(Stored(i, "kernel", (filters, channels, height, width)))
    return stored


def _title(paths: list[ConvolutionPath], number: int) -> str:
    return f"convolution {number} ({'/'.join(paths[number])})"


def _build(
    class_names: tuple[str, ...],
    cfg: Cfg,
    input_size: tuple[int, int],
    length: int,
    epsilon: float,
    momentum: float,
    dtype: DTypeLike,
) -> Detector:
    shapes = layer_shapes(cfg, input_size)
    options: dict[str, Any] = {
        "cfg": format_cfg(cfg),
        "backbone_layers": length,
        "epsilon": epsilon,
        "momentum": momentum,
    }
    last = cfg.layers[cfg.detections[0]]
    if isinstance(last, Detection):
        loss, decode = grid_detection(last, input_size)
        strides, hyper, postprocess = (input_size[1] // last.side,), grid_hyper(last), GRID_POSTPROCESS
    else:
        loss, decode, strides, hyper = _anchored(cfg, shapes, input_size)
        postprocess = POSTPROCESS
    spec = DetectorSpec(
        "darknet",
        class_names,
        input_size,
        strides,
        Preprocess("letterbox" if cfg.letter_box else "stretch", pad=128, filter="bilinear"),
        hyper=hyper,
        options=options,
        postprocess=postprocess,
    )
    style = Style(momentum=momentum, epsilon=epsilon, dtype=dtype)
    return mark_built(flax_detector(spec, darknet_network(cfg, split_parts(cfg, length), style), loss, decode))


def _anchored(
    cfg: Cfg, shapes: Sequence[Shape], input_size: tuple[int, int]
) -> tuple[Loss, Decode, tuple[int, ...], dict[str, float]]:
    """Loss, decoder, strides and hyper-parameters of a network with ``[yolo]`` or ``[region]`` layers."""
    levels: list[AnchoredLevel] = []
    box, ignore, softmax, iou_thresh = "mse", 0.5, False, 1.0
    for number in by_stride(cfg):
        layer, shape = cfg.layers[number], shapes[number]
        stride = input_size[1] // shape.width
        if (shape.height * stride, shape.width * stride) != input_size:
            raise ConfigError(
                f"input_size {input_size} (height, width): layer {number} has {shape.width} x {shape.height} cells, "
                f"which do not divide it; give multiples of {max(32, stride)}"
            )
        if isinstance(layer, Yolo):
            levels.append(AnchoredLevel(stride, layer.anchors, layer.scale_x_y, layer.new_coords))
            box, ignore, iou_thresh = layer.iou_loss, layer.ignore_thresh, layer.iou_thresh
        elif isinstance(layer, Region):
            sizes = tuple((width * stride, height * stride) for width, height in layer.anchors)
            levels.append(AnchoredLevel(stride, sizes))
            softmax, ignore = layer.softmax, layer.ignore_thresh
    loss, decode, _ = anchored_detection(levels, box_loss=box, softmax=softmax, iou_thresh=iou_thresh)
    return loss, decode, tuple(level.stride for level in levels), {"ignore_iou": ignore}
