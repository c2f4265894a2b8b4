"""The architectures of `yolojax.zoo` as a table: sizes, published accuracy, suppression, and files that load.

The table is plain data, so that a command can print it without importing JAX. Parameters and operations stand in
``catalogue.json``, which ``python -m tests.zoo.make_catalogue`` computes from the builders. Published figures are those
of the authors' own tables, named in `Entry.source`; where a figure is not known, there is none.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolojax.errors import ConfigError

PYTORCH = ".pt .pth .safetensors"
DARKNET = ".cfg + .weights"


@dataclass(frozen=True)
class Variant:
    """One scale of an architecture.

    Attributes:
      ap: published average precision over IoU .5 to .95, in 0..1; None where it is not known.
      ap50: published average precision at IoU .5, where that is what was published.
      size: side of the square input image in pixels at which it was published, or for which it is meant.
    """

    ap: float | None = None
    ap50: float | None = None
    size: int = 640


@dataclass(frozen=True)
class Entry:
    """One architecture.

    Attributes:
      name: as `yolojax.zoo.build` and ``--model`` take it.
      variants: by the value of the option ``scale``; the empty text for an architecture without scales. The first is
        the default.
      loads: suffixes of the published files that load; empty where nothing is published.
      suppression: what the detections still need: ``nms``, or ``none``.
      measured_on: the data of the published accuracy.
      source: who published it.
      options: what the builder has to be given beside the scale, to be counted.
      classes: how many classes the counted network has.
      joint: what stands between the name and the scale.
    """

    name: str
    variants: dict[str, Variant]
    loads: str = PYTORCH
    suppression: str = "nms"
    measured_on: str = "COCO val2017"
    source: str = "Ultralytics' documentation"
    options: dict[str, Any] = field(default_factory=dict)
    classes: int = 80
    joint: str = ""

    def model(self, scale: str) -> str:
        """The name of one scale, as its published file has it: ``yolov8s``, ``yolov5su``, ``rtdetr-r18``."""
        if not scale:
            return self.name
        return f"{self.name[:-1]}{scale}u" if self.name.endswith("u") else self.name + self.joint + scale


def _scales(size: int = 640, **ap: float | None) -> dict[str, Variant]:
    return {scale: Variant(value, size=size) for scale, value in ap.items()}


def _one(ap: float | None = None, ap50: float | None = None, size: int = 640) -> dict[str, Variant]:
    return {"": Variant(ap, ap50, size)}


_YOLOX: dict[str, Any] = {"loads": f"{PYTORCH} .onnx .npz", "source": "Megvii's README"}
_QUERIES: dict[str, Any] = {"suppression": "none", "joint": "-"}
_YOLOV1: dict[str, Any] = {
    "loads": DARKNET,
    "measured_on": "VOC 2007 test",
    "source": "arXiv 1506.02640",
    "classes": 20,
}

CATALOGUE: tuple[Entry, ...] = (
    Entry("compact", _one(size=320), loads="", measured_on="", source=""),
    Entry(
        "lesson",
        _one(size=320),
        loads="",
        measured_on="",
        source="",
        options={"anchors": [[[16.0, 16.0]] * 3, [[64.0, 64.0]] * 3]},
    ),
    Entry("yolov1", _one(ap50=0.634, size=448), **_YOLOV1),
    Entry("yolov1-tiny", _one(ap50=0.527, size=448), **_YOLOV1),
    Entry("yolov2", _one(0.216, size=544), DARKNET, measured_on="COCO test-dev", source="arXiv 1612.08242, table 5"),
    Entry("yolov3", _one(0.330, size=608), DARKNET, measured_on="COCO test-dev", source="arXiv 1804.02767, table 3"),
    Entry("yolov3-tiny", _one(ap50=0.331, size=416), DARKNET, measured_on="COCO", source="its authors' page"),
    Entry("yolov4", _one(0.435, size=608), DARKNET, measured_on="COCO test-dev", source="arXiv 2004.10934, table 8"),
    Entry("yolov4-tiny", _one(ap50=0.402, size=416), DARKNET, measured_on="COCO", source="its authors' page"),
    Entry("darknet", {}, DARKNET, measured_on="", source=""),
    Entry("yolov5", _scales(n=0.280, s=0.374, m=0.454, l=0.490, x=0.507)),
    Entry("yolov5u", _scales(n=0.343, s=0.430, m=0.490, l=0.522, x=0.532)),
    Entry("yolov8", _scales(n=0.373, s=0.449, m=0.502, l=0.529, x=0.539)),
    Entry("yolov9", _scales(t=0.383, s=0.468, m=0.514, c=0.530, e=0.556), source="arXiv 2402.13616"),
    Entry(
        "yolov10",
        _scales(n=0.385, s=0.463, m=0.511, b=0.525, l=0.532, x=0.544),
        suppression="none",
        source="arXiv 2405.14458",
    ),
    Entry("yolo11", _scales(n=0.395, s=0.470, m=0.515, l=0.534, x=0.547)),
    Entry("yolo12", _scales(n=0.406, s=0.480, m=0.525, l=0.537, x=0.552), source="arXiv 2502.12524"),
    Entry("yolo26", _scales(n=0.409, s=None, m=None, l=None, x=0.575), suppression="none"),
    Entry("yolonas", _scales(s=0.475, m=0.5155, l=0.5222), source="Deci's super-gradients"),
    Entry("yolox", {}, **_YOLOX),
    Entry("fasterrcnn", _one(0.467, size=1088), source="torchvision, version 2"),
    Entry("retinanet", _one(0.415, size=1088), source="torchvision, version 2"),
    Entry(
        "rtdetr",
        _scales(r18=0.465, r34=0.489, r50m=0.513, r50=0.531, r101=0.543, l=0.530, x=0.548),
        source="its authors' README",
        **_QUERIES,
    ),
    Entry(
        "rtdetrv2",
        _scales(r18=0.479, r34=0.499, r50m=0.519, r50=0.534, r101=0.543),
        source="its authors' README",
        **_QUERIES,
    ),
    Entry("dfine", _scales(n=0.428, s=0.485, m=0.523, l=0.540, x=0.558), source="its authors' README", **_QUERIES),
    Entry(
        "deimv2",
        {"atto": Variant(0.238, size=320), "femto": Variant(0.310, size=416), **_scales(pico=0.385, n=0.430)},
        source="its authors' README",
        **_QUERIES,
    ),
    Entry("yolox-nano", _one(0.258, size=416), **_YOLOX),
    Entry("yolox-tiny", _one(0.328, size=416), **_YOLOX),
    Entry("yolox-s", _one(0.405), **_YOLOX),
    Entry("yolox-m", _one(0.469), **_YOLOX),
    Entry("yolox-l", _one(0.497), **_YOLOX),
    Entry("yolox-x", _one(0.511), **_YOLOX),
)
"""All architectures of the zoo. Those without variants are described by their options alone."""

FEATURES = {"darknet": "whatever its .cfg describes", "yolox": "any depth= and width="}
"""What the size of an architecture without variants depends on."""


@dataclass(frozen=True)
class Row:
    """One scale of one architecture, with everything that is known of it.

    Attributes:
      model: what ``--model`` takes: the architecture with its scale, such as ``yolov8s``.
      architecture, scale: the two apart, as ``yolov8`` and ``s``; the scale is empty where there are none.
      size: side of the square input image in pixels.
      parameters: trainable numbers of the network with `Entry.classes` classes.
      gflops: of one image of that size, convolutions alone; a multiplication and an addition are two operations.
      ap, ap50, measured_on, source: as published.
      suppression: what the detections still need.
      loads: suffixes of published files that load.
    """

    model: str
    architecture: str
    scale: str
    size: int | None
    parameters: int | None
    gflops: float | None
    ap: float | None
    ap50: float | None
    measured_on: str
    source: str
    suppression: str
    loads: str


def rows() -> Iterator[Row]:
    """All rows of the table, in the order of `CATALOGUE`."""
    counts = json.loads((Path(__file__).parent / "catalogue.json").read_text())
    for entry in CATALOGUE:
        told = {"source": entry.source, "suppression": entry.suppression, "loads": entry.loads}
        if not entry.variants:
            yield Row(entry.name, entry.name, "", *(None,) * 5, measured_on="", **told)
        for scale, variant in entry.variants.items():
            model = entry.model(scale)
            parameters, flops = counts[model]
            yield Row(
                model, entry.name, scale, variant.size, parameters, flops / 1e9, variant.ap, variant.ap50,
                measured_on=entry.measured_on if variant.ap or variant.ap50 else "", **told,
            )  # fmt: skip


def split_scale(name: str) -> tuple[str, str]:
    """The architecture and the scale that a name such as ``yolov8s`` means; any other name comes back as it is.

    Example:
      >>> split_scale("yolov8s"), split_scale("yolox-s"), split_scale("mine")
      (('yolov8', 's'), ('yolox-s', ''), ('mine', ''))
    """
    for entry in CATALOGUE:
        for scale in entry.variants:
            if scale and name == entry.model(scale):
                return entry.name, scale
    return name, ""


def architecture(name: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The architecture that a name means and its options, with the scale that the name ends in among them.

    Raises:
      ConfigError: the name ends in one scale and the options give another.
    """
    plain, scale = split_scale(name)
    if not scale:
        return name, options
    if options.get("scale", scale) != scale:
        raise ConfigError(
            f"{name} is the scale {scale} of {plain}, and the options give {options['scale']!r}; give one"
        )
    return plain, {**options, "scale": scale}


def known_names() -> list[str]:
    """All names that mean an architecture, alone or with its scale."""
    return [name for f in CATALOGUE for name in dict.fromkeys((f.name, *map(f.model, f.variants)))]


def is_architecture(name: str) -> bool:
    """Whether a name means an architecture of the zoo."""
    return name in known_names()


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name most like a name, None where none is; case, punctuation and the letter v do not count."""

    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c not in "-_ .v")

    by_plain = {plain(one): one for one in sorted(known, reverse=True)}
    near = difflib.get_close_matches(plain(name), by_plain, 1, 0.7)
    return by_plain[near[0]] if near else None
