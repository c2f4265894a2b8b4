"""Published files of Ultralytics' layout, whose layers are numbered: YOLOv5, v5u, v8 to v10, YOLO11, YOLO12, YOLO26.

Each family is described by a `Layout`, or by several where its scales have other layers. Names and shapes of the
tensors say which one a file is; class names and input size come from the file. `yolojax.zoo.pytorch` asks this file as
it asks the readers of all other families.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import DTypeLike

from yolojax.detector import Detector, Variables, variable_shapes
from yolojax.errors import CheckpointError
from yolojax.geometry import Preprocess
from yolojax.models.batch_norm import unfold_batch_norm
from yolojax.weights.foreign import WeightFile, check_epsilon
from yolojax.weights.foreign import class_names as stated_names
from yolojax.weights.foreign import input_size as stated_size
from yolojax.weights.multimedia import multimedia_prefix, read_names, write_names
from yolojax.weights.ultralytics import Names, give_tensors, take_tensors
from yolojax.zoo.coco import classes_of_file
from yolojax.zoo.options import options_of_file
from yolojax.zoo.yolo11 import PUBLISHED_NAMES as YOLO11_NAMES
from yolojax.zoo.yolo11 import SCALES as YOLO11_SCALES
from yolojax.zoo.yolo11 import yolo11
from yolojax.zoo.yolo12 import PUBLISHED_NAMES as YOLO12_NAMES
from yolojax.zoo.yolo12 import SCALES as YOLO12_SCALES
from yolojax.zoo.yolo12 import yolo12
from yolojax.zoo.yolo26 import PUBLISHED_NAMES as YOLO26_NAMES
from yolojax.zoo.yolo26 import yolo26
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

PREPROCESS = Preprocess(filter="bilinear")
"""Theirs: a centred letterbox by OpenCV's bilinear filter, padded with 114; RGB, 0..1."""

EPSILON = 1e-3
"""Added to the variance by every BatchNorm of these families."""

DEFAULT_SIZE = 640

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Layout:
    """How the files of one family, or of some of its scales, are recognised and read.

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
      variants: ``(tensors, head, scale, classes)``: further options of the zoo function that a file decides.
      named_by_authors: ``(options)``: whether a detector gets the authors' names in place of Ultralytics'.
    """

    title: str
    build: Callable[..., Detector]
    names: Names
    head: int
    marks: tuple[str, ...]
    scales: Mapping[tuple[int, int], str]
    repeats: int = 2
    anchored: bool = False
    paired: bool = False
    bins: bool = True
    stem: int = 0
    variants: Callable[[Tensors, int, str, int], dict[str, Any]] = lambda tensors, head, scale, classes: {}
    named_by_authors: Callable[[Mapping[str, Any]], bool] = lambda options: False


def _scales(scales: Mapping[str, Any], repeats: int) -> dict[tuple[int, int], str]:
    """Stem channels and repeats of each scale, from the multiples of depth and width that the zoo file states."""
    return {
        (scaled_widths((64,), numbers[1], 64)[0], scaled_depths((repeats,), numbers[0])[0]): scale
        for scale, numbers in scales.items()
    }


def _variants_of_yolov9(tensors: Tensors, head: int, scale: str, classes: int) -> dict[str, Any]:
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


def _yolov9_of_multimedia(options: Mapping[str, Any]) -> bool:
    """Whether a YOLOv9 is one that only MultimediaTechLab writes."""
    return options["auxiliary"] or options["box_groups"] > 1


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "yolov8": (
        Layout(
            "YOLOv8",
            yolov8,
            YOLOV8_NAMES,
            22,
            ("22.cv2.0.0.conv.weight", "22.dfl.conv.weight", "2.m.0.cv1.conv.weight", "21.m.0.cv1.conv.weight"),
            _scales(YOLOV8_SCALES, 3),
        ),
    ),
    "yolov5": (
        Layout(
            "YOLOv5",
            yolov5,
            YOLOV5_NAMES,
            24,
            ("24.anchors", "24.m.0.weight", "2.cv3.conv.weight"),
            _scales(YOLOV5_SCALES, 3),
            anchored=True,
        ),
    ),
    "yolov5u": (
        Layout(
            "YOLOv5u",
            yolov5u,
            YOLOV5U_NAMES,
            24,
            ("24.cv2.0.0.conv.weight", "24.dfl.conv.weight", "2.cv3.conv.weight"),
            _scales(YOLOV5_SCALES, 3),
        ),
    ),
    "yolov9": (
        Layout(
            "YOLOv9",
            yolov9,
            YOLOV9_NAMES,
            22,
            ("22.cv2.0.0.conv.weight", "22.dfl.conv.weight", "2.cv2.conv.weight", "4.cv2.0.cv1.conv.weight"),
            {(16, 0): "t", (32, 0): "s"},
            variants=_variants_of_yolov9,
            named_by_authors=_yolov9_of_multimedia,
        ),
        Layout(
            "YOLOv9",
            yolov9,
            YOLOV9_NAMES_MC,
            22,
            ("22.cv2.0.0.conv.weight", "22.dfl.conv.weight", "2.cv2.0.cv1.conv.weight", "4.cv2.0.cv1.conv.weight"),
            {(32, 0): "m", (64, 0): "c"},
            variants=_variants_of_yolov9,
            named_by_authors=_yolov9_of_multimedia,
        ),
        Layout(
            "YOLOv9",
            yolov9,
            YOLOV9_NAMES_E,
            42,
            ("42.cv2.0.0.conv.weight", "42.dfl.conv.weight", "14.conv.weight", "28.cv2.0.cv1.conv.weight"),
            {(64, 0): "e"},
            stem=1,
            variants=_variants_of_yolov9,
            named_by_authors=_yolov9_of_multimedia,
        ),
    ),
    "yolov10": (
        Layout(
            "YOLOv10",
            yolov10,
            YOLOV10_NAMES,
            23,
            ("23.cv2.0.0.conv.weight", "23.dfl.conv.weight", "10.attn.qkv.conv.weight", "5.cv2.conv.weight"),
            _scales(YOLOV10_SCALES, 3),
            paired=True,
        ),
    ),
    "yolo11": (
        Layout(
            "YOLO11",
            yolo11,
            YOLO11_NAMES,
            23,
            ("23.cv3.0.0.0.conv.weight", "23.dfl.conv.weight", "10.m.0.attn.qkv.conv.weight", "2.m.0.cv1.conv.weight"),
            _scales(YOLO11_SCALES, 2),
        ),
    ),
    "yolo26": (
        Layout(
            "YOLO26",
            yolo26,
            YOLO26_NAMES,
            23,
            ("23.cv2.0.0.conv.weight", "10.m.0.attn.qkv.conv.weight", "22.m.0.1.attn.qkv.conv.weight"),
            _scales(YOLO11_SCALES, 2),
            paired=True,
            bins=False,
        ),
    ),
    "yolo12": (
        Layout(
            "YOLO12",
            yolo12,
            YOLO12_NAMES,
            21,
            ("21.cv3.0.0.0.conv.weight", "21.dfl.conv.weight", "6.m.0.0.attn.qkv.conv.weight", "2.m.0.cv1.conv.weight"),
            _scales(YOLO12_SCALES, 2),
        ),
    ),
}
"""The layouts of each family by the name of its architecture in the zoo; scales stand in one of them each."""


@dataclass(frozen=True)
class LayerWeights:
    """What a file holds of one of these families: its layout and scale, and its tensors by Ultralytics' names."""

    file: WeightFile
    layout: Layout
    scale: str
    tensors: Tensors

    @property
    def num_classes(self) -> int:
        """How many classes the head tells apart.

        Raises `CheckpointError` where the head's constants are damaged.
        """
        return self.head[1]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names that the file states, where it does."""
        return stated_names(self.file)

    @cached_property
    def head(self) -> tuple[dict[str, Any], int, tuple[str, ...]]:
        """Options that the head's tensors imply, the number of classes, and the names of its constants."""
        return _read_head(self.layout, self.tensors, str(self.file.path))


def read_layers(layouts: tuple[Layout, ...], file: WeightFile) -> LayerWeights | None:
    """What a file holds of the family with these layouts; None if it is another network.

    Raises `CheckpointError` for a network of this family that detects no plain boxes, is damaged, or has a size that
    was not published.
    """
    tensors = own_names(file)
    layers = {int(match[1]) for name in tensors if (match := re.match(r"model\.(\d+)\.", name))}
    for layout in layouts:
        own = {f"model.{mark}" for mark in layout.marks}
        if layers and max(layers) == layout.head and own <= tensors.keys():
            return LayerWeights(file, layout, _scale_of(layout, tensors, str(file.path)), tensors)
    return None


def _scale_of(layout: Layout, tensors: Tensors, source: str) -> str:
    other = "cv4|proto" if layout.paired else "cv4|proto|one2one"
    if any(re.match(rf"model\.{layout.head}\.({other})", name) for name in tensors):
        raise CheckpointError(
            f"{source}: this {layout.title} has another head than that of boxes (masks, keypoints, angles or a "
            "pair of heads); give the weights of a detector"
        )
    needed = [f"model.{layout.stem}.conv.weight", *_head_names(layout)]
    if any(name not in tensors or tensors[name].ndim != 4 for name in needed):
        raise CheckpointError(f"{source}: {', '.join(needed)} are not all kernels of convolutions; it is damaged")
    stem, last = tensors[needed[0]].shape[0], rf"model\.{layout.repeats}\.m\.(\d+)\."
    repeats = len({match[1] for name in tensors if (match := re.match(last, name))})
    if (stem, repeats) not in layout.scales:
        known = ", ".join(f"{scale}: {w} and {n}" for (w, n), scale in layout.scales.items())
        raise CheckpointError(
            f"{source}: a {layout.title} whose first convolution has {stem} channels and whose first block "
            f"repeats {repeats} times is none of the published scales ({known})"
        )
    return layout.scales[stem, repeats]


def build_layers(
    weights: LayerWeights,
    class_names: tuple[str, ...] | None,
    input_size: tuple[int, int] | None,
    dtype: DTypeLike,
    options: Mapping[str, Any] | None,
) -> tuple[Detector, Variables]:
    """A detector and its variables from what `read_layers` found; see `yolojax.zoo.from_pytorch`."""
    file, layout, tensors = weights.file, weights.layout, weights.tensors
    check_epsilon(file, EPSILON)
    decided, count, constants = weights.head
    decided = {**decided, "scale": weights.scale, **layout.variants(tensors, layout.head, weights.scale, count)}
    own = options_of_file(layout.title, layout.build, decided, options)
    names = classes_of_file(file.path, count, class_names or weights.class_names)
    detector = layout.build(names, input_size or size_of(file), dtype=dtype, **own)
    preprocess = PREPROCESS if multimedia_prefix(file.tensors) is None else Preprocess()
    detector = detector._replace(spec=replace(detector.spec, preprocess=preprocess))
    expected = variable_shapes(detector)
    folded = not any(name.endswith(".bn.running_var") for name in tensors)
    ignored = r".*\.num_batches_tracked|" + "|".join(map(re.escape, constants))
    shapes = jax.eval_shape(detector.fold, expected) if folded else expected
    variables = take_tensors(tensors, shapes, layout.names, ignored, str(file.path))
    if folded:
        variables = unfold_batch_norm(variables, EPSILON)
    return detector, jax.device_put({name: variables.get(name, {}) for name in expected})


def layer_tensors(layouts: tuple[Layout, ...], detector: Detector, variables: Variables) -> dict[str, np.ndarray]:
    """Tensors by the peer's names; see `yolojax.zoo.to_state_dict`.

    A YOLOv9 with an auxiliary branch or with groups in the branches of boxes gets MultimediaTechLab's names.
    """
    spec = detector.spec
    layout = next(one for one in layouts if spec.options["scale"] in one.scales.values())
    tensors = {**give_tensors(variables, layout.names), **_constants(layout, spec.options, spec.strides)}
    return write_names(tensors) if layout.named_by_authors(spec.options) else tensors


def _constants(layout: Layout, options: Mapping[str, Any], strides: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Tensors that files of the family hold beside what is trained."""
    if layout.anchored:
        anchors = np.asarray(options["anchors"], np.float32)
        return {f"model.{layout.head}.anchors": anchors / np.asarray(strides, np.float32)[:, None, None]}
    if not layout.bins:
        return {}
    bins = np.arange(options["reg_max"], dtype=np.float32)
    return {f"model.{layout.head}.dfl.conv.weight": bins.reshape(1, -1, 1, 1)}


def _read_head(layout: Layout, tensors: Tensors, source: str) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Options that the head's tensors imply, the number of classes, and the names of its constants."""
    head = f"model.{layout.head}"
    if layout.anchored:
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
    if not layout.bins:
        return {}, classes, ()
    bins, name = tensors[f"{head}.cv2.0.2.weight"].shape[0] // 4, f"{head}.dfl.conv.weight"
    if not np.array_equal(np.asarray(tensors[name], np.float32).ravel(), np.arange(bins)):
        raise CheckpointError(f"{source}: the tensor {name} is not 0 to {bins - 1}, the values of the bins")
    return {"reg_max": bins}, classes, (name,)


def _head_names(layout: Layout) -> tuple[str, ...]:
    """The kernels of the head whose shapes say how many anchors, bins and classes there are."""
    head = f"model.{layout.head}"
    return (f"{head}.m.0.weight",) if layout.anchored else (f"{head}.cv2.0.2.weight", f"{head}.cv3.0.2.weight")


def own_names(file: WeightFile) -> Tensors:
    """The tensors by Ultralytics' names that begin with ``model.``, whatever wrapped the network when it was saved."""
    tensors = file.tensors
    if (prefix := multimedia_prefix(tensors)) is not None:
        return read_names(tensors, prefix, str(file.path))
    found = (re.fullmatch(r"(.*?)model\.[01]\.conv\.weight", name) for name in tensors)
    prefix = next((match[1] for match in found if match), "")
    return {name.removeprefix(prefix): array for name, array in tensors.items()} if prefix else tensors


def size_of(file: WeightFile) -> tuple[int, int]:
    """The file's input size, rounded up to multiples of 32; 640 where it states none."""
    height, width = stated_size(file) or (DEFAULT_SIZE, DEFAULT_SIZE)
    return -(-height // 32) * 32, -(-width // 32) * 32
