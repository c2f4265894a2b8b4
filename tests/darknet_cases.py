"""Darknet networks for tests: the published architectures at any width, one of every layer, and weights for them.

The architectures are those of the cfg files that Darknet's authors published, written down as short programs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

YOLOV3_ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
YOLOV4_ANCHORS = "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401"
TINY_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
YOLOV2_ANCHORS = "0.57273,0.677385, 1.87446,2.06253, 3.33843,5.47434, 7.88282,3.52778, 9.77052,9.16828"


class Writer:
    """Collects the sections of a cfg; ``width`` scales channels."""

    def __init__(self, size: tuple[int, int], width: float, classes: int) -> None:
        self.width, self.classes, self.count = width, classes, 0
        self.lines = [f"[net]\nbatch=1\nwidth={size[1]}\nheight={size[0]}\nchannels=3\n"]

    def add(self, section: str, **options: object) -> int:
        self.lines.append(f"[{section}]\n" + "".join(f"{k.rstrip('_')}={v}\n" for k, v in options.items()))
        self.count += 1
        return self.count - 1

    def conv(self, filters: int, size: int, stride: int = 1, activation: str = "leaky", **options: object) -> int:
        channels = max(2, round(filters * self.width))
        return self.add(
            "convolutional",
            batch_normalize=1,
            filters=channels,
            size=size,
            stride=stride,
            pad=1,
            activation=activation,
            **options,
        )

    def route(self, *layers: int, **options: object) -> int:
        return self.add("route", layers=",".join(map(str, layers)), **options)

    def predict(self, anchors: int) -> int:
        filters = anchors * (5 + self.classes)
        return self.add("convolutional", size=1, stride=1, pad=1, filters=filters, activation="linear")

    def yolo(self, mask: str, anchors: str, **options: object) -> int:
        self.predict(len(mask.split(",")))
        num = len(anchors.split(",")) // 2
        return self.add("yolo", mask=mask, anchors=anchors, classes=self.classes, num=num, jitter=0.3, **options)

    def text(self) -> str:
        return "\n".join(self.lines)


def yolov2(size=(416, 416), width=1.0, classes=80, thresh=0.6) -> str:
    w = Writer(size, width, classes)
    for i, channels in enumerate(
        ([32], [64], [128, 64, 128], [256, 128, 256], [512, 256] * 2 + [512], [1024, 512] * 2 + [1024])
    ):
        if i:
            w.add("maxpool", size=2, stride=2)
        for j, c in enumerate(channels):
            w.conv(c, 1 if j % 2 else 3)
    w.conv(1024, 3)
    w.conv(1024, 3)
    w.route(-9)
    # Reorganising needs a multiple of four channels.
    w.add(
        "convolutional",
        batch_normalize=1,
        filters=4 * max(2, round(16 * width)),
        size=1,
        stride=1,
        pad=1,
        activation="leaky",
    )
    w.add("reorg", stride=2)
    w.route(-1, -4)
    w.conv(1024, 3)
    w.predict(5)
    w.add("region", anchors=YOLOV2_ANCHORS, bias_match=1, classes=classes, coords=4, num=5, softmax=1, thresh=thresh)
    return w.text()


def _conv_set(w: Writer, channels: int, count: int = 5) -> None:
    for i in range(count):
        w.conv(2 * channels if i % 2 else channels, 3 if i % 2 else 1)


def yolov3(size=(416, 416), width=1.0, classes=80, depths=(1, 2, 8, 8, 4)) -> str:
    w = Writer(size, width, classes)
    w.conv(32, 3)
    ends = []
    for i, depth in enumerate(depths):
        w.conv(64 * 2**i, 3, 2)
        for _ in range(depth):
            w.conv(32 * 2**i, 1)
            w.conv(64 * 2**i, 3)
            w.add("shortcut", from_=-3, activation="linear")
        ends.append(w.count - 1)
    for level, mask in ((2, "6,7,8"), (1, "3,4,5"), (0, "0,1,2")):
        if level < 2:
            w.route(-4)
            w.conv(128 * 2**level, 1)
            w.add("upsample", stride=2)
            w.route(-1, ends[2 + level])
        _conv_set(w, 128 * 2**level)
        w.conv(256 * 2**level, 3)
        w.yolo(mask, YOLOV3_ANCHORS, ignore_thresh=0.7, truth_thresh=1, random=1)
    return w.text()


def yolov3_tiny(size=(416, 416), width=1.0, classes=80) -> str:
    w = Writer(size, width, classes)
    for i, c in enumerate((16, 32, 64, 128, 256, 512, 1024)):
        if i:
            w.add("maxpool", size=2, stride=1 if i == 6 else 2)
        w.conv(c, 3)
    w.conv(256, 1)
    w.conv(512, 3)
    w.yolo("3,4,5", TINY_ANCHORS, ignore_thresh=0.7)
    w.route(-4)
    w.conv(128, 1)
    w.add("upsample", stride=2)
    w.route(-1, 8)
    w.conv(256, 3)
    w.yolo("0,1,2", TINY_ANCHORS, ignore_thresh=0.7)
    return w.text()


def yolov4(size=(608, 608), width=1.0, classes=80, depths=(1, 2, 8, 8, 4)) -> str:
    w = Writer(size, width, classes)
    w.conv(32, 3, activation="mish")
    ends = []
    for i, depth in enumerate(depths):
        c = 64 * 2**i
        half = c if i == 0 else c // 2
        w.conv(c, 3, 2, activation="mish")
        passed = w.conv(half, 1, activation="mish")
        w.route(-2)
        w.conv(half, 1, activation="mish")
        for _ in range(depth):
            w.conv(c // 2, 1, activation="mish")
            w.conv(half, 3, activation="mish")
            w.add("shortcut", from_=-3, activation="linear")
        w.conv(half, 1, activation="mish")
        w.route(-1, passed - w.count)
        ends.append(w.conv(c, 1, activation="mish"))
    _conv_set(w, 512, 3)
    w.add("maxpool", stride=1, size=5)
    w.route(-2)
    w.add("maxpool", stride=1, size=9)
    w.route(-4)
    w.add("maxpool", stride=1, size=13)
    w.route(-1, -3, -5, -6)
    _conv_set(w, 512, 3)
    tops = [w.count - 1]
    for level in (1, 0):
        w.conv(128 * 2**level, 1)
        w.add("upsample", stride=2)
        w.route(ends[2 + level])
        w.conv(128 * 2**level, 1)
        w.route(-1, -3)
        _conv_set(w, 128 * 2**level)
        tops.insert(0, w.count - 1)
    for level, (mask, scale) in enumerate((("0,1,2", 1.2), ("3,4,5", 1.1), ("6,7,8", 1.05))):
        if level:
            w.route(-4)
            w.conv(128 * 2**level, 3, 2)
            w.route(-1, tops[level] - w.count)
            _conv_set(w, 128 * 2**level)
        w.conv(256 * 2**level, 3)
        w.yolo(mask, YOLOV4_ANCHORS, scale_x_y=scale, iou_thresh=0.213, iou_loss="ciou", ignore_thresh=0.7)
    return w.text()


def yolov4_tiny(size=(416, 416), width=1.0, classes=80) -> str:
    w = Writer(size, width, classes)
    w.conv(32, 3, 2)
    w.conv(64, 3, 2)
    for c in (64, 128, 256):
        w.conv(c, 3)
        w.route(-1, groups=2, group_id=1)
        w.conv(c // 2, 3)
        w.conv(c // 2, 3)
        w.route(-1, -2)
        w.conv(c, 1)
        w.route(-6, -1)
        w.add("maxpool", size=2, stride=2)
    w.conv(512, 3)
    w.conv(256, 1)
    w.conv(512, 3)
    w.yolo("3,4,5", TINY_ANCHORS, scale_x_y=1.05, iou_loss="ciou", ignore_thresh=0.7)
    w.route(-4)
    w.conv(128, 1)
    w.add("upsample", stride=2)
    w.route(-1, 23)
    w.conv(256, 3)
    w.yolo("1,2,3", TINY_ANCHORS, scale_x_y=1.05, iou_loss="ciou", ignore_thresh=0.7)
    return w.text()


def zoo_of_layers(size=(48, 64), classes=1) -> str:
    """Every layer and activation that OpenCV knows too: depthwise and grouped, strided, squeeze and excite, reorg."""
    w = Writer(size, 1.0, classes)
    w.conv(8, 3, 2, "relu")
    w.conv(8, 3, 1, "leaky", groups=8)
    w.conv(8, 5, 1, "swish", groups=2)
    squeezed = w.conv(8, 1, 1, "mish")
    w.add("avgpool")
    w.conv(4, 1, 1, "relu")
    w.conv(8, 1, 1, "logistic")
    w.add("scale_channels", from_=squeezed)
    w.add("shortcut", from_=-5, activation="leaky")
    w.add("convolutional", filters=8, size=3, stride=2, pad=1, activation="swish")
    attended = w.count - 1
    w.conv(8, 1, 1, "logistic")
    w.add("sam", from_=attended)
    w.add("convolutional", filters=12, size=3, stride=1, padding=0, activation="relu")
    w.add("convolutional", filters=8, size=3, stride=1, padding=2, activation="leaky")
    w.add("dropout", probability=0.3)
    before = w.count - 1
    w.route(-1, groups=2, group_id=0)
    w.add("maxpool", size=3, stride=1)
    w.route(-1, -2, before)
    w.add("reorg", stride=2)
    w.add("upsample", stride=2)
    w.conv(8, 1, 1, "leaky")
    w.yolo("1,0", "8,6, 20,30, 5,5")
    w.route(-3)
    w.add("maxpool", size=2, stride=2)
    w.conv(8, 3, 1, "linear")
    w.yolo("2", "8,6, 20,30, 5,5")
    return w.text()


def new_coordinates(size=(32, 64), classes=20) -> str:
    """A scaled YOLOv4: the activation before ``[yolo]`` is logistic, sides are squared."""
    w = Writer(size, 1.0, classes)
    for c in (4, 4, 8):
        w.conv(c, 3, 2, "swish")
    filters = 2 * (5 + classes)
    w.add("convolutional", size=1, stride=1, pad=1, filters=filters, activation="logistic")
    w.add(
        "yolo", mask="0,1", anchors="8,6, 20,30, 5,5", classes=classes, num=3, scale_x_y=2.0, new_coords=1,
        iou_loss="ciou",
    )  # fmt: skip
    return w.text()


NARROW = {
    "yolov2": yolov2((64, 96), 1 / 64, 20, 0.001),
    "yolov3": yolov3((64, 96), 1 / 32, 20, (1, 2, 1, 1, 1)),
    "yolov3-tiny": yolov3_tiny((64, 64), 1 / 16, 3),
    "yolov4": yolov4((64, 96), 1 / 32, 3, (1, 2, 1, 1, 1)),
    "yolov4-tiny": yolov4_tiny((64, 64), 1 / 8, 1),
    "layers": zoo_of_layers(),
    "new_coords": new_coordinates(),
}
"""What is compared with OpenCV: small and narrow, with VOC's 20 classes, with few and with one."""

RESIZED_FROM = (37, 50)
RESIZED_TO = ((32, 32), (10, 64), (74, 100), (37, 25), (5, 3), (1, 1), (64, 50))


def uniform(count: int, seed: int) -> np.ndarray:
    """Numbers in [0, 1) from whole-number arithmetic alone (splitmix64): the same on every machine and version."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(seed * 0x10001 + 1)
    x *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x ^ (x >> np.uint64(31))).astype(np.float64) / 2**64


def random_weights(stored: Iterable[tuple[int, str, tuple[int, ...]]], seed: int) -> dict[int, dict[str, np.ndarray]]:
    """Weights that keep a signal alive through many layers, statistics that are not trivial."""
    layers: dict[int, dict[str, np.ndarray]] = {}
    for i, (layer, name, shape) in enumerate(stored):
        x = uniform(int(np.prod(shape)), 1000 * seed + i).reshape(shape)
        if name == "kernel":
            x = (x - 0.5) * 2 * np.sqrt(6.0 / np.prod(shape[1:]))
        elif name in ("scale", "var", "factors"):
            x = 0.6 + 0.8 * x
        else:
            x = (x - 0.5) * 0.6
        layers.setdefault(layer, {})[name] = x.astype(np.float32)
    return layers


def random_image(size: tuple[int, int], seed: int) -> np.ndarray:
    """RGB in 0..1 with float32 values that are exact multiples of 1/256: ``[H, W, 3]``."""
    return (np.floor(uniform(size[0] * size[1] * 3, seed) * 256) / 256).astype(np.float32).reshape(*size, 3)


HEADER = struct.pack("<iiiQ", 0, 2, 5, 64)
