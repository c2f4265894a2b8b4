"""ONNX files with 8-bit integers: the weights alone, or weights and activations.

- ``weights``: every kernel as int8 with one scale for each output channel, and ``DequantizeLinear`` before its
  convolution. A file is a quarter as large and computes in float32 as before. The tools of onnxruntime have this for
  matrix products only, so it is done here.
- ``static``: `onnxruntime.quantization.quantize_static`, which also rounds what goes into and out of convolutions, to
  ranges that it finds on calibration images. The last convolution of each branch, decoding and suppression stay in
  float32: what the last ones give is read as boxes and scores, and rounding it costs most of the AP that is lost.
- ``static-7bit``: the same with weights of 7 bits. x86 processors without VNNI instructions add pairs of products in 16
  bits, and with weights of 8 bits cut the sums off without a word. YOLOv5n on 128 photos of COCO: AP .360 in float32,
  .355 with 8 bits, .334 with 7.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import UInt8

from yolojax.data.images import read_image
from yolojax.data.input_images import make_input_image
from yolojax.detector import Detector, Variables
from yolojax.errors import ConfigError
from yolojax.export.onnx_file import onnx_model
from yolojax.export.settings import IMAGES, ExportSettings

Int8 = Literal["weights", "static", "static-7bit"]

MOST_CALIBRATION = 256
"""Images that calibration reads; ranges hardly change beyond some hundred."""

_LARGEST = 127


def to_int8_onnx(
    detector: Detector,
    variables: Variables,
    settings: ExportSettings,
    kind: Int8,
    calibration: Iterable[UInt8[np.ndarray, "H W 3"]] = (),
) -> bytes:
    """The content of an ONNX file of a detector with 8-bit integers.

    Args:
      detector, variables, settings: as for `yolojax.export.to_onnx`; ``half`` does not go with it, nor does
        ``letterbox`` with the static kinds.
      kind: ``weights``, ``static`` or ``static-7bit``.
      calibration: for the static kinds, input images (`calibration_images`).

    Raises:
      ConfigError: as `yolojax.export.to_onnx`, or for another kind, without calibration images, or without onnxruntime.
    """
    if kind not in get_args(Int8):
        raise ConfigError(f"int8 = {kind!r}: give one of {', '.join(get_args(Int8))}")
    if settings.half:
        raise ConfigError("half and int8 are two forms of the same weights; choose one of both")
    if settings.letterbox and kind != "weights":
        raise ConfigError("letterbox: static int8 is calibrated on input images; leave letterbox out")
    model = onnx_model(detector, variables, settings, facts={"int8": kind})
    if kind == "weights":
        return quantise_weights(model).SerializeToString()
    images = list(calibration)
    if not images:
        raise ConfigError("static int8 needs photos to calibrate on; give a folder of some hundred like those to come")
    return quantise_static(model, images, settings.batch, seven_bits=kind == "static-7bit").SerializeToString()


def lacks_vnni(processor: str, flags: str) -> bool:
    """Whether a processor is an x86 without VNNI instructions, for which static int8 wants weights of 7 bits.

    Takes `platform.machine()` and the content of Linux's ``/proc/cpuinfo``; False where that says nothing.
    """
    return processor.lower() in ("x86_64", "amd64") and "flags" in flags and "vnni" not in flags


def quantise_weights(model: Any) -> Any:
    """An ``onnx.ModelProto`` with the kernels of its convolutions as int8; the model given is changed."""
    from onnx import helper, numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    made: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        name = node.input[1] if node.op_type == "Conv" else ""
        if name in tensors and name not in made:
            kernel = numpy_helper.to_array(tensors[name])
            scale = np.abs(kernel).max(axis=(1, 2, 3)) / _LARGEST
            scale = np.where(scale > 0, scale, 1).astype(np.float32)
            rounded = np.clip(np.rint(kernel / scale.reshape(-1, 1, 1, 1)), -_LARGEST, _LARGEST).astype(np.int8)
            graph.initializer.remove(tensors[name])
            parts = {f"{name}_int8": rounded, f"{name}_scale": scale, f"{name}_zero": np.zeros(len(scale), np.int8)}
            graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
            made[name] = f"{name}_float"
            nodes.append(
                helper.make_node("DequantizeLinear", list(parts), [made[name]], name=f"{name}_dequantise", axis=0)
            )
        if name in made:
            node.input[1] = made[name]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def quantise_static(
    model: Any, images: list[UInt8[np.ndarray, "H W 3"]], batch: int | None, *, seven_bits: bool = False
) -> Any:
    """An ``onnx.ModelProto`` whose convolutions compute with 8-bit integers, by onnxruntime's tool.

    With ``seven_bits`` weights lie within -64..64.
    """
    try:
        from onnxruntime import quantization
    except ImportError:
        raise ConfigError("int8 needs the package onnxruntime: pip install 'yolojax[export]'") from None
    import onnx

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            image = next(self.left, None)
            return None if image is None else {IMAGES: np.repeat(image[None], batch or 1, 0)}

    metadata = {entry.key: entry.value for entry in model.metadata_props}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        source, target = (str(Path(folder) / name) for name in ("float.onnx", "int8.onnx"))
        onnx.save(model, source)
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=last_convolutions(model.graph),
            per_channel=True,
            reduce_range=seven_bits,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        made = onnx.load(target)
    onnx.helper.set_model_props(made, metadata)
    return made


def last_convolutions(graph: Any) -> list[str]:
    """Names of the convolutions of a graph from whose output no other convolution computes."""
    behind: set[str] = set()  # tensors from which a convolution computes
    last = []
    for node in reversed(graph.node):
        used = not behind.isdisjoint(node.output)
        if node.op_type == "Conv" and not used:
            last.append(node.name)
        if used or node.op_type == "Conv":
            behind.update(node.input)
    return last


class _quiet:
    """Keeps the advice that the tool logs, to preprocess a model that needs none, from the user's terminal."""

    def __enter__(self) -> None:
        self.level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self.level)


def calibration_images(
    files: Iterable[Path], detector: Detector, most: int = MOST_CALIBRATION
) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Input images of photos, evenly chosen where there are more than ``most``; raises `DataError` as reading does."""
    paths = list(files)
    chosen = [paths[i] for i in sorted({round(x) for x in np.linspace(0, len(paths) - 1, min(most, len(paths)))})]
    spec = detector.spec
    return [make_input_image(read_image(path), spec.input_size, spec.preprocess)[0] for path in chosen]
