"""Names of tensors in published files of RT-DETR, RT-DETRv2, D-FINE and DEIMv2.

There are two layouts: that of the authors' repositories (``.pth``, and the ``.safetensors`` of DEIMv2), and that of
Hugging Face's transformers. Both are brought to one plain form, in which a convolution is ``conv``, its normalisation
``norm``, and queries, keys and values of an attention have tensors of their own. `plain_name` knows that form's name
for each array here.

The names were taken from the authors' repositories and from transformers, both under Apache-2.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

Tensors = Mapping[str, np.ndarray]

_FROM_TRANSFORMERS = (
    (r"^model\.backbone\.model\.embedder\.embedder\.0\.", "backbone.conv1.conv1_1."),
    (r"^model\.backbone\.model\.embedder\.embedder\.1\.", "backbone.conv1.conv1_2."),
    (r"^model\.backbone\.model\.embedder\.embedder\.2\.", "backbone.conv1.conv1_3."),
    (r"^model\.backbone\.model\.embedder\.", "backbone.stem."),
    (r"^model\.backbone\.model\.encoder\.stages\.(\d+)\.layers\.(\d+)\.", r"backbone.res_layers.\1.blocks.\2."),
    (r"(res_layers\.\d+\.blocks\.\d+)\.layer\.0\.", r"\1.branch2a."),
    (r"(res_layers\.\d+\.blocks\.\d+)\.layer\.1\.", r"\1.branch2b."),
    (r"(res_layers\.\d+\.blocks\.\d+)\.layer\.2\.", r"\1.branch2c."),
    (r"\.shortcut\.(1\.)?", r".short."),
    (r"^model\.backbone\.model\.encoder\.", "backbone."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".norm."),
    (r"^model\.encoder_input_proj\.", "encoder.input_proj."),
    (r"^model\.decoder_input_proj\.", "decoder.input_proj."),
    (r"^model\.(enc_output|enc_score_head|enc_bbox_head|denoising_class_embed)\.", r"decoder.\1."),
    (r"^model\.encoder\.(encoder|aifi)\.", "encoder.encoder."),
    (r"^(model\.)?(decoder\.)?class_embed\.", "decoder.dec_score_head."),
    (r"^(model\.)?(decoder\.)?bbox_embed\.", "decoder.dec_bbox_head."),
    (r"^model\.decoder\.(query_pos_head|pre_bbox_head)\.", r"decoder.\1."),
    (r"^model\.decoder\.", "decoder.decoder."),
    (r"^model\.encoder\.", "encoder."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"^(encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"\.final_layer_norm\.", ".norm3."),
    (r"\.(fc1|mlp\.layers\.0)\.", ".linear1."),
    (r"\.(fc2|mlp\.layers\.1)\.", ".linear2."),
    (r"\.o_proj\.", ".out_proj."),
)
"""Regular expressions and what takes their place, one after another."""

_ELAN = (
    (r"((?:fpn|pan)_blocks\.\d+)\.conv1\.", r"\1.cv1."),
    (r"((?:fpn|pan)_blocks\.\d+)\.conv2\.", r"\1.cv2.1."),
    (r"((?:fpn|pan)_blocks\.\d+)\.conv3\.", r"\1.cv3.1."),
    (r"((?:fpn|pan)_blocks\.\d+)\.conv4\.", r"\1.cv4."),
    (r"\.csp_rep1\.", ".cv2.0."),
    (r"\.csp_rep2\.", ".cv3.0."),
    (r"(downsample_convs\.\d+)\.conv(\d)\.", r"\1.0.cv\2."),
)
"""Likewise for D-FINE, whose blocks transformers calls otherwise than RT-DETR's."""

_PLAIN = (
    (r"\.bn\.", ".norm."),
    (r"(input_proj\.\d+)\.0\.", r"\1.conv."),
    (r"(input_proj\.\d+)\.1\.", r"\1.norm."),
    (r"(enc_output)\.0\.", r"\1.proj."),
    (r"(enc_output)\.1\.", r"\1.norm."),
    (r"(down_sample\d)\.1\.", r"\1.conv."),
    (r"(down_sample\d)\.2\.", r"\1.norm."),
    (r"\.short\.conv\.(conv|norm)\.", r".short.\1."),
    (r"(norm\d?)\.scale$", r"\1.weight"),
)
"""From the authors' names to the plain form; `author_name` goes back."""

_MODULES = (
    # Backbones.
    (r"backbone/stem([123])", r"backbone.conv1.conv1_\1", "resnet"),
    (r"backbone/stage(\d)_(\d+)/conv1", r"backbone.res_layers.\1.blocks.\2.branch2a", ""),
    (r"backbone/stage(\d)_(\d+)/conv2", r"backbone.res_layers.\1.blocks.\2.branch2b", ""),
    (r"backbone/stage(\d)_(\d+)/conv3", r"backbone.res_layers.\1.blocks.\2.branch2c", ""),
    (r"backbone/stage(\d)_(\d+)/project", r"backbone.res_layers.\1.blocks.\2.short", ""),
    (r"backbone/(stem\w+?)(?:/layer)?", r"backbone.stem.\1", "hgnet"),
    (r"backbone/stage(\d)_down/layer", r"backbone.stages.\1.downsample", ""),
    (r"backbone/stage(\d)_block(\d+)/squeeze(?:/layer)?", r"backbone.stages.\1.blocks.\2.aggregation.0", ""),
    (r"backbone/stage(\d)_block(\d+)/excite(?:/layer)?", r"backbone.stages.\1.blocks.\2.aggregation.1", ""),
    (r"backbone/stage(\d)_block(\d+)/layer(\d)(?:/layer)?", r"backbone.stages.\1.blocks.\2.layers.\3", ""),
    (r"backbone/stage(\d)_block(\d+)/layer(\d)_pointwise/layer", r"backbone.stages.\1.blocks.\2.layers.\3.conv1", ""),
    (
        r"backbone/stage(\d)_block(\d+)/layer(\d)_depthwise(?:/layer)?",
        r"backbone.stages.\1.blocks.\2.layers.\3.conv2",
        "",
    ),
    # Necks.
    (r"neck/project(\d)", r"encoder.input_proj.\1", ""),
    (r"neck/attention/attention/(query|key|value|out)", r"encoder.encoder.0.layers.0.self_attn.<\1>", ""),
    (r"neck/attention/attention_norm", "encoder.encoder.0.layers.0.norm1", ""),
    (r"neck/attention/norm", "encoder.encoder.0.layers.0.norm2", ""),
    (r"neck/attention/expand", "encoder.encoder.0.layers.0.linear1", ""),
    (r"neck/attention/reduce", "encoder.encoder.0.layers.0.linear2", ""),
    (r"neck/pool(\d)", r"encoder.down_sample\1", ""),
    (r"neck/fuse", "encoder.bi_fusion.cv", ""),
    # Heads.
    (r"head/project(\d)", r"decoder.input_proj.\1", ""),
    (r"head/selection/output", "decoder.enc_output.proj", ""),
    (r"head/selection/norm", "decoder.enc_output.norm", ""),
    (r"head/selection/classes", "decoder.enc_score_head", ""),
    (r"head/selection/boxes/layer(\d)", r"decoder.enc_bbox_head.layers.\1", ""),
    (r"head/position/layer(\d)", r"decoder.query_pos_head.layers.\1", ""),
    (r"head/first_boxes/layer(\d)", r"decoder.pre_bbox_head.layers.\1", ""),
    (r"head/classes(\d)", r"decoder.dec_score_head.\1", ""),
    (r"head/boxes(\d)/layer(\d)", r"decoder.dec_bbox_head.\1.layers.\2", ""),
    (r"head/boxes/layer(\d)", r"decoder.dec_bbox_head.0.layers.\1", ""),
    (r"head/quality(\d)/MLP_0/layer(\d)", r"decoder.decoder.lqe_layers.\1.reg_conf.layers.\2", ""),
    (r"head/layer(\d)/attention/(query|key|value|out)", r"decoder.decoder.layers.\1.self_attn.<\2>", ""),
    (r"head/layer(\d)/cross/offsets", r"decoder.decoder.layers.\1.cross_attn.sampling_offsets", ""),
    (r"head/layer(\d)/cross/weights", r"decoder.decoder.layers.\1.cross_attn.attention_weights", ""),
    (r"head/layer(\d)/cross/value", r"decoder.decoder.layers.\1.cross_attn.value_proj", ""),
    (r"head/layer(\d)/cross/out", r"decoder.decoder.layers.\1.cross_attn.output_proj", ""),
    (r"head/layer(\d)/gate", r"decoder.decoder.layers.\1.gateway.gate", ""),
    (r"head/layer(\d)/norm2", r"decoder.decoder.layers.\1.gateway.norm", "gated"),
    (r"head/layer(\d)/norm(\d)", r"decoder.decoder.layers.\1.norm\2", ""),
    (r"head/layer(\d)/expand", r"decoder.decoder.layers.\1.swish_ffn.w12", "modern"),
    (r"head/layer(\d)/reduce", r"decoder.decoder.layers.\1.swish_ffn.w3", "modern"),
    (r"head/layer(\d)/expand", r"decoder.decoder.layers.\1.linear1", ""),
    (r"head/layer(\d)/reduce", r"decoder.decoder.layers.\1.linear2", ""),
)
"""A module here, its plain name, and what a detector must have for it (an empty text: nothing)."""

_BLOCK = (
    ("reduce", "cv1"),
    ("join", "cv4"),
    (r"csp(\d)/(.*)", None),
    ("conv1", "cv2.1"),
    ("conv2", "cv3.1"),
)
_CSP = (
    ("main|split", "conv1"),
    ("side", "conv2"),
    ("join", "conv3"),
    (r"bottleneck(\d+)/spatial", r"bottlenecks.\1.conv1"),
    (r"bottleneck(\d+)/pointwise", r"bottlenecks.\1.conv2"),
)
_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
_LEAVES = {
    "conv/kernel": "conv.weight",
    "conv/bias": "conv.bias",
    "norm/scale": "norm.weight",
    "norm/bias": "norm.bias",
    "norm/mean": "norm.running_mean",
    "norm/var": "norm.running_var",
}
_SINGLE = {"kernel": "weight", "bias": "bias", "scale": "weight", "gain": "lab.scale", "shift": "lab.bias"}

ANCHORS = "decoder.anchors"
"""The boxes that places start from at the file's input size, as logits, ``[1, N, 4]``; infinite where there is none."""

CONSTANTS = (
    r"decoder\.(decoder\.)?(up|reg_scale)|decoder\.(anchors|valid_mask)|.*\.num_points_scale|.*\.num_batches_tracked"
)
"""Tensors of the files that follow from a detector's options."""


def plain_tensors(tensors: Tensors) -> dict[str, np.ndarray] | None:
    """Brings the tensors of a file to the plain form; None if they are of no detector of this family."""
    ours = {name.removeprefix("module."): array for name, array in tensors.items()}
    if "model.enc_score_head.weight" in ours:
        elan = any(".csp_rep1." in name for name in ours)
        # Heads stand twice in what transformers keeps in memory, and some files have them twice.
        ours = {_replaced(name, _FROM_TRANSFORMERS + (_ELAN if elan else ())): array for name, array in ours.items()}
    elif "decoder.enc_score_head.weight" not in ours:
        return None
    plain: dict[str, np.ndarray] = {}
    for name, array in ours.items():
        renamed = _replaced(name, _PLAIN)
        if match := re.fullmatch(r"(.*)\.in_proj_(weight|bias)", renamed):
            if array.ndim not in (1, 2) or len(array) % 3:
                plain[renamed] = array
                continue
            for part, piece in zip("qkv", np.split(array, 3), strict=True):
                plain[f"{match[1]}.{part}_proj.{match[2]}"] = piece
        else:
            plain[renamed] = array
    return plain


def _replaced(name: str, patterns: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in patterns:
        name = re.sub(pattern, replacement, name)
    return name


def plain_name(name: str, levels: int, features: frozenset[str]) -> str:
    """The plain name of an array here, such as ``params/head/layer0/norm1/scale``.

    Args:
      name: of the array, from its collection on.
      levels: of the pyramid, by which the blocks of the neck are numbered.
      features: ``resnet`` or ``hgnet``; ``csp`` where the neck joins levels by one `RepCSP`, ``lite`` where it is a
        `LiteEncoder`; ``gated`` and ``modern`` where the decoder is.

    Raises `KeyError` where there is no such module.
    """
    _, _, path = name.partition("/")
    if path == "head/denoising":
        return "decoder.denoising_class_embed.weight"
    if path == "head/selection/anchors":
        return ANCHORS
    found = [leaf for leaf in _LEAVES if path.endswith(f"/{leaf}")]
    if found and not re.search(r"(attention|selection)/norm/\w+$", path):
        module, leaf = path.removesuffix(f"/{found[0]}"), _LEAVES[found[0]]
    else:
        module, _, last = path.rpartition("/")
        leaf = _SINGLE[last]
    return f"{_plain_module(module, levels, features)}.{leaf}"


def _plain_module(module: str, levels: int, features: frozenset[str]) -> str:
    if match := re.fullmatch(r"neck/(lateral|down|reduce|up)(\d)(_\w+)?(?:/(.*))?", module):
        kind, number, suffix, inner = match[1], int(match[2]), match[3], match[4] or ""
        lite = "lite" in features
        if kind == "lateral":
            return f"encoder.lateral_convs.{levels - 1 - number}"
        if kind == "reduce":
            convolution = f"encoder.downsample_convs.{number - 1}"
            return convolution + ({"_pointwise": ".0.cv1", "_depthwise": ".0.cv2"}[suffix] if suffix else "")
        if kind == "down":
            block = "encoder.fpn_block" if lite else f"encoder.fpn_blocks.{levels - 2 - number}"
        else:
            block = "encoder.pan_block" if lite else f"encoder.pan_blocks.{number - 1}"
        return f"{block}.{_inside_block(inner, 'csp' in features)}"
    for ours, theirs, needed in _MODULES:
        if (not needed or needed in features) and (match := re.fullmatch(ours, module)):
            return re.sub(r"<(\w+)>", lambda part: _ATTENTION[part[1]], match.expand(theirs))
    raise KeyError(module)


def _inside_block(path: str, plain: bool) -> str:
    """The name inside of a block that joins two levels; ``plain`` ones are one `RepCSP`."""
    if not plain:
        for ours, theirs in _BLOCK:
            if match := re.fullmatch(ours, path):
                if theirs is None:
                    return f"cv{int(match[1]) + 1}.0.{_inside_block(match[2], True)}"
                return theirs
        raise KeyError(path)
    for ours, theirs in _CSP:
        if match := re.fullmatch(ours, path):
            return match.expand(theirs)
    raise KeyError(path)


def author_tensors(plain: Tensors, family: str) -> dict[str, np.ndarray]:
    """Brings tensors of the plain form to the authors' names: the inverse of `plain_tensors` for their files.

    ``family`` is ``rtdetr``, ``rtdetrv2``, ``dfine`` or ``deimv2``.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, array in plain.items():
        if match := re.fullmatch(r"(.*\.self_attn)\.([qkv])_proj\.(weight|bias)", name):
            if match[2] == "q":
                parts = [plain[f"{match[1]}.{part}_proj.{match[3]}"] for part in "qkv"]
                tensors[f"{match[1]}.in_proj_{match[3]}"] = np.concatenate(parts)
            continue
        theirs = author_name(name, family)
        tensors[theirs] = array
        if theirs.endswith("running_var"):
            tensors[theirs.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return tensors


def author_name(name: str, family: str) -> str:
    """The authors' name of a tensor of the plain form."""
    if name.startswith("backbone."):
        if match := re.fullmatch(r"(backbone\.res_layers\.[1-3]\.blocks\.0\.short)\.(.*)", name):
            return f"{match[1]}.conv.{match[2]}"
        return name if ".res_layers." in name or ".conv1.conv1_" in name else name.replace(".norm.", ".bn.")
    if family == "rtdetr":
        name = re.sub(r"^(encoder\.input_proj\.\d+)\.conv\.", r"\1.0.", name)
        name = re.sub(r"^(encoder\.input_proj\.\d+)\.norm\.", r"\1.1.", name)
        name = name.replace("enc_output.proj.", "enc_output.0.").replace("enc_output.norm.", "enc_output.1.")
    if family == "deimv2":
        name = re.sub(r"(down_sample\d)\.conv\.", r"\1.1.", name)
        name = re.sub(r"(down_sample\d)\.norm\.", r"\1.2.", name)
        name = re.sub(r"^(decoder\.decoder\..*norm\d?)\.weight$", r"\1.scale", name)
    return name


def merge_shared(plain: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Drops box heads that are byte for byte the first one's, as detectors with one head for all layers have them."""
    first = {name: array for name, array in plain.items() if name.startswith("decoder.dec_bbox_head.0.")}
    kept = dict(plain)
    for name, array in plain.items():
        if match := re.fullmatch(r"decoder\.dec_bbox_head\.[1-9]\d*\.(.*)", name):
            own = first.get(f"decoder.dec_bbox_head.0.{match[1]}")
            if own is not None and np.array_equal(own, array):
                del kept[name]
    return kept
