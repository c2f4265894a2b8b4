"""Published YOLOX weights (Megvii's names, as arrays in an ``.npz``) into plain arrays under readable names.

Two forms are read. **As trained**: every convolution ``NAME.conv.weight`` has its batch normalisation
``NAME.bn.weight``, ``bias``, ``running_mean`` and ``running_var``. **Folded** (what exporters to ONNX leave):
``NAME.weight`` and ``NAME.bias``, normalisation already multiplied in.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolojax.errors import CheckpointError
from yolojax.paths import user_path
from yolojax.weights.released import unflatten

_MODULES: tuple[tuple[str, str, str], ...] = (
    # Their module, ours, and what it is made of.
    (r"backbone\.backbone\.stem\.conv", "backbone/stem", "conv"),
    (r"backbone\.backbone\.dark([2-5])\.0", r"backbone/down\1", "spatial"),
    (r"backbone\.backbone\.dark5\.1\.conv1", "backbone/spp/reduce", "conv"),
    (r"backbone\.backbone\.dark5\.1\.conv2", "backbone/spp/join", "conv"),
    (r"backbone\.backbone\.dark5\.2", "backbone/stage5", "csp"),
    (r"backbone\.backbone\.dark([2-4])\.1", r"backbone/stage\1", "csp"),
    (r"backbone\.lateral_conv0", "neck/lateral2", "conv"),
    (r"backbone\.reduce_conv1", "neck/lateral1", "conv"),
    (r"backbone\.C3_p4", "neck/down1", "csp"),
    (r"backbone\.C3_p3", "neck/down0", "csp"),
    (r"backbone\.bu_conv2", "neck/reduce1", "spatial"),
    (r"backbone\.bu_conv1", "neck/reduce2", "spatial"),
    (r"backbone\.C3_n3", "neck/up1", "csp"),
    (r"backbone\.C3_n4", "neck/up2", "csp"),
    (r"head\.stems\.(\d)", r"head/level\1_stem", "conv"),
    (r"head\.cls_convs\.(\d)\.(\d)", r"head/level\1_cls\2", "spatial"),
    (r"head\.reg_convs\.(\d)\.(\d)", r"head/level\1_box\2", "spatial"),
    (r"head\.cls_preds\.(\d)", r"head/level\1_predict_cls", "prediction"),
    (r"head\.reg_preds\.(\d)", r"head/level\1_predict_box", "prediction"),
    (r"head\.obj_preds\.(\d)", r"head/level\1_predict_objectness", "prediction"),
)

_CSP = {"conv1": "main", "conv2": "side", "conv3": "join"}
_SPATIAL = {"": "full", "dconv": "depthwise", "pconv": "pointwise"}
_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


class YOLOXWeights(NamedTuple):
    """The arrays of a YOLOX and the sizes that they imply.

    ``params`` and ``batch_stats`` are nested by our names, kernels as ``[kh, kw, cin / groups, cout]``, float32; where
    ``folded``, ``params`` has ``conv/bias`` and ``batch_stats`` is empty. ``depth`` and ``width`` are the paper's
    multipliers.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    folded: bool
    depth: float
    width: float
    depthwise: bool
    num_classes: int


def read_yolox(path: str | Path) -> YOLOXWeights:
    """Read an ``.npz`` of YOLOX arrays (OIHW, float16 to float64) by Megvii's names; nothing in it is executed.

    Raises:
      CheckpointError: missing or damaged file, a pickled entry, a name that is none of YOLOX's, an array of the wrong
        rank or type, or one without which the network's size cannot be told. Whether every array is there and fits is
        for the network to say (`yolojax.weights.released.fit_tree`).
    """
    path = user_path(path)
    arrays = _load(path)
    folded = not any(name.endswith(".bn.weight") for name in arrays)
    flat: dict[str, dict[str, np.ndarray]] = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        if name.endswith(".num_batches_tracked"):
            continue
        place = _place(name, folded)
        if place is None:
            raise CheckpointError(f"{path}: {name} is no array of a YOLOX; give weights by Megvii's names")
        flat[place[0]][place[1]] = _convert(array, f"{path}: {name}", place[1].endswith("kernel"))
    return YOLOXWeights(
        unflatten(flat["params"]), unflatten(flat["batch_stats"]), folded, **_sizes(flat["params"], path)
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give an .npz of YOLOX arrays")
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise CheckpointError(f"{path}: one array, not an archive of them; write it with numpy.savez")
            with archive:
                return {name: archive[name] for name in archive.files}
    except CheckpointError:
        raise
    except Exception as error:  # damaged archives raise nearly anything: BadZipFile, zlib.error, EOFError, KeyError
        raise CheckpointError(
            f"{path}: not a readable .npz of plain arrays ({error}); pickled files such as .pth are not opened: write "
            "their arrays with numpy.savez"
        ) from error


def _place(name: str, folded: bool) -> tuple[str, str] | None:
    """Collection and ``/``-joined name of ours for an array of theirs; None if it has no place."""
    module, _, leaf = name.rpartition(".")
    for pattern, ours, kind in _MODULES:
        match = re.fullmatch(rf"{pattern}(?P<rest>(\..+)?)", module)
        if match is None:
            continue
        rest = match["rest"].removeprefix(".")
        if kind == "prediction":
            own_leaf = {"weight": "kernel", "bias": "bias"}.get(leaf)
            return ("params", f"{match.expand(ours)}/{own_leaf}") if own_leaf and not rest else None
        part = ""
        if not folded:
            rest, _, part = rest.rpartition(".")
        inner = _inside(rest, kind)
        if inner is None:
            return None
        base = f"{match.expand(ours)}{inner}"
        if leaf == "weight" and part == ("" if folded else "conv"):
            return "params", f"{base}/conv/kernel"
        if folded:
            return ("params", f"{base}/conv/bias") if leaf == "bias" else None
        if part == "bn" and leaf in _NORM:
            collection, own = _NORM[leaf]
            return collection, f"{base}/norm/{own}"
        return None
    return None


def _inside(rest: str, kind: str) -> str | None:
    """Our name of a convolution inside a module of a kind, with its leading slash."""
    if kind == "conv":
        return "" if not rest else None
    if kind == "spatial":
        return f"/{_SPATIAL[rest]}" if rest in _SPATIAL else None
    if rest in _CSP:
        return f"/{_CSP[rest]}"
    match = re.fullmatch(r"m\.(\d+)\.(?:(conv1)|conv2(?:\.(dconv|pconv))?)", rest)
    if match is None:
        return None
    return f"/bottleneck{match[1]}/" + ("conv1" if match[2] else f"conv2/{_SPATIAL[match[3] or '']}")


def _convert(array: np.ndarray, where: str, kernel: bool) -> np.ndarray:
    if array.dtype.kind != "f":
        raise CheckpointError(f"{where} holds {array.dtype}, not floating-point numbers")
    if array.ndim != (4 if kernel else 1):
        raise CheckpointError(f"{where} has shape {array.shape}; a {'kernel' if kernel else 'vector'} is needed")
    array = array.astype(np.float32)
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0)) if kernel else array


def _sizes(flat: dict[str, np.ndarray], path: Path) -> dict[str, Any]:
    try:
        stem, head = flat["backbone/stem/conv/kernel"], flat["head/level0_predict_cls/kernel"]
    except KeyError as error:
        raise CheckpointError(f"{path}: {error.args[0]} is missing; the file is not the whole of a YOLOX") from None
    blocks = {match[1] for name in flat if (match := re.match(r"backbone/stage2/bottleneck(\d+)/", name))}
    return {
        "depth": round(len(blocks) / 3, 2),
        "width": stem.shape[-1] / 64,
        "depthwise": any("/depthwise/" in name for name in flat),
        "num_classes": head.shape[-1],
    }
