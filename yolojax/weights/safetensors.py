"""Safetensors files of other programs: their tensors by their own names, and their metadata.

Files that this library wrote are read by `yolojax.weights.released.load_weights`, which verifies their checksum.
"""

from pathlib import Path

import numpy as np

from yolojax.weights._bounds import Malformed, guarded, object_budget
from yolojax.weights._literal import parse_literal
from yolojax.weights.foreign import Module, WeightFile

_TYPES = frozenset(("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64"))


def read_safetensors(path: str | Path) -> WeightFile:
    """Reads every tensor of a ``.safetensors`` file. Metadata are texts, parsed where they are Python literals.

    Raises `CheckpointError` when the file is missing, damaged, or holds 8-bit floating numbers. The format has no
    checksum, so flipped bits among the numbers stay unseen.
    """
    return guarded(path, _read, "get the file again")


def _read(path: Path) -> WeightFile:
    from safetensors import SafetensorError, safe_open

    arrays: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            budget = object_budget(path.stat().st_size)
            metadata = {name: parse_literal(text, budget) for name, text in (file.metadata() or {}).items()}
            for name in file.keys():  # noqa: SIM118 (not a dict)
                kind = file.get_slice(name).get_dtype()
                if kind not in _TYPES:
                    raise Malformed(f"tensor {name[:200]!r} holds numbers of type {kind}, which is not read")
                arrays[name] = file.get_tensor(name)
                arrays[name].flags.writeable = False
    except SafetensorError as error:
        raise Malformed(f"not a whole safetensors file ({error})") from error
    return WeightFile(
        path=path,
        form="safetensors",
        root_class="dict",
        tensors=arrays,
        modules={"": Module("")},
        metadata=metadata,
    )
