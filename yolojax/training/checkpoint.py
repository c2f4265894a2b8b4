"""Checkpoints that are verified before they are read: arrays by orbax, and a SHA-256 manifest of all files.

Orbax alone restores flipped bytes without an error, so nothing is read here before its manifest agrees. Orbax also
casts types and passes over arrays that it was not asked for, so the arrays are first compared by name, shape and type.

A checkpoint appears under its final name by one rename, complete or not at all, and disappears by one. A stop in the
middle leaves only a ``tmp-`` folder. The next start adopts the folder when it is complete; otherwise the next save
removes it.

    checkpoints/00000130/state/...       orbax, the leaves by number
    checkpoints/00000130/arrays.json     {name: [shape, type]}, in the order of the leaves
    checkpoints/00000130/facts.json      what else a run needs to go on
    checkpoints/00000130/manifest.json   {"files": {name: sha256}}
"""

import functools
import gc
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from yolojax.errors import CheckpointError, shortened

MANIFEST = "manifest.json"


def save_checkpoint(folder: Path, step: int, state: PyTree, facts: dict[str, Any], *, keep: int = 2) -> Path:
    """Writes the state at ``step`` below ``folder`` and returns the folder of the checkpoint.

    Earlier checkpoints are removed so that ``keep`` are left, the new one included. Checkpoints of later steps are
    removed as well: they were abandoned when the run went on from an earlier one. Raises `CheckpointError` when the
    disk refuses; earlier checkpoints are then untouched.

    Args:
      folder: of the checkpoints of a run.
      step: the number of steps done; the name of the checkpoint.
      state: any pytree of arrays.
      facts: JSON values, kept beside the arrays.
      keep: how many checkpoints to leave.
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
            leaves = _by_number(state if jax.process_count() == 1 else jax.tree.map(np.asarray, state))
            checkpointer.save((temporary / "state").absolute(), leaves)
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
    """Options with which each process reads or writes by itself; orbax would wait for all processes."""
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )


def _by_number(tree: PyTree) -> dict[str, Any]:
    """The leaves of a pytree as a plain dictionary, whatever its nodes are; ``arrays.json`` says their names."""
    return {f"{number:06d}": leaf for number, leaf in enumerate(jax.tree.leaves(tree))}


def adopt_complete(folder: Path) -> None:
    """Renames a checkpoint that was complete when the run was killed just before its last rename."""
    for temporary in folder.glob("tmp-*"):
        final = folder / temporary.name.removeprefix("tmp-")
        if (temporary / MANIFEST).is_file() and final.name.isdecimal() and not final.exists():
            try:
                verify(temporary)
            except CheckpointError:
                continue
            os.replace(temporary, final)


def _remove(place: Path) -> None:
    """Renames a folder, then deletes it, because a half-deleted folder must not look like a checkpoint."""
    if place.exists():
        doomed = place.with_name(f"tmp-removed-{place.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(place, doomed)
        shutil.rmtree(doomed)


def _sync(folder: Path) -> None:
    """Writes the names in a folder to the disk, where the system offers that."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Returns the folders of checkpoints, oldest first. Whether they are undamaged is what `verify` finds out."""
    places = (p for p in folder.glob("*") if p.name.isdecimal() and p.is_dir())
    return sorted(places, key=lambda p: int(p.name))


def restore_newest(
    folder: Path, like: PyTree, *, check_facts: Callable[[dict[str, Any]], object] | None = None
) -> tuple[PyTree, dict[str, Any], list[str]] | None:
    """Reads the newest whole checkpoint: state, facts, and a line for every newer one that had to be passed over.

    ``like`` gives tree, shapes and types (arrays or `jax.ShapeDtypeStruct`). None when there has never been one. A
    checkpoint is passed over when it is damaged, when it was written by another detector or optimiser, and when its
    content is none of a checkpoint although its manifest agrees; ``check_facts`` raises `CheckpointError` where the
    facts are of no use. Raises `CheckpointError` when there are some and none can be read.
    """
    adopt_complete(folder)
    passed_over: list[str] = []
    for place in reversed(complete_checkpoints(folder)):
        try:
            verify(place)
            facts = _read_object(place / "facts.json")
            if check_facts is not None:
                _check_facts(place, facts, check_facts)
            _check_arrays(place, _arrays(like))
            return _read_state(place, like), facts, passed_over
        except CheckpointError as error:
            passed_over.append(str(error))
    if not passed_over:
        return None
    raise CheckpointError(f"no whole checkpoint in {folder}: {'; '.join(passed_over)}; start a new run")


def _check_facts(place: Path, facts: dict[str, Any], check: Callable[[dict[str, Any]], object]) -> None:
    """Raises `CheckpointError`, with the place of the checkpoint, where ``check`` raises one."""
    try:
        check(facts)
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error


def _read_state(place: Path, like: PyTree) -> PyTree:
    """The arrays of a checkpoint in the tree of ``like``, on one device, from however many they were saved."""
    import orbax.checkpoint as ocp

    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = _by_number(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like))
    reason, leaves = "", {}
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        try:
            leaves = checkpointer.restore((place / "state").absolute(), abstract)
        except MemoryError:
            raise
        except Exception as error:  # orbax and its stores fail in many ways on what they did not write
            if "RESOURCE_EXHAUSTED" in str(error):  # the device is too small for a checkpoint that is whole
                raise
            reason = type(error).__name__
    if reason:
        _drop_unfinished_reads()
        raise CheckpointError(
            f"{place}: its arrays cannot be read ({reason}); it was written by another version of yolojax, or by "
            "another program: resume with that version"
        )
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in sorted(leaves)])


def _drop_unfinished_reads() -> None:
    """Collects the reads that orbax left unfinished when one failed; Python would print a traceback for each."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook
    _ignore_late_reads()


_LATE = ("Event loop is closed", "Encountered error while reading array index")
"""What a read says that ends after the failure of another, in a thread of orbax's store."""


@functools.cache  # once in a process
def _ignore_late_reads() -> None:
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not any(text in str(unraisable.exc_value) for text in _LATE):
            before(unraisable)

    sys.unraisablehook = hook
    # A task that failed beside another is named, with its traceback, by the logger of asyncio when it is freed.
    logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint; raises `CheckpointError` when the file holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else shortened(str(error))
        raise CheckpointError(f"{path.parent}: {path.name} cannot be read ({reason})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.parent}: {path.name} holds no object")
    return value


def write_manifest(folder: Path) -> None:
    """Writes the hash of every file below ``folder`` to ``manifest.json``, after the files have reached the disk."""
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
        expected = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder}: no readable {MANIFEST} ({shortened(str(error))})") from error
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    for name in sorted(present ^ set(expected)):
        known = "not in the manifest" if name in present else "missing"
        raise CheckpointError(f"{folder}: {shortened(name)} is {known}")
    for name, digest in expected.items():
        try:
            with (folder / name).open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{folder}: {name} cannot be read ({error.strerror})") from error
        if found != digest:
            raise CheckpointError(f"{folder}: {name} is damaged (its SHA-256 differs from the manifest)")


def _arrays(tree: PyTree) -> dict[str, list[Any]]:
    """Shape and type of every array by its name, in the order of the leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): [list(x.shape), str(x.dtype)] for path, x in leaves}


def _check_arrays(place: Path, wanted: dict[str, list[Any]]) -> None:
    saved = _read_object(place / "arrays.json")
    for name, entry in saved.items():
        if not _is_shape_and_type(entry):
            raise CheckpointError(f"{place}: arrays.json says of {shortened(name)} no shape and type")
    if sorted(saved) == sorted(wanted) and list(saved) != list(wanted):
        raise CheckpointError(f"{place} holds its arrays in another order; resume with the version that wrote it")
    for name in sorted(set(saved) | set(wanted)):
        if saved.get(name) == wanted.get(name):
            continue
        first, second = (
            "x".join(map(str, entry[0])) + f" {entry[1]}" if entry else "absent"
            for entry in (saved.get(name), wanted.get(name))
        )
        raise CheckpointError(
            f"{place} does not fit this configuration: {shortened(name)} is {first} there and {second} here; "
            "resume with the configuration that wrote it"
        )


def _is_shape_and_type(entry: Any) -> bool:
    """Whether a value is ``[[sides], type]``, short enough to be shown."""
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], list) or len(entry[0]) > 32:
        return False
    return all(type(side) is int and 0 <= side < 2**63 for side in entry[0]) and (
        isinstance(entry[1], str) and len(entry[1]) < 100
    )
