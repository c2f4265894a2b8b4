"""D-FINE (Peng et al. 2024, arXiv 2410.13842): RT-DETR whose boxes are distributions that each layer refines.

The neck joins levels by GELAN blocks and halves by separable convolutions; the decoder's layers have a gate, and
attend without linear layers for values and results.

| scale | backbone | parameters | GFLOPs at 640 | AP on COCO val2017 |
|---|---|---|---|---|
| n | HGNetv2 B0 | 4 M | 7 | .428 |
| s | HGNetv2 B0 | 10 M | 25 | .485 |
| m | HGNetv2 B2 | 19 M | 57 | .523 |
| l | HGNetv2 B4 | 31 M | 91 | .540 |
| x | HGNetv2 B5 | 62 M | 202 | .558 |

Published weights (Apache-2.0), the authors' ``.pth`` and transformers' ``.safetensors``, are read by
`yolojax.zoo.from_pytorch`. What differs in training: the decoupled distillation is averaged image by image, and
denoising queries are counted for each image by itself (`yolojax.losses.dfine_loss`,
`yolojax.assign.denoising_queries`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from jaxtyping import DTypeLike

from yolojax.detector import Detector
from yolojax.losses import dfine_loss
from yolojax.models.hgnet import HGNET_SIZES, HGNetv2
from yolojax.models.hybrid_encoder import HybridEncoder
from yolojax.models.queries import DecoderSize, DFineHead, QueryNetwork
from yolojax.weights.foreign import WeightFile
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
    read_plain,
    read_weights,
    stored_shapes,
)


class DFineScale(NamedTuple):
    """The sizes of a scale.

    Attributes:
      backbone: a key of `yolojax.models.hgnet.HGNET_SIZES`.
      affine: whether the backbone has learned gains and shifts after its activations.
      levels: of the pyramid; the coarsest has stride 32.
      width, hidden: of the neck: channels, and features in its attention's block.
      expansion, depth: of the neck's blocks.
      decoder_width, decoder_hidden: likewise of the decoder.
      layers: of the decoder.
      points: on each level.
      scale: of the steps of the distributions.
    """

    backbone: str
    affine: bool
    levels: int
    width: int
    hidden: int
    expansion: float
    depth: int
    decoder_width: int
    decoder_hidden: int
    layers: int
    points: tuple[int, ...]
    scale: float = 4.0


SCALES = {
    "n": DFineScale("b0", True, 2, 128, 512, 0.34, 2, 128, 512, 3, (6, 6)),
    "s": DFineScale("b0", True, 3, 256, 1024, 0.5, 1, 256, 1024, 3, (3, 6, 3)),
    "m": DFineScale("b2", True, 3, 256, 1024, 1.0, 2, 256, 1024, 4, (3, 6, 3)),
    "l": DFineScale("b4", False, 3, 256, 1024, 1.0, 3, 256, 1024, 6, (3, 6, 3)),
    "x": DFineScale("b5", False, 3, 384, 2048, 1.0, 3, 256, 1024, 6, (3, 6, 3), 8.0),
}

STRIDES = (8, 16, 32)

BACKBONE_RATES = {"n": 0.5, "s": 0.5, "m": 0.1, "l": 0.05, "x": 0.01}
"""By which the published recipes multiply the learning rate of the backbone."""


def dfine(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "n",
    queries: int = 300,
    denoising: int = 100,
    backbone_rate: float | None = None,
    stored_anchors: Sequence[int] | None = None,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds D-FINE.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: n, s, m, l or x.
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
    size = find_scale("dfine", scale, SCALES)
    check_input_size(input_size, STRIDES[-1])
    rate = BACKBONE_RATES[scale] if backbone_rate is None else backbone_rate
    options = query_options(scale, queries, denoising, rate)
    stored = stored_shapes(stored_anchors, STRIDES[-size.levels :], options)
    spec = query_spec("dfine", class_names, input_size, STRIDES[-size.levels :], **options)
    relu, silu = query_styles(dtype)
    decoder = DecoderSize(
        size.decoder_width, size.decoder_hidden, queries, size.layers, size.layers, size.points, stored=stored
    )
    network = QueryNetwork(
        HGNetv2(HGNET_SIZES[size.backbone], size.levels, size.affine, relu),
        HybridEncoder(size.width, size.hidden, size.expansion, size.depth, "dfine", style=silu),
        DFineHead(len(class_names), decoder, scale=size.scale, style=relu),
    )
    return query_detector(spec, network, partial(dfine_loss, scale=size.scale), denoising, rate)


def dfine_weights(file: WeightFile) -> QueryWeights | None:
    """What a file holds of a D-FINE; None if it is another network."""
    if not any(name.endswith("gateway.gate.weight") for name in file.tensors):
        return None
    plain = read_plain(file)
    if plain is None or any("swish_ffn" in name for name in plain):
        return None
    width = plain.get("encoder.input_proj.0.conv.weight")
    layers = numbers_in(plain, r"decoder\.decoder\.layers\.(\d+)\.")
    levels = numbers_in(plain, r"encoder\.input_proj\.(\d+)\.")
    found = (levels, 0 if width is None else width.shape[0], layers)
    scale = next((key for key, size in SCALES.items() if (size.levels, size.width, size.layers) == found), "")
    return read_weights(file, plain, scale, STRIDES[-levels:])


build_dfine = partial(build_weights, title="D-FINE", builder=dfine)
"""`yolojax.zoo.from_pytorch` of weights that are read already."""
