"""Exported files as detectors: a record whose ``forward`` runs the file, so that everything that takes a record works.

    detector, variables = load_exported("x.onnx", runtime="onnxruntime")
    Predictor(detector, variables)("photo.jpg")

A file that holds its suppression gives detections. They are candidates of which each has one class, and are suppressed
no more; the thresholds of the file are the least that can be asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.detector import FILE_CONFIDENCE, Detector, DetectorSpec, Postprocess, Variables
from yolojax.errors import CheckpointError, ConfigError
from yolojax.export.settings import Description, FileThresholds
from yolojax.paths import user_path
from yolojax.structures import Candidates

Runtime = Literal["onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)

SUFFIXES = (".stablehlo", ".onnx")


def load_exported(
    path: str | Path, *, runtime: Runtime | None = None, class_names: tuple[str, ...] | None = None
) -> tuple[Detector, Variables]:
    """A detector record that runs an exported file, and its (empty) variables.

    Args:
      path: a ``.stablehlo`` file of `yolojax.export`, or an ``.onnx`` of `yolojax.export` or of somebody else's tool
        (`yolojax.export.foreign` says which are understood).
      runtime: what runs an ``.onnx``: ``onnxruntime`` or ``openvino``; None takes the first that is installed. A
        ``.stablehlo`` is run by JAX and takes none.
      class_names: for an ``.onnx`` that does not name its classes.

    Raises:
      CheckpointError: the file is missing, damaged, or nothing that is understood.
      ConfigError: a package is missing, or an argument does not belong to the file.
    """
    path = user_path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is no file' if path.exists() else 'no such file'}; give an exported file")
    if path.suffix.lower() == ".stablehlo":
        if runtime is not None:
            raise ConfigError(f"runtime = {runtime}: {path.name} is run by JAX; leave runtime out")
        if class_names is not None:
            raise ConfigError(f"{path}: names its classes itself; leave the other files out")
        return _run_stablehlo(path)
    from yolojax.export.onnx_running import run_onnx

    return run_onnx(path, runtime, class_names)


def _run_stablehlo(path: Path) -> tuple[Detector, Variables]:
    from yolojax.export.stablehlo import read_stablehlo

    description, program = read_stablehlo(path)
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if platform not in program.platforms:
        raise ConfigError(f"{path}: made for {', '.join(program.platforms)}, and this is {platform}; export it again")
    return own_record(description, lambda images: program.call(images), path)


def own_record(description: Description, run: Callable[[Array], Any], path: Path) -> tuple[Detector, Variables]:
    """The record of a file that `yolojax.export` wrote.

    ``run`` maps uint8 input images, as many as the description says, to its outputs by name; it is traced.
    """
    # Channel order and range are inside the file, so that outside it an image is RGB from 0 to 255.
    preprocess = replace(description.preprocess, channels="rgb", scale=1.0)
    spec = DetectorSpec(
        name=description.name,
        class_names=description.class_names,
        input_size=description.input_size,
        strides=description.strides,
        preprocess=preprocess,
        suppression="nms" if description.suppression == "nms" else "none",
        multi_label=description.multi_label,
        postprocess=description.postprocess,
    )
    if description.letterbox and description.preprocess.border:
        # Elsewhere a photo of the input size lies on the input image as it is, and the file takes input images, too.
        raise ConfigError(f"{path}: its letterbox has a border; for use here export without letterbox")
    if not description.raw:
        thresholds = description.thresholds
        assert thresholds is not None
        spec = suppressed_inside(spec, thresholds)
    n_classes = len(description.class_names)

    def forward(images: Float[Array, "B H W 3"]) -> Candidates:
        outputs = in_batches(run, images.astype(jnp.uint8), description.batch)
        if description.raw:
            return Candidates(outputs["boxes"], outputs["scores"])
        return one_class_each(outputs["boxes"], outputs["scores"], outputs["classes"], n_classes)

    return make_record(spec, forward, path)


def suppressed_inside(spec: DetectorSpec, thresholds: FileThresholds) -> DetectorSpec:
    """The specification of a file that suppresses by itself, each of whose detections has one class."""
    own = replace(
        spec.postprocess.prediction, confidence=thresholds.confidence, max_detections=thresholds.max_detections
    )
    return replace(
        spec,
        suppression="none",
        multi_label=False,
        postprocess=Postprocess(own, own),
        options={**spec.options, FILE_CONFIDENCE: thresholds.confidence},
    )


def one_class_each(
    boxes: Float[Array, "B K 4"], scores: Float[Array, "B K"], classes: Array, n_classes: int
) -> Candidates:
    """Detections as candidates; rows of the class -1 get no score, and so are never reported."""
    own = jnp.arange(n_classes).reshape(1, 1, -1) == classes[..., None]
    return Candidates(boxes, jnp.where(own, scores[..., None], -jnp.inf))


def make_record(spec: DetectorSpec, forward: Callable[[Array], Candidates], path: Path) -> tuple[Detector, Variables]:
    """A record around a function from prepared images to candidates. It cannot be trained, and takes one input size."""

    def checked(variables: Variables, images: Float[Array, "B H W 3"]) -> Candidates:
        del variables
        if images.shape[1:3] != spec.input_size:
            (h, w), (own_h, own_w) = images.shape[1:3], spec.input_size
            raise ConfigError(f"{path}: takes images of {own_w} x {own_h} pixels, not {w} x {h}; export another size")
        return forward(images)

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise ConfigError(f"{path}: an exported file cannot be trained; give the detector that it was made of")

    record = Detector(
        spec, init=refuse, forward=checked, forward_train=refuse, loss=refuse, decode=lambda outputs: outputs
    )
    return record, {"params": {}}


def in_batches(run: Callable[[Array], Any], images: Array, batch: int | None) -> Any:
    """``run`` on images in groups of ``batch``, the last filled up with zeros; on all at once where it is None."""
    count = images.shape[0]
    if batch is None or count == batch:
        return run(images)
    parts = [images[start : start + batch] for start in range(0, count, batch)]
    parts[-1] = jnp.pad(parts[-1], ((0, batch - parts[-1].shape[0]), (0, 0), (0, 0), (0, 0)))
    found = [run(part) for part in parts]
    return jax.tree.map(lambda *rows: jnp.concatenate(rows)[:count], *found)
