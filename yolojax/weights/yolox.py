"""Published YOLOX weights by Megvii's names: from a ``.pth``, ``.safetensors`` or ``.onnx``, or an ``.npz`` of arrays.

Three forms are read. **As trained**: every convolution ``NAME.conv.weight`` has its batch normalisation
``NAME.bn.weight``, ``bias``, ``running_mean`` and ``running_var``. **Fused**: ``NAME.conv.weight`` and
``NAME.conv.bias``, normalisation already multiplied in. **Exported**: an ONNX graph, whose convolutions are fused and
mostly nameless; they are told by the order in which the network runs them.

Names and order are those of Megvii's implementation (Megvii-BaseDetection/YOLOX, Apache-2.0).
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from yolojax.errors import CheckpointError, shown
from yolojax.paths import user_path
from yolojax.weights.foreign import Module, WeightFile, class_names, printable, read_weight_file
from yolojax.weights.ultralytics import Names

_SPATIAL = ((r"full", r""), (r"depthwise", r"dconv"), (r"pointwise", r"pconv"))
_CSP = (
    (r"main", r"conv1"),
    (r"side", r"conv2"),
    (r"join", r"conv3"),
    (r"bottleneck(\d+)/conv1", r"m.\1.conv1"),
    (r"bottleneck(\d+)/conv2/full", r"m.\1.conv2"),
    (r"bottleneck(\d+)/conv2/depthwise", r"m.\1.conv2.dconv"),
    (r"bottleneck(\d+)/conv2/pointwise", r"m.\1.conv2.pconv"),
)
_HEAD = (
    (r"level(\d)_stem", r"stems.\1"),
    *(
        (rf"level(\d)_{ours}(\d)/{part}", rf"{theirs}.\1.\2{end}")
        for ours, theirs in (("cls", "cls_convs"), ("box", "reg_convs"))
        for part, end in (("full", ""), ("depthwise", ".dconv"), ("pointwise", ".pconv"))
    ),
    (r"level(\d)_predict_cls", r"cls_preds.\1"),
    (r"level(\d)_predict_box", r"reg_preds.\1"),
    (r"level(\d)_predict_objectness", r"obj_preds.\1"),
)

YOLOX_NAMES: Names = {
    "backbone/stem": ("backbone.backbone.stem.conv", "conv"),
    **{f"backbone/down{i}": (f"backbone.backbone.dark{i}.0", _SPATIAL) for i in (2, 3, 4, 5)},
    **{f"backbone/stage{i}": (f"backbone.backbone.dark{i}.{2 if i == 5 else 1}", _CSP) for i in (2, 3, 4, 5)},
    "backbone/spp": ("backbone.backbone.dark5.1", ((r"reduce", r"conv1"), (r"join", r"conv2"))),
    "neck/lateral2": ("backbone.lateral_conv0", "conv"),
    "neck/lateral1": ("backbone.reduce_conv1", "conv"),
    "neck/down1": ("backbone.C3_p4", _CSP),
    "neck/down0": ("backbone.C3_p3", _CSP),
    "neck/reduce1": ("backbone.bu_conv2", _SPATIAL),
    "neck/reduce2": ("backbone.bu_conv1", _SPATIAL),
    "neck/up1": ("backbone.C3_n3", _CSP),
    "neck/up2": ("backbone.C3_n4", _CSP),
    "head": ("head", _HEAD),
}
"""Modules here, their names in Megvii's files, and how both name what is inside (`yolojax.weights.ultralytics`)."""

_STEM, _CLASSES = "backbone.backbone.stem.conv", "head.cls_preds.0.weight"
_MOST_BLOCKS = 12
"""Bottlenecks of the deepest stage of an exported network that is recognised; the published X has 4."""


@dataclass(frozen=True)
class YOLOXWeights:
    """The tensors of a YOLOX and what they imply.

    Attributes:
      source: the file, for messages.
      tensors: by Megvii's names, kernels as OIHW; fused convolutions as ``NAME.conv.weight`` and ``NAME.conv.bias``.
      folded: whether the normalisation is multiplied in.
      blocks: bottlenecks of the first stage, the three of the paper times its multiplier of depth.
      stem: channels of the first convolution, the 64 of the paper times its multiplier of width.
      depthwise: whether 3x3 convolutions are split, as in the Nano.
      num_classes: as many as there are class scores.
      class_names: where the file states them.
      input_size: ``(height, width)`` in pixels, where the file states it.
    """

    source: str
    tensors: Mapping[str, np.ndarray]
    folded: bool
    blocks: int
    stem: int
    depthwise: bool
    num_classes: int
    class_names: tuple[str, ...] | None = None
    input_size: tuple[int, int] | None = None

    @property
    def depth(self) -> float:
        """The paper's multiplier of depth."""
        return round(self.blocks / 3, 2)

    @property
    def width(self) -> float:
        """The paper's multiplier of width."""
        return self.stem / 64


def read_yolox(path: str | Path) -> YOLOXWeights:
    """Reads the weights of a YOLOX of any size; nothing in the file is executed.

    Whether every tensor is there and fits is for the network to say (`yolojax.weights.ultralytics.take_tensors`).

    Raises:
      CheckpointError: a missing or damaged file, or no YOLOX.
    """
    path = user_path(path)
    if path.suffix.lower() == ".npz":
        weights = _weights(_load(path), str(path))
    else:
        weights = yolox_weights(read_weight_file(path))
    if weights is None:
        raise CheckpointError(
            f"{path}: holds no YOLOX: {_STEM}.conv.weight and {_CLASSES} are not both among its tensors; give weights "
            "by Megvii's names"
        )
    return weights


def yolox_weights(file: WeightFile) -> YOLOXWeights | None:
    """Returns the weights of a YOLOX that a file holds; None if it holds another network."""
    if file.form != "onnx":
        weights = _weights(file.tensors, str(file.path))
        return None if weights is None else replace(weights, class_names=class_names(file))
    trained = _weights(file.tensors, str(file.path)) if f"{_STEM}.bn.weight" in file.tensors else None
    tensors = _exported(file) if trained is None else None
    found = trained if tensors is None else _weights(tensors, str(file.path))
    if found is None:
        return None
    # Constants of the graph, such as shapes of a Reshape, are no tensors of the network.
    kept = {name: array for name, array in found.tensors.items() if name.startswith(("backbone.", "head."))}
    return replace(found, tensors=kept, input_size=_input_size(file))


def _weights(tensors: Mapping[str, np.ndarray], source: str) -> YOLOXWeights | None:
    first = next((name for name in tensors if re.search(rf"(^|\.){re.escape(_STEM)}(\.conv)?\.weight$", name)), None)
    if first is None:
        return None
    prefix = first.partition(_STEM)[0]
    tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    if f"{_STEM}.conv.weight" not in tensors:
        tensors = {_with_conv(name): array for name, array in tensors.items()}
    stem, classes = tensors[f"{_STEM}.conv.weight"], tensors.get(_CLASSES)
    if classes is None or stem.ndim != 4 or classes.ndim != 4:
        return None
    blocks = {match[1] for name in tensors if (match := re.match(r"backbone\.backbone\.dark2\.1\.m\.(\d+)\.", name))}
    if not blocks:
        return None
    return YOLOXWeights(
        source=source,
        tensors=tensors,
        folded=not any(name.endswith(".bn.weight") for name in tensors),
        blocks=len(blocks),
        stem=stem.shape[0],
        depthwise=any(".dconv." in name for name in tensors),
        num_classes=classes.shape[0],
    )


def _with_conv(name: str) -> str:
    """The name of a fused convolution's array as Megvii's own fusion leaves it; predictions stay as they are."""
    module, _, leaf = name.rpartition(".")
    return name if re.match(r"head\.(cls|reg|obj)_preds\.", name) else f"{module}.conv.{leaf}"


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give an .npz of YOLOX arrays")
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise CheckpointError(f"{path}: one array, not an archive of them; write it with numpy.savez")
            with archive:
                found = {name: archive[name] for name in archive.files}
                # Of a member that is no array NumPy gives the bytes.
                strange = [name for name, value in found.items() if not isinstance(value, np.ndarray)]
                if strange:
                    raise CheckpointError(
                        f"{path}: its member {shown(strange[0])} is no array; write arrays with numpy.savez"
                    )
                return found
    except CheckpointError:
        raise
    except Exception as error:  # damaged archives raise nearly anything: BadZipFile, zlib.error, EOFError, KeyError
        raise CheckpointError(
            f"{path}: not a readable .npz of plain arrays ({error}); write arrays with numpy.savez"
        ) from error


def _exported(file: WeightFile) -> dict[str, np.ndarray] | None:
    """The arrays of an exported network's convolutions by Megvii's fused names; None if it is no YOLOX."""
    nodes = [(name, node) for name, node in file.modules.items() if node.class_path == "onnx.Conv"]
    numbers = [int(match[1]) for name, _ in nodes if (match := re.fullmatch(r"Conv_(\d{1,9})", name))]
    if len(numbers) == len(nodes):  # Older exporters number nodes as they run; a simplifier may have moved them.
        nodes = [nodes[i] for i in np.argsort(numbers, kind="stable")]
    kernels = [file.tensors.get((*node.attributes["inputs"], "", "")[1]) for _, node in nodes]
    if not nodes or any(kernel is None or kernel.ndim != 4 for kernel in kernels):
        return None
    shapes = [kernel.shape for kernel in kernels if kernel is not None]
    if shapes[0][1:] != (12, 3, 3):
        return None
    depthwise = len(shapes) > 1 and shapes[1][1] == 1
    orders = (list(running_order(blocks, depthwise)) for blocks in range(1, _MOST_BLOCKS + 1))
    order = next((order for order in orders if len(order) == len(nodes)), None)
    if order is None:
        return None
    stated = [_stated_name(name, node, set(order)) for name, node in nodes]
    if all(name is not None for name in stated) and sorted(order) == sorted(filter(None, stated)):
        order = [name for name in stated if name is not None]
    arrays: dict[str, np.ndarray] = {}
    for (node_name, node), own, name in zip(nodes, stated, order, strict=True):
        kernel, bias = (file.tensors.get(tensor) for tensor in (*node.attributes["inputs"][1:3], "")[:2])
        if kernel is None or bias is None or own not in (None, name):
            raise CheckpointError(
                f"{file.path}: the convolution {printable(node_name)[:200]} is {name} by its place, but it "
                + (f"is called {own}" if own not in (None, name) else "has no bias: its normalisation is not fused")
                + "; export the network again in evaluation mode"
            )
        arrays |= {f"{name}.weight": kernel, f"{name}.bias": bias}
    return arrays


def _stated_name(name: str, node: Module, known: Collection[str]) -> str | None:
    """Which of the ``known`` modules a convolution says it is, by the name of its kernel or of its node."""
    kernel = node.attributes["inputs"][1].removesuffix(".weight")
    scope = name.strip("/").removesuffix("/Conv").replace("/", ".")
    texts = (kernel, kernel.removesuffix(".conv"), scope, scope.removesuffix(".conv"))
    return next((text for text in texts if text in known), None)


def running_order(blocks: int, depthwise: bool) -> Iterator[str]:
    """The convolutions of a YOLOX in the order in which Megvii's network runs them."""

    def spatial(name: str) -> tuple[str, ...]:
        return (f"{name}.dconv", f"{name}.pconv") if depthwise else (name,)

    def csp(name: str, count: int) -> Iterator[str]:
        yield from (f"{name}.conv1", f"{name}.conv2")
        for i in range(count):
            yield f"{name}.m.{i}.conv1"
            yield from spatial(f"{name}.m.{i}.conv2")
        yield f"{name}.conv3"

    yield _STEM
    for stage in (2, 3, 4, 5):
        dark = f"backbone.backbone.dark{stage}"
        yield from spatial(f"{dark}.0")
        if stage == 5:
            yield from (f"{dark}.1.conv1", f"{dark}.1.conv2")
        yield from csp(f"{dark}.{2 if stage == 5 else 1}", 3 * blocks if stage in (3, 4) else blocks)
    for before, name in (
        ("lateral_conv0", "C3_p4"),
        ("reduce_conv1", "C3_p3"),
        ("bu_conv2", "C3_n3"),
        ("bu_conv1", "C3_n4"),
    ):
        yield from spatial(f"backbone.{before}") if before.startswith("bu") else (f"backbone.{before}",)
        yield from csp(f"backbone.{name}", blocks)
    for level in range(3):
        yield f"head.stems.{level}"
        for branch, predictions in (("cls_convs", ("cls_preds",)), ("reg_convs", ("reg_preds", "obj_preds"))):
            for i in range(2):
                yield from spatial(f"head.{branch}.{level}.{i}")
            yield from (f"head.{one}.{level}" for one in predictions)


def _input_size(file: WeightFile) -> tuple[int, int] | None:
    """Height and width of a graph's only image, where they are fixed multiples of 32."""
    shapes = list(file.modules[""].attributes["inputs"].values())
    sides = shapes[0][2:] if len(shapes) == 1 and len(shapes[0]) == 4 else []
    fixed = [side for side in sides if isinstance(side, int) and 0 < side <= 1 << 14 and side % 32 == 0]
    return (fixed[0], fixed[1]) if len(fixed) == 2 else None
