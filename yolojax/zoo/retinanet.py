"""RetinaNet (Lin et al. 2017, arXiv 1708.02002) with a ResNet, versions 1 and 2 of torchvision.

Nine anchors a cell at strides 8 to 128, two towers of four convolutions with the same weights at every level, focal
loss. Version 2 (arXiv 2111.11429) normalises the towers by GroupNorm, takes the coarsest levels from the backbone
instead of the pyramid, and learns boxes by GIoU instead of absolute errors. Several classes of a box may be reported.

| version, ResNet-50, 91 classes | parameters | AP on COCO val2017 |
|---|---|---|
| v1 | 34,014,999 | .364 |
| v2 | 38,198,935 | .415 |

Published files (``retinanet_resnet50_fpn_v2_coco-5905b1c5.pth`` and others of the same layout, with ResNet-18, 34, 50
or 101) are read by `yolojax.zoo.from_pytorch`; torchvision and its weights are under the BSD-3-Clause licence.

What differs from torchvision is said in `yolojax.zoo.fasterrcnn`. Losses are torchvision's, and so are detections,
except that torchvision also reports pairs of class 0, which no object has; here they are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from yolojax.boxes import clip_boxes
from yolojax.coding import best_pairs, decode_regions, flatten_levels
from yolojax.detector import Detector, DetectorSpec, Postprocess, Thresholds, Variables
from yolojax.losses import generalized_box_iou_loss, retinanet_loss
from yolojax.models.feature_pyramid import FeaturePyramid
from yolojax.models.layers import Style
from yolojax.models.network import Network
from yolojax.models.rcnn import anchors_of
from yolojax.models.resnet import ResNet
from yolojax.models.retinanet import AnchorPrediction, RetinaHead
from yolojax.structures import Candidates, Hyper, LossTerms, Targets
from yolojax.weights.foreign import WeightFile, find_prefix
from yolojax.weights.foreign import class_names as stated_names
from yolojax.weights.torchvision import COUNTER, as_published, modern_names, resnet_depth
from yolojax.weights.ultralytics import give_tensors
from yolojax.zoo.coco import classes_of_file
from yolojax.zoo.description import mark_built
from yolojax.zoo.fasterrcnn import (
    EPSILON,
    PREPROCESS,
    SIDE,
    checked_options,
    names_of_torchvision,
    take_torchvision,
    torchvision_name,
    widths_of,
    with_constant_norms,
)
from yolojax.zoo.flax_detector import flax_detector
from yolojax.zoo.options import options_of_file

STRIDES = (8, 16, 32)
"""Those of the backbone; two more levels of the pyramid have about half of the height and width each."""

SIZES_PER_OCTAVE = 3
HYPER = {"lambda_coord": 1.0, "lambda_cls": 1.0}
POSTPROCESS = Postprocess(Thresholds(0.05, 0.5, 300), Thresholds(0.05, 0.5, 300))
"""torchvision's, of validation and of prediction."""


def retinanet(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    version: str = "v2",
    depth: int = 50,
    width: int = 64,
    channels: int = 256,
    anchor_sizes: Sequence[float] = (32.0, 64.0, 128.0, 256.0, 512.0),
    candidates: int = 1000,
    momentum: float = 0.9,
    epsilon: float = EPSILON,
    frozen_norm: bool = False,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds RetinaNet; by default torchvision's ``retinanet_resnet50_fpn_v2``.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      version: v1 or v2.
      depth: layers of the ResNet: 18, 34, 50 or 101.
      width: channels of its stem.
      channels: of the pyramid and of the towers.
      anchor_sizes: the smallest side of the anchors in input pixels, one for each of the five levels, finest first. A
        cell has three sides up to the next octave, and three ratios for each.
      candidates: pairs of anchor and class of each level that are reported at most, by falling score.
      momentum: of the running BatchNorm statistics.
      epsilon: added to the variance by every BatchNorm.
      frozen_norm: leave the BatchNorm of the backbone as it is in training (torchvision's FrozenBatchNorm2d).
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    counts = {"width": width, "channels": channels, "candidates": candidates}
    options = checked_options(input_size, version, depth, counts, anchor_sizes, momentum, epsilon, frozen_norm)
    spec = DetectorSpec(
        "retinanet",
        class_names,
        input_size,
        STRIDES,
        PREPROCESS,
        multi_label=False,
        hyper=HYPER,
        options=options,
        postprocess=POSTPROCESS,
    )
    sizes = tuple(
        tuple(float(int(size * 2 ** (i / SIZES_PER_OCTAVE))) if i else float(size) for i in range(SIZES_PER_OCTAVE))
        for size in anchor_sizes
    )
    second = version == "v2"
    style = Style("relu", momentum, epsilon, dtype)
    network = Network(
        ResNet(depth, 3, style, width, normalise=True, frozen_norm=frozen_norm),
        FeaturePyramid(channels, "input" if second else "output", False, style),
        RetinaHead(len(class_names), normalise=second, style=style),
    )

    def loss(outputs: AnchorPrediction, targets: Targets, hyper: Hyper) -> LossTerms:
        _, anchors = anchors_of(outputs.cls, sizes, STRIDES[0])
        # Nobody is of the first class, background. The others are one further than the classes of the targets.
        shifted = targets._replace(classes=targets.classes + 1)
        return retinanet_loss(
            flatten_levels(outputs.cls),
            flatten_levels(outputs.deltas),
            jnp.concatenate(anchors),
            shifted,
            hyper,
            box_loss=generalized_box_iou_loss if second else None,
        )

    def decode(outputs: AnchorPrediction) -> Candidates:
        return _decode(outputs, sizes, candidates)

    detector = flax_detector(spec, network, loss, decode)
    return mark_built(with_constant_norms(detector) if frozen_norm else detector)


def _decode(outputs: AnchorPrediction, sizes: tuple[tuple[float, ...], ...], count: int) -> Candidates:
    """The best pairs of anchor and class of each level."""
    image_size, anchors = anchors_of(outputs.cls, sizes, STRIDES[0])
    found = []
    for cls, deltas, own in zip(outputs.cls, outputs.deltas, anchors, strict=True):
        batch, classes = cls.shape[0], cls.shape[-1]
        deltas = deltas.reshape(batch, -1, 4)
        boxes = clip_boxes(decode_regions(deltas, jnp.broadcast_to(own[None], deltas.shape)), image_size)
        scores = jax.nn.sigmoid(cls.reshape(batch, -1, classes)[..., 1:])
        found.append(best_pairs(boxes[:, :, None], scores, count))
    return Candidates(*(jnp.concatenate(parts, axis=1) for parts in zip(*found, strict=True)))


@dataclass(frozen=True)
class RetinaNetWeights:
    """The tensors of a RetinaNet by torchvision's names, and what they imply."""

    source: str
    tensors: Mapping[str, np.ndarray]
    version: str
    depth: int
    frozen_norm: bool
    num_classes: int
    class_names: tuple[str, ...] | None
    widths: dict[str, Any]

    @property
    def scale(self) -> str:
        """Backbone and version as one writes them."""
        return f"R{self.depth} {self.version}"


def retinanet_weights(file: WeightFile) -> RetinaNetWeights | None:
    """Returns the weights of a RetinaNet that a file holds; None if it holds another network."""
    mark = "head.classification_head.cls_logits.weight"
    prefix = find_prefix(file.tensors, mark)
    if prefix is None:
        return None
    tensors = modern_names({name.removeprefix(prefix): array for name, array in file.tensors.items()})
    depth, boxes = resnet_depth(tensors, "backbone.body."), tensors.get("head.regression_head.bbox_reg.weight")
    if depth is None or boxes is None or boxes.ndim != 4 or tensors[mark].ndim != 4 or not boxes.shape[0]:
        return None
    return RetinaNetWeights(
        str(file.path),
        tensors,
        "v2" if "head.classification_head.conv.0.1.weight" in tensors else "v1",
        depth,
        f"backbone.body.bn1.{COUNTER}" not in tensors,
        4 * tensors[mark].shape[0] // boxes.shape[0] - 1,
        stated_names(file),
        widths_of(tensors),
    )


def build_retinanet(
    weights: RetinaNetWeights,
    class_names: tuple[str, ...] | None,
    input_size: tuple[int, int] | None,
    dtype: DTypeLike,
    options: Mapping[str, Any] | None = None,
) -> tuple[Detector, Variables]:
    """A detector and its variables from torchvision's tensors; see `yolojax.zoo.from_pytorch`."""
    names = names_of_torchvision(weights.num_classes, class_names or weights.class_names)
    decided = {
        "version": weights.version,
        "depth": weights.depth,
        "frozen_norm": weights.frozen_norm,
        "epsilon": 0.0 if weights.frozen_norm else EPSILON,
        **weights.widths,
    }
    detector = retinanet(
        classes_of_file(weights.source, weights.num_classes, names),
        input_size or (SIDE, SIDE),
        dtype=dtype,
        **options_of_file("RetinaNet", retinanet, decided, options),
    )
    return detector, take_torchvision(weights.tensors, detector, weights.source)


def retinanet_tensors(detector: Detector, variables: Variables) -> dict[str, np.ndarray]:
    """Tensors by torchvision's names."""
    tensors = give_tensors(variables, torchvision_name(detector))
    return as_published(tensors, frozen_norm=detector.spec.options["frozen_norm"])
