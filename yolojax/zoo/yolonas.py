"""YOLO-NAS (Deci, 2023; there is no paper): re-parametrised blocks for quantisation, a neck that reads stride 4, DFL.

Sizes of stages were found by Deci's architecture search. Blocks are QARepVGG (arXiv 2212.01593), which `Detector.fold`
merges into single 3x3 convolutions; activation is ReLU; a distance has 17 bins. The loss is PP-YOLOE's (arXiv
2203.16250, section 3.2): task-aligned assignment, varifocal loss, GIoU and distribution focal loss.

| scale | parameters, 80 classes | AP on COCO val2017 |
|---|---|---|
| s | 19.0 M | .475 |
| m | 51.1 M | .5155 |
| l | 66.9 M | .5222 |

The counts include an unused copy of each block's merged kernel that published files hold; 12.9 M, 33.9 M and 44.5 M
are trained. Structure and names follow super-gradients (Apache-2.0) and LibreYOLO (MIT). Published files
(``yolo_nas_s_coco.pth``) are read by `yolojax.zoo.from_pytorch`; they are under a licence of their own, which forbids
commercial use (docs/licences.md).

What differs from the published training: augmentation and schedule are the trainer's; a contested point goes to the
object of highest IoU among those that propose it, and points without any overlap are no positives.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import DTypeLike

from yolojax.assign import AnchorFreeAssign, task_aligned_assign
from yolojax.detector import Detector, DetectorSpec, Postprocess, Thresholds, Variables, variable_shapes
from yolojax.errors import CheckpointError
from yolojax.geometry import Preprocess
from yolojax.losses import BoxLoss, ClassLoss
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.yolonas import BRANCHES, NASBackbone, NASHead, NASNeck, StageSize, fold_branches, merged_kernel
from yolojax.weights.foreign import WeightFile
from yolojax.weights.foreign import class_names as stated_names
from yolojax.weights.ultralytics import Names, give_tensors, published_name, take_tensors
from yolojax.zoo.coco import classes_of_file
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import find_scale, options_of_file
from yolojax.zoo.parts import find_loss_parts
from yolojax.zoo.yolov8 import check_distribution, distribution_decoder, distribution_loss

STRIDES = (8, 16, 32)
WIDTHS, NECK_WIDTHS, HEAD_WIDTHS = (48, 96, 192, 384, 768), (96, 192, 384), (128, 256, 512)
EPSILON = 1e-3

HYPER = {"lambda_coord": 2.5, "lambda_cls": 1.0, "lambda_dfl": 0.5}
"""The gains of the published recipe."""

POSTPROCESS = Postprocess(Thresholds(0.01, 0.7, 300), Thresholds(0.25, 0.7, 300))
"""The published thresholds of validation and of prediction."""

PREPROCESS = Preprocess(filter="bilinear", border=2)
"""That of published weights: a photo's longer side becomes 636 pixels, centred in 640; RGB, 0..1."""


@dataclass(frozen=True)
class Scale:
    """Sizes of the stages of the backbone, of the neck's way down and up, and the multiple of the head's widths."""

    stages: tuple[StageSize, ...]
    down: tuple[StageSize, ...]
    up: tuple[StageSize, ...]
    head: float


def _stages(hidden: tuple[int, ...], join: tuple[bool, ...]) -> tuple[StageSize, ...]:
    return tuple(StageSize(*numbers) for numbers in zip((2, 3, 5, 2), hidden, join, strict=True))


SCALES: dict[str, Scale] = {
    "s": Scale(
        _stages((32, 64, 96, 192), (False, False, False, False)),
        (StageSize(2, 64), StageSize(2, 48)),
        (StageSize(2, 64), StageSize(2, 64)),
        0.5,
    ),
    "m": Scale(
        _stages((64, 128, 256, 384), (True, True, True, False)),
        (StageSize(2, 192), StageSize(3, 64)),
        (StageSize(2, 192), StageSize(3, 256)),
        0.75,
    ),
    "l": Scale(
        _stages((96, 128, 256, 512), (True, True, True, True)),
        (StageSize(4, 128), StageSize(4, 128)),
        (StageSize(4, 128), StageSize(4, 256)),
        1.0,
    ),
}
"""Published as recipes of super-gradients (``yolo_nas_s_arch_params.yaml`` and so on)."""

_BLOCK = ((r"spatial", r"branch_3x3"), (r"pointwise", r"branch_1x1"), (r"post", r"post_bn"))
_STAGE = (
    (r"main", r"conv1"),
    (r"side", r"conv2"),
    (r"join", r"conv3"),
    (r"bottleneck(\d+)", r"bottlenecks.\1"),
    (r"bottleneck(\d+)/conv(\d)", r"bottlenecks.\1.cv\2"),
    *((rf"bottleneck(\d+)/conv(\d)/{ours}", rf"bottlenecks.\1.cv\2.{theirs}") for ours, theirs in _BLOCK),
)

PUBLISHED_NAMES: Names = {
    "backbone/stem": ("backbone.stem.conv", _BLOCK),
    **{f"backbone/down{i}": (f"backbone.stage{i}.downsample", _BLOCK) for i in (1, 2, 3, 4)},
    **{f"backbone/stage{i}": (f"backbone.stage{i}.blocks", _STAGE) for i in (1, 2, 3, 4)},
    "backbone/pooling": ("backbone.context_module", ((r"reduce", r"cv1"), (r"join", r"cv2"))),
    **{
        f"neck/{ours}{level}": (f"neck.neck{number}.{theirs}", kind)
        for level, number in ((1, 1), (0, 2))
        for ours, theirs, kind in (
            ("lateral", "conv", "conv"),
            ("upsample", "upsample", "conv"),
            ("same", "reduce_skip1", "conv"),
            ("finer", "reduce_skip2", "conv"),
            ("halve", "downsample", "conv"),
            ("reduce", "reduce_after_concat", "conv"),
            ("down", "blocks", _STAGE),
        )
    },
    **{f"neck/stride{level}": (f"neck.neck{level + 2}.conv", "conv") for level in (1, 2)},
    **{f"neck/up{level}": (f"neck.neck{level + 2}.blocks", _STAGE) for level in (1, 2)},
    **{
        f"head/level{i}_{ours}": (f"heads.head{i + 1}.{theirs}", "conv")
        for i in range(3)
        for ours, theirs in (
            ("stem", "stem.seq"),
            ("cls0", "cls_convs.0.seq"),
            ("box0", "reg_convs.0.seq"),
            ("predict_cls", "cls_pred"),
            ("predict_box", "reg_pred"),
        )
    },
}
"""Modules here, their names in published files, and how both name what is inside (`yolojax.weights.ultralytics`)."""


def yolonas(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "s",
    reg_max: int = 17,
    k: int = 13,
    assign: str | AnchorFreeAssign = "task-aligned",
    box_loss: str | BoxLoss = "giou",
    class_loss: str | ClassLoss = "varifocal",
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds YOLO-NAS.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: s, m or l.
      reg_max: bins of a distance; it reaches ``reg_max - 1`` strides.
      k: the most points that task-aligned assignment (here with ``alpha`` 1) and SimOTA give to an object.
      assign: the assigner: a key of `yolojax.assign.ANCHOR_FREE_ASSIGNERS`, or an `AnchorFreeAssign`.
      box_loss: of the positives' boxes: a key of `yolojax.zoo.parts.BOX_LOSSES`, or a `BoxLoss`.
      class_loss: a key of `yolojax.zoo.parts.CLASS_LOSSES`, or a `ClassLoss`.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    size = find_scale("yolonas", scale, SCALES)
    check_input_size(input_size, STRIDES[-1])
    check_distribution(reg_max, k)
    parts = find_loss_parts(assign, k, box_loss, class_loss)
    if parts.names["assign"] == "task-aligned":
        parts = parts._replace(assign=partial(task_aligned_assign, alpha=1.0, k=k))
    options: dict[str, Any] = {"scale": scale, "reg_max": reg_max, "k": k, **parts.names}
    spec = DetectorSpec(
        "yolonas", class_names, input_size, STRIDES, hyper=HYPER, options=options, postprocess=POSTPROCESS
    )
    style = Style(activation="relu", epsilon=EPSILON, dtype=dtype)
    head_widths = tuple(int(width * size.head) for width in HEAD_WIDTHS)
    network = Network(
        NASBackbone(WIDTHS, size.stages, style),
        NASNeck(NECK_WIDTHS, size.down, size.up, style),
        NASHead(len(class_names), head_widths, reg_max, style=style),
    )
    loss = distribution_loss(STRIDES, parts, dfl_margin=0.01)
    detector = flax_detector(spec, network, loss, distribution_decoder(STRIDES))
    fold_norms = detector.fold

    def fold(variables: Variables) -> Variables:
        return fold_branches(fold_norms(variables), EPSILON)

    return mark_built(detector._replace(fold=fold))


@dataclass(frozen=True)
class NASWeights:
    """The tensors of a YOLO-NAS by their published names, and what they imply."""

    source: str
    tensors: Mapping[str, np.ndarray]
    scale: str
    num_classes: int
    reg_max: int
    class_names: tuple[str, ...] | None


def yolonas_weights(file: WeightFile) -> NASWeights | None:
    """Returns the weights of a YOLO-NAS that a file holds; None if it holds another network.

    Raises `CheckpointError` for a YOLO-NAS that detects poses, whose blocks are merged already, or of another size.
    """
    first = "backbone.stem.conv.rbr_reparam.weight"
    prefix = next((name.removesuffix(first) for name in file.tensors if name.endswith(first)), None)
    if prefix is None:
        return None
    tensors = {name.removeprefix(prefix): array for name, array in file.tensors.items()}
    heads = [tensors.get(f"heads.head1.{kind}_pred.weight") for kind in ("cls", "reg")]
    if any("pose_pred" in name for name in tensors):
        raise CheckpointError(f"{file.path}: this YOLO-NAS predicts poses; give the weights of a detector")
    if any(head is None or head.ndim != 4 for head in heads):
        return None
    if "backbone.stem.conv.branch_3x3.conv.weight" not in tensors:
        raise CheckpointError(
            f"{file.path}: the blocks of this YOLO-NAS are merged into single convolutions; give the checkpoint as it "
            "was trained"
        )
    cls, reg = (head for head in heads if head is not None)
    scales = {int(HEAD_WIDTHS[0] * size.head): scale for scale, size in SCALES.items()}
    if cls.shape[1] not in scales:
        known = ", ".join(f"{scale}: {width}" for width, scale in scales.items())
        raise CheckpointError(
            f"{file.path}: a YOLO-NAS whose first head has {cls.shape[1]} channels is none of the published scales "
            f"({known})"
        )
    names = stated_names(file)
    processing = file.lookup("processing_params")
    if names is None and isinstance(processing, Mapping):
        stated = processing.get("class_names")
        texts = tuple(name for name in stated if isinstance(name, str)) if isinstance(stated, list | tuple) else ()
        names = texts if len(texts) == cls.shape[0] else None
    return NASWeights(str(file.path), tensors, scales[cls.shape[1]], cls.shape[0], reg.shape[0] // 4, names)


def build_yolonas(
    weights: NASWeights,
    class_names: tuple[str, ...] | None,
    input_size: tuple[int, int] | None,
    dtype: DTypeLike,
    options: Mapping[str, Any] | None = None,
) -> tuple[Detector, Variables]:
    """A detector and its variables from published tensors; see `yolojax.zoo.from_pytorch`.

    The unused tensors ``rbr_reparam`` are not kept.
    """
    detector = yolonas(
        classes_of_file(weights.source, weights.num_classes, class_names or weights.class_names),
        input_size or (640, 640),
        dtype=dtype,
        **options_of_file("YOLO-NAS", yolonas, {"scale": weights.scale, "reg_max": weights.reg_max}, options),
    )
    detector = detector._replace(spec=replace(detector.spec, preprocess=PREPROCESS))
    expected = variable_shapes(detector)
    ignored = r".*\.(num_batches_tracked|rbr_reparam\.weight|rbr_reparam\.bias|id_tensor)"
    ignored += r"|heads\.(proj_conv|anchor_points|stride_tensor)"
    variables = take_tensors(weights.tensors, expected, PUBLISHED_NAMES, ignored, weights.source)
    return detector, jax.device_put(variables)


def yolonas_tensors(detector: Detector, variables: Variables) -> dict[str, np.ndarray]:
    """Tensors by the published names. ``rbr_reparam`` holds what the branches of a block add up to.

    That is what super-gradients puts there when it merges them. Raises `CheckpointError` for variables whose blocks are
    merged, since the branches cannot be recovered.
    """
    del detector
    variables = jax.device_get(variables)  # NumPy's arrays, so that adding up the branches compiles nothing
    tensors = give_tensors(_unmerged(variables), PUBLISHED_NAMES)
    stats = variables.get("batch_stats", {})

    def add(params: Mapping[str, Any], running: Mapping[str, Any], path: str) -> None:
        if params.keys() == BRANCHES:
            kernel, bias = merged_kernel(params, running, EPSILON)
            name = published_name(f"{path}/pointwise/kernel", PUBLISHED_NAMES).removesuffix("branch_1x1.weight")
            tensors[f"{name}rbr_reparam.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
            tensors[f"{name}rbr_reparam.bias"] = bias
            return
        for key, value in params.items():
            if isinstance(value, Mapping):
                add(value, running.get(key, {}), f"{path}/{key}")

    add(variables["params"], stats, "params")
    return tensors


def _unmerged(variables: Variables) -> Variables:
    paths = (jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"]))
    if any(re.search(r"\['merged'\]", path) for path in paths):
        raise CheckpointError(
            "the blocks of these variables are merged by fold, and published names have no place for them; give the "
            "variables as they were trained"
        )
    return variables
