"""Weight files of other programs: one value for all of them, and the function that reads whichever it is given.

    file = read_weight_file("best.pt")          # .pt, .pth, .safetensors, .onnx: told by their content
    file.tensors["model.0.conv.weight"]         # a read-only NumPy array, a view of the file where possible
    file.modules["model.0.bn"].attributes["eps"]

Nothing in such a file is executed, and no class of it is imported.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.errors import CheckpointError
from yolojax.paths import user_path

LARGEST_INPUT = 16_384
"""Pixels of the largest input size that a file is believed to state."""

LARGEST_HEADER = 1 << 30
"""More bytes than the header of a safetensors file has (at most 100 MB). A pickle's first bytes are a larger number."""


@dataclass(frozen=True)
class Module:
    """A module of a network, as its file describes it.

    Attributes:
      class_path: The class as text, such as ``torch.nn.modules.batchnorm.BatchNorm2d``; ``onnx.Conv`` for a node of an
        ONNX graph. Empty where the file does not say.
      attributes: Plain values by name: numbers, texts, tuples, lists and dictionaries of them. Tensors of at most 64
        numbers are nested lists; what cannot be told plainly is a text in angle brackets.
    """

    class_path: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightFile:
    """What a weight file holds.

    Attributes:
      path: The file.
      form: ``pytorch zip``, ``pytorch legacy``, ``safetensors`` or ``onnx``.
      root: The entry of the file's top-level dictionary that holds the weights, such as ``ema``, ``model`` or
        ``ema.module``; empty when the file is the weights itself.
      root_class: The class of what lies there, such as ``ultralytics.nn.tasks.DetectionModel``, ``dict`` or
        ``collections.OrderedDict``.
      other_roots: Other entries that hold weights and were not chosen.
      tensors: Read-only arrays by dotted name, in the file's order and with the file's shapes (PyTorch's OIHW kernels).
        For a pickled module the names and order are those of its ``state_dict()``.
      buffers: Names of the tensors that the file knows to be buffers, not parameters. Empty where it does not say.
      modules: Modules by dotted name, the root under the empty name. A file that only has tensors has the root alone,
        with the entries that are no tensors as its attributes.
      metadata: Plain values that stand beside the weights, by name: date, version, licence, training arguments.
    """

    path: Path
    form: str
    root_class: str
    tensors: Mapping[str, np.ndarray]
    modules: Mapping[str, Module]
    metadata: Mapping[str, Any]
    root: str = ""
    other_roots: tuple[str, ...] = ()
    buffers: frozenset[str] = frozenset()

    def lookup(self, name: str) -> Any:
        """Returns the plain value of this name that the root module or the metadata holds; None if neither does."""
        value = self.modules[""].attributes.get(name)
        return self.metadata.get(name) if value is None else value


def read_weight_file(path: str | Path, root: str | None = None) -> WeightFile:
    """Reads a PyTorch, safetensors or ONNX file; the content decides which, not the name.

    Args:
      path: The file.
      root: For a PyTorch file the entry to take, such as ``model``; by default exponential moving averages come first.

    Raises:
      CheckpointError: the file is missing, damaged, hostile or of another kind. The message names file and place.
    """
    from yolojax.weights.onnx import read_onnx
    from yolojax.weights.pytorch import read_pytorch
    from yolojax.weights.safetensors import read_safetensors

    path = user_path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); give the path of a weight file") from error
    # First, since the length of a header may begin with the byte that a pickle begins with.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < LARGEST_HEADER:
        _refuse_root(path, root)
        return read_safetensors(path)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80" or head[257:262] == b"ustar":
        return read_pytorch(path, root)
    _refuse_root(path, root)
    if re.match(rb"\x08[\x01-\x20]", head):  # The field ir_version of an ONNX model.
        return read_onnx(path)
    raise CheckpointError(f"{path}: no PyTorch, safetensors or ONNX file; give one of those")


def _refuse_root(path: Path, root: str | None) -> None:
    if root is not None:
        raise CheckpointError(f"{path}: only a PyTorch file has entries to choose from; leave out root {root!r}")


def class_names(file: WeightFile) -> tuple[str, ...] | None:
    """Returns the names of the classes in the order of their numbers; None if the file does not say them.

    Raises `CheckpointError` when it says them in a way that leaves their numbers open.
    """
    names = file.lookup("names")
    if names is None:
        names = file.lookup("class_names")
    if names is None:
        return None
    if isinstance(names, dict):
        numbers = {str(key): value for key, value in names.items()}
        names = [numbers.get(str(number)) for number in range(len(numbers))]
    texts = [name for name in names if isinstance(name, str)] if isinstance(names, list | tuple) else []
    if not isinstance(names, list | tuple) or len(texts) != len(names):
        raise CheckpointError(
            f"{file.path}: its class names are not numbered from 0 to their count; give the names by hand"
        )
    return tuple(texts)


def strides(file: WeightFile) -> tuple[int, ...] | None:
    """Returns the strides of the detection levels in pixels; None if the file states no list of them."""
    value = file.lookup("stride")
    if not isinstance(value, list | tuple) or not all(
        isinstance(number, int | float) and 0 < number < LARGEST_INPUT for number in value
    ):
        return None
    return tuple(int(number) for number in value) if all(float(number).is_integer() for number in value) else None


def input_size(file: WeightFile) -> tuple[int, int] | None:
    """Returns height and width of the input image in pixels that the network was trained with; None if unknown."""
    arguments = file.lookup("train_args") or file.lookup("args") or file.lookup("opt")
    value = file.lookup("imgsz")
    if value is None and isinstance(arguments, dict):
        value = arguments.get("imgsz")
    values = list(value) if isinstance(value, list | tuple) else [value]
    sizes = [
        size for size in values if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= LARGEST_INPUT
    ]
    return (sizes[0], sizes[-1]) if len(sizes) == len(values) and len(sizes) in (1, 2) else None


def count_parameters(file: WeightFile) -> int:
    """Returns the number of trained numbers: those of all tensors but buffers (known, or by BatchNorm's names)."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(
        array.size
        for name, array in file.tensors.items()
        if name not in file.buffers and name.rpartition(".")[2] not in statistics
    )


def find_prefix(tensors: Mapping[str, np.ndarray], mark: str) -> str | None:
    """What stands before ``mark`` where it ends the name of a tensor, such as ``module.``; None if none ends so."""
    return next((n.removesuffix(mark) for n in tensors if n == mark or n.endswith(f".{mark}")), None)


def printable(text: str) -> str:
    """The text without control characters, with which a file could rewrite what the terminal shows."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def check_epsilon(file: WeightFile, epsilon: float) -> None:
    """Raises `CheckpointError` where a BatchNorm of the file states another number that it adds to the variance."""
    for name, module in file.modules.items():
        stated = module.attributes.get("eps") if module.class_path.endswith(".BatchNorm2d") else None
        known = isinstance(stated, float) and math.isclose(stated, epsilon, rel_tol=1e-6)
        if stated is not None and not known:
            raise CheckpointError(
                f"{file.path}: the normalisation {name} adds {str(stated)[:40]} to the variance, these families add "
                f"{epsilon}; the file is of another program"
            )
