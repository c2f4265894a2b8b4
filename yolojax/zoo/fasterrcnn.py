"""Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) with ResNet and feature pyramid, versions 1 and 2 of torchvision.

Version 2 (arXiv 2111.11429) has two convolutions before the proposals, BatchNorm in pyramid and head, and four
convolutions and one fully connected layer for each proposal; version 1 (arXiv 1612.03144) has one convolution, no such
BatchNorm, and two fully connected layers. A class has its own box; background is class 0 of the network and no class of
the detector, so that labels count from 0 here and from 1 in torchvision.

| version, ResNet-50, 91 classes | parameters | AP on COCO val2017 |
|---|---|---|
| v1 | 41,755,286 | .370 |
| v2 | 43,712,278 | .467 |

Published files (``fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth`` and others of the same layout, with ResNet-18, 34, 50
or 101) are read by `yolojax.zoo.from_pytorch`; torchvision and its weights are under the BSD-3-Clause licence.

What differs from torchvision: all photos have one input size, whereas torchvision scales the shorter side of each to
800 pixels; boxes are clipped to the input image, and to the photo at the end; objects that lie in crowd regions are not
background. Augmentation and schedule are the trainer's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from yolojax.assign import Sample, every_row, overlap_assign
from yolojax.boxes import clip_boxes, remove_small
from yolojax.coding import best_pairs, decode_regions
from yolojax.detector import Detector, DetectorSpec, Outputs, Postprocess, Thresholds, Variables, variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.geometry import Preprocess
from yolojax.losses import faster_rcnn_loss
from yolojax.losses.regions import PROPOSAL_WEIGHTS
from yolojax.models.feature_pyramid import FeaturePyramid
from yolojax.models.layers import Style
from yolojax.models.rcnn import RegionHead, RegionNetwork, RegionOutputs, Sizes, anchors_of, flat_predictions
from yolojax.models.resnet import STAGES, ResNet
from yolojax.structures import Candidates, Hyper, LossTerms, Targets
from yolojax.weights.foreign import WeightFile, find_prefix
from yolojax.weights.foreign import class_names as stated_names
from yolojax.weights.torchvision import (
    COUNTER,
    as_published,
    dense_as_convolutions,
    detector_name,
    modern_names,
    resnet_depth,
)
from yolojax.weights.ultralytics import give_tensors, take_tensors
from yolojax.zoo.coco import COCO_CLASSES_90, classes_of_file
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import check_input_size, flax_detector
from yolojax.zoo.options import check_counts, check_momentum, options_of_file

STRIDES = (4, 8, 16, 32)
"""Those of the backbone; the fifth level of the pyramid has every second pixel of the fourth."""

EPSILON = 1e-5

HYPER = {"lambda_coord": 1.0, "lambda_obj": 1.0, "lambda_cls": 1.0}

POSTPROCESS = Postprocess(Thresholds(0.05, 0.5, 100), Thresholds(0.05, 0.5, 100))
"""torchvision's, of validation and of prediction."""

PREPROCESS = Preprocess(align="topleft", filter="bilinear")
"""RGB, 0..1; the network subtracts the mean of ImageNet's colours and divides by their deviation."""

SMALLEST_SIDE = 1e-2
"""Pixels; a detection with a shorter side is dropped."""

PAIRS_PER_PROPOSAL = 3
"""Pairs of box and class that leave the network, for each proposal: 3000 by default, by falling score. At most 20
classes of a proposal can reach a score of .05; of a trained network most proposals have none."""

SIDE = 1088
"""Pixels of both sides of the input image of published weights; a photo of 4 by 3 is then about as large as theirs."""

VERSIONS: dict[str, dict[str, Any]] = {
    "v1": {"proposal_depth": 1, "convs": 0, "denses": 2},
    "v2": {"proposal_depth": 2, "convs": 4, "denses": 1},
}


def fasterrcnn(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    version: str = "v2",
    depth: int = 50,
    width: int = 64,
    channels: int = 256,
    hidden: int = 1024,
    anchor_sizes: Sequence[float] = (32.0, 64.0, 128.0, 256.0, 512.0),
    proposals: int = 1000,
    training_proposals: int = 2000,
    first_sample: int = 256,
    second_sample: int = 512,
    momentum: float = 0.9,
    epsilon: float = EPSILON,
    frozen_norm: bool = False,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds Faster R-CNN; by default torchvision's ``fasterrcnn_resnet50_fpn_v2``.

    Args:
      class_names: in the order of the class scores, without background.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      version: v1 or v2.
      depth: layers of the ResNet: 18, 34, 50 or 101.
      width: channels of its stem.
      channels: of the pyramid and of the convolutions behind it.
      hidden: channels of the fully connected layers.
      anchor_sizes: side of the anchors in input pixels, one for each of the five levels, finest first.
      proposals: of an image at inference, and anchors of each level before suppression.
      training_proposals: the same in training.
      first_sample: anchors of an image that carry the loss.
      second_sample: proposals of an image that carry the loss.
      momentum: of the running BatchNorm statistics.
      epsilon: added to the variance by every BatchNorm.
      frozen_norm: leave the BatchNorm of the backbone as it is in training (torchvision's FrozenBatchNorm2d).
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    counts = {
        "width": width,
        "channels": channels,
        "hidden": hidden,
        "proposals": proposals,
        "training_proposals": training_proposals,
        "first_sample": first_sample,
        "second_sample": second_sample,
    }
    options = checked_options(input_size, version, depth, counts, anchor_sizes, momentum, epsilon, frozen_norm)
    spec = DetectorSpec(
        "fasterrcnn",
        class_names,
        input_size,
        STRIDES,
        PREPROCESS,
        multi_label=False,
        hyper=HYPER,
        options=options,
        postprocess=POSTPROCESS,
    )
    style = Style("relu", momentum, epsilon, dtype)
    sizes = Sizes(tuple(anchor_sizes), proposals, training_proposals, first_sample, second_sample)
    network = RegionNetwork(
        ResNet(depth, 4, style, width, normalise=True, frozen_norm=frozen_norm),
        FeaturePyramid(channels, "pool", version == "v2", style),
        RegionHead(len(class_names), sizes, hidden=hidden, style=style, **VERSIONS[version]),
    )

    def forward_train(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[RegionOutputs, Variables]:
        state = [name for name in variables if name != "params"]
        outputs, new_state = network.apply(variables, images, True, targets, key, mutable=state)
        return outputs, dict(new_state)

    def loss(outputs: RegionOutputs, targets: Targets, hyper: Hyper) -> LossTerms:
        return _loss(outputs, targets, hyper, sizes)

    def decode(outputs: RegionOutputs) -> Candidates:
        return decode_detections(outputs, PAIRS_PER_PROPOSAL * proposals)

    detector = flax_detector(spec, network, loss, decode)._replace(forward_train=forward_train)
    return mark_built(with_constant_norms(detector) if frozen_norm else detector)


def decode_detections(outputs: RegionOutputs, count: int) -> Candidates:
    """The ``count`` best pairs of box and class: softmax over classes and background, the box that the class has."""
    rows, columns = outputs.objectness[0].shape[1:3]
    scores = jax.nn.softmax(outputs.class_logits, axis=-1)[..., 1:]
    deltas = outputs.box_deltas[:, :, 1:]
    references = jnp.broadcast_to(outputs.proposals.boxes[:, :, None], deltas.shape)
    boxes = decode_regions(deltas, references, PROPOSAL_WEIGHTS)
    boxes = clip_boxes(boxes, (STRIDES[0] * rows, STRIDES[0] * columns))
    exists = outputs.proposals.valid[..., None] & remove_small(boxes, SMALLEST_SIDE)
    return best_pairs(boxes, jnp.where(exists, scores, 0.0), count)


def _loss(outputs: RegionOutputs, targets: Targets, hyper: Hyper, sizes: Sizes) -> LossTerms:
    """Loss of the samples; of what inference gives, where none are drawn, of all anchors and all proposals."""
    _, anchors = anchors_of(outputs.objectness, [(side,) for side in sizes.anchors])
    references = jnp.concatenate(anchors)
    references = jnp.broadcast_to(references[None], (targets.boxes.shape[0], *references.shape))
    if outputs.samples is None:
        matched = overlap_assign(targets, references, low=0.3, high=0.7, keep_best=True)
        first = every_row(matched, targets)
        matched = overlap_assign(targets, outputs.proposals.boxes, low=0.5, high=0.5, keep_best=False)
        exists = outputs.proposals.valid
        second = every_row(
            matched._replace(positive=matched.positive & exists, negative=matched.negative & exists), targets
        )
    else:
        first, second = outputs.samples
        assert isinstance(first, Sample) and isinstance(second, Sample)
    objectness, deltas = flat_predictions(outputs)
    return faster_rcnn_loss(
        jnp.take_along_axis(objectness, first.rows, axis=1),
        jnp.take_along_axis(deltas, first.rows[..., None], axis=1),
        jnp.take_along_axis(references, first.rows[..., None], axis=1),
        first,
        outputs.class_logits,
        outputs.box_deltas,
        outputs.proposals.boxes,
        second,
        hyper,
    )


def checked_options(
    input_size: tuple[int, int],
    version: str,
    depth: int,
    counts: dict[str, int],
    anchor_sizes: Sequence[float],
    momentum: float,
    epsilon: float,
    frozen_norm: bool,
) -> dict[str, Any]:
    """The options of a description, for the detectors with a ResNet and five levels of anchors.

    ``counts`` are those options that are counts, by name. Raises `ConfigError` for an option out of range, or an input
    size that the strides do not divide.
    """
    if version not in VERSIONS:
        raise ConfigError(f"version = {version!r}: give {' or '.join(VERSIONS)}")
    if depth not in STAGES:
        raise ConfigError(f"depth = {depth}: give one of {', '.join(map(str, STAGES))}")
    if len(anchor_sizes) != 5 or not all(size > 0 for size in anchor_sizes):
        raise ConfigError(f"anchor_sizes = {list(anchor_sizes)}: give five positive numbers, one for each level")
    check_counts(1, **counts)
    check_momentum(momentum)
    check_input_size(input_size, STRIDES[-1])
    if not 0 <= epsilon < 1:
        raise ConfigError(f"epsilon = {epsilon}: give a number from 0 to below 1")
    return {
        "version": version,
        "depth": depth,
        **counts,
        "anchor_sizes": [float(size) for size in anchor_sizes],
        "momentum": momentum,
        "epsilon": epsilon,
        "frozen_norm": frozen_norm,
    }


def with_constant_norms(detector: Detector) -> Detector:
    """The detector, trained with the parameters of the backbone's BatchNorm as they are."""
    plain = detector.forward_train

    def constant(path: tuple[Any, ...], leaf: Array) -> Array:
        is_norm = any(getattr(key, "key", None) == "norm" for key in path)
        return jax.lax.stop_gradient(leaf) if is_norm else leaf

    def forward_train(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]:
        params = variables["params"]
        params = {**params, "backbone": jax.tree_util.tree_map_with_path(constant, params["backbone"])}
        return plain({**variables, "params": params}, images, targets, key)

    return detector._replace(forward_train=forward_train)


@dataclass(frozen=True)
class FasterRCNNWeights:
    """The tensors of a Faster R-CNN by torchvision's names, and what they imply."""

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


def fasterrcnn_weights(file: WeightFile) -> FasterRCNNWeights | None:
    """Returns the weights of a Faster R-CNN that a file holds; None if it holds another network.

    Raises `CheckpointError` for one that also predicts masks or keypoints.
    """
    prefix = find_prefix(file.tensors, "rpn.head.cls_logits.weight")
    if prefix is None:
        return None
    tensors = modern_names({name.removeprefix(prefix): array for name, array in file.tensors.items()})
    depth, scores = resnet_depth(tensors, "backbone.body."), tensors.get("roi_heads.box_predictor.cls_score.weight")
    if any(name.startswith(("roi_heads.mask", "roi_heads.keypoint")) for name in tensors):
        raise CheckpointError(f"{file.path}: this network predicts masks or keypoints; give the weights of a detector")
    if depth is None or scores is None or scores.ndim != 2:
        return None
    version = "v1" if "roi_heads.box_head.fc6.weight" in tensors else "v2"
    return FasterRCNNWeights(
        str(file.path),
        tensors,
        version,
        depth,
        f"backbone.body.bn1.{COUNTER}" not in tensors,
        scores.shape[0] - 1,
        stated_names(file),
        {**widths_of(tensors), "hidden": scores.shape[1]},
    )


def widths_of(tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The options ``width`` and ``channels`` of a detector with these tensors."""
    names = {"width": "backbone.body.conv1.weight", "channels": "backbone.fpn.layer_blocks.0.0.weight"}
    return {option: len(tensors[name]) for option, name in names.items() if name in tensors and tensors[name].ndim}


def build_fasterrcnn(
    weights: FasterRCNNWeights,
    class_names: tuple[str, ...] | None,
    input_size: tuple[int, int] | None,
    dtype: DTypeLike,
    options: Mapping[str, Any] | None = None,
) -> tuple[Detector, Variables]:
    """A detector and its variables from torchvision's tensors; see `yolojax.zoo.from_pytorch`.

    Version 1 with frozen BatchNorm adds nothing to its variances, as torchvision sets it for its published file.
    """
    names = names_of_torchvision(weights.num_classes, class_names or weights.class_names)
    decided = {
        "version": weights.version,
        "depth": weights.depth,
        "frozen_norm": weights.frozen_norm,
        "epsilon": 0.0 if weights.frozen_norm else EPSILON,
        **weights.widths,
    }
    detector = fasterrcnn(
        classes_of_file(weights.source, weights.num_classes, names),
        input_size or (SIDE, SIDE),
        dtype=dtype,
        **options_of_file("Faster R-CNN", fasterrcnn, decided, options),
    )
    return detector, take_torchvision(weights.tensors, detector, weights.source)


def names_of_torchvision(count: int, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The names that are given; where none are and there are 90 classes, COCO's by their ids."""
    return COCO_CLASSES_90 if names is None and count == len(COCO_CLASSES_90) else names


def torchvision_name(detector: Detector) -> Callable[[str], str]:
    """The function from the name of an array of this detector to torchvision's name."""
    return partial(detector_name, version=detector.spec.options["version"])


def take_torchvision(tensors: Mapping[str, np.ndarray], detector: Detector, source: str) -> Variables:
    """The variables of a detector from tensors by torchvision's names; raises `CheckpointError` as `take_tensors`."""
    expected, name_of = variable_shapes(detector), torchvision_name(detector)
    variables = take_tensors(
        dense_as_convolutions(tensors, expected, name_of), expected, name_of, rf".*\.{COUNTER}", source
    )
    return jax.device_put({name: variables[name] for name in expected})


def fasterrcnn_tensors(detector: Detector, variables: Variables) -> dict[str, np.ndarray]:
    """Tensors by torchvision's names."""
    tensors = give_tensors(variables, torchvision_name(detector))
    return as_published(tensors, frozen_norm=detector.spec.options["frozen_norm"])
