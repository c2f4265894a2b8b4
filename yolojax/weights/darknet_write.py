"""A network as the text of a Darknet ``.cfg``: what decides its values, without the settings of training."""

from __future__ import annotations

from dataclasses import replace

from yolojax.errors import ConfigError
from yolojax.weights.darknet_layers import (
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
    Region,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Upsample,
    Yolo,
    section_name,
    title,
)


def format_cfg(cfg: Cfg) -> str:
    """Text from which `parse_cfg` gives the same network, and which Darknet and OpenCV read too."""
    net: dict[str, object] = {"width": cfg.width, "height": cfg.height, "channels": 3}
    if cfg.letter_box:
        net["letter_box"] = 1
    sections = [("net", net)]
    sections += [(section_name(layer), _options(layer, number)) for number, layer in enumerate(cfg.layers)]
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in options.items()) for name, options in sections
    )


def with_classes(cfg: Cfg, classes: int) -> Cfg:
    """The same network for another number of classes: prediction layers and the convolutions before them.

    Raises `ConfigError` where the layer before a prediction layer is no convolution (of a [detection], no connected
    layer).
    """
    layers = list(cfg.layers)
    for number in cfg.detections if classes != cfg.classes else ():
        detection, before = layers[number], layers[number - 1]
        if isinstance(detection, Detection) and isinstance(before, Connected):
            layers[number] = replace(detection, classes=classes)
            layers[number - 1] = replace(before, outputs=replace(detection, classes=classes).values)
            continue
        if not isinstance(before, Convolutional) or not isinstance(detection, Yolo | Region):
            raise ConfigError(
                f"{title(detection, number)}: follows no [convolutional], so {cfg.classes} classes cannot become "
                f"{classes}"
            )
        layers[number] = replace(detection, classes=classes)
        layers[number - 1] = replace(before, filters=len(detection.anchors) * (5 + classes))
    return replace(cfg, layers=tuple(layers))


def _options(layer: Layer, number: int) -> dict[str, object]:
    match layer:
        case Convolutional():
            return {
                "batch_normalize": int(layer.batch_normalize),
                "filters": layer.filters,
                "size": layer.size,
                "stride": layer.stride,
                **({"pad": 1} if layer.padding == layer.size // 2 else {"pad": 0, "padding": layer.padding}),
                **({"groups": layer.groups} if layer.groups > 1 else {}),
                "activation": layer.activation,
            }
        case Shortcut():
            weights = {"weights_type": layer.weights, "weights_normalization": layer.normalisation}
            return {
                "from": _relative(layer.sources, number),
                "activation": layer.activation,
                **(weights if layer.weights != "none" else {}),
            }
        case Route():
            groups = {"groups": layer.groups, "group_id": layer.group_id}
            return {"layers": _relative(layer.sources, number), **(groups if layer.groups > 1 else {})}
        case Upsample():
            return {"stride": layer.stride, **({"scale": layer.scale} if layer.scale != 1 else {})}
        case Maxpool():
            return {"size": layer.size, "stride": layer.stride, "padding": layer.padding}
        case Avgpool():
            return {}
        case Reorg():
            return {"stride": layer.stride}
        case Dropout():
            return {"probability": layer.probability}
        case Connected():
            normalised = {"batch_normalize": 1} if layer.batch_normalize else {}
            return {"output": layer.outputs, **normalised, "activation": layer.activation}
        case Local():
            return {
                "filters": layer.filters,
                "size": layer.size,
                "stride": layer.stride,
                "pad": layer.padding,
                "activation": layer.activation,
            }
        case Crop():
            return {
                "crop_height": layer.height,
                "crop_width": layer.width,
                **({"noadjust": 1} if layer.noadjust else {}),
            }
        case ScaleChannels():
            wide = {"scale_wh": 1} if layer.scale_wh else {}
            return {"from": _relative((layer.source,), number), "activation": layer.activation, **wide}
        case Sam():
            return {"from": _relative((layer.source,), number), "activation": layer.activation}
        case Yolo():
            anchors = ", ".join(f"{w!r},{h!r}" for w, h in layer.anchors)
            return {
                "mask": ",".join(map(str, range(len(layer.anchors)))),
                "anchors": anchors,
                "classes": layer.classes,
                "num": len(layer.anchors),
                "scale_x_y": layer.scale_x_y,
                "new_coords": int(layer.new_coords),
                "ignore_thresh": layer.ignore_thresh,
                "iou_loss": layer.iou_loss,
                **({"iou_thresh": layer.iou_thresh} if layer.iou_thresh < 1 else {}),
            }
        case Region():
            return {
                "anchors": ", ".join(f"{w!r},{h!r}" for w, h in layer.anchors),
                "classes": layer.classes,
                "coords": 4,
                "num": len(layer.anchors),
                "softmax": int(layer.softmax),
                "thresh": layer.ignore_thresh,
            }
        case Detection():
            return {
                "classes": layer.classes,
                "coords": 4,
                "side": layer.side,
                "num": layer.boxes,
                "rescore": int(layer.rescore),
                "softmax": int(layer.softmax),
                "sqrt": int(layer.sqrt),
                "object_scale": layer.object_scale,
                "noobject_scale": layer.noobject_scale,
                "class_scale": layer.class_scale,
                "coord_scale": layer.coord_scale,
            }


def _relative(sources: tuple[int, ...], number: int) -> str:
    return ",".join(str(source - number) for source in sources)
