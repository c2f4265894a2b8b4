"""Names of tensors in MultimediaTechLab's YOLOv9 files (MIT), which have the layers of Ultralytics' by other names.

    0.conv.weight                                   model.0.conv.weight
    4.conv2.0.bottleneck.1.conv1.conv2.bn.weight    model.4.cv2.0.m.1.cv1.conv2.bn.weight
    22.heads.0.anchor_conv.2.bias                   model.22.cv2.0.2.bias
    30.heads.0.class_conv.2.bias                    auxiliary.30.cv3.0.2.bias

Layers after the head belong to the auxiliary branch, which Ultralytics' files do not have; they are called
``auxiliary.`` here. The names were taken from https://github.com/MultimediaTechLab/YOLO.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from yolojax.errors import CheckpointError
from yolojax.weights.foreign import find_prefix

HEAD = 22
"""The number of the layer that predicts."""

_PATHS = (
    ("heads.{a}.anchor_conv.{b}", "cv2.{a}.{b}"),
    ("heads.{a}.class_conv.{b}", "cv3.{a}.{b}"),
    ("conv{a}.0.conv{b}", "cv{a}.0.cv{b}"),
    ("conv{a}.0.bottleneck.{b}.conv1.conv{c}", "cv{a}.0.m.{b}.cv1.conv{c}"),
    ("conv{a}.0.bottleneck.{b}.conv2", "cv{a}.0.m.{b}.cv2"),
    ("conv{a}.1", "cv{a}.1"),
    ("conv{a}", "cv{a}"),
)
"""Paths inside a layer: theirs and Ultralytics'."""

_ONLY = ("conv", "cv1")
"""The path of the convolution of a layer that has one convolution after an average."""

_BINS = re.compile(r"(\d+)\.heads\.\d\.anc2vec\.anc2vec\.weight")


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(template)))


_READ = [(_pattern(theirs), known) for theirs, known in _PATHS]
_WRITTEN = [(_pattern(known), theirs) for theirs, known in _PATHS]


def _translated(path: str, table: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, template in table:
        if match := pattern.fullmatch(path):
            return template.format(**match.groupdict())
    return path


def _divided(rest: str) -> tuple[str, str]:
    """The path of a convolution inside a layer, and what follows it, such as ``conv.weight``, ``bn.bias``, ``bias``."""
    match = re.search(r"(?:^|\.)((?:conv\.|bn\.)?[a-z_]+)$", rest)
    return (rest[: match.start()], match[1]) if match else (rest, "")


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def multimedia_prefix(tensors: Mapping[str, np.ndarray]) -> str | None:
    """What stands before the numbers of layers in a file of this kind; None for a file of another kind."""
    return find_prefix(tensors, f"{HEAD}.heads.0.class_conv.0.conv.weight")


def read_names(tensors: Mapping[str, np.ndarray], prefix: str, source: str) -> dict[str, np.ndarray]:
    """The tensors by Ultralytics' names; what does not begin with the prefix and a number keeps its name.

    The values of the bins, which their files hold for every level and head, become Ultralytics' one tensor. Raises
    `CheckpointError` if they are not 0, 1, 2 and so on.
    """
    out: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        inner = name.removeprefix(prefix)
        layer, _, rest = inner.partition(".")
        if not name.startswith(prefix) or not layer.isdigit():
            out[name] = array
        elif _BINS.fullmatch(inner):
            bins = np.asarray(array, np.float32).ravel()
            if not np.array_equal(bins, np.arange(bins.size)):
                raise CheckpointError(
                    f"{source}: the tensor {name} is not 0 to {bins.size - 1}, the values of the bins"
                )
            out[f"model.{HEAD}.dfl.conv.weight"] = bins.reshape(1, -1, 1, 1)
        else:
            path, end = _divided(rest)
            known = _ONLY[1] if path == _ONLY[0] else _translated(path, _READ)
            out[_joined("model" if int(layer) <= HEAD else "auxiliary", layer, known, end)] = array
    return out


def write_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `read_names`, without a prefix."""
    places = {name: (*name.split(".", 2)[1:2], *_divided(name.split(".", 2)[2])) for name in tensors}
    paths: dict[str, set[str]] = {}
    for layer, path, _ in places.values():
        paths.setdefault(layer, set()).add(path)
    out: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        layer, path, end = places[name]
        if path == "dfl":
            scores = [(one, re.fullmatch(r"cv3\.(\d)\.2", inner)) for one in paths for inner in paths[one]]
            for head, level in sorted((one, match[1]) for one, match in scores if match):
                out[f"{head}.heads.{level}.anc2vec.anc2vec.weight"] = array.reshape(1, -1, 1, 1, 1).copy()
        else:
            theirs = _ONLY[0] if paths[layer] == {_ONLY[1]} else _translated(path, _WRITTEN)
            out[_joined(layer, theirs, end)] = array
    return out
