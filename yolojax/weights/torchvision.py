"""Names of tensors in torchvision's state dicts: ResNet as a classifier, and the detectors that are made of it.

    backbone.body.layer1.0.bn2.running_var      batch_stats/backbone/stage0_0/conv2/norm/var
    backbone.fpn.inner_blocks.3.0.weight        params/neck/lateral3/conv/kernel
    rpn.head.conv.1.0.bias                      params/head/proposal/conv1/bias
    roi_heads.box_head.5.weight                 params/head/dense0/kernel

Fully connected layers are convolutions over all bins here. The names were taken from torchvision (BSD-3-Clause), whose
files before version 0.14 name the convolutions of pyramid and heads otherwise; `modern_names` translates them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from yolojax.weights.released import flatten

Tensors = Mapping[str, np.ndarray]

COUNTER = "num_batches_tracked"
"""The last part of the name of a counter that BatchNorm2d has, and FrozenBatchNorm2d has not."""

_LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}

_RESNET = (
    (r"stem/conv", r"conv1"),
    (r"stem/norm", r"bn1"),
    (r"stage<(\d)>_(\d+)/conv(\d)/conv", r"layer\1.\2.conv\3"),
    (r"stage<(\d)>_(\d+)/conv(\d)/norm", r"layer\1.\2.bn\3"),
    (r"stage<(\d)>_(\d+)/project/conv", r"layer\1.\2.downsample.0"),
    (r"stage<(\d)>_(\d+)/project/norm", r"layer\1.\2.downsample.1"),
)
"""Modules below the backbone. torchvision counts the stages from 1, which stands in angle brackets."""

_DETECTOR = (
    *((rf"backbone/{ours}", rf"backbone.body.{theirs}") for ours, theirs in _RESNET),
    (r"neck/lateral(\d)(?:/conv)?", r"backbone.fpn.inner_blocks.\1.0"),
    (r"neck/lateral(\d)/norm", r"backbone.fpn.inner_blocks.\1.1"),
    (r"neck/output(\d)(?:/conv)?", r"backbone.fpn.layer_blocks.\1.0"),
    (r"neck/output(\d)/norm", r"backbone.fpn.layer_blocks.\1.1"),
    (r"neck/extra0", r"backbone.fpn.extra_blocks.p6"),
    (r"neck/extra1", r"backbone.fpn.extra_blocks.p7"),
    (r"head/proposal/conv(\d)", r"rpn.head.conv.\1.0"),
    (r"head/proposal/predict_objectness", r"rpn.head.cls_logits"),
    (r"head/proposal/predict_box", r"rpn.head.bbox_pred"),
    (r"head/conv(\d)/conv", r"roi_heads.box_head.\1.0"),
    (r"head/conv(\d)/norm", r"roi_heads.box_head.\1.1"),
    (r"head/predict_cls", r"roi_heads.box_predictor.cls_score"),
    (r"head/predict_box", r"roi_heads.box_predictor.bbox_pred"),
    (r"head/cls/conv(\d)", r"head.classification_head.conv.\1.0"),
    (r"head/cls/norm(\d)", r"head.classification_head.conv.\1.1"),
    (r"head/cls/predict", r"head.classification_head.cls_logits"),
    (r"head/box/conv(\d)", r"head.regression_head.conv.\1.0"),
    (r"head/box/norm(\d)", r"head.regression_head.conv.\1.1"),
    (r"head/box/predict", r"head.regression_head.bbox_reg"),
)

_DENSE = {
    "v1": ((r"head/dense0", "roi_heads.box_head.fc6"), (r"head/dense1", "roi_heads.box_head.fc7")),
    "v2": ((r"head/dense0", "roi_heads.box_head.5"),),
}

_OLD = (
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)", r"\1.0.\2"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
)
"""Names before version 0.14, and since."""

_OLD_TOWERS = r"(head\.(?:classification|regression)_head\.conv)\.(\d)\.(weight|bias)"
"""Convolutions of RetinaNet's heads, which were counted together with their activations."""


def modern_names(tensors: Tensors) -> dict[str, np.ndarray]:
    """The tensors by the names that torchvision has given them since version 0.14."""
    renamed = {}
    for name, array in tensors.items():
        for old, new in _OLD:
            name = re.sub(f"^{old}$", new, name)
        if match := re.fullmatch(_OLD_TOWERS, name):
            name = f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}"
        renamed[name] = array
    return renamed


def resnet_name(path: str) -> str:
    """The name in a ResNet's file of an array here, such as ``params/backbone/stage0_1/conv2/conv/kernel``."""
    return _translated(path.removeprefix("params/").removeprefix("batch_stats/").removeprefix("backbone/"), _RESNET)


def detector_name(path: str, version: str) -> str:
    """The name in a detector's file of an array here. ``version`` is v1 or v2 of torchvision's network.

    Raises `KeyError` where the files have no such module.
    """
    return _translated(path.partition("/")[2], (*_DETECTOR, *_DENSE[version]))


def _translated(path: str, table: tuple[tuple[str, str], ...]) -> str:
    module, _, leaf = path.rpartition("/")
    module = re.sub(r"stage(\d)", lambda match: f"stage<{int(match[1]) + 1}>", module)
    for ours, theirs in table:
        if match := re.fullmatch(ours, module):
            return f"{match.expand(theirs)}.{_LEAVES[leaf]}"
    raise KeyError(path)


def resnet_depth(tensors: Tensors, prefix: str = "") -> int | None:
    """The number of layers (18, 34, 50, 101) of the ResNet whose names begin with ``prefix``; None if there is none."""
    blocks = []
    for stage in (1, 2, 3, 4):
        own = (re.match(rf"{re.escape(prefix)}layer{stage}\.(\d+)\.conv1\.weight$", name) for name in tensors)
        blocks.append(len([match for match in own if match]))
    bottlenecks = f"{prefix}layer1.0.conv3.weight" in tensors
    known = {
        ((2, 2, 2, 2), False): 18,
        ((3, 4, 6, 3), False): 34,
        ((3, 4, 6, 3), True): 50,
        ((3, 4, 23, 3), True): 101,
    }
    return known.get((tuple(blocks), bottlenecks))


def dense_as_convolutions(tensors: Tensors, expected: Any, name_of: Any) -> dict[str, np.ndarray]:
    """The tensors with fully connected layers ``[O, I h w]`` as kernels ``[O, I, h, w]`` where the network has those.

    What does not fit stays as it is, and `yolojax.weights.ultralytics.take_tensors` names it. ``name_of`` gives the
    name of the tensor for the path of an array in ``expected``.
    """
    shaped = dict(tensors)
    for path, want in flatten(expected).items():
        name = name_of(path)
        if len(want.shape) == 4 and name in shaped and shaped[name].ndim == 2:
            height, width, inputs, outputs = want.shape
            if shaped[name].shape == (outputs, inputs * height * width):
                shaped[name] = shaped[name].reshape(outputs, inputs, height, width)
    return shaped


def as_published(tensors: Tensors, *, frozen_norm: bool) -> dict[str, np.ndarray]:
    """The inverse of `dense_as_convolutions` for a detector's tensors, with the counters of BatchNorm2d.

    ``frozen_norm``: the backbone has FrozenBatchNorm2d, which counts nothing.
    """
    written: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        dense = re.match(r"roi_heads\.(box_predictor|box_head\.(5|fc6|fc7)\.weight)", name) and array.ndim == 4
        written[name] = array.reshape(len(array), -1) if dense else array
        counted = name.endswith(".running_var") and not (frozen_norm and name.startswith("backbone.body."))
        if counted:
            written[name.replace("running_var", COUNTER)] = np.zeros((), np.int64)
    return written
