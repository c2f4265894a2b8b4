"""DEIMv2 (Huang et al. 2025, arXiv 2509.20787): D-FINE with a leaner decoder, trained by matching-aware losses.

The decoder has RMSNorm and SwiGLU, one position for all layers, and takes the places of the pyramid as they are. The
three smallest have one level of stride 16 from a backbone without its last stage, a neck without attention, one box
head for all layers, and no gate.

| scale | backbone | input | parameters | GFLOPs | AP on COCO val2017 |
|---|---|---|---|---|---|
| atto | HGNetv2 Atto | 320 | 0.5 M | 0.8 | .238 |
| femto | HGNetv2 Femto | 416 | 1.0 M | 1.7 | .310 |
| pico | HGNetv2 Pico | 640 | 1.5 M | 5.2 | .385 |
| n | HGNetv2 B0 | 640 | 3.6 M | 6.8 | .430 |

S, M, L and X have a DINOv3 backbone (a vision transformer under a licence of its own) and are not here.

Published weights (Apache-2.0) are read by `yolojax.zoo.from_pytorch`. What differs in training: the matching cost stays
the same to the end (theirs changes it for the last tenth of the epochs), and denoising queries are counted for each
image by itself (`yolojax.assign.denoising_queries`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from jaxtyping import DTypeLike

from yolojax.detector import Detector
from yolojax.errors import CheckpointError, ConfigError
from yolojax.losses import dfine_loss, matching_aware_loss
from yolojax.models.hgnet import HGNET_SIZES, HGNetv2
from yolojax.models.hybrid_encoder import HybridEncoder, LiteEncoder
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


class DEIMv2Scale(NamedTuple):
    """The sizes of a scale: backbone, channels, features in the decoder's layers, queries, points, input size."""

    backbone: str
    width: int
    hidden: int
    queries: int
    points: tuple[int, int]
    side: int


SCALES = {
    "atto": DEIMv2Scale("atto", 64, 160, 100, (4, 2), 320),
    "femto": DEIMv2Scale("femto", 96, 256, 150, (4, 2), 416),
    "pico": DEIMv2Scale("pico", 112, 320, 200, (4, 2), 640),
    "n": DEIMv2Scale("b0", 128, 512, 300, (6, 6), 640),
}
MISSING = ("s", "m", "l", "x")
"""Published scales whose backbone is not an HGNetv2."""

STRIDES = (16, 32)
LAYERS = 3
BACKBONE_RATE = 0.5


def deimv2(
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    *,
    scale: str = "atto",
    queries: int | None = None,
    denoising: int = 100,
    backbone_rate: float | None = None,
    stored_anchors: Sequence[int] | None = None,
    dtype: DTypeLike = "float32",
) -> Detector:
    """Builds DEIMv2.

    Args:
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of 32.
      scale: atto, femto, pico or n.
      queries: of an image; by default the scale's.
      denoising: pairs of denoising queries in training; 0 for none.
      backbone_rate: by which the learning rate of the backbone is multiplied; by default the published number, which
        is meant for a pretrained one. 1 suits training from nothing.
      stored_anchors: ``(height, width)`` of the input images for which the boxes that places start from are variables,
        as in the authors' files (`yolojax.zoo.queries`); by default they are computed.
      dtype: of the network's computation.

    Raises:
      ConfigError: an option out of range, or an input size that the strides do not divide.
    """
    if scale in MISSING:
        raise ConfigError(f"deimv2 scale = {scale!r}: its DINOv3 backbone is not built here; give {', '.join(SCALES)}")
    size = find_scale("deimv2", scale, SCALES)
    check_input_size(input_size, STRIDES[-1])
    queries = size.queries if queries is None else queries
    rate = BACKBONE_RATE if backbone_rate is None else backbone_rate
    lite = scale != "n"
    options = query_options(scale, queries, denoising, rate)
    stored = stored_shapes(stored_anchors, STRIDES, options)
    spec = query_spec("deimv2", class_names, input_size, STRIDES, **options)
    relu, silu = query_styles(dtype)
    neck = (
        LiteEncoder(size.width, style=silu)
        if lite
        else HybridEncoder(size.width, size.hidden, 0.34, 2, "deimv2", style=silu)
    )
    decoder = DecoderSize(size.width, size.hidden, queries, LAYERS, LAYERS, size.points, stored=stored)
    network = QueryNetwork(
        HGNetv2(HGNET_SIZES[size.backbone], 1 if lite else 2, style=relu),
        neck,
        DFineHead(len(class_names), decoder, modern=True, gated=not lite, shared_boxes=lite, style=relu),
    )
    loss = partial(dfine_loss, class_loss=matching_aware_loss, local=not lite, union=not lite)
    return query_detector(spec, network, loss, denoising, rate)


def deimv2_weights(file: WeightFile) -> QueryWeights | None:
    """What a file holds of a DEIMv2; None if it is another network.

    Raises `CheckpointError` for a scale whose backbone is not built here.
    """
    if not any(name.endswith("swish_ffn.w12.weight") for name in file.tensors):
        return None
    plain = read_plain(file)
    if plain is None:
        return None
    if "backbone.stem.stem1.conv.weight" not in plain:
        raise CheckpointError(
            f"{file.path}: a DEIMv2 whose backbone is no HGNetv2 (its published S, M, L and X have a DINOv3); of this "
            f"family the scales {', '.join(SCALES)} are read"
        )
    width = plain["decoder.enc_score_head.weight"].shape[-1]
    stages = numbers_in(plain, r"backbone\.stages\.(\d+)\.")
    scale = next((name for name, size in SCALES.items() if size.width == width and stages == 3 + (name == "n")), "")
    return read_weights(file, plain, scale, STRIDES)


build_deimv2 = partial(build_weights, title="DEIMv2", builder=deimv2, side=lambda scale: SCALES[scale].side)
"""`yolojax.zoo.from_pytorch` of weights that are read already."""
