"""What a Darknet ``.cfg`` can describe: one frozen record for each kind of layer.

Layers are numbered from 0 as they follow ``[net]``; where a layer reads others, ``sources`` holds these numbers (in a
file they may be relative). ``line`` is where the layer's section begins in the file that it was read from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ACTIVATIONS = {
    "linear": "none",
    "leaky": "leaky_relu",
    "relu": "relu",
    "relu6": "relu6",
    "mish": "mish",
    "swish": "silu",
    "silu": "silu",
    "logistic": "logistic",
}
"""Darknet's names of activations, and ours."""


@dataclass(frozen=True)
class Convolutional:
    """``padding`` is in pixels on every side. With ``batch_normalize`` it has no bias of its own."""

    line: int
    filters: int
    size: int
    stride: int
    padding: int
    groups: int
    batch_normalize: bool
    activation: str


@dataclass(frozen=True)
class Shortcut:
    """The layer before plus each of ``sources``, by their first channels where they have more (or fewer) of them.

    Maps may differ in size by one factor (ResNets): every second place of a map of twice the size counts.

    ``weights``: one trained factor for each term, or one for each term and channel; ``normalisation`` is how these
    factors are brought to a sum of 1.
    """

    line: int
    sources: tuple[int, ...]
    activation: str
    weights: Literal["none", "per_layer", "per_channel"]
    normalisation: Literal["none", "relu", "softmax"]


@dataclass(frozen=True)
class Route:
    """The channels of all ``sources`` one after another; with ``groups``, of each source only the part ``group_id``."""

    line: int
    sources: tuple[int, ...]
    groups: int
    group_id: int


@dataclass(frozen=True)
class Upsample:
    """Nearest neighbour, then a multiplication by ``scale``."""

    line: int
    stride: int
    scale: float


@dataclass(frozen=True)
class Maxpool:
    """``padding`` is the sum over both sides; the smaller half (rounded down) lies before the first pixel."""

    line: int
    size: int
    stride: int
    padding: int


@dataclass(frozen=True)
class Avgpool:
    """The mean of each channel over the whole map."""

    line: int


@dataclass(frozen=True)
class Reorg:
    """Space to channels in the order that the published YOLOv2 weights were trained with; see `models.darknet`."""

    line: int
    stride: int


@dataclass(frozen=True)
class Dropout:
    """In training, values become 0 with this probability and the others grow to match; otherwise the identity."""

    line: int
    probability: float


@dataclass(frozen=True)
class Connected:
    """Every output reads every input; inputs count channel by channel, then row by row. The output has one cell."""

    line: int
    outputs: int
    batch_normalize: bool
    activation: str


@dataclass(frozen=True)
class Local:
    """A convolution whose kernel and bias differ from place to place; ``padding`` is in pixels on every side."""

    line: int
    filters: int
    size: int
    stride: int
    padding: int
    activation: str


@dataclass(frozen=True)
class Crop:
    """Values from 0..1 become -1..1 unless ``noadjust``. Only crops of the whole input are read, which cut nothing."""

    line: int
    height: int
    width: int
    noadjust: bool


@dataclass(frozen=True)
class ScaleChannels:
    """Squeeze and excite: the ``source``'s channels (or, ``scale_wh``, its places) times the layer before."""

    line: int
    source: int
    activation: str
    scale_wh: bool


@dataclass(frozen=True)
class Sam:
    """Spatial attention: the layer before times ``source``, value by value."""

    line: int
    source: int
    activation: str


@dataclass(frozen=True)
class Yolo:
    """A prediction level of YOLOv3 and later: ``anchors`` are its own, ``(width, height)`` in pixels of the input."""

    line: int
    anchors: tuple[tuple[float, float], ...]
    classes: int
    scale_x_y: float
    new_coords: bool
    ignore_thresh: float
    iou_loss: str
    iou_thresh: float


@dataclass(frozen=True)
class Region:
    """The prediction level of YOLOv2: ``anchors`` are ``(width, height)`` in cells."""

    line: int
    anchors: tuple[tuple[float, float], ...]
    classes: int
    softmax: bool
    ignore_thresh: float


@dataclass(frozen=True)
class Detection:
    """The prediction of YOLOv1: ``side`` by ``side`` cells, each with ``classes`` and ``boxes`` boxes.

    ``sqrt``: sides are predicted as their square roots; ``rescore``: confidence learns the IoU instead of 1. The scales
    weigh the parts of the loss.
    """

    line: int
    side: int
    boxes: int
    classes: int
    sqrt: bool
    softmax: bool
    rescore: bool
    object_scale: float
    noobject_scale: float
    class_scale: float
    coord_scale: float

    @property
    def values(self) -> int:
        """How many numbers the layer before it gives."""
        return self.side**2 * (self.classes + 5 * self.boxes)


Prediction = Yolo | Region | Detection
Layer = (
    Convolutional
    | Shortcut
    | Route
    | Upsample
    | Maxpool
    | Avgpool
    | Reorg
    | Dropout
    | Connected
    | Local
    | Crop
    | ScaleChannels
    | Sam
    | Yolo
    | Region
    | Detection
)


@dataclass(frozen=True)
class Cfg:
    """A network: the size of its input in pixels, whether photos are letterboxed, and its layers."""

    width: int
    height: int
    letter_box: bool
    layers: tuple[Layer, ...]

    @property
    def detections(self) -> tuple[int, ...]:
        """The numbers of the prediction layers."""
        return tuple(i for i, layer in enumerate(self.layers) if isinstance(layer, Prediction))

    @property
    def classes(self) -> int:
        """How many classes the prediction layers tell apart."""
        first = self.layers[self.detections[0]]
        assert isinstance(first, Prediction)
        return first.classes

    @property
    def fixed_size(self) -> bool:
        """Whether the weights fit this input size alone, because some differ from place to place."""
        return any(isinstance(layer, Connected | Local | Detection) for layer in self.layers)


def sources_of(layers: tuple[Layer, ...], number: int) -> tuple[int, ...]:
    """The numbers of the layers that layer ``number`` reads; -1 is the image."""
    layer = layers[number]
    if isinstance(layer, Route):
        return layer.sources
    if isinstance(layer, Shortcut):
        return (number - 1, *layer.sources)
    if isinstance(layer, ScaleChannels | Sam):
        return (number - 1, layer.source)
    return (number - 1,)


def title(layer: Layer, number: int) -> str:
    """A layer as messages name it."""
    return f"layer {number} [{section_name(layer)}], line {layer.line}"


def section_name(layer: Layer) -> str:
    """The name of a layer's section in the file."""
    return "scale_channels" if isinstance(layer, ScaleChannels) else type(layer).__name__.lower()
