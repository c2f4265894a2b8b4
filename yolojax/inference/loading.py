"""A detector with its variables from a run directory, a released detector, published files or an exported file."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from yolojax.catalogue import is_architecture, nearest
from yolojax.config import MOST
from yolojax.detector import Detector, Variables, variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.export.running import SUFFIXES, Runtime, load_exported
from yolojax.paths import FOREIGN, how_to_resume, user_path
from yolojax.settings import shown
from yolojax.weights.class_names import read_class_names
from yolojax.weights.released import TEXT, WEIGHTS, fit_tree, load_description, load_weights

_WANTED = (
    "give a run directory, a released detector, cfg and weights of a Darknet, an .npz of YOLOX arrays, a .pt or .pth "
    "of YOLOv5, v8 to v10, 11, 12, 26, YOLOX, YOLO-NAS, RT-DETR, D-FINE, DEIMv2, Faster R-CNN or RetinaNet, a folder "
    "with model.safetensors, or an exported .onnx or .stablehlo"
)

ModelPath = str | Path | Sequence[str | Path]
"""One path, or several that belong to one detector."""

Size = SupportsIndex | Sequence[SupportsIndex]
"""Pixels of the longer side, or ``(height, width)``."""


def load_detector(
    *paths: ModelPath,
    size: Size | None = None,
    dtype: DTypeLike = "float32",
    parts: Mapping[str, Callable[..., Any]] | None = None,
    detector: Detector | None = None,
    runtime: Runtime | None = None,
) -> tuple[Detector, Variables]:
    """A detector and its variables, checked against each other.

    Args:
      paths: given one by one or as a list; a leading ``~`` is the home directory. One of

        - a run directory (its ``best/`` is taken), the name of one in ``runs/``, or a folder with ``detector.json``;
        - ``FILE.cfg`` and ``FILE.weights`` of a Darknet (either finds the other beside it);
        - an ``.npz`` of YOLOX arrays by Megvii's names (`yolojax.zoo.from_yolox`);
        - a ``.pt`` or ``.pth``, or another file of its tensors, of a published YOLOv5, v5u, v8 to v10, 11, 12, 26,
          YOLOX, YOLO-NAS, RT-DETR, RT-DETRv2, D-FINE, DEIMv2, Faster R-CNN or RetinaNet (`yolojax.zoo.from_pytorch`);
        - a folder with ``model.safetensors`` and ``config.json``, as Hugging Face's hub has them, of one of these;
        - an exported ``.stablehlo`` or ``.onnx`` (`yolojax.export.load_exported`). The graph is run as it is; the
          weights of an ``.onnx`` of YOLOX are taken by `yolojax.zoo.from_pytorch` and ``train --init``;

        and with published files, where their classes have to be named, a text file of class names, one a line
        (``.names`` or ``.txt``).
      size: another input size than the detector's own, in pixels: its longer side, or ``(height, width)``.
      dtype: in which the network computes, ``float32`` or ``bfloat16`` (or ``float16``, which `yolojax.export` uses for
        ONNX). Parameters and boxes are float32 always.
      parts: functions of the user's own that a released detector was made with, such as ``{"assign": my_assign}`` or
        ``{"decode": my_decode}``, since files hold no functions (`yolojax.zoo.custom_parts`).
      detector: the whole record, for variables of a detector that the zoo does not know.
      runtime: what runs an exported ``.onnx``: ``onnxruntime`` or ``openvino``; None takes what is installed.

    Raises:
      CheckpointError: nothing there, damaged, weights that do not fit the description, or a part that has to be given.
      ConfigError: files that do not belong together, class names that are not as many as the classes, a size that
        the detector's strides do not divide, or parts that the detector does not have.
    """
    files = model_files(paths)
    dtype = _network_dtype(dtype)
    if not files:
        raise ConfigError(f"which detector? {_WANTED}")
    if parts and detector is not None:
        raise ConfigError("give either parts or the whole detector")
    if is_exported(files):
        if parts or detector is not None:
            raise ConfigError(f"{files[0]}: an exported file has no parts of your own; edit the record with _replace")
        return _load_exported(files, size, dtype, runtime)
    if runtime is not None:
        raise ConfigError(f"runtime = {runtime}: {files[0]} is run by JAX; export it first, or leave runtime out")
    if _published(files):
        if parts or detector is not None:
            raise ConfigError(f"{files[0]}: published files have no parts of your own; edit the record with _replace")
        detector, variables = _load_published(files, dtype)
    elif len(files) == 1:
        detector, variables = _load_released(files[0], dtype, parts, detector)
    else:
        raise ConfigError(f"{' '.join(map(str, files))}: these do not make one detector; {_WANTED}")
    return detector if size is None else with_input_size(detector, size), variables


def model_files(paths: Iterable[ModelPath]) -> list[Path]:
    """The files that are meant by paths and lists of paths, with ``~`` expanded; see `weights_in_folder`."""
    lists = ([path] if isinstance(path, str | Path) or not isinstance(path, Sequence) else path for path in paths)
    return [weights_in_folder(user_path(path)) for several in lists for path in several]


def weights_in_folder(path: Path) -> Path:
    """The weight file of a folder that was downloaded from Hugging Face's hub; every other path is returned as it is.

    Such a folder has ``model.safetensors``, with ``config.json`` beside it, and no detector that was released here.
    """
    own = ("detector.json", "weights.safetensors", "best")
    published = path / "model.safetensors"
    return published if published.is_file() and not any((path / name).exists() for name in own) else path


def is_exported(files: Iterable[Path]) -> bool:
    """Whether these files hold a program that is run as it is, and not weights."""
    return any(file.suffix.lower() in SUFFIXES for file in files)


def content_files(paths: Iterable[ModelPath]) -> list[Path]:
    """All files that make the detector that `load_detector` loads from these paths.

    Raises `CheckpointError` and `ConfigError` as it does, where there is no such detector.
    """
    files = model_files(paths)
    if not files:
        raise ConfigError(f"which detector? {_WANTED}")
    if not _published(files):
        folder = released_folder(files[0])
        return [path for name in (WEIGHTS, TEXT) if (path := folder / name).is_file()]
    suffixes = {file.suffix.lower(): file for file in files}
    for own, other in ((".cfg", ".weights"), (".weights", ".cfg")):
        if own in suffixes and other not in suffixes:
            files.append(suffixes[own].with_suffix(other))
    return files


def load_origin(*paths: ModelPath) -> dict[str, Any]:
    """What a released detector says about itself: training, numbers, versions. It is empty for published files.

    ``paths`` as for `load_detector`; raises `CheckpointError` as it does.
    """
    files = model_files(paths)
    if not files:
        raise ConfigError(f"which detector? {_WANTED}")
    return {} if is_exported(files) or _published(files) else load_description(released_folder(files[0]))


def _network_dtype(dtype: DTypeLike) -> DTypeLike:
    """The type itself; raises `ConfigError` unless it is one that networks compute in."""
    names = ("float32", "bfloat16", "float16")
    try:
        known = jnp.dtype(dtype) in map(jnp.dtype, names)
    except TypeError:
        known = False
    if not known:
        raise ConfigError(f"dtype = {dtype!r}: give {', '.join(names[:-1])} or {names[-1]}")
    return dtype


def with_input_size(detector: Detector, size: Size) -> Detector:
    """The same record for another input size; its variables fit it unchanged.

    Only ``spec.input_size`` is replaced: the functions of a record compute with images of any size that its strides
    divide, and what was replaced in the record stays. ``size`` is ``(height, width)`` in pixels, or the longer side;
    the other side then keeps the ratio as nearly as the largest stride allows. Raises `ConfigError` when a side is no
    multiple of the largest stride.
    """
    spec, stride = detector.spec, max(detector.spec.strides)
    try:
        pixels = [operator.index(side) for side in (size if isinstance(size, Iterable) else [size])]
    except TypeError:
        pixels = []
    if len(pixels) != (2 if isinstance(size, Iterable) else 1):
        raise ConfigError(f"size = {size!r}: give whole pixels, one number or (height, width)")
    if max(pixels) > MOST["model.size"]:
        raise ConfigError(f"size = {shown(size)}: give at most {MOST['model.size']:,} pixels")
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
    return detector._replace(spec=replace(spec, input_size=input_size))


def _published(files: Iterable[Path]) -> bool:
    return any(file.suffix.lower() in (".cfg", ".weights", ".npz", *FOREIGN) for file in files)


def _load_released(
    path: Path, dtype: DTypeLike, parts: Mapping[str, Callable[..., Any]] | None, detector: Detector | None
) -> tuple[Detector, Variables]:
    from yolojax import zoo  # slow to import, and a predictor that was kept does not need it

    folder = released_folder(path)
    description = load_description(folder)["detector"]
    try:
        if detector is None:
            detector = zoo.from_description(description, dtype=dtype, parts=parts)
        else:
            if not isinstance(detector, Detector):
                raise ConfigError(f"detector: give the whole record (a Detector), not a {type(detector).__name__}")
            zoo.check_record(detector, description)
            if jnp.dtype(dtype) != jnp.float32:
                raise ConfigError("dtype belongs to a detector that is loaded; build the record with dtype instead")
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    weights = folder / "weights.safetensors"
    variables = fit_tree(load_weights(weights), variable_shapes(detector), str(weights))
    return detector, jax.device_put(variables)


def _load_exported(
    files: Sequence[Path], size: Size | None, dtype: DTypeLike, runtime: Runtime | None
) -> tuple[Detector, Variables]:
    names = [file for file in files if file.suffix.lower() in (".names", ".txt")]
    models = [file for file in files if file not in names]
    if len(models) != 1 or len(names) > 1:
        raise ConfigError(f"{' '.join(map(str, files))}: these do not make one detector; {_WANTED}")
    path = models[0]
    if jnp.dtype(dtype) != jnp.float32:
        raise ConfigError(f"dtype = {dtype}: {path.name} computes in what it was exported with; leave dtype out")
    class_names = read_class_names(names[0]) if names else None
    detector, variables = load_exported(path, runtime=runtime, class_names=class_names)
    if size is not None and with_input_size(detector, size).spec.input_size != detector.spec.input_size:
        height, width = detector.spec.input_size
        raise ConfigError(f"size = {size}: {path.name} takes {width} x {height} pixels; export it again with that size")
    return detector, variables


def _load_published(files: Sequence[Path], dtype: DTypeLike) -> tuple[Detector, Variables]:
    from yolojax import zoo

    by_suffix: dict[str, Path] = {}
    for file in files:
        suffix = ".names" if file.suffix.lower() == ".txt" else file.suffix.lower()
        suffix = ".pt" if suffix in FOREIGN else suffix
        if suffix not in (".cfg", ".weights", ".npz", ".pt", ".names") or suffix in by_suffix:
            raise ConfigError(f"{' '.join(map(str, files))}: these do not make one detector; {_WANTED}")
        by_suffix[suffix] = file
    names = by_suffix.pop(".names", None)
    for suffix, read in ((".npz", zoo.from_yolox), (".pt", zoo.from_pytorch)):
        if suffix in by_suffix:
            if len(by_suffix) > 1:
                raise ConfigError(f"{by_suffix[suffix]} is a detector by itself; leave the other files out")
            class_names = None if names is None else read_class_names(names)
            return read(by_suffix[suffix], class_names=class_names, dtype=dtype)
    for own, other in ((".cfg", ".weights"), (".weights", ".cfg")):
        if other not in by_suffix:
            by_suffix[other] = by_suffix[own].with_suffix(other)
            if not by_suffix[other].is_file():
                raise CheckpointError(f"{by_suffix[own]}: {by_suffix[other].name} is not beside it; give both files")
    return zoo.from_darknet(by_suffix[".cfg"], by_suffix[".weights"], class_names=names, dtype=dtype)


def released_folder(path: str | Path) -> Path:
    """The folder that holds a released detector: the path itself, or ``best/`` of a run directory.

    A bare name that is no path is looked for in ``runs/``. Raises `CheckpointError` when there is none.
    """
    folder = user_path(path)
    if not folder.exists() and len(folder.parts) == 1 and (Path("runs") / folder).is_dir():
        folder = Path("runs") / folder
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder; {_instead_of(folder)}")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is no folder; {_WANTED}")
    for candidate in (folder / "best", folder):
        if (candidate / "weights.safetensors").is_file() or (candidate / "detector.json").is_file():
            return candidate
    if (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: this run has no detector yet; to finish it: {how_to_resume(folder)}")
    raise CheckpointError(f"{folder}: holds no detector.json; give a run directory such as runs/demo")


def _instead_of(missing: Path) -> str:
    """What somebody meant who named a run that is not there: the nearest name, or how an architecture is used."""
    if is_architecture(str(missing)):
        return (
            f"{missing} is an architecture, which has no weights; train it (yolojax train DATA --model {missing}), or "
            f"give its weights (--model {missing}.pt)"
        )
    try:
        beside = [path for place in {missing.parent, Path("runs")} if place.is_dir() for path in place.iterdir()]
    except OSError:
        beside = []
    near = nearest(missing.name, {path.name for path in beside})
    found = next((path for path in beside if path.name == near), None)
    return "give a run directory such as runs/demo" if found is None else f"did you mean {found}?"
