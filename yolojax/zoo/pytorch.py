"""Published weights of PyTorch's detectors: a detector from a file of theirs, and tensors by their names back.

    detector, variables = from_pytorch("yolov8n.pt")
    tensors = to_state_dict(detector, variables)          # {"model.0.conv.weight": array, ...}

Family and scale are told from names and shapes of the tensors; class names, input size and class count come from the
file. The file is read by `yolojax.weights.foreign`, which executes nothing.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import DTypeLike

from yolojax.detector import Detector, Variables
from yolojax.errors import CheckpointError, ConfigError
from yolojax.geometry import Preprocess
from yolojax.models.batch_norm import unfold_batch_norm
from yolojax.models.necks import Identity
from yolojax.models.network import Network, init_variables
from yolojax.models.resnet import ResNet
from yolojax.weights.foreign import WeightFile, find_prefix, printable, read_weight_file
from yolojax.weights.foreign import class_names as stated_names
from yolojax.weights.foreign import input_size as stated_size
from yolojax.weights.multimedia import multimedia_prefix, read_names, write_names
from yolojax.weights.torchvision import COUNTER, resnet_depth, resnet_name
from yolojax.weights.ultralytics import Names, give_tensors, take_tensors
from yolojax.weights.yolox import YOLOX_NAMES, yolox_weights
from yolojax.zoo.coco import classes_of_file
from yolojax.zoo.deimv2 import build_deimv2, deimv2_weights
from yolojax.zoo.dfine import build_dfine, dfine_weights
from yolojax.zoo.fasterrcnn import build_fasterrcnn, fasterrcnn_tensors, fasterrcnn_weights
from yolojax.zoo.queries import query_tensors
from yolojax.zoo.retinanet import build_retinanet, retinanet_tensors, retinanet_weights
from yolojax.zoo.rtdetr import build_rtdetr, build_rtdetrv2, rtdetr_weights, rtdetrv2_weights
from yolojax.zoo.yolo11 import PUBLISHED_NAMES as YOLO11_NAMES
from yolojax.zoo.yolo11 import SCALES as YOLO11_SCALES
from yolojax.zoo.yolo11 import yolo11
from yolojax.zoo.yolo12 import PUBLISHED_NAMES as YOLO12_NAMES
from yolojax.zoo.yolo12 import SCALES as YOLO12_SCALES
from yolojax.zoo.yolo12 import yolo12
from yolojax.zoo.yolo26 import PUBLISHED_NAMES as YOLO26_NAMES
from yolojax.zoo.yolo26 import yolo26
from yolojax.zoo.yolonas import build_yolonas, yolonas_tensors, yolonas_weights
from yolojax.zoo.yolov5 import PUBLISHED_NAMES as YOLOV5_NAMES
from yolojax.zoo.yolov5 import yolov5
from yolojax.zoo.yolov5u import PUBLISHED_NAMES as YOLOV5U_NAMES
from yolojax.zoo.yolov5u import SCALES as YOLOV5_SCALES
from yolojax.zoo.yolov5u import yolov5u
from yolojax.zoo.yolov8 import PUBLISHED_NAMES as YOLOV8_NAMES
from yolojax.zoo.yolov8 import SCALES as YOLOV8_SCALES
from yolojax.zoo.yolov8 import STRIDES, scaled_depths, scaled_widths, yolov8
from yolojax.zoo.yolov9 import PUBLISHED_NAMES as YOLOV9_NAMES
from yolojax.zoo.yolov9 import PUBLISHED_NAMES_E as YOLOV9_NAMES_E
from yolojax.zoo.yolov9 import PUBLISHED_NAMES_MC as YOLOV9_NAMES_MC
from yolojax.zoo.yolov9 import SCALES as YOLOV9_SCALES
from yolojax.zoo.yolov9 import yolov9
from yolojax.zoo.yolov10 import PUBLISHED_NAMES as YOLOV10_NAMES
from yolojax.zoo.yolov10 import SCALES as YOLOV10_SCALES
from yolojax.zoo.yolov10 import yolov10
from yolojax.zoo.yolox import SCALES as YOLOX_SCALES
from yolojax.zoo.yolox import build_yolox

PREPROCESS = Preprocess(filter="bilinear")
"""Theirs: a centred letterbox by OpenCV's bilinear filter, padded with 114; RGB, 0..1."""

EPSILON = 1e-3
"""Added to the variance by every BatchNorm of these families."""

DEFAULT_SIZE = 640

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Family:
    """How the files of one family are recognised and read.

    Attributes:
      title: how the family is called.
      build: the zoo function.
      names: of its modules in its files.
      head: the number of its last layer.
      marks: names below ``model.`` that its files have, and no other family's with the same last layer.
      scales: number of channels of the first convolution and of repeats in a block, to the scale.
      repeats: the layer whose repeats are counted.
      anchored: whether the head predicts relative to anchors.
      paired: whether there are two heads, one-to-many and one-to-one.
      bins: whether distances are distributions over bins.
      stem: the number of the first convolution.
    """

    title: str
    build: Callable[..., Detector]
    names: Names
    head: int
    marks: tuple[str, ...]
    scales: Mapping[tuple[int, int], str]
    repeats: int
    anchored: bool = False
    paired: bool = False
    bins: bool = True
    stem: int = 0


def _scales(scales: Mapping[str, Any], repeats: int) -> dict[tuple[int, int], str]:
    """Stem channels and repeats of each scale, from the multiples of depth and width that the zoo file states."""
    return {
        (scaled_widths((64,), numbers[1], 64)[0], scaled_depths((repeats,), numbers[0])[0]): scale
        for scale, numbers in scales.items()
    }


FAMILIES: dict[str, Family] = {
    "yolov8": Family(
        "YOLOv8",
        yolov8,
        YOLOV8_NAMES,
        22,
        ("22.cv2.0.0.conv.weight", "22.dfl.conv.weight", "2.m.0.cv1.conv.weight", "21.m.0.cv1.conv.weight"),
        _scales(YOLOV8_SCALES, 3),
        2,
    ),
    "yolov5": Family(
        "YOLOv5",
        yolov5,
        YOLOV5_NAMES,
        24,
        ("24.anchors", "24.m.0.weight", "2.cv3.conv.weight"),
        _scales(YOLOV5_SCALES, 3),
        2,
        anchored=True,
    ),
    "yolov5u": Family(
        "YOLOv5u",
        yolov5u,
        YOLOV5U_NAMES,
        24,
        ("24.cv2.0.0.conv.weight", "24.dfl.conv.weight", "2.cv3.conv.weight"),
        _scales(YOLOV5_SCALES, 3),
        2,
    ),
    "yolov9": Family(
        "YOLOv9",
        yolov9,
        YOLOV9_NAMES,
        22,
        ("22.cv2.0.0.conv.weight", "22.dfl.conv.weight", "2.cv2.conv.weight", "4.cv2.0.cv1.conv.weight"),
        {(16, 0): "t", (32, 0): "s"},
        2,
    ),
    "yolov10": Family(
        "YOLOv10",
        yolov10,
        YOLOV10_NAMES,
        23,
        ("23.cv2.0.0.conv.weight", "23.dfl.conv.weight", "10.attn.qkv.conv.weight", "5.cv2.conv.weight"),
        _scales(YOLOV10_SCALES, 3),
        2,
        paired=True,
    ),
    "yolo11": Family(
        "YOLO11",
        yolo11,
        YOLO11_NAMES,
        23,
        ("23.cv3.0.0.0.conv.weight", "23.dfl.conv.weight", "10.m.0.attn.qkv.conv.weight", "2.m.0.cv1.conv.weight"),
        _scales(YOLO11_SCALES, 2),
        2,
    ),
    "yolo26": Family(
        "YOLO26",
        yolo26,
        YOLO26_NAMES,
        23,
        ("23.cv2.0.0.conv.weight", "10.m.0.attn.qkv.conv.weight", "22.m.0.1.attn.qkv.conv.weight"),
        _scales(YOLO11_SCALES, 2),
        2,
        paired=True,
        bins=False,
    ),
    "yolo12": Family(
        "YOLO12",
        yolo12,
        YOLO12_NAMES,
        21,
        ("21.cv3.0.0.0.conv.weight", "21.dfl.conv.weight", "6.m.0.0.attn.qkv.conv.weight", "2.m.0.cv1.conv.weight"),
        _scales(YOLO12_SCALES, 2),
        2,
    ),
}
"""Families of Ultralytics' layout by the name of their architecture in the zoo."""


@dataclass(frozen=True)
class OtherFamily:
    """A family whose files are laid out otherwise.

    Attributes:
      title: how the family is called.
      read: ``(file)``: what the file holds of this family; None if it holds another network.
      scale: ``(what was read)``: the published scale, or an empty text.
      build: ``(what was read, class_names, input_size, dtype)``: the detector and its variables.
      give: ``(detector, variables)``: the tensors by the peer's names.
    """

    title: str
    read: Callable[[WeightFile], Any]
    scale: Callable[[Any], str]
    build: Callable[..., tuple[Detector, Variables]]
    give: Callable[[Detector, Variables], dict[str, np.ndarray]]


OTHERS: dict[str, OtherFamily] = {
    "yolox": OtherFamily(
        "YOLOX",
        yolox_weights,
        lambda weights: YOLOX_SCALES.get((weights.blocks, weights.stem, weights.depthwise), ""),
        build_yolox,
        lambda detector, variables: give_tensors(variables, YOLOX_NAMES),
    ),
    "yolonas": OtherFamily("YOLO-NAS", yolonas_weights, lambda weights: weights.scale, build_yolonas, yolonas_tensors),
    "fasterrcnn": OtherFamily(
        "Faster R-CNN", fasterrcnn_weights, lambda weights: weights.scale, build_fasterrcnn, fasterrcnn_tensors
    ),
    "retinanet": OtherFamily(
        "RetinaNet", retinanet_weights, lambda weights: weights.scale, build_retinanet, retinanet_tensors
    ),
    "rtdetr": OtherFamily("RT-DETR", rtdetr_weights, lambda weights: weights.scale, build_rtdetr, query_tensors),
    "rtdetrv2": OtherFamily(
        "RT-DETRv2", rtdetrv2_weights, lambda weights: weights.scale, build_rtdetrv2, query_tensors
    ),
    "dfine": OtherFamily("D-FINE", dfine_weights, lambda weights: weights.scale, build_dfine, query_tensors),
    "deimv2": OtherFamily("DEIMv2", deimv2_weights, lambda weights: weights.scale, build_deimv2, query_tensors),
}
"""Families of other layouts by the name of their architecture in the zoo."""


def identity(file: WeightFile) -> str | None:
    """Family and scale of a weight file as one writes them, such as ``YOLOv8n`` or ``YOLOX-S``; None if unknown.

    Raises `CheckpointError` as `identify` does.
    """
    found = identify(file)
    if found is None or found[0] in FAMILIES:
        return found and FAMILIES[found[0]].title + found[1]
    return "-".join(filter(None, (OTHERS[found[0]].title, found[1].capitalize())))


VARIANTS: dict[str, tuple[Family, ...]] = {
    "yolov9": (
        Family(
            "YOLOv9",
            yolov9,
            YOLOV9_NAMES_MC,
            22,
            ("22.cv2.0.0.conv.weight", "22.dfl.conv.weight", "2.cv2.0.cv1.conv.weight", "4.cv2.0.cv1.conv.weight"),
            {(32, 0): "m", (64, 0): "c"},
            2,
        ),
        Family(
            "YOLOv9",
            yolov9,
            YOLOV9_NAMES_E,
            42,
            ("42.cv2.0.0.conv.weight", "42.dfl.conv.weight", "14.conv.weight", "28.cv2.0.cv1.conv.weight"),
            {(64, 0): "e"},
            2,
            stem=1,
        ),
    ),
}
"""Scales of a family whose layers have other names than those in `FAMILIES`."""


def _candidates() -> list[tuple[str, Family]]:
    """All families and their variants."""
    return [(key, one) for key, family in FAMILIES.items() for one in (family, *VARIANTS.get(key, ()))]


def _family(name: str, scale: str) -> Family:
    """The family or the variant that has this scale."""
    return next(one for one in (FAMILIES[name], *VARIANTS.get(name, ())) if scale in one.scales.values())


def identify(file: WeightFile) -> tuple[str, str] | None:
    """Tells the family (a key of `FAMILIES` or `OTHERS`) and the scale of a weight file; None if it is none of these.

    A YOLOX of a size of its own has an empty scale. Raises `CheckpointError` for a network of such a family that
    detects no plain boxes, or one of `FAMILIES` that has another size.
    """
    for key, other in OTHERS.items():
        if (weights := other.read(file)) is not None:
            return key, other.scale(weights)
    return _identify_layers(file)


def _identify_layers(file: WeightFile) -> tuple[str, str] | None:
    """`identify` among `FAMILIES` alone."""
    tensors = _own_names(file)
    layers = {int(match[1]) for name in tensors if (match := re.match(r"model\.(\d+)\.", name))}
    for key, family in _candidates():
        own = {f"model.{mark}" for mark in family.marks}
        if not layers or max(layers) != family.head or not own <= tensors.keys():
            continue
        other = "cv4|proto" if family.paired else "cv4|proto|one2one"
        if any(re.match(rf"model\.{family.head}\.({other})", name) for name in tensors):
            raise CheckpointError(
                f"{file.path}: this {family.title} has another head than that of boxes (masks, keypoints, angles or a "
                "pair of heads); give the weights of a detector"
            )
        needed = [f"model.{family.stem}.conv.weight", *_head_names(family)]
        if any(name not in tensors or tensors[name].ndim != 4 for name in needed):
            raise CheckpointError(
                f"{file.path}: {', '.join(needed)} are not all kernels of convolutions; it is damaged"
            )
        stem, last = tensors[needed[0]].shape[0], rf"model\.{family.repeats}\.m\.(\d+)\."
        repeats = len({match[1] for name in tensors if (match := re.match(last, name))})
        if (stem, repeats) not in family.scales:
            known = ", ".join(f"{scale}: {w} and {n}" for (w, n), scale in family.scales.items())
            raise CheckpointError(
                f"{file.path}: a {family.title} whose first convolution has {stem} channels and whose first block "
                f"repeats {repeats} times is none of the published scales ({known})"
            )
        return key, family.scales[stem, repeats]
    return None


def from_pytorch(
    path: str | Path,
    *,
    class_names: tuple[str, ...] | None = None,
    input_size: tuple[int, int] | None = None,
    dtype: DTypeLike = "float32",
    options: Mapping[str, Any] | None = None,
) -> tuple[Detector, Variables]:
    """A detector and its variables from a published weight file of one of `FAMILIES` or `OTHERS`, in any scale.

    Args:
      path: a ``.pt`` or ``.pth``, or a ``.safetensors`` with the same tensors, or the ``.onnx`` of a YOLOX. Weights
        whose BatchNorm was folded away are read too, and get it back by `unfold_batch_norm`.
      class_names: in the order of the class scores; by default the file's, or COCO's where it names none and has 80.
      input_size: ``(height, width)`` in pixels, multiples of 32; by default the file's, or that which its family was
        trained with.
      dtype: of the network's computation; parameters are float32.
      options: further arguments of the family's zoo function, such as ``{"head": "one_to_many"}``; those that the file
        decides (its scale, its bins, its anchors) are not among them.

    Raises:
      CheckpointError: unreadable, of no family that is known, or not the whole of it.
      ConfigError: class names that are not as many as the classes, an input image that is no multiple of 32, or options
        that the family does not have or that the file decides.
    """
    file = read_weight_file(path)
    for other in OTHERS.values():
        if (weights := other.read(file)) is not None:
            if options:
                raise ConfigError(f"options: a {other.title} from a file has none; leave out {', '.join(options)}")
            return other.build(weights, class_names, input_size, dtype)
    found = _identify_layers(file)
    if found is None:
        raise CheckpointError(_unknown(file))
    family, scale = _family(*found), found[1]
    tensors = _own_names(file)
    _check_epsilon(file)
    decided, count, constants = _read_head(family, tensors, str(file.path))
    decided = {**decided, "scale": scale}
    if found[0] == "yolov9":
        decided |= _options_of_yolov9(tensors, family.head, scale, count)
    own = dict(options or {})
    known = set(inspect.signature(family.build).parameters) - {"class_names", "input_size", "dtype", *decided}
    if wrong := sorted(set(own) - known):
        raise ConfigError(f"options: a {family.title} from a file has no option {wrong[0]}; it has {sorted(known)}")
    size = input_size or _size_of(file)
    names = classes_of_file(file.path, count, class_names or stated_names(file))
    detector = family.build(names, size, dtype=dtype, **decided, **own)
    preprocess = PREPROCESS if multimedia_prefix(file.tensors) is None else Preprocess()
    detector = detector._replace(spec=replace(detector.spec, preprocess=preprocess))
    expected = jax.eval_shape(detector.init, jax.random.key(0))
    folded = not any(name.endswith(".bn.running_var") for name in tensors)
    ignored = r".*\.num_batches_tracked|" + "|".join(map(re.escape, constants))
    shapes = jax.eval_shape(detector.fold, expected) if folded else expected
    variables = take_tensors(tensors, shapes, family.names, ignored, str(file.path))
    if folded:
        variables = unfold_batch_norm(variables, EPSILON)
    return detector, jax.device_put({name: variables.get(name, {}) for name in expected})


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
    shapes = jax.eval_shape(lambda key: init_variables(network, key, (64, 64)), jax.random.key(0))
    expected = {name: {"backbone": tree["backbone"]} for name, tree in shapes.items()}
    return take_tensors(tensors, expected, resnet_name, rf"fc\.(weight|bias)|.*\.{COUNTER}", str(file.path))


def to_state_dict(detector: Detector, variables: Variables) -> dict[str, np.ndarray]:
    """Tensors by the peer's names and shapes, float32 and OIHW: the inverse of `from_pytorch`.

    The names, the order aside, are those of the peer's ``state_dict()``, with its constants and with counters of
    batches (``num_batches_tracked``) at 0, since nothing here counts them. A YOLOv9 with an auxiliary branch or with
    groups in the branches of boxes gets MultimediaTechLab's names, every other one Ultralytics'.

    Raises `ConfigError` for a detector that is none of `FAMILIES` or `OTHERS`.
    """
    spec = detector.spec
    if spec.name in OTHERS:
        return OTHERS[spec.name].give(detector, variables)
    if spec.name not in FAMILIES:
        raise ConfigError(f"{spec.name} has no names of PyTorch's; those that do: {', '.join((*FAMILIES, *OTHERS))}")
    family = _family(spec.name, spec.options["scale"])
    tensors = {**give_tensors(variables, family.names), **_constants(family, spec.options, spec.strides)}
    theirs = spec.name == "yolov9" and (spec.options["auxiliary"] or spec.options["box_groups"] > 1)
    return write_names(tensors) if theirs else tensors


def _constants(family: Family, options: Mapping[str, Any], strides: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Tensors that files of the family hold beside what is trained."""
    if family.anchored:
        anchors = np.asarray(options["anchors"], np.float32)
        return {f"model.{family.head}.anchors": anchors / np.asarray(strides, np.float32)[:, None, None]}
    if not family.bins:
        return {}
    bins = np.arange(options["reg_max"], dtype=np.float32)
    return {f"model.{family.head}.dfl.conv.weight": bins.reshape(1, -1, 1, 1)}


def _read_head(family: Family, tensors: Tensors, source: str) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Options that the head's tensors imply, the number of classes, and the names of its constants."""
    head = f"model.{family.head}"
    if family.anchored:
        anchors = np.asarray(tensors[f"{head}.anchors"], np.float64)
        if (
            anchors.ndim != 3
            or anchors.shape[::2] != (3, 2)
            or not anchors.size
            or not (np.isfinite(anchors) & (anchors > 0)).all()
        ):
            raise CheckpointError(f"{source}: {head}.anchors is no width and height of anchors at three levels")
        pixels = anchors * np.asarray(STRIDES, np.float64)[:, None, None]
        count = tensors[f"{head}.m.0.weight"].shape[0] // anchors.shape[1] - 5
        options = {"anchors": [[tuple(map(float, one)) for one in level] for level in pixels]}
        return options, count, (f"{head}.anchors", f"{head}.anchor_grid")
    classes = tensors[f"{head}.cv3.0.2.weight"].shape[0]
    if not family.bins:
        return {}, classes, ()
    bins, name = tensors[f"{head}.cv2.0.2.weight"].shape[0] // 4, f"{head}.dfl.conv.weight"
    if not np.array_equal(np.asarray(tensors[name], np.float32).ravel(), np.arange(bins)):
        raise CheckpointError(f"{source}: the tensor {name} is not 0 to {bins - 1}, the values of the bins")
    return {"reg_max": bins}, classes, (name,)


def _head_names(family: Family) -> tuple[str, ...]:
    """The kernels of the head whose shapes say how many anchors, bins and classes there are."""
    head = f"model.{family.head}"
    return (f"{head}.m.0.weight",) if family.anchored else (f"{head}.cv2.0.2.weight", f"{head}.cv3.0.2.weight")


def _options_of_yolov9(tensors: Tensors, head: int, scale: str, classes: int) -> dict[str, Any]:
    """Options of `yolov9` that only files of MultimediaTechLab have other than by default."""
    shapes = [
        tensors.get(f"model.{head}.{name}.conv.weight", np.zeros(())).shape
        for name in ("cv2.0.0", "cv2.0.1", "cv3.0.0")
    ]
    # Kernels of other shapes are those of no YOLOv9, and are named when they are taken.
    wide, kernel, hidden = (shape if len(shape) == 4 else (0, 1, 0, 0) for shape in shapes)
    default = max(YOLOV9_SCALES[scale].levels[0], min(classes, 100))
    return {
        "auxiliary": any(name.startswith("auxiliary.") for name in tensors),
        "box_groups": 4 if wide[0] == 4 * kernel[1] else 1,
        "cls_width": hidden[0] if hidden[0] not in (0, default) else None,
    }


def _own_names(file: WeightFile) -> Tensors:
    """The tensors by Ultralytics' names that begin with ``model.``, whatever wrapped the network when it was saved."""
    tensors = file.tensors
    if (prefix := multimedia_prefix(tensors)) is not None:
        return read_names(tensors, prefix, str(file.path))
    found = (re.fullmatch(r"(.*?)model\.[01]\.conv\.weight", name) for name in tensors)
    prefix = next((match[1] for match in found if match), "")
    return {name.removeprefix(prefix): array for name, array in tensors.items()} if prefix else tensors


def _size_of(file: WeightFile) -> tuple[int, int]:
    """The file's input size, rounded up to multiples of 32."""
    height, width = stated_size(file) or (DEFAULT_SIZE, DEFAULT_SIZE)
    return -(-height // 32) * 32, -(-width // 32) * 32


def _check_epsilon(file: WeightFile) -> None:
    for name, module in file.modules.items():
        epsilon = module.attributes.get("eps") if module.class_path.endswith(".BatchNorm2d") else None
        known = isinstance(epsilon, float) and math.isclose(epsilon, EPSILON, rel_tol=1e-6)
        if epsilon is not None and not known:
            raise CheckpointError(
                f"{file.path}: the normalisation {name} adds {str(epsilon)[:40]} to the variance, these families add "
                f"{EPSILON}; the file is of another program"
            )


def _unknown(file: WeightFile) -> str:
    """The message for a file of no known family: what was found in it, and what is known."""
    kinds = sorted({module.class_path.rpartition(".")[2] for module in file.modules.values()} - {""})
    shown = [f"{printable(name)[:200]} {list(array.shape)}" for name, array in list(file.tensors.items())[:4]]
    titles = ", ".join(family.title for family in (*FAMILIES.values(), *OTHERS.values()))
    return (
        f"{file.path}: no YOLO that is known here ({titles}). It holds {len(file.tensors)} tensors of a "
        f"{file.root_class or 'nameless network'}, such as {', '.join(shown) or 'none'}"
        + (f"; modules: {', '.join(kinds[:12])}" if kinds else "")
        + "; yolojax info FILE lists all of them"
    )
