"""Predictors that are kept between processes: the folded parameters, and the program as it was traced.

Compiled programs are kept by JAX (`yolojax.compilation_cache`), but to find one JAX needs the lowered program, and
making that takes longer than all the rest of a prediction: the network is built, its parameters are checked and folded,
and its functions are traced. What comes out depends on the model's files, the settings, and the versions of everything
that made it. Under a hash of these, the cache folder holds

    KEY-variables    the description and the folded parameters, as safetensors
    KEY-program      the traced program as StableHLO (`jax.export`), and KEY-program-classes where classes are selected
    KEY-complete     likewise the program for photos with very many candidates

A second process then needs neither the network's code nor its files' reader. Each file begins with the SHA-256 of the
rest; one that does not fit is made anew. Nothing in a file is executed on reading.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

import yolojax
from yolojax.compilation_cache import KEPT, kept_folder
from yolojax.detector import Detector, DetectorSpec, Postprocess, Thresholds, Variables
from yolojax.errors import WriteError, YolojaxError
from yolojax.files import write_whole
from yolojax.geometry import Preprocess
from yolojax.inference.loading import ModelPath, content_files
from yolojax.inference.predict import Predictor
from yolojax.inference.tta import union_suppression
from yolojax.nms import Suppression
from yolojax.nms.named import BuiltIn
from yolojax.processor.inference import inference_options
from yolojax.structures import Detections
from yolojax.weights.released import flatten

_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS")
_CONFIG = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion", "jax_disable_jit")


class Kept(NamedTuple):
    """Where the parts of one predictor are kept: the files' names without their ends."""

    folder: Path
    key: str

    def read(self, part: str) -> bytes | None:
        """The content of a part; None where there is none, or it is damaged."""
        try:
            content = self._path(part).read_bytes()
        except OSError:
            return None
        digest, content = content[:32], content[32:]
        return content if hashlib.sha256(content).digest() == digest else None

    def write(self, part: str, content: bytes) -> None:
        """Keeps a part; a folder that cannot be written to is no error."""
        try:
            write_whole(self._path(part), hashlib.sha256(content).digest() + content)
        except WriteError:
            return

    def _path(self, part: str) -> Path:
        return self.folder / f"{self.key}-{part}{KEPT}"


def find_kept(paths: Sequence[ModelPath], settings: Mapping[str, Any]) -> Kept | None:
    """The place for a predictor from these files with these settings; None where nothing is kept in this process.

    ``settings`` are plain values, or functions of `functools.partial` of this package with plain arguments; with
    others, nothing is kept.
    """
    folder = kept_folder()
    if folder is None or len(jax.local_devices()) > 1:
        return None
    try:
        described = {name: _describe(value) for name, value in settings.items()}
        files = content_files(paths)
        contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    except (TypeError, OSError, YolojaxError):  # whoever loads the model says what is wrong with it
        return None
    device = jax.local_devices()[0]
    parts = (
        described,
        [(file.name, content) for file, content in zip(files, contents, strict=True)],
        _sources(),
        {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
        (device.platform, device.device_kind),
        {name: os.environ.get(name, "") for name in _FLAGS},
        {name: repr(getattr(jax.config, name)) for name in _CONFIG},
    )
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return Kept(folder, key[:40])


def _describe(value: Any) -> Any:
    """A value as JSON; raises `TypeError` for what has no such description."""
    if isinstance(value, partial):
        function = value.func
        if value.args or not function.__module__.startswith("yolojax."):
            raise TypeError(f"{value!r} is not a function of this package")
        return [f"{function.__module__}.{function.__qualname__}", sorted(value.keywords.items())]
    json.dumps(value)
    return value


def _sources() -> str:
    """A digest of names, sizes and times of the package's own files: an edited line makes other programs."""
    digest = hashlib.sha256(yolojax.__version__.encode())
    for root, folders, names in os.walk(Path(yolojax.__file__).parent):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                status = os.stat(os.path.join(root, name))
                digest.update(f"{root}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def write_variables(kept: Kept, predictor: Predictor) -> None:
    """Keeps description, sizes and folded parameters; a tree that is not made of dictionaries is not kept."""
    from safetensors.numpy import save

    flat = {name: np.asarray(value, order="C") for name, value in flatten(predictor.variables).items()}
    structure = jax.tree.structure(predictor.variables)
    tree = json.dumps(jax.tree.unflatten(structure, list(flat)))  # with its empty dictionaries
    if jax.tree.structure(json.loads(tree)) == structure:
        sizes = {"max_detections": predictor.max_detections, "batch_size": predictor.batch_size}
        described = {"spec": json.dumps(asdict(predictor.spec)), "sizes": json.dumps(sizes), "tree": tree}
        kept.write("variables", save(flat, metadata=described))


def read_variables(kept: Kept) -> tuple[DetectorSpec, Variables, dict[str, int]] | None:
    """What `write_variables` kept: description, parameters, and the sizes ``max_detections`` and ``batch_size``."""
    from safetensors.numpy import load

    content = kept.read("variables")
    if content is None:
        return None
    length = int.from_bytes(content[:8], "little")
    described = json.loads(content[8 : 8 + length])["__metadata__"]
    spec = json.loads(described["spec"])
    for name in ("class_names", "input_size", "strides"):
        spec[name] = tuple(spec[name])
    spec["preprocess"] = Preprocess(**spec["preprocess"])
    spec["postprocess"] = Postprocess(**{name: Thresholds(**values) for name, values in spec["postprocess"].items()})
    variables = jax.tree.map(load(content).__getitem__, json.loads(described["tree"]))
    return DetectorSpec(**spec), variables, json.loads(described["sizes"])


class KeptProgram:
    """The program of a `Predictor`, read from the cache folder, or traced once and kept there.

    Args:
      kept: where.
      name: of the program.
      trace: gives the function to be traced; called when there is no program.
    """

    def __init__(self, kept: Kept, name: str, trace: Callable[[], Any]) -> None:
        self._kept, self._name, self._trace = kept, name, trace
        self._programs: dict[str, Callable[..., Any]] = {}

    def __call__(self, images: Any, variables: Variables, confidence: Any, iou: Any, wanted: Any) -> Detections:
        """As the program of a `Predictor`."""
        arguments = images, variables, confidence, iou, wanted
        part = self._name if wanted is None else f"{self._name}-classes"
        if part not in self._programs:
            self._programs[part] = self._open(part, arguments)
        return Detections(*self._programs[part](*arguments))

    def _open(self, part: str, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        content = self._kept.read(part)
        if content is None:
            function = self._trace()

            def columns(*values: Any) -> tuple[Any, ...]:  # a program's file cannot name our `Detections`
                return tuple(function(*values))

            try:
                content = export.export(jax.jit(columns))(*arguments).serialize()
            except (ValueError, NotImplementedError):  # this version of JAX cannot export it
                return jax.jit(columns, compiler_options=inference_options())
            self._kept.write(part, bytes(content))
        program = export.deserialize(bytearray(content))
        return jax.jit(program.call, compiler_options=inference_options())


class KeptPredictor(Predictor):
    """A `Predictor` that was read from the cache folder; its ``detector`` is built when somebody asks for it.

    Args:
      kept: where it was read.
      spec, variables: what was kept.
      build: makes the same predictor from the model's files.
      suppress: what ``build`` was given.
      max_detections, batch_size: those of the predictor.
    """

    def __init__(
        self,
        kept: Kept,
        spec: DetectorSpec,
        variables: Variables,
        build: Callable[[], Predictor],
        suppress: Suppression | BuiltIn | None,
        max_detections: int,
        batch_size: int,
    ) -> None:
        self.spec = self.layout = spec
        self._defaults = spec.postprocess.prediction
        self.suppress = union_suppression(spec, None, suppress)
        self.max_detections, self.batch_size = max_detections, batch_size
        self.variables = jax.device_put(variables)
        self._build = functools.cache(build)
        self._run = KeptProgram(kept, "program", lambda: self._build()._traced)
        self._run_again = None
        if self.suppress in ("nms", "none"):
            self._run_again = KeptProgram(kept, "complete", lambda: self._build()._traced_again)

    @property
    def detector(self) -> Detector:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The record, from the model's files."""
        return self._build().detector


def open_kept(kept: Kept, build: Callable[[], Predictor], suppress: Suppression | BuiltIn | None) -> Predictor:
    """The predictor that an earlier process kept, or the one that ``build`` makes, which is then kept."""
    found = read_variables(kept)
    if found is None:
        predictor = build()
        write_variables(kept, predictor)
        predictor._run = KeptProgram(kept, "program", lambda: predictor._traced)
        if predictor._run_again is not None:
            predictor._run_again = KeptProgram(kept, "complete", lambda: predictor._traced_again)
        return predictor
    spec, variables, sizes = found
    return KeptPredictor(kept, spec, variables, build, suppress, **sizes)
