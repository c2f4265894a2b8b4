"""Checkpoints that prove themselves whole: orbax for the arrays, a SHA-256 manifest of every file, written last.

Orbax alone restores flipped bytes without a word, so nothing is read here before its manifest agrees; and it casts
another type and passes over what it was not asked for, so the arrays are first compared by name, shape and type. A
checkpoint appears under its final name by one rename, complete or not at all, and disappears by one; a stop in the
middle leaves only a ``tmp-`` folder, which the next start adopts when it is complete and the next save removes when it
is not.

    checkpoints/00000130/state/...       orbax
    checkpoints/00000130/arrays.json     {name: [shape, type]}
    checkpoints/00000130/facts.json      what else a run needs to go on
    checkpoints/00000130/manifest.json   {"files": {name: sha256}}
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from yolojax.errors import CheckpointError

MANIFEST = "manifest.json"


def save_checkpoint(folder: Path, step: int, state: PyTree, facts: dict[str, Any], *, keep: int = 2) -> Path:
    """Write the state at ``step`` below ``folder``; returns its place.

    Of the earlier checkpoints all but the newest are removed, so that ``keep`` are left; so are any of later steps,
    which belong to a course of the run that was abandoned when it went on from an earlier checkpoint. Raises
    `CheckpointError` when the disk refuses; earlier checkpoints are then untouched.
    """
    import orbax.checkpoint as ocp

    final = folder / f"{step:08d}"
    temporary, whole = folder / f"tmp-{step:08d}", False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        adopt_complete(folder)
        for leftover in folder.glob("tmp-*"):
            shutil.rmtree(leftover)
        temporary.mkdir()
        with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
            checkpointer.save((temporary / "state").absolute(), state if jax.process_count() == 1 else _on_host(state))
        (temporary / "arrays.json").write_text(json.dumps(_arrays(state), indent=1))
        (temporary / "facts.json").write_text(json.dumps(facts, indent=2, sort_keys=True))
        write_manifest(temporary)
        whole = True
        _remove(final)
        os.replace(temporary, final)
        _sync(folder)
        present = complete_checkpoints(folder)
        here = present.index(final)
        for other in present[: max(0, here + 1 - keep)] + present[here + 1 :]:
            _remove(other)
    except (OSError, ValueError) as error:
        if not whole:
            shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot write a checkpoint to {folder}: {error}; free space or give another --out"
        ) from error
    return final


def _alone() -> Any:
    """Of several processes one writes and each reads by itself; orbax would wait for all of them."""
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )


def _on_host(state: PyTree) -> PyTree:
    return jax.tree.map(np.asarray, state)


def adopt_complete(folder: Path) -> None:
    """Give a checkpoint that was whole when the run was killed, just before its last rename, its name."""
    for temporary in folder.glob("tmp-*"):
        final = folder / temporary.name.removeprefix("tmp-")
        if (temporary / MANIFEST).is_file() and final.name.isdecimal() and not final.exists():
            try:
                verify(temporary)
            except CheckpointError:
                continue
            os.replace(temporary, final)


def _remove(place: Path) -> None:
    """Out of sight by one rename, then deleted: what is half deleted must not look like a checkpoint."""
    if place.exists():
        doomed = place.with_name(f"tmp-removed-{place.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(place, doomed)
        shutil.rmtree(doomed)


def _sync(folder: Path) -> None:
    """The names in a folder reach the disk, where the system can be asked for it."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints by name, oldest first; whether they are whole is `verify`'s question."""
    places = (p for p in folder.glob("*") if p.name.isdecimal() and p.is_dir())
    return sorted(places, key=lambda p: int(p.name))


def restore_newest(folder: Path, like: PyTree) -> tuple[PyTree, dict[str, Any], list[str]] | None:
    """The newest whole checkpoint: state, facts, and a line for every newer one that had to be passed over.

    ``like`` gives tree, shapes and types (arrays or `jax.ShapeDtypeStruct`). None when there has never been one. Raises
    `CheckpointError` when there are some and none is whole, or when the newest whole one was written by another
    detector or optimiser.
    """
    import orbax.checkpoint as ocp

    adopt_complete(folder)
    # Onto one device, whatever number of them it was saved from: who goes on places it as the step wants it.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
    passed_over: list[str] = []
    for place in reversed(complete_checkpoints(folder)):
        try:
            verify(place)
        except CheckpointError as error:
            passed_over.append(str(error))
            continue
        _check_arrays(place, _arrays(like))
        with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
            state = checkpointer.restore((place / "state").absolute(), abstract)
        return state, json.loads((place / "facts.json").read_text()), passed_over
    if not passed_over:
        return None
    raise CheckpointError(f"no whole checkpoint in {folder}: {'; '.join(passed_over)}; start a new run")


def write_manifest(folder: Path) -> None:
    """Hash every file below ``folder`` into ``manifest.json``; data reaches the disk before the manifest does."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with path.open("rb") as handle:
            files[path.relative_to(folder).as_posix()] = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
    with (folder / MANIFEST).open("w") as handle:
        json.dump({"files": files}, handle, indent=1, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())


def verify(folder: Path) -> None:
    """Raises `CheckpointError` naming the first file that is missing, changed, or not in the manifest."""
    try:
        expected = dict(json.loads((folder / MANIFEST).read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: no readable {MANIFEST} ({error})") from error
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    for name in sorted(present ^ set(expected)):
        raise CheckpointError(f"{folder}: {name} is {'not in the manifest' if name in present else 'missing'}")
    for name, digest in expected.items():
        try:
            with (folder / name).open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{folder}: {name} cannot be read ({error.strerror})") from error
        if found != digest:
            raise CheckpointError(f"{folder}: {name} is damaged (its SHA-256 differs from the manifest)")


def _arrays(tree: PyTree) -> dict[str, list[Any]]:
    """Shape and type of every array by its name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): [list(x.shape), str(x.dtype)] for path, x in leaves}


def _check_arrays(place: Path, wanted: dict[str, list[Any]]) -> None:
    saved = json.loads((place / "arrays.json").read_text())
    for name in sorted(set(saved) | set(wanted)):
        if saved.get(name) == wanted.get(name):
            continue
        first, second = (
            "x".join(map(str, entry[0])) + f" {entry[1]}" if entry else "absent"
            for entry in (saved.get(name), wanted.get(name))
        )
        raise CheckpointError(
            f"{place} does not fit this configuration: {name} is {first} there and {second} here; "
            "resume with the configuration that wrote it"
        )
