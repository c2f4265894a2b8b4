"""ONNX files of other tools, recognised by the shapes of their ports and by their metadata.

| who wrote it | input | output | boxes |
|---|---|---|---|
| Ultralytics, raw | ``[B, 3, H, W]``, RGB from 0 to 1 | ``[B, 4 + C, N]`` | centre and size, pixels |
| Ultralytics, end to end or with ``nms`` | the same | ``[B, K, 6]``: box, score, class | corners, pixels |
| Ultralytics, YOLOv5 | the same | ``[B, N, 5 + C]``, three boxes in a cell | centre and size, pixels |
| Megvii, YOLOX | ``[B, 3, H, W]``, BGR from 0 to 255 | ``[B, N, 5 + C]``, one box in a cell | of a cell, or pixels |

Files of Megvii hold the boxes as they come out of the network, in which logarithms of sides are negative somewhere, or
decoded, in which no side is; one look at a grey image tells which. What is none of these is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yolojax.coding import decode_yolox
from yolojax.detector import Detector, DetectorSpec, Variables
from yolojax.errors import CheckpointError, ConfigError, YolojaxError
from yolojax.export.onnx_running import OnnxModel, call_outside
from yolojax.export.running import in_batches, make_record, one_class_each
from yolojax.geometry import Preprocess
from yolojax.structures import Candidates
from yolojax.weights._bounds import object_budget
from yolojax.weights._literal import parse_literal

ULTRALYTICS = Preprocess(resize="letterbox", align="centre", pad=114, channels="rgb", scale=255.0, filter="bilinear")
MEGVII = Preprocess(resize="letterbox", align="topleft", pad=114, channels="bgr", scale=1.0, filter="bilinear")

STRIDES = (8, 16, 32)

Decode = Callable[[Array], Candidates]


class Layout(NamedTuple):
    """How an output is to be read.

    Attributes:
      kind: ``raw``, ``rows`` (one row for each candidate, with objectness) or ``detections``.
      n_classes: None where the shape does not say it.
      per_cell: boxes in a cell, for ``rows``.
    """

    kind: str
    n_classes: int | None
    per_cell: int = 1


def foreign_record(model: OnnxModel, class_names: tuple[str, ...] | None) -> tuple[Detector, Variables]:
    """The record of a graph that `yolojax.export` did not write.

    Args:
      model: the graph.
      class_names: for a file that does not name its classes.

    Raises:
      CheckpointError: nothing of this file's module; what is missing is said.
      ConfigError: class names that are not as many as the classes, or that the file states itself.
    """
    path = model.path
    stated = {key: _literal(value) for key, value in model.metadata.items()}
    if stated.get("task", "detect") != "detect":
        raise CheckpointError(f"{path}: its task is {stated['task']}; only detection (detect) is understood")
    height, width = _input_size(model, stated)
    size = (height, width)
    layout = recognise(model, size)
    names = _class_names(model, stated, layout, class_names)
    batch, dtype = model.inputs[0].shape[0], model.inputs[0].dtype
    preprocess = MEGVII if layout.kind == "rows" and layout.per_cell == 1 else ULTRALYTICS
    kind, last = model.outputs[0].dtype, model.outputs[0].shape
    count = last[2] if layout.kind == "raw" else last[1]
    if count is None:
        # Sides that are open in the file are found by running it.
        found = _try(model, size, batch or 1)
        count = found.shape[2] if layout.kind == "raw" else found.shape[1]
    sides = {"raw": (4 + len(names), count), "rows": (count, 5 + len(names)), "detections": (count, 6)}[layout.kind]
    decode = _decoder(model, layout, size, batch or 1, len(names))

    def run(images: Float[Array, "B 3 H W"]) -> Array:
        (found,) = call_outside(model, images.astype(dtype), [(images.shape[0], *sides)], [kind])
        return found.astype(jnp.float32)

    def forward(images: Float[Array, "B H W 3"]) -> Candidates:
        return decode(in_batches(lambda part: run(part.transpose(0, 3, 1, 2)), images, batch))

    spec = DetectorSpec(
        name=path.stem,
        class_names=names,
        input_size=size,
        strides=STRIDES,
        preprocess=preprocess,
        suppression="none" if layout.kind == "detections" else "nms",
        multi_label=layout.kind != "detections",
    )
    return make_record(spec, forward, path)


def recognise(model: OnnxModel, size: tuple[int, int]) -> Layout:
    """How the one output is to be read; raises `CheckpointError` naming the ports where nothing fits."""
    ports = ", ".join(f"{port.name} {_shape(port.shape)}" for port in (*model.inputs, *model.outputs))
    known = "known are outputs of [B, 4 + C, N], [B, N, 5 + C] and [B, K, 6] for an input of [B, 3, H, W]"
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 3:
        raise CheckpointError(f"{model.path}: not understood, with the ports {ports}; {known}")
    _, rows, columns = model.outputs[0].shape
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)
    if columns == 6 and (rows is None or rows < cells):
        return Layout("detections", None)
    if columns is not None and rows in (cells, 3 * cells) and columns > 5:
        return Layout("rows", columns - 5, rows // cells)
    if rows is not None and rows > 4 and (columns is None or columns > rows):
        return Layout("raw", rows - 4)
    raise CheckpointError(f"{model.path}: not understood, with the ports {ports}; {known}")


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"


def _literal(text: str) -> Any:
    try:
        return parse_literal(text, object_budget(len(text)))
    except ValueError:
        return text


def _input_size(model: OnnxModel, stated: dict[str, Any]) -> tuple[int, int]:
    port = model.inputs[0] if model.inputs else None
    if port is None or len(port.shape) != 4 or port.shape[1] not in (3, None) or port.dtype.kind != "f":
        inputs = ", ".join(f"{one.name} {_shape(one.shape)} {one.dtype}" for one in model.inputs)
        raise CheckpointError(f"{model.path}: takes {inputs or 'nothing'}; known is an input of float [B, 3, H, W]")
    size: Any = port.shape[2:]
    if None in size:
        size = stated.get("imgsz")
        size = [size, size] if isinstance(size, int) else size
    whole = isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(x, int) and x > 0 for x in size)
    if not whole or any(side % max(STRIDES) for side in size):
        raise CheckpointError(
            f"{model.path}: its input size is open and its metadata state none (imgsz); export it with a fixed size"
            if not whole
            else f"{model.path}: its input of {size[1]} x {size[0]} pixels is no multiple of {max(STRIDES)}"
        )
    return size[0], size[1]


def _class_names(
    model: OnnxModel, stated: dict[str, Any], layout: Layout, given: tuple[str, ...] | None
) -> tuple[str, ...]:
    names = stated.get("names")
    if isinstance(names, dict):
        names = [names.get(number, names.get(str(number))) for number in range(len(names))]
    own = None
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        own = tuple(str(name) for name in names)
    if own is not None and given is not None:
        raise ConfigError(f"{model.path}: names its classes itself; leave the other file out")
    found = own or given
    if found is None:
        how_many = f"{layout.n_classes} " if layout.n_classes is not None else ""
        raise CheckpointError(
            f"{model.path}: does not name its {how_many}classes; give a text file of names, one a line, beside it"
        )
    if layout.n_classes not in (None, len(found)):
        raise ConfigError(f"{model.path}: has {layout.n_classes} classes and {len(found)} names; correct the names")
    return found


def _try(model: OnnxModel, size: tuple[int, int], batch: int) -> np.ndarray:
    """The output for a grey image; raises `CheckpointError` where the graph does not run."""
    try:
        return model.run(np.full((batch, 3, *size), 0.5, model.inputs[0].dtype))[0]
    except YolojaxError:
        raise
    except Exception as error:  # each runtime has exceptions of its own
        raise CheckpointError(f"{model.path}: does not run ({' '.join(str(error).split())[:200]})") from error


def _decoder(model: OnnxModel, layout: Layout, size: tuple[int, int], batch: int, n_classes: int) -> Decode:
    if layout.kind == "detections":

        def read(found: Float[Array, "B K 6"]) -> Candidates:
            scores = jnp.where(found[..., 4] > 0, found[..., 4], -jnp.inf)  # rows of zeros are padding
            return one_class_each(found[..., :4], scores, found[..., 5].astype(jnp.int32), n_classes)

        return read
    if layout.kind == "raw":
        return lambda found: Candidates(corners(found[:, :4].swapaxes(1, 2)), found[:, 4:].swapaxes(1, 2))
    decoded = layout.per_cell != 1 or bool((_try(model, size, batch)[..., 2:4] > 0).all())
    cells, strides = _cells(size)

    def decode(found: Float[Array, "B N _"]) -> Candidates:
        raw = found[..., :4]
        boxes = corners(raw) if decoded else decode_yolox(raw, jnp.asarray(cells)[None], jnp.asarray(strides)[None])
        return Candidates(boxes, found[..., 4:5] * found[..., 5:])

    return decode


def corners(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Boxes given by centre and size as xyxy."""
    half = boxes[..., 2:] / 2
    return jnp.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def _cells(size: tuple[int, int]) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, " N"]]:
    """Column and row of every cell, and its stride: levels from the finest on, row by row."""
    places, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        places.append(np.stack([columns.ravel(), rows.ravel()], -1))
        strides.append(np.full(rows.size, stride))
    return np.concatenate(places).astype(np.float32), np.concatenate(strides).astype(np.float32)
