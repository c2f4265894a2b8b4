"""Names of RT-DETR's tensors in files of Ultralytics' layout, whose layers are numbered from the stem to the decoder.

They are brought to the authors' names, which `yolojax.weights.detr` knows, and back. The names were taken from a table
of names and shapes; no code of theirs was read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

NECK = 18
"""Layers between the backbone and the decoder, those without tensors included."""

_DENOISING = "decoder.denoising_class_embed.weight"


def decoder_layer(blocks: Sequence[int]) -> int:
    """The number of the decoder, behind an HGNetv2 with so many blocks in its stages."""
    # The stem, and one layer that halves the size before each stage but the first.
    return sum(blocks) + len(blocks) + NECK


def find_decoder(tensors: Mapping[str, np.ndarray]) -> tuple[str, int] | None:
    """What stands before ``model.`` in the names of such a file, and the number of its decoder; None for others."""
    found = (re.fullmatch(r"(.*?)model\.(\d+)\.enc_score_head\.weight", name) for name in tensors)
    return next(((match[1], int(match[2])) for match in found if match), None)


def from_layers(tensors: Mapping[str, np.ndarray], prefix: str, blocks: Sequence[int]) -> dict[str, np.ndarray]:
    """The tensors of a file by the authors' names; what has no place in an RT-DETR keeps its name.

    The authors' table of denoising queries has a last row, for queries that do not exist. It is added as zeros.
    """
    pairs = _beginnings(blocks)
    renamed: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        inner = name.removeprefix(prefix)
        theirs = next((ours + inner.removeprefix(begin) for begin, ours in pairs if inner.startswith(begin)), inner)
        if theirs == _DENOISING and array.ndim == 2:
            array = np.concatenate([array, np.zeros_like(array[:1])])
        renamed[theirs] = array
    return renamed


def to_layers(tensors: Mapping[str, np.ndarray], blocks: Sequence[int]) -> dict[str, np.ndarray]:
    """The inverse of `from_layers`, with names that begin with ``model.``."""
    pairs = _beginnings(blocks)
    renamed: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        begin, ours = next((begin, ours) for begin, ours in pairs if name.startswith(ours))
        inner = name.removeprefix(ours)
        theirs = begin + (inner if ours == "decoder." else re.sub(r"(^|\.)norm\.", r"\1bn.", inner))
        renamed[theirs] = array[:-1] if name == _DENOISING else array
    return renamed


def _beginnings(blocks: Sequence[int]) -> list[tuple[str, str]]:
    """How names begin there and at the authors', special ones first."""
    pairs, layer = [("0.", "backbone.stem.")], 1
    for stage, count in enumerate(blocks):
        if stage:
            pairs.append((f"{layer}.", f"backbone.stages.{stage}.downsample."))
            layer += 1
        for block in range(count):
            inside = (("m.", "layers."), ("sc.", "aggregation.0."), ("ec.", "aggregation.1."))
            pairs += [(f"{layer}.{a}", f"backbone.stages.{stage}.blocks.{block}.{b}") for a, b in inside]
            layer += 1
    attention = "encoder.encoder.0.layers.0."
    inside = (("ma.", "self_attn."), ("fc1.", "linear1."), ("fc2.", "linear2."), ("", ""))
    pairs += [(f"{layer + 1}.{a}", attention + b) for a, b in inside]
    for number, place in ((2, layer), (1, layer + 4), (0, layer + 9)):
        projection = f"encoder.input_proj.{number}."
        pairs += [(f"{place}.conv.", f"{projection}0."), (f"{place}.bn.", f"{projection}1.")]
    convolutions = {2: "lateral_convs.0", 7: "lateral_convs.1", 12: "downsample_convs.0", 15: "downsample_convs.1"}
    pairs += [(f"{layer + offset}.", f"encoder.{name}.") for offset, name in convolutions.items()]
    joins = {6: "fpn_blocks.0", 11: "fpn_blocks.1", 14: "pan_blocks.0", 17: "pan_blocks.1"}
    inside = (("cv1.", "conv1."), ("cv2.", "conv2."), ("m.", "bottlenecks."))
    pairs += [(f"{layer + offset}.{a}", f"encoder.{name}.{b}") for offset, name in joins.items() for a, b in inside]
    head = f"{decoder_layer(blocks)}."
    for number in range(3):
        projection = f"decoder.input_proj.{number}."
        pairs += [
            (f"{head}input_proj.{number}.0.", f"{projection}conv."),
            (f"{head}input_proj.{number}.1.", f"{projection}norm."),
        ]
    pairs += [(head, "decoder.")]
    return [(f"model.{begin}", ours) for begin, ours in pairs]
