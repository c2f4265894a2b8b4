"""Running ``.onnx`` files by onnxruntime or OpenVINO, as detectors.

The graph of the file runs as it is, outside JAX, which hands the images over (`call_outside`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from jaxtyping import Array

from yolojax.detector import Detector, Variables
from yolojax.errors import CheckpointError, ConfigError
from yolojax.export.running import RUNTIMES, Runtime, own_record
from yolojax.export.settings import ENTRY, Description, from_json
from yolojax.processor.memory import available_cores


class Port(NamedTuple):
    """An input or output of a graph: its sides (None where they are open) and the type of its numbers."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype


class OnnxModel(NamedTuple):
    """A graph that is ready to run.

    Attributes:
      path: of its file.
      inputs, outputs: its ports, in order.
      metadata: texts by key.
      run: from the arrays of the inputs, in order, to those of the outputs.
    """

    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]
    run: Callable[..., list[np.ndarray]]


def choose_runtime(runtime: Runtime | None) -> Runtime:
    """The runtime itself, or the first that is installed; raises `ConfigError` where there is none."""
    if runtime is not None and runtime not in RUNTIMES:
        raise ConfigError(f"runtime = {runtime!r}: choose {' or '.join(RUNTIMES)}")
    for one in RUNTIMES if runtime is None else (runtime,):
        if find_spec(one) is not None:
            return one
    wanted = runtime or RUNTIMES[0]
    raise ConfigError(
        f"an .onnx file is run by {wanted}, which is not installed: pip install {wanted}; "
        "to take the weights of a YOLOX instead, use yolojax.zoo.from_pytorch or train --init"
    )


def open_onnx(path: Path, runtime: Runtime | None = None) -> OnnxModel:
    """Reads a graph and makes it ready.

    Raises:
      CheckpointError: the file is damaged, or no graph that the runtime can run.
      ConfigError: the runtime is not installed.
    """
    runtime = choose_runtime(runtime)
    opened = _open_onnxruntime if runtime == "onnxruntime" else _open_openvino
    try:
        return opened(path)
    except Exception as error:  # each runtime has exceptions of its own, derived from Exception alone
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: {runtime} cannot read it ({reason}); export it again") from error


def _open_onnxruntime(path: Path) -> OnnxModel:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # As many threads as this process may use, which a container or taskset may have restricted.
    options.intra_op_num_threads = available_cores()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs, outputs = (tuple(map(_port_of_ort, ports)) for ports in (session.get_inputs(), session.get_outputs()))
    names = [port.name for port in outputs]

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        found: Any = session.run(names, {port.name: array for port, array in zip(inputs, arrays, strict=True)})
        return found

    return OnnxModel(path, inputs, outputs, dict(session.get_modelmeta().custom_metadata_map), run)


_ORT_TYPES = {"float": "float32", "double": "float64"}


def _port_of_ort(port: Any) -> Port:
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(side if isinstance(side, int) else None for side in port.shape)
    return Port(port.name, shape, np.dtype(_ORT_TYPES.get(kind, kind)))


def _open_openvino(path: Path) -> OnnxModel:
    # Its Python package sends statistics of use to its makers when it reads a model, and forks the process for that.
    # Where this module cannot be imported, it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    import openvino

    model = openvino.Core().read_model(str(path))
    compiled = openvino.compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": available_cores(), "INFERENCE_PRECISION_HINT": "f32"}
    )

    def port(node: Any) -> Port:
        shape = tuple(side.get_length() if side.is_static else None for side in node.get_partial_shape())
        return Port(node.get_any_name(), shape, np.dtype(node.get_element_type().to_dtype()))

    def infer(arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        found = compiled(list(arrays))
        return [np.array(found[index]) for index in range(len(compiled.outputs))]

    # OpenVINO prepares its kernels in the thread of the first call. In XLA's threads, which call it, denormal numbers
    # count as zero, and so do then the whole numbers among its constants: a network with attention gives other boxes.
    # A thread that begins here does not inherit that. One thread, since a compiled model takes one call at a time.
    worker = ThreadPoolExecutor(1, "openvino")
    worker.submit(int).result()

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        return worker.submit(infer, arrays).result()

    # Names of the graph as it was read: compilation joins values.
    inputs, outputs = (tuple(map(port, ports)) for ports in (model.inputs, model.outputs))
    return OnnxModel(path, inputs, outputs, _metadata_of(path), run)


def _metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a file, which OpenVINO does not hand out."""
    from yolojax.weights.onnx import read_metadata

    return read_metadata(path)


def run_onnx(path: Path, runtime: Runtime | None, class_names: tuple[str, ...] | None) -> tuple[Detector, Variables]:
    """The record of an ``.onnx`` file; see `yolojax.export.running.load_exported`."""
    model = open_onnx(path, runtime)
    stated = model.metadata.get(ENTRY)
    if stated is None:
        from yolojax.export.foreign import foreign_record

        return foreign_record(model, class_names)
    if class_names is not None:
        raise ConfigError(f"{path}: names its classes itself; leave the other files out")
    try:
        plain = json.loads(stated)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its description is damaged ({error}); export it again") from error
    description = from_json(plain, str(path))
    if [port.name for port in model.outputs] != list(description.output_names) or len(model.inputs) != 1:
        raise CheckpointError(f"{path}: its graph is not the one that its description says; export it again")
    return own_record(description, lambda images: call(model, description, images), path)


def call(model: OnnxModel, description: Description, images: Array) -> dict[str, Array]:
    """The outputs by name of a graph of ours, for images of the shape that it takes; inside a traced program."""
    batch, n_classes = images.shape[0], len(description.class_names)
    if description.raw:
        count = model.outputs[0].shape[1]
        shapes: list[tuple[Any, ...]] = [(batch, count, 4), (batch, count, n_classes)]
    else:
        assert description.thresholds is not None
        k = description.thresholds.max_detections
        shapes = [(batch, k, 4), (batch, k), (batch, k), (batch,)]
    types = [port.dtype for port in model.outputs]
    return dict(zip(description.output_names, call_outside(model, images, shapes, types), strict=True))


def call_outside(model: OnnxModel, images: Array, shapes: list[tuple[Any, ...]], types: list[np.dtype]) -> list[Array]:
    """Runs a graph from inside a traced program; shapes and types are those of its outputs."""
    results = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in zip(shapes, types, strict=True)]

    def run(pixels: Any) -> list[np.ndarray]:
        found = model.run(np.asarray(pixels))
        return [np.asarray(one, kind).reshape(shape) for one, shape, kind in zip(found, shapes, types, strict=True)]

    def fill(_: Any, outputs: Sequence[Any], pixels: Any) -> None:
        for output, found in zip(outputs, run(pixels), strict=True):
            np.asarray(output)[...] = found

    if jax.default_backend() == "cpu":
        # `jax.pure_callback` copies its arguments in the threads that run programs, and waits for the copy: where the
        # machine has one core, or every thread waits like this, for ever.
        return buffer_callback(fill, results, vmap_method="sequential")(images)
    return jax.pure_callback(run, results, images, vmap_method="sequential")
