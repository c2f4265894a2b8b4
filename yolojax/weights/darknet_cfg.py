"""Darknet ``.cfg`` files: from text to a checked `Cfg`, and back.

Defaults are Darknet's own (its parser's, in the fork that trained YOLOv4), also where they surprise: a convolution
without ``activation`` is logistic. Keys that only steer Darknet's training are read over (`darknet_options.TRAINING`
lists them); any other key, and any other section, is refused with its line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from yolojax.errors import ConfigError, shortened
from yolojax.paths import user_path
from yolojax.weights.darknet_layers import (
    ACTIVATIONS,
    Avgpool,
    Cfg,
    Connected,
    Convolutional,
    Crop,
    Detection,
    Dropout,
    Layer,
    Local,
    Maxpool,
    Prediction,
    Region,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Upsample,
    Yolo,
    sources_of,
    title,
)
from yolojax.weights.darknet_options import Options
from yolojax.weights.darknet_shapes import layer_shapes
from yolojax.weights.darknet_text import split_sections

LARGEST_SIDE, MOST_FILTERS, MOST_CLASSES, MOST_LAYERS = 16384, 65536, 65536, 4096

_ALIASES = {"conv": "convolutional", "max": "maxpool", "avg": "avgpool", "network": "net"}
_NAMED_ACTIVATIONS = {name: name for name in ACTIVATIONS}


def read_cfg(path: str | Path) -> Cfg:
    """The network that a ``.cfg`` file describes; raises `ConfigError` as `parse_cfg` does, or if it cannot be read."""
    if user_path(path).exists() and not user_path(path).is_file():  # a named pipe would be waited for
        raise ConfigError(f"{path}: cannot be read (it is no ordinary file); give a Darknet .cfg file")
    try:
        content = user_path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a Darknet .cfg file") from error
    # Comments may be in any encoding; a character beyond ASCII elsewhere is refused with its line.
    return parse_cfg(content.decode("utf-8", errors="replace"), str(path))


def parse_cfg(text: str, source: str = "cfg") -> Cfg:
    """The network that the text of a ``.cfg`` describes.

    Raises `ConfigError` with ``source`` and line for anything that is not understood: an unknown section or key, a
    value of the wrong kind or out of range, a layer that does not exist, shapes that do not fit together, prediction
    layers that are missing or disagree about the classes.
    """
    sections = [s._replace(name=_ALIASES.get(s.name, s.name)) for s in split_sections(text, source)]
    first, *rest = sections
    if first.name != "net":
        raise ConfigError(f"{source}: line {first.line}: begins with [{first.name}]; a .cfg begins with [net]")
    if len(rest) > MOST_LAYERS:
        raise ConfigError(f"{source}: {len(rest)} layers; at most {MOST_LAYERS} are read")
    for number, section in enumerate(rest):  # what cannot be built is said before what is merely not understood
        if section.name not in _SECTIONS:
            raise ConfigError(
                f"{source}: line {section.line}: layer {number} [{shortened(section.name, 40)}] is not supported; "
                f"known are {', '.join(_SECTIONS)}"
            )
    read = [Options(section, source) for section in sections]
    width, height, letter_box = _net(read[0])
    layers: list[Layer] = []
    for number, (section, options) in enumerate(zip(rest, read[1:], strict=True)):
        layers.append(_SECTIONS[section.name](options, number, layers))
        if number and isinstance(layers[-2], Prediction) and number - 1 in sources_of(tuple(layers), number):
            raise ConfigError(
                f"{source}: line {section.line}: layer {number} [{section.name}] would read the boxes of layer "
                f"{number - 1}; put a [route] before it that names what it reads"
            )
    for options in read:
        options.finish()
    cfg = Cfg(width, height, letter_box, tuple(layers))
    if not cfg.detections:
        raise ConfigError(f"{source}: has no [yolo], [region] or [detection] layer; a detector needs one")
    found = {layer.classes for layer in layers if isinstance(layer, Prediction)}
    if len(found) > 1:
        raise ConfigError(f"{source}: its prediction layers name {sorted(found)} classes; all must name equally many")
    if len(cfg.detections) > 1 and any(isinstance(cfg.layers[i], Detection) for i in cfg.detections):
        raise ConfigError(f"{source}: has a [detection] beside other prediction layers; it must be the only one")
    layer_shapes(cfg, (height, width), source)
    return cfg


def _net(options: Options) -> tuple[int, int, bool]:
    for key in ("width", "height", "channels"):
        if options.text(key) is None:
            raise options.fail(key, "the size of the input")
    width, height = (options.integer(key, 0, 1, LARGEST_SIDE) for key in ("width", "height"))
    options.unsupported(channels=3, time_steps=1)
    options.text("inputs")
    letter_box = options.flag("letter_box")
    return width, height, letter_box


def _stride(options: Options) -> int:
    stride = options.integer("stride", 1, 1, 64)
    across, down = (options.integer(key, stride, 1, 64) for key in ("stride_x", "stride_y"))
    if across != down:
        raise options.fail("stride_y", "not supported; strides must be equal in both directions")
    return across


def _convolutional(options: Options, number: int, layers: list[Layer]) -> Convolutional:
    options.unsupported(dilation=1, antialiasing=0, binary=0, xnor=0, bin_output=0, flipped=0, sway=0, rotate=0)
    options.unsupported(stretch=0, stretch_sway=0, reverse=0, coordconv=0, assisted_excitation=0)
    options.unsupported(dontload=0, dontloadscales=0)
    if options.text("share_index") is not None:
        raise options.fail("share_index", "not supported; each convolution needs weights of its own")
    size = options.integer("size", 1, 1, 127)
    padding = options.integer("padding", 0, 0, 127)
    return Convolutional(
        line=options.section.line,
        filters=options.integer("filters", 1, 1, MOST_FILTERS),
        size=size,
        stride=_stride(options),
        padding=size // 2 if options.integer("pad", 0, 0, 127) else padding,
        groups=options.integer("groups", 1, 1, MOST_FILTERS),
        batch_normalize=options.flag("batch_normalize") | options.flag("cbn"),
        activation=options.choice("activation", "logistic", _NAMED_ACTIVATIONS),
    )


def _sources(options: Options, key: str, number: int, layers: list[Layer]) -> tuple[int, ...]:
    given = options.integers(key)
    if given is None:
        raise options.fail(key, "the layers that it reads")
    sources = tuple(number + i if i < 0 else i for i in given)
    for source in sources:
        if not 0 <= source < number:
            raise options.fail(key, f"this is layer {number}; it can read layers 0 to {number - 1}")
        if isinstance(layers[source], Prediction):
            raise options.fail(key, f"{title(layers[source], source)} gives boxes, which no layer can read")
    return sources


def _source(options: Options, number: int, layers: list[Layer]) -> int:
    sources = _sources(options, "from", number, layers)
    if len(sources) != 1:
        raise options.fail("from", "give one layer")
    return sources[0]


def _shortcut(options: Options, number: int, layers: list[Layer]) -> Shortcut:
    kinds = {"none": "none", "per_feature": "per_layer", "per_layer": "per_layer", "per_channel": "per_channel"}
    normalisations = {"none": "none", "relu": "relu", "avg_relu": "relu", "softmax": "softmax"}
    return Shortcut(
        line=options.section.line,
        sources=_sources(options, "from", number, layers),
        activation=options.choice("activation", "linear", _NAMED_ACTIVATIONS),
        weights=options.choice("weights_type", "none", kinds),  # pyright: ignore[reportArgumentType]
        normalisation=options.choice(  # pyright: ignore[reportArgumentType]
            "weights_normalization", "none", normalisations
        ),
    )


def _route(options: Options, number: int, layers: list[Layer]) -> Route:
    groups = options.integer("groups", 1, 1, MOST_FILTERS)
    sources = _sources(options, "layers", number, layers)
    return Route(options.section.line, sources, groups, options.integer("group_id", 0, 0, groups - 1))


def _upsample(options: Options, number: int, layers: list[Layer]) -> Upsample:
    return Upsample(options.section.line, options.integer("stride", 2, 1, 64), options.real("scale", 1.0, -1e6, 1e6))


def _maxpool(options: Options, number: int, layers: list[Layer]) -> Maxpool:
    options.unsupported(maxpool_depth=0, antialiasing=0, maxpool_zero_nonmax=0)
    stride = _stride(options)
    size = options.integer("size", stride, 1, 127)
    return Maxpool(options.section.line, size, stride, options.integer("padding", size - 1, 0, 127))


def _avgpool(options: Options, number: int, layers: list[Layer]) -> Avgpool:
    return Avgpool(options.section.line)


def _reorg(options: Options, number: int, layers: list[Layer]) -> Reorg:
    options.unsupported(reverse=0, flatten=0, extra=0)
    return Reorg(options.section.line, options.integer("stride", 1, 1, 64))


def _dropout(options: Options, number: int, layers: list[Layer]) -> Dropout:
    options.unsupported(dropblock=0, dropblock_size_rel=0, dropblock_size_abs=0)
    return Dropout(options.section.line, options.real("probability", 0.2, 0.0, 0.999))


def _connected(options: Options, number: int, layers: list[Layer]) -> Connected:
    return Connected(
        line=options.section.line,
        outputs=options.integer("output", 1, 1, MOST_FILTERS),
        batch_normalize=options.flag("batch_normalize"),
        activation=options.choice("activation", "logistic", _NAMED_ACTIVATIONS),
    )


def _local(options: Options, number: int, layers: list[Layer]) -> Local:
    size = options.integer("size", 1, 1, 127)
    # Darknet counts its outputs as if the kernel were 3x3 wherever it pads, and pads by one pixel.
    if options.integer("pad", 0, 0, 1) and size != 3:
        raise options.fail("pad", "not supported; a [local] layer is padded only where size=3")
    return Local(
        line=options.section.line,
        filters=options.integer("filters", 1, 1, MOST_FILTERS),
        size=size,
        stride=options.integer("stride", 1, 1, 64),
        padding=options.integer("pad", 0, 0, 1),
        activation=options.choice("activation", "logistic", _NAMED_ACTIVATIONS),
    )


def _crop(options: Options, number: int, layers: list[Layer]) -> Crop:
    height, width = (options.integer(f"crop_{side}", 1, 1, LARGEST_SIDE) for side in ("height", "width"))
    return Crop(options.section.line, height, width, options.flag("noadjust"))


def _detection(options: Options, number: int, layers: list[Layer]) -> Detection:
    if options.integer("coords", 1, 0, 1024) != 4:
        raise options.fail("coords", "not supported; only coords=4 is")
    options.unsupported(reorg=0)
    scales = ("object_scale", "noobject_scale", "class_scale", "coord_scale")
    return Detection(
        line=options.section.line,
        side=options.integer("side", 7, 1, 1024),
        boxes=options.integer("num", 1, 1, 1024),
        classes=options.integer("classes", 1, 1, MOST_CLASSES),
        sqrt=options.flag("sqrt"),
        softmax=options.flag("softmax"),
        rescore=options.flag("rescore"),
        **{scale: options.real(scale, 1.0, 0.0, 1e6) for scale in scales},
    )


def _scale_channels(options: Options, number: int, layers: list[Layer]) -> ScaleChannels:
    activation = options.choice("activation", "linear", _NAMED_ACTIVATIONS)
    return ScaleChannels(options.section.line, _source(options, number, layers), activation, options.flag("scale_wh"))


def _sam(options: Options, number: int, layers: list[Layer]) -> Sam:
    activation = options.choice("activation", "linear", _NAMED_ACTIVATIONS)
    return Sam(options.section.line, _source(options, number, layers), activation)


def _anchors(options: Options, mask: list[int] | None, high: float) -> tuple[tuple[float, float], ...]:
    total = options.integer("num", 1, 1, 1024)
    values = options.reals("anchors")
    if values is None:
        raise options.fail("anchors", "widths and heights of the anchor boxes")
    if len(values) < 2 * total:  # Darknet reads as many as it needs; a published file lists more
        raise options.fail("anchors", f"num={total} needs {2 * total} values, here are {len(values)}")
    if not all(0 < value <= high for value in values):
        raise options.fail("anchors", f"sides must be above 0 and at most {high:g}")
    listed = len(values) // 2  # a published file lists more than its num, and its masks mean all of them
    for i in mask or ():
        if not 0 <= i < listed:
            raise options.fail("mask", f"anchor {i} is not among the {listed}, which count from 0")
    return tuple((values[2 * i], values[2 * i + 1]) for i in (range(total) if mask is None else mask))


def _yolo(options: Options, number: int, layers: list[Layer]) -> Yolo:
    losses = {name: name for name in ("mse", "iou", "giou", "diou", "ciou")}
    layer = Yolo(
        line=options.section.line,
        anchors=_anchors(options, options.integers("mask"), 10.0 * LARGEST_SIDE),
        classes=options.integer("classes", 20, 1, MOST_CLASSES),
        scale_x_y=options.real("scale_x_y", 1.0, 0.01, 100.0),
        new_coords=options.flag("new_coords"),
        ignore_thresh=options.real("ignore_thresh", 0.5, 0.0, 1.0),
        iou_loss=options.choice("iou_loss", "mse", losses),
        iou_thresh=options.real("iou_thresh", 1.0, 0.0, 1.0),
    )
    before = layers[-1] if layers else None
    if layer.new_coords and not (isinstance(before, Convolutional) and before.activation == "logistic"):
        raise options.fail("new_coords", "is supported only after a [convolutional] with activation=logistic")
    return layer


def _region(options: Options, number: int, layers: list[Layer]) -> Region:
    options.unsupported(coords=4, background=0)
    for key in ("tree", "softmax_tree"):
        if options.text(key) is not None:
            raise options.fail(key, "a tree of classes is not supported")
    return Region(
        line=options.section.line,
        anchors=_anchors(options, None, float(LARGEST_SIDE)),
        classes=options.integer("classes", 20, 1, MOST_CLASSES),
        softmax=options.flag("softmax"),
        ignore_thresh=options.real("thresh", 0.5, 0.0, 1.0),
    )


_SECTIONS: dict[str, Callable[[Options, int, list[Layer]], Layer]] = {
    "convolutional": _convolutional,
    "shortcut": _shortcut,
    "route": _route,
    "upsample": _upsample,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "reorg": _reorg,
    "dropout": _dropout,
    "connected": _connected,
    "local": _local,
    "crop": _crop,
    "scale_channels": _scale_channels,
    "sam": _sam,
    "yolo": _yolo,
    "region": _region,
    "detection": _detection,
}
