"""Released detectors: parameters as ``safetensors`` beside a JSON description; no pickle, nothing executed.

best/weights.safetensors   flat names such as ``params/backbone/stem/conv/kernel``, and the SHA-256 of all arrays
best/detector.json         architecture, classes, canvas, preprocessing, and where it comes from
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.errors import CheckpointError

FORMAT = 1

DIGEST = "sha256"
"""Metadata entry of our weight files. The format itself has no checksum: a flipped byte would be another weight."""


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with ``/``-joined names; the leaves are taken as they are."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}/"))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def save_released(folder: Path, variables: dict[str, Any], description: dict[str, Any]) -> None:
    """Write weights, then the description that makes them a detector; each appears whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "weights.tmp"
        flat = {name: np.ascontiguousarray(np.asarray(value)) for name, value in flatten(variables).items()}
        save_file(flat, temporary, metadata={DIGEST: _digest(flat)})
        os.replace(temporary, folder / "weights.safetensors")
        temporary = folder / "detector.tmp"
        temporary.write_text(json.dumps({"format": FORMAT, **description}, indent=2, sort_keys=True) + "\n")
        os.replace(temporary, folder / "detector.json")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {folder}: {error}; free space or give another --out") from error


def load_weights(path: Path) -> dict[str, Any]:
    """Nested arrays from a ``.safetensors`` file.

    Raises `CheckpointError` when it is missing or unreadable, or when it says its own SHA-256 and that differs. Files
    written elsewhere say none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    if DIGEST in metadata and metadata[DIGEST] != _digest(flat):
        raise CheckpointError(f"{path}: damaged (the SHA-256 of its arrays differs from the one it states)")
    return unflatten(flat)


def _digest(flat: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(flat):
        digest.update(f"{name} {flat[name].dtype} {flat[name].shape};".encode())
        digest.update(flat[name].tobytes())
    return digest.hexdigest()


def load_description(folder: Path) -> dict[str, Any]:
    """The description beside released weights; raises `CheckpointError` if it is missing, damaged or too new."""
    path = folder / "detector.json"
    try:
        description = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give a folder that a training run wrote"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); the file is damaged") from error
    if not isinstance(description, dict) or "detector" not in description:
        raise CheckpointError(f"{path}: has no 'detector' entry; the file is damaged or not ours")
    if description.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {description.get('format')!r}, this version reads {FORMAT}; update yolojax"
        )
    return description


def fit_tree(loaded: dict[str, Any], expected: dict[str, Any], source: str) -> dict[str, Any]:
    """The loaded arrays in the tree of ``expected`` (arrays or `jax.ShapeDtypeStruct`), its empty parts included.

    Raises `CheckpointError` naming the first parameter that is missing, unknown, not finite, or of another shape or
    type.
    """
    flat, wanted = flatten(loaded), flatten(expected)
    for name in sorted(set(flat) ^ set(wanted)):
        raise CheckpointError(
            f"{source}: parameter {name} is {'unknown to the detector' if name in flat else 'missing'}; "
            "weights and description belong to different detectors"
        )
    for name, value in flat.items():
        want = wanted[name]
        if (value.shape, value.dtype) != (want.shape, want.dtype):
            raise CheckpointError(
                f"{source}: parameter {name} is {value.dtype} of shape {value.shape}, "
                f"the detector needs {want.dtype} of shape {want.shape}"
            )
        if not np.isfinite(value).all():
            raise CheckpointError(f"{source}: parameter {name} holds values that are not finite; the training failed")

    def fill(node: dict[str, Any], prefix: str) -> dict[str, Any]:
        return {
            name: fill(value, f"{prefix}{name}/") if isinstance(value, dict) else flat[prefix + name]
            for name, value in node.items()
        }

    return fill(expected, "")
