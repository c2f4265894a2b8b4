"""Published weights of PyTorch's detectors: a detector from a file of theirs, and tensors by their names back.

    detector, variables = from_pytorch("yolov8n.pt")
    tensors = to_state_dict(detector, variables)          # {"model.0.conv.weight": array, ...}

Family and scale are told from names and shapes of the tensors; class names, input size and class count come from the
file. The file is read by `yolojax.weights.foreign`, which executes nothing. Each family is one entry of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import DTypeLike

from yolojax.detector import Detector, Variables
from yolojax.errors import CheckpointError, ConfigError
from yolojax.models.necks import Identity
from yolojax.models.network import Network, init_variables
from yolojax.models.resnet import ResNet
from yolojax.weights.foreign import WeightFile, find_prefix, printable, read_weight_file
from yolojax.weights.torchvision import COUNTER, resnet_depth, resnet_name
from yolojax.weights.ultralytics import take_tensors
from yolojax.weights.yolox import yolox_weights
from yolojax.zoo.deimv2 import build_deimv2, deimv2_weights
from yolojax.zoo.dfine import build_dfine, dfine_weights
from yolojax.zoo.fasterrcnn import build_fasterrcnn, fasterrcnn_tensors, fasterrcnn_weights
from yolojax.zoo.queries import query_tensors
from yolojax.zoo.retinanet import build_retinanet, retinanet_tensors, retinanet_weights
from yolojax.zoo.rtdetr import build_rtdetr, build_rtdetrv2, rtdetr_tensors, rtdetr_weights, rtdetrv2_weights
from yolojax.zoo.ultralytics_layout import LAYOUTS, build_layers, layer_tensors, read_layers
from yolojax.zoo.yolonas import build_yolonas, yolonas_tensors, yolonas_weights
from yolojax.zoo.yolox import build_yolox, yolox_scale, yolox_tensors


def _stated_scale(weights: Any) -> str:
    return weights.scale


@dataclass(frozen=True)
class Family:
    """A published family: how its files are recognised and read, and how its tensors are written.

    Attributes:
      title: how the family is called.
      read: ``(file)``: what the file holds of this family, with ``num_classes`` and ``class_names`` among its
        attributes; None if it holds another network.
      build: ``(what was read, class_names, input_size, dtype, options)``: the detector and its variables.
      give: ``(detector, variables)``: the tensors by the peer's names.
      scale: ``(what was read)``: the published scale, or an empty text.
      joint: what stands between title and scale, as in YOLOX-S; empty for YOLOv8n.
    """

    title: str
    read: Callable[[WeightFile], Any]
    build: Callable[..., tuple[Detector, Variables]]
    give: Callable[[Detector, Variables], dict[str, np.ndarray]]
    scale: Callable[[Any], str] = _stated_scale
    joint: str = "-"

    def label(self, scale: str) -> str:
        """Family and scale as one writes them, such as ``YOLOv8n`` or ``YOLOX-S``."""
        return self.joint.join(filter(None, (self.title, scale.capitalize() if self.joint else scale)))


FAMILIES: dict[str, Family] = {
    **{
        name: Family(
            layouts[0].title, partial(read_layers, layouts), build_layers, partial(layer_tensors, layouts), joint=""
        )
        for name, layouts in LAYOUTS.items()
    },
    "yolox": Family("YOLOX", yolox_weights, build_yolox, yolox_tensors, yolox_scale),
    "yolonas": Family("YOLO-NAS", yolonas_weights, build_yolonas, yolonas_tensors),
    "fasterrcnn": Family("Faster R-CNN", fasterrcnn_weights, build_fasterrcnn, fasterrcnn_tensors),
    "retinanet": Family("RetinaNet", retinanet_weights, build_retinanet, retinanet_tensors),
    "rtdetr": Family("RT-DETR", rtdetr_weights, build_rtdetr, rtdetr_tensors),
    "rtdetrv2": Family("RT-DETRv2", rtdetrv2_weights, build_rtdetrv2, query_tensors),
    "dfine": Family("D-FINE", dfine_weights, build_dfine, query_tensors),
    "deimv2": Family("DEIMv2", deimv2_weights, build_deimv2, query_tensors),
}
"""The published families by the name of their architecture in the zoo."""


def read_family(file: WeightFile) -> tuple[str, Any] | None:
    """The name of the family that a weight file is of, and what its reader found; None if it is of none.

    Raises `CheckpointError` as `identify` does.
    """
    for name, family in FAMILIES.items():
        if (weights := family.read(file)) is not None:
            return name, weights
    return None


def identify(file: WeightFile) -> tuple[str, str] | None:
    """Tells the family (a key of `FAMILIES`) and the scale of a weight file; None if it is none of these.

    The scale of a YOLOX, RT-DETR, D-FINE or DEIMv2 whose sizes were not published is empty. Raises `CheckpointError`
    for a network of such a family that detects no plain boxes, and for another size in families without such a scale.
    """
    found = read_family(file)
    return found and (found[0], FAMILIES[found[0]].scale(found[1]))


def identity(file: WeightFile) -> str | None:
    """Family and scale of a weight file as one writes them, such as ``YOLOv8n`` or ``YOLOX-S``; None if unknown.

    Raises `CheckpointError` as `identify` does.
    """
    found = identify(file)
    return found and FAMILIES[found[0]].label(found[1])


def from_pytorch(
    path: str | Path,
    *,
    class_names: tuple[str, ...] | None = None,
    input_size: tuple[int, int] | None = None,
    dtype: DTypeLike = "float32",
    options: Mapping[str, Any] | None = None,
) -> tuple[Detector, Variables]:
    """A detector and its variables from a published weight file of one of `FAMILIES`, in any scale.

    Args:
      path: a ``.pt`` or ``.pth``, or a ``.safetensors`` with the same tensors, or the ``.onnx`` of a YOLOX. Weights
        whose BatchNorm was folded away are read too, and get it back by `unfold_batch_norm`.
      class_names: in the order of the class scores; by default the file's, or COCO's where it names none and has 80.
      input_size: ``(height, width)`` in pixels, multiples of 32; by default the file's, or that which its family was
        trained with.
      dtype: of the network's computation; parameters are float32.
      options: further arguments of the family's zoo function, such as ``{"head": "one_to_many"}`` of a YOLOv10 or
        ``{"queries": 100}`` of an RT-DETR; those that the file decides (its scale, its bins, its anchors) are not
        among them.

    Raises:
      CheckpointError: unreadable, of no family that is known, or not the whole of it.
      ConfigError: class names that are not as many as the classes, an input image that is no multiple of 32, or options
        that the family does not have or that the file decides.
    """
    file = read_weight_file(path)
    found = read_family(file)
    if found is None:
        raise CheckpointError(_unknown(file))
    name, weights = found
    return FAMILIES[name].build(weights, class_names, input_size, dtype, options)


def to_state_dict(detector: Detector, variables: Variables) -> dict[str, np.ndarray]:
    """Tensors by the peer's names and shapes, float32 and OIHW: the inverse of `from_pytorch`.

    The names, the order aside, are those of the peer's ``state_dict()``, with its constants and with counters of
    batches (``num_batches_tracked``) at 0, since nothing here counts them. A YOLOv9 with an auxiliary branch or with
    groups in the branches of boxes gets MultimediaTechLab's names, families that Ultralytics publishes get its names,
    and every other one its authors'.

    Raises `ConfigError` for a detector that is none of `FAMILIES`.
    """
    name = detector.spec.name
    if name not in FAMILIES:
        raise ConfigError(f"{name} has no names of PyTorch's; those that do: {', '.join(FAMILIES)}")
    return FAMILIES[name].give(detector, variables)


def backbone_variables(file: WeightFile) -> Variables | None:
    """The variables of a backbone alone, below ``backbone``, from a ResNet that classifies; None for other files.

    The names are those of torchvision's ``resnet18``, ``34``, ``50`` and ``101``; the classifier is left out. They fit
    every detector whose backbone is a `yolojax.models.resnet.ResNet` of this depth. Raises `CheckpointError` for a
    network that has the layers of a ResNet and others besides, such as an SE-ResNet.
    """
    prefix = find_prefix(file.tensors, "layer1.0.conv1.weight")
    if prefix is None or f"{prefix}conv1.weight" not in file.tensors:
        return None
    tensors = {name.removeprefix(prefix): array for name, array in file.tensors.items()}
    depth, stem = resnet_depth(tensors), tensors["conv1.weight"]
    if depth is None or stem.ndim != 4:
        return None
    network = Network(ResNet(depth, width=len(stem)), Identity(), Identity())
    shapes = jax.eval_shape(lambda: init_variables(network, jax.random.key(0), (64, 64)))
    expected = {name: {"backbone": tree["backbone"]} for name, tree in shapes.items()}
    return take_tensors(tensors, expected, resnet_name, rf"fc\.(weight|bias)|.*\.{COUNTER}", str(file.path))


def _unknown(file: WeightFile) -> str:
    """The message for a file of no known family: what was found in it, and what is known."""
    kinds = sorted({module.class_path.rpartition(".")[2] for module in file.modules.values()} - {""})
    shown = [f"{printable(name)[:200]} {list(array.shape)}" for name, array in list(file.tensors.items())[:4]]
    titles = ", ".join(family.title for family in FAMILIES.values())
    return (
        f"{file.path}: no detector that is known here ({titles}). It holds {len(file.tensors)} tensors of a "
        f"{file.root_class or 'nameless network'}, such as {', '.join(shown) or 'none'}"
        + (f"; modules: {', '.join(kinds[:12])}" if kinds else "")
        + "; yolojax info FILE lists all of them"
    )
