"""RT-DETR (Zhao et al. 2023, arXiv 2304.08069) and RT-DETRv2 (Lv et al. 2024, arXiv 2407.17140).

A ResNet-vd or an HGNetv2, a neck with attention at stride 32 only, and a decoder whose 300 queries are the best places
of the pyramid. Every object is learned by one query, so that answers need no suppression: the best 300 pairs of query
and class are the detections.

| scale | parameters | GFLOPs at 640 | AP on COCO val2017 | AP of v2 |
|---|---|---|---|---|
| r18 | 20 M | 60 | .465 | .479 |
| r34 | 31 M | 92 | .489 | .499 |
| r50m | 36 M | 100 | .513 | .519 |
| r50 | 42 M | 136 | .531 | .534 |
| r101 | 76 M | 259 | .543 | .543 |
| l | 32 M | 110 | .530 | |
| x | 67 M | 234 | .548 | |

r50m is trained with six layers of the decoder and answers with three. The backbones of l and x are HGNetv2-L and X
(PaddleClas; D-FINE's B4 and B5), and their BatchNorm adds .001 to the variance, as in their files. RT-DETRv2 has the
same network with a ResNet-vd: its number of points may differ between levels, and it was trained otherwise. Its
discrete sampling is not built here.

Published weights (Apache-2.0), the authors' ``.pth`` and transformers' ``.safetensors``, are read by
`yolojax.zoo.from_pytorch`, and l and x from files of Ultralytics' layout (``rtdetr-l.pt``), which are under a licence
of their own (AGPL-3.0; docs/licences.md). Their arrays were compared by running that library, of whose code nothing was
read. What differs in training: denoising queries are counted for each image by itself
(`yolojax.assign.denoising_queries`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import DTypeLike

from yolojax.detector import Detector, Postprocess, Thresholds, Variables
from yolojax.errors import CheckpointError, ConfigError
from yolojax.geometry import Preprocess
from yolojax.losses import rtdetr_loss
from yolojax.models.hgnet import HGNET_SIZES, HGNetv2
from yolojax.models.hybrid_encoder import HybridEncoder
from yolojax.models.queries import DecoderSize, QueryNetwork, RTDETRHead
from yolojax.models.resnet_vd import ResNetVD
from yolojax.weights.detr import plain_tensors
from yolojax.weights.detr_layers import decoder_layer, find_decoder, from_layers, to_layers
from yolojax.weights.foreign import WeightFile, check_epsilon
from yolojax.zoo.flax_detector import check_input_size
from yolojax.zoo.options import find_scale
from yolojax.zoo.queries import (
    QueryWeights,
    build_weights,
    numbers_in,
    query_detector,
    query_options,
    query_spec,
    query_styles,
    query_tensors,
    read_plain,
    read_weights,
    stored_shapes,
)


class RTDETRScale(NamedTuple):
    """The sizes of a scale.

    Attributes:
      backbone: layers of a ResNet-vd, or a key of `yolojax.models.hgnet.HGNET_SIZES`.
      width, hidden, expansion: of the neck: channels, features in its attention's block, and share of its blocks.
      layers, answering: of the decoder: how many are trained, and how many are run at inference.
      epsilon: added to the variance by every BatchNorm.
    """

    backbone: int | str
    width: int
    hidden: int
    expansion: float
    layers: int
    answering: int
    epsilon: float = 1e-5


SCALES = {
    "r18": RTDETRScale(18, 256, 1024, 0.5, 3, 3),
    "r34": RTDETRScale(34, 256, 1024, 0.5, 4, 4),
    "r50m": RTDETRScale(50, 256, 1024, 0.5, 6, 3),
    "r50": RTDETRScale(50, 256, 1024, 1.0, 6, 6),
    "r101": RTDETRScale(101, 384, 2048, 1.0, 6, 6),
    "l": RTDETRScale("b4", 256, 1024, 1.0, 6, 6, 1e-3),
    "x": RTDETRScale("b5", 384, 2048, 1.0, 6, 6, 1e-3),
}

AUTHORS_SCALES = {name: size for name, size in SCALES.items() if isinstance(size.backbone, int)}
"""Those that the authors publish, of both versions; l and x are Ultralytics', of the first version alone."""

STRIDES = (8, 16, 32)

LAYER_PREPROCESS = Preprocess(resize="stretch", filter="bilinear")
"""Of files of Ultralytics' layout: OpenCV's bilinear filter to the input size, whatever the photo's shape."""

LAYER_POSTPROCESS = Postprocess(validation=Thresholds(0.0, 0.7, 300), prediction=Thresholds(0.25, 0.7, 300))
"""Of these files: the best 300 pairs of query and class, of which prediction shows those of at least .25."""

BACKBONE_RATES = {"r18": 0.1, "r34": 0.1, "r50m": 0.1, "r50": 0.1, "r101": 0.01, "l": 0.05, "x": 0.01}
"""By which the published recipes multiply the learning rate of the backbone."""


def rtdetr(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "r18",
    queries: int = 300,
    denoising: int = 100,
    backbone_rate: float | None = None,
    stored_anchors: Sequence[int] | None = None,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds RT-DETR.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: r18, r34, r50m, r50, r101, l or x.
      queries: of an image; fewer where its pyramid has fewer places.
      denoising: pairs of denoising queries in training; 0 for none.
      backbone_rate: by which the learning rate of the backbone is multiplied; by default the published number, which
        is meant for a pretrained one. 1 suits training from nothing.
      stored_anchors: ``(height, width)`` of the input images for which the boxes that places start from are variables,
        as in the authors' files (`yolojax.zoo.queries`); by default they are computed.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    return _build(
        "rtdetr", class_names, input_size, scale, queries, denoising, backbone_rate, (4, 4, 4), stored_anchors, dtype
    )


def rtdetrv2(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "r18",
    queries: int = 300,
    denoising: int = 100,
    backbone_rate: float | None = None,
    points: Sequence[int] = (4, 4, 4),
    stored_anchors: Sequence[int] | None = None,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds RT-DETRv2: `rtdetr` with ``points`` that each attention head samples on the levels, finest first.

    Raises `ConfigError` as `rtdetr` does, and for a level without points.
    """
    return _build(
        "rtdetrv2",
        class_names,
        input_size,
        scale,
        queries,
        denoising,
        backbone_rate,
        tuple(points),
        stored_anchors,
        dtype,
    )


def _build(
    name: str,
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    scale: str,
    queries: int,
    denoising: int,
    backbone_rate: float | None,
    points: tuple[int, ...],
    stored_anchors: Sequence[int] | None,
    dtype: DTypeLike,
) -> Detector:
    size = find_scale(name, scale, SCALES if name == "rtdetr" else AUTHORS_SCALES)
    if len(points) != len(STRIDES) or min(points) < 1:
        raise ConfigError(f"points = {points}: give a positive number for each of {len(STRIDES)} levels")
    check_input_size(input_size, STRIDES[-1])
    rate = BACKBONE_RATES[scale] if backbone_rate is None else backbone_rate
    options = query_options(scale, queries, denoising, rate)
    options |= {"points": list(points)} if name == "rtdetrv2" else {}
    stored = stored_shapes(stored_anchors, STRIDES, options)
    spec = query_spec(name, class_names, input_size, STRIDES, **options)
    relu, silu = query_styles(dtype, size.epsilon)
    if isinstance(size.backbone, int):
        backbone = ResNetVD(size.backbone, relu)
    else:
        backbone = HGNetv2(HGNET_SIZES[size.backbone], len(STRIDES), False, relu)
    network = QueryNetwork(
        backbone,
        HybridEncoder(size.width, size.hidden, size.expansion, 3, "rtdetr", style=silu),
        RTDETRHead(
            len(class_names),
            DecoderSize(256, 1024, queries, size.layers, size.answering, points, stored=stored),
            relu,
        ),
    )
    return query_detector(spec, network, rtdetr_loss, denoising, rate)


def _weights(file: WeightFile, second: bool) -> QueryWeights | None:
    """What a file holds of an RT-DETR, or of an RT-DETRv2; None if it is another network."""
    names = file.tensors
    if not any(name.endswith(("cross_attn.value_proj.weight", "encoder_attn.value_proj.weight")) for name in names):
        return None
    # Only the second version keeps how many points each level has; its authors also name a layer otherwise.
    versions = any(name.endswith(".num_points_scale") for name in names) or "decoder.enc_output.proj.weight" in names
    if versions != second:
        return None
    plain = read_plain(file)
    if plain is None or not any(name.startswith("backbone.res_layers.") for name in plain):
        return None
    layers = numbers_in(plain, r"decoder\.decoder\.layers\.(\d+)\.")
    width, inner = (
        0 if name not in plain else plain[name].shape[0]
        for name in ("encoder.lateral_convs.0.conv.weight", "encoder.fpn_blocks.0.conv1.conv.weight")
    )
    scale = next(
        (
            key
            for key, size in AUTHORS_SCALES.items()
            if (size.layers, size.width, int(size.width * size.expansion)) == (layers, width, inner)
        ),
        "",
    )
    options: dict[str, Any] = {}
    scales = plain.get("decoder.decoder.layers.0.cross_attn.num_points_scale")
    if second and scales is not None and scales.ndim == 1 and (points := _points_of(scales.tolist())) is not None:
        options["points"] = points
    return read_weights(file, plain, scale, STRIDES, options)


def _points_of(scales: list[float]) -> tuple[int, int, int] | None:
    """The points of three levels, from ``1 / n`` for each of the ``n`` points of a level, levels in order."""
    points: list[int] = []
    while scales:
        count = round(1 / scales[0]) if scales[0] > 0 else 0
        if not 1 <= count <= len(scales):
            return None
        points.append(count)
        scales = scales[count:]
    return (points[0], points[1], points[2]) if len(points) == 3 else None


def rtdetr_weights(file: WeightFile) -> QueryWeights | None:
    """What a file holds of an RT-DETR; None if it is another network.

    Raises `CheckpointError` for one of Ultralytics' layout that has another backbone or size than l and x.
    """
    found = find_decoder(file.tensors)
    return _weights(file, False) if found is None else _layer_weights(file, *found)


def _layer_weights(file: WeightFile, prefix: str, decoder: int) -> QueryWeights | None:
    """Likewise of a file of Ultralytics' layout, whose decoder is the layer of this number."""
    scale = next((scale for scale in SCALES if (blocks := _blocks(scale)) and decoder_layer(blocks) == decoder), None)
    if scale is None or f"{prefix}model.0.stem1.conv.weight" not in file.tensors:
        raise CheckpointError(
            f"{file.path}: an RT-DETR of Ultralytics' layout whose backbone is no HGNetv2 of a published size; give "
            "rtdetr-l or rtdetr-x"
        )
    plain = plain_tensors(from_layers(file.tensors, prefix, _blocks(scale)))
    return None if plain is None else read_weights(file, plain, scale, STRIDES)


def _blocks(scale: str) -> tuple[int, ...]:
    """The blocks in each stage of a scale's HGNetv2; empty for a ResNet-vd."""
    backbone = SCALES[scale].backbone
    return () if isinstance(backbone, int) else tuple(stage.blocks for stage in HGNET_SIZES[backbone].stages)


def rtdetrv2_weights(file: WeightFile) -> QueryWeights | None:
    """What a file holds of an RT-DETRv2; None if it is another network."""
    return _weights(file, True)


def build_rtdetr(
    weights: QueryWeights,
    class_names: tuple[str, ...] | None,
    input_size: tuple[int, int] | None,
    dtype: DTypeLike,
    options: Mapping[str, Any] | None = None,
) -> tuple[Detector, Variables]:
    """`yolojax.zoo.from_pytorch` of weights that are read already."""
    layered = bool(weights.scale and _blocks(weights.scale))
    if layered:
        check_epsilon(weights.file, SCALES[weights.scale].epsilon)
    detector, variables = build_weights(
        weights, class_names, input_size, dtype, options, title="RT-DETR", builder=rtdetr
    )
    if layered:
        detector = detector._replace(
            spec=replace(detector.spec, preprocess=LAYER_PREPROCESS, postprocess=LAYER_POSTPROCESS)
        )
    return detector, variables


build_rtdetrv2 = partial(build_weights, title="RT-DETRv2", builder=rtdetrv2)
"""Likewise of an RT-DETRv2."""


def rtdetr_tensors(detector: Detector, variables: Variables) -> dict[str, np.ndarray]:
    """The tensors of a detector by the names of its published files: Ultralytics' for l and x, else its authors'."""
    tensors, blocks = query_tensors(detector, variables), _blocks(detector.spec.options["scale"])
    return to_layers(tensors, blocks) if blocks else tensors
