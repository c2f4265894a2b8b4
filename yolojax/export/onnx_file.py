"""ONNX files of detectors: the network and its decoding translated, suppression and letterbox added as nodes.

The metadata have the keys that the field's tools read (``names``, ``stride``, ``imgsz``, ``task``, ``batch``), and
under ``yolojax`` the whole description as JSON.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from yolojax.detector import Detector, Variables, fold_on_host
from yolojax.errors import ConfigError, shown
from yolojax.export.program import candidates_of, narrowed
from yolojax.export.settings import ENTRY, Description, ExportSettings, describe_export, to_json
from yolojax.processor.platform import traced_for

_DTYPES = ("float32", "float16")
_CHOOSE = "an ONNX file computes in float32 or float16; build or load the detector with one of these as its dtype"


def to_onnx(
    detector: Detector,
    variables: Variables,
    settings: ExportSettings = ExportSettings(),  # noqa: B008 (frozen)
    *,
    dtype: str | None = None,
) -> bytes:
    """The content of an ONNX file of a detector.

    Args:
      detector: any record whose network and decoding consist of operations that `yolojax.export._translate` knows.
      variables: those of the detector, as trained.
      settings: what the file computes.
      dtype: in which the network computes: ``float32`` or ``float16``. None takes what the detector was built in.

    Raises:
      ConfigError: a setting out of range, a ``dtype`` in which the network does not compute, an operation without
        translation, or the package ``onnx`` is missing.
    """
    return onnx_model(detector, variables, settings, dtype).SerializeToString()


def onnx_model(
    detector: Detector,
    variables: Variables,
    settings: ExportSettings,
    dtype: str | None = None,
    facts: dict[str, Any] | None = None,
) -> Any:
    """The ``onnx.ModelProto`` that `to_onnx` serialises; ``facts`` go into its description."""
    import_onnx()
    if dtype not in (None, *_DTYPES):
        raise ConfigError(f"dtype = {shown(dtype)}: {_CHOOSE}")
    description = describe_export(detector, variables, settings, dtype)
    if description.dtype not in _DTYPES:
        raise ConfigError(f"{description.name} computes in {description.dtype}: {_CHOOSE}")
    description.facts.update(facts or {})
    folded = fold_on_host(detector, variables)
    if settings.half:
        folded = narrowed(folded, description.dtype)
    return build_model(detector, jax.device_get(folded), description)


def import_onnx() -> Any:
    """The package; raises `ConfigError` where it is not installed."""
    try:
        import onnx
    except ImportError:
        raise ConfigError("ONNX files need the package onnx: pip install 'yolojax[export]'") from None
    return onnx


def build_model(detector: Detector, folded: Variables, description: Description) -> Any:
    """The ``onnx.ModelProto`` of a detector with folded variables, checked by ``onnx.checker``."""
    import_onnx()
    from onnx import TensorProto, checker, helper

    from yolojax.export._graph import IR_VERSION, OPSET, GraphBuilder

    graph = GraphBuilder()
    height, width = description.input_size
    batch = "batch" if description.batch is None else description.batch
    name = description.input_name
    images, sides = name, ["height", "width"] if description.letterbox else [height, width]
    placed = None
    if description.letterbox:
        from yolojax.export._letterbox import add_letterbox

        images, placed = add_letterbox(graph, name, description)
    boxes, scores, count = add_candidates(graph, images, detector, folded, description)
    n_classes = len(description.class_names)
    if description.raw:
        found = {"boxes": (boxes, TensorProto.FLOAT, 4), "scores": (scores, TensorProto.FLOAT, n_classes)}
        shapes = {key: [batch, count, last] for key, (_, _, last) in found.items()}
        outputs = {key: (value, kind) for key, (value, kind, _) in found.items()}
    else:
        from yolojax.export._suppression import add_detections

        assert description.thresholds is not None
        names = add_detections(
            graph, boxes, scores, n_classes, description.thresholds, multi_label=description.multi_label
        )
        if placed is not None:
            names = (placed(names[0], names[2]), *names[1:])
        kinds = TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT32
        outputs = dict(zip(description.output_names, zip(names, kinds, strict=True), strict=True))
        k = description.thresholds.max_detections
        shapes = {"boxes": [batch, k, 4], "scores": [batch, k], "classes": [batch, k], "count": [batch]}
    for key, (value, _) in outputs.items():
        # An Identity would do, but OpenVINO removes it, and then knows the value by two names.
        graph.rename(value, key)
    made = graph.finish(
        description.name,
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [batch, *sides, 3])],
        [helper.make_tensor_value_info(key, kind, shapes[key]) for key, (_, kind) in outputs.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="yolojax")
    model.ir_version = IR_VERSION
    model.producer_version = str(description.facts["yolojax"])
    description.facts["onnx_opset"] = OPSET
    helper.set_model_props(model, metadata(description))
    checker.check_model(model, full_check=True)
    return model


def metadata(description: Description) -> dict[str, str]:
    """The metadata of a file: what the field's tools read, and our description."""
    names = dict(enumerate(description.class_names))
    return {
        "description": f"{description.name}, exported by yolojax {description.facts['yolojax']}",
        "task": "detect",
        "names": repr(names),
        "stride": str(max(description.strides)),
        "imgsz": str(list(description.input_size)),
        "batch": str(description.batch or 1),
        "version": str(description.facts["yolojax"]),
        "weights_sha256": str(description.facts["weights_sha256"]),
        ENTRY: json.dumps(to_json(description)),
    }


def add_candidates(
    graph: Any, images: str, detector: Detector, folded: Variables, description: Description
) -> tuple[str, str, int]:
    """Adds the nodes from uint8 images to all candidates; returns the names of boxes and scores, and their number."""
    from yolojax.export._translate import Translator
    from yolojax.export._values import Value

    height, width = description.input_size
    batch_size: Any = description.batch
    batch = None
    if description.batch is None:
        (batch_size,) = export.symbolic_shape("b")
        batch = graph.op("Slice", graph.op("Shape", images), graph.ints(0), graph.ints(1))
    shape = (batch_size, height, width, 3)
    # Any platform but a processor: there, convolutions are convolutions.
    with traced_for("other"):
        traced = jax.make_jaxpr(candidates_of(detector, folded))(jax.ShapeDtypeStruct(shape, jnp.uint8))
    translator = Translator(graph, batch)
    boxes, scores = translator.run(traced.jaxpr, traced.consts, [Value(shape, np.uint8, plain=images)])
    return translator.full(boxes), translator.full(scores), boxes.shape[1]
