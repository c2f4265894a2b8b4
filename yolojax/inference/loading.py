"""A detector with its variables from whatever it is kept in: a run, a released folder, or published files."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp

from yolojax import zoo
from yolojax.detector import Detector, Variables
from yolojax.errors import CheckpointError, ConfigError
from yolojax.paths import user_path
from yolojax.weights.released import fit_tree, load_description, load_weights

_WANTED = "give a run directory, a released detector, cfg and weights of a Darknet, or an .npz of YOLOX arrays"
Size = SupportsIndex | Sequence[SupportsIndex]
"""Pixels of the longer side, or ``(height, width)``."""

_PICKLED = (".pt", ".pth", ".pkl", ".ckpt")


def load_detector(*paths: str | Path, size: Size | None = None) -> tuple[Detector, Variables]:
    """A detector and its variables, checked against each other.

    Args:
      paths: one of

        - a run directory (its ``best/`` is taken), the name of one in ``runs/``, or a folder with ``detector.json``;
        - ``FILE.cfg`` and ``FILE.weights`` of a Darknet (either finds the other beside it);
        - an ``.npz`` of YOLOX arrays by Megvii's names (`yolojax.zoo.from_yolox`);

        and with published files, where their classes have to be named, a text file of class names, one a line
        (``.names`` or ``.txt``).
      size: another input image than the detector's own: its longer side, or ``(height, width)``.

    Raises:
      CheckpointError: nothing there, damaged, or weights that do not fit the description.
      ConfigError: files that do not belong together, class names that are not as many as the classes, or a size that
        the detector's strides do not divide.
    """
    files = [user_path(path) for path in paths]
    if not files:
        raise ConfigError(f"which detector? {_WANTED}")
    suffixes = [file.suffix.lower() for file in files]
    if _published(files):
        detector, variables = _load_published(files)
    elif len(files) == 1:
        if suffixes[0] in _PICKLED:
            raise CheckpointError(f"{files[0]}: pickled files can run any program and are not opened; {_WANTED}")
        detector, variables = _load_released(files[0])
    else:
        raise ConfigError(f"{' '.join(map(str, files))}: these do not make one detector; {_WANTED}")
    return detector if size is None else with_input_size(detector, size), variables


def load_origin(*paths: str | Path) -> dict[str, Any]:
    """What a released detector says of itself: its training, its numbers, what wrote it. Published files say nothing.

    ``paths`` as for `load_detector`; raises `CheckpointError` as it does.
    """
    if _published(Path(path) for path in paths):
        return {}
    return load_description(released_folder(paths[0]))


def with_input_size(detector: Detector, size: Size) -> Detector:
    """The same detector on another input image; its variables fit it as they are.

    ``size`` is ``(height, width)``, or the longer side, to which the other keeps its ratio as well as the largest
    stride lets it. Raises `ConfigError` when a side is no multiple of the largest stride.
    """
    spec, stride = detector.spec, max(detector.spec.strides)
    try:
        pixels = [operator.index(side) for side in (size if isinstance(size, Iterable) else [size])]
    except TypeError:
        pixels = []
    if len(pixels) != (2 if isinstance(size, Iterable) else 1):
        raise ConfigError(f"size = {size!r}: give whole pixels, one number or (height, width)")
    if len(pixels) == 1:
        longer = max(spec.input_size)
        kept = (max(1, round(side * pixels[0] / longer / stride)) * stride for side in spec.input_size)
        input_size = tuple(
            pixels[0] if own == longer else other for own, other in zip(spec.input_size, kept, strict=True)
        )
    else:
        input_size = tuple(pixels)
    if min(input_size) < stride or any(side % stride for side in input_size):
        below = max(stride, max(input_size) // stride * stride)
        raise ConfigError(f"size = {size}: give a multiple of {stride}, such as {below} or {below + stride}")
    return zoo.from_description({**zoo.describe(spec), "input_size": input_size})


def _published(files: Iterable[Path]) -> bool:
    return any(file.suffix.lower() in (".cfg", ".weights", ".npz") for file in files)


def _load_released(path: Path) -> tuple[Detector, Variables]:
    folder = released_folder(path)
    description = load_description(folder)["detector"]
    try:
        detector = zoo.from_description(description)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    weights = folder / "weights.safetensors"
    variables = fit_tree(load_weights(weights), jax.eval_shape(detector.init, jax.random.key(0)), str(weights))
    return detector, jax.tree.map(jnp.asarray, variables)


def _load_published(files: Sequence[Path]) -> tuple[Detector, Variables]:
    by_suffix: dict[str, Path] = {}
    for file in files:
        suffix = ".names" if file.suffix.lower() == ".txt" else file.suffix.lower()
        if suffix not in (".cfg", ".weights", ".npz", ".names") or suffix in by_suffix:
            raise ConfigError(f"{' '.join(map(str, files))}: these do not make one detector; {_WANTED}")
        by_suffix[suffix] = file
    names = by_suffix.pop(".names", None)
    if ".npz" in by_suffix:
        if len(by_suffix) > 1:
            raise ConfigError(f"{by_suffix['.npz']} is a detector by itself; leave the other files out")
        return zoo.from_yolox(by_suffix[".npz"], class_names=None if names is None else _read_names(names))
    for own, other in ((".cfg", ".weights"), (".weights", ".cfg")):
        if other not in by_suffix:
            by_suffix[other] = by_suffix[own].with_suffix(other)
            if not by_suffix[other].is_file():
                raise CheckpointError(f"{by_suffix[own]}: {by_suffix[other].name} is not beside it; give both files")
    return zoo.from_darknet(by_suffix[".cfg"], by_suffix[".weights"], names=names)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: class names cannot be read ({error}); give a text file, one name a line"
        ) from error


def released_folder(path: str | Path) -> Path:
    """The folder that holds a released detector: the path itself, or ``best/`` of a run directory.

    A bare name that is no path is looked for in ``runs/``. Raises `CheckpointError` when there is none.
    """
    folder = user_path(path)
    if not folder.exists() and len(folder.parts) == 1 and (Path("runs") / folder).is_dir():
        folder = Path("runs") / folder
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder; give a run directory such as runs/demo")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is no folder; {_WANTED}")
    for candidate in (folder / "best", folder):
        if (candidate / "weights.safetensors").is_file() or (candidate / "detector.json").is_file():
            return candidate
    if (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: this run has no detector yet; finish it with yolojax train --resume {folder}")
    raise CheckpointError(f"{folder}: holds no detector.json; give a run directory such as runs/demo")
