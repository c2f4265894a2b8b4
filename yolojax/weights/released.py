"""Released detectors: parameters as ``safetensors`` beside a JSON description; no pickle, nothing executed.

best/weights.safetensors   flat names such as ``params/backbone/stem/conv/kernel``, description, and SHA-256 of both
best/detector.json         the description for people: architecture, classes, input image, data, versions

The weight file is the detector: it appears by one rename, parameters and description together, so that a program killed
while releasing leaves the earlier detector or the new one. ``detector.json`` beside it follows, and is read only where
the weight file says nothing of itself.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax.errors import CheckpointError, WriteError, shortened, shown
from yolojax.files import write_whole

FORMAT = 1

ENTRY = "yolojax"
"""The metadata entry of our weight files: ``{"sha256": of all the content, "description": {...}}`` as JSON.

The format itself has no checksum: a flipped byte would be another weight. One entry, because safetensors writes several
in an order that differs from process to process, and the same detector shall be the same bytes.
"""

_ADVICE = "free space or give another --out"

_DEEPEST = 100
"""Levels of a tree of arrays; no network is so deep, and the libraries that walk through trees do so recursively."""

_LONGEST_TEXT = 64 << 20
"""Bytes of a description; class names and options take a few thousand."""

WEIGHTS, TEXT = "weights.safetensors", "detector.json"


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves of any pytree by ``/``-joined names, such as ``params/backbone/stem/conv/kernel``.

    The names are the keys of dictionaries, the fields of dataclasses and the indices of tuples and lists. Raises
    `CheckpointError` when two leaves would have the same name.
    """
    flat: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in flat:
            raise CheckpointError(f"two arrays would be stored as {name}; rename a key that contains a slash")
        flat[name] = leaf
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries from the names of `flatten`; see `unflatten_like` for other pytrees.

    Raises `CheckpointError` when the names make no tree: one is another's beginning, or has more than 100 levels.
    """
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        if name.count("/") >= _DEEPEST:
            raise CheckpointError(f"array {shown(name)} lies below {name.count('/')} others; at most {_DEEPEST} levels")
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or isinstance(node.get(leaf), dict):
            raise CheckpointError(f"array {shown(name)} lies below another array, or another one below it")
        node[leaf] = value
    return tree


def save_released(folder: Path, variables: Any, description: dict[str, Any]) -> None:
    """Write weights with the description that makes them a detector, then the description by itself.

    Each file appears whole or not at all. Raises `WriteError` when the disk refuses.
    """
    from safetensors.numpy import save

    flat = {name: np.asarray(value, order="C") for name, value in flatten(variables).items()}
    text = json.dumps({"format": FORMAT, **description}, indent=2, sort_keys=True) + "\n"
    content = save(flat, metadata={ENTRY: json.dumps({"sha256": _digest(flat, text), "description": text})})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {error.strerror}; {_ADVICE}") from error
    write_whole(folder / WEIGHTS, content, advice=_ADVICE)
    write_whole(folder / TEXT, text, advice=_ADVICE)


def complete_release(folder: Path) -> None:
    """Make ``detector.json`` say what the weight file says, which a program killed between the two did not get to."""
    text, path = _described(folder / WEIGHTS), folder / TEXT
    if text is not None and (not path.is_file() or path.read_bytes() != text.encode()):
        write_whole(path, text, advice=_ADVICE)


def load_weights(path: Path) -> dict[str, Any]:
    """Nested arrays from a ``.safetensors`` file.

    Raises `CheckpointError` when it is missing or unreadable, when its names make no tree, or when it says its own
    SHA-256 and that differs. Files written elsewhere say none.
    """
    metadata, flat = _read(path, with_arrays=True)
    entry = metadata.get(ENTRY)
    if entry is not None:
        stated = _stated(entry)
        if stated is None or stated["sha256"] != _digest(flat, stated["description"]):
            raise CheckpointError(f"{path}: damaged (the SHA-256 of its content differs from the one it states)")
    try:
        return unflatten(flat)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; the file is not ours") from error


def _read(path: Path, *, with_arrays: bool) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata of a safetensors file, and its arrays by name."""
    from safetensors import safe_open

    try:
        if not path.is_file():  # a named pipe would be waited for
            raise OSError("there is no such file")
        with safe_open(path, framework="numpy") as file:
            names = file.keys() if with_arrays else ()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except MemoryError:
        raise
    except Exception as error:  # hostile bytes: each number format that NumPy lacks is refused in a way of its own
        raise CheckpointError(f"{path}: not a readable safetensors file ({shortened(str(error))})") from error


def _digest(flat: dict[str, np.ndarray], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(flat):
        digest.update(f"{name} {flat[name].dtype} {flat[name].shape};".encode())
        digest.update(flat[name].tobytes())
    return digest.hexdigest()


def load_description(folder: Path) -> dict[str, Any]:
    """The description of released weights; raises `CheckpointError` if it is missing, damaged or too new.

    That of the weight file itself, whose checksum `load_weights` verifies, else ``detector.json`` beside it.
    """
    text, path = _described(folder / WEIGHTS), folder / WEIGHTS
    if text is None:
        path = folder / TEXT
        try:
            if not path.is_file():
                raise OSError("there is no such file")
            if path.stat().st_size > _LONGEST_TEXT:
                raise OSError(f"it has more than {_LONGEST_TEXT >> 20} MiB")
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error}); give a folder that a training run wrote"
            ) from error
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); the file is damaged") from error
    if not isinstance(description, dict) or not isinstance(description.get("detector"), dict):
        raise CheckpointError(f"{path}: has no 'detector' entry; the file is damaged or not ours")
    if description.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {shown(description.get('format'))}, this version reads {FORMAT}; update yolojax"
        )
    if not isinstance(description.get("training", {}), dict):
        training = shown(description["training"])
        raise CheckpointError(
            f"{path}: the description's entry 'training' is {training}, not named values; the file is damaged"
        )
    return description


def _described(path: Path) -> str | None:
    try:
        stated = _stated(_read(path, with_arrays=False)[0].get(ENTRY, ""))
    except CheckpointError:
        return None  # `load_weights` says what is wrong with it
    return stated["description"] if stated is not None else None


def _stated(entry: str) -> dict[str, str] | None:
    """The two texts of the metadata entry; None when it is damaged."""
    try:
        stated = json.loads(entry)
        texts = {name: str(stated[name]) for name in ("sha256", "description")}
        texts["description"].encode()  # escapes of JSON may make text that UTF-8 cannot hold
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return texts


def unflatten_like(like: Any, flat: Mapping[str, Any]) -> Any:
    """Returns the pytree ``like`` with the leaves that ``flat`` has under their names (see `flatten`)."""
    return jax.tree.unflatten(jax.tree.structure(like), [flat[name] for name in flatten(like)])


def fit_tree(loaded: Any, expected: Any, source: str) -> Any:
    """Returns the loaded arrays in the tree of ``expected`` (arrays or `jax.ShapeDtypeStruct`), whatever its nodes are.

    Raises `CheckpointError` naming the first parameter that is missing, unknown, not finite, or of another shape or
    type.
    """
    flat, wanted = flatten(loaded), flatten(expected)
    for name in sorted(set(flat) ^ set(wanted)):
        raise CheckpointError(
            f"{source}: parameter {shortened(name)} is {'unknown to the detector' if name in flat else 'missing'}; "
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
            raise CheckpointError(
                f"{source}: parameter {name} holds values that are not finite; the file is damaged, or its "
                "training failed: take other weights"
            )
    return unflatten_like(expected, flat)
