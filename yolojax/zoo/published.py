"""Published Darknet weights into the zoo's own YOLOv2 to v4, and back."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp

from yolojax.detector import Detector, Variables
from yolojax.errors import ConfigError
from yolojax.models.convolution_order import Path as ConvolutionPath
from yolojax.models.convolution_order import arrays_at, convolutions_in_order, in_groups, put_arrays
from yolojax.weights.darknet import Header, Stored, read_stored, write_stored
from yolojax.weights.released import fit_tree
from yolojax.zoo.yolov2 import DARKNET_ORDER as V2_ORDER
from yolojax.zoo.yolov3 import DARKNET_ORDER as V3_ORDER
from yolojax.zoo.yolov3 import TINY_DARKNET_ORDER as V3_TINY_ORDER
from yolojax.zoo.yolov4 import DARKNET_ORDER as V4_ORDER
from yolojax.zoo.yolov4 import TINY_DARKNET_ORDER as V4_TINY_ORDER

ORDERS = {
    "yolov2": V2_ORDER,
    "yolov3": V3_ORDER,
    "yolov3-tiny": V3_TINY_ORDER,
    "yolov4": V4_ORDER,
    "yolov4-tiny": V4_TINY_ORDER,
}
"""The parts of each detector as they follow one another in its weight file."""


def load_darknet(detector: Detector, weights: str | Path) -> Variables:
    """Variables for a YOLOv2, v3 or v4 of the zoo from a Darknet ``.weights`` file.

    Raises:
      ConfigError: the detector is none of them (`from_darknet` reads any network together with its cfg).
      CheckpointError: the file holds another network, naming the convolution.
    """
    wanted = jax.eval_shape(detector.init, jax.random.key(0))
    paths = _paths(detector)
    found = read_stored(weights, _stored(wanted, paths), lambda i: _title(paths, i))
    variables: Variables = {"params": {}, "batch_stats": {}}
    for i, path in enumerate(paths):
        put_arrays(variables, path, found.layers[i])
    return jax.tree.map(jnp.asarray, fit_tree(variables, wanted, str(weights)))


def save_darknet(
    detector: Detector, variables: Variables, weights: str | Path, *, header: Header | None = None
) -> None:
    """The inverse of `load_darknet`; the header says version 0.2.5 and no image seen unless given."""
    paths = _paths(detector)
    variables = jax.device_get(variables)
    arrays = {i: arrays_at(variables, path) for i, path in enumerate(paths)}
    stored = _stored(jax.eval_shape(detector.init, jax.random.key(0)), paths)
    write_stored(weights, stored, lambda i: _title(paths, i), arrays, header or Header())


def _paths(detector: Detector) -> list[ConvolutionPath]:
    name = detector.spec.name
    if name not in ORDERS:
        raise ConfigError(f"{name} has no published Darknet weights; known are {', '.join(ORDERS)}")
    variables = jax.eval_shape(detector.init, jax.random.key(0))

    def forward(image: jax.Array) -> object:
        return detector.forward(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables), image)

    return in_groups(convolutions_in_order(forward, detector.spec.input_size), ORDERS[name])


def _stored(variables: Variables, paths: list[ConvolutionPath]) -> list[Stored]:
    stored: list[Stored] = []
    for i, path in enumerate(paths):
        own = variables["params"]
        for name in path[:-1]:
            own = own[name]
        height, width, channels, filters = own[path[-1]]["kernel"].shape
        names = ("bias", "scale", "mean", "var") if path[-1] == "conv" and "norm" in own else ("bias",)
        stored += [Stored(i, name, (filters,)) for name in names]
        stored.append(Stored(i, "kernel", (filters, channels, height, width)))
    return stored


def _title(paths: list[ConvolutionPath], number: int) -> str:
    return f"convolution {number} ({'/'.join(paths[number])})"
