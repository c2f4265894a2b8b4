"""The ways of looking at an image that `multi_scale` compares, and how good and how slow each is."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from yolojax.config import ValidationConfig
from yolojax.data import Dataset, InputImages, open_input_images
from yolojax.detector import Detector, DetectorSpec, Variables
from yolojax.eval.bootstrap import bootstrap
from yolojax.eval.coco import read_both
from yolojax.inference.evaluate import evaluate_images, make_detect_batch
from yolojax.inference.tta import TTA, with_tta
from yolojax.nms import Suppression, soft_nms_gaussian
from yolojax.progress import Quiet

ONE, OWN_SOFT = "its own size", "its own size, soft"
NUMBERS = ("AP", "AP50", "APs", "APm", "APl")
SOFT, FUSED = "three sizes, mirrored, soft", "three sizes, mirrored, fused"
PAIRS = {
    "mirrored": "larger, as long as mirrored",
    "three sizes": "larger, as long as three",
    "three sizes, mirrored": "larger, as long as six",
}
"""Each way beside the one larger size that has as many pixels."""


def named(look: str) -> str:
    """The name on a page: records call the larger sizes by the time that they were meant to take."""
    return look.replace("as long as", "as many pixels as")


class Look(NamedTuple):
    """Augmentations, and the suppression over their union; None for greedy suppression."""

    tta: TTA
    suppress: Suppression | None = None

    @property
    def validation(self) -> ValidationConfig:
        """The thresholds: the same for all detectors, whatever they were published with."""
        iou = 0.7 if self.suppress is None else None
        return ValidationConfig(confidence=0.001, iou=iou, max_detections=100, batch_size=8)


def looks_of(spec: DetectorSpec) -> dict[str, Look]:
    """The detector's own size, three about a fifth apart, and single larger ones of as many pixels."""
    stride, side = max(spec.strides), max(spec.input_size)
    step = stride * max(1, round(0.2 * side / stride))
    three = tuple((side + d) / side for d in (-step, 0, step))
    pixels = sum(s**2 for s in three)

    def larger(times: float) -> TTA:
        return TTA((round(side * times**0.5 / stride) * stride / side,), flip=False)

    return {
        ONE: Look(TTA((1.0,), flip=False)),
        OWN_SOFT: Look(TTA((1.0,), flip=False), soft_nms_gaussian),
        "its own size, fused": Look(TTA((1.0,), flip=False, fusion="wbf")),
        "mirrored": Look(TTA((1.0,))),
        "three sizes": Look(TTA(three, flip=False)),
        "three sizes, mirrored": Look(TTA(three)),
        SOFT: Look(TTA(three), soft_nms_gaussian),
        FUSED: Look(TTA(three, fusion="wbf")),
        "larger, as long as mirrored": Look(larger(2)),
        "larger, as long as three": Look(larger(pixels)),
        "larger, as long as six": Look(larger(2 * pixels)),
    }


_compiled: dict[tuple[str, Look], Any] = {}


def tested(
    name: str, detector: Detector, variables: Callable[[], Variables], dataset: Dataset, look: Look, samples: int = 0
) -> dict[str, Any]:
    """COCO's numbers of a look, and AP on resampled images. ``name`` is the detector's: it is compiled once a look."""
    if (name, look) not in _compiled:
        _compiled[name, look] = make_detect_batch(detector, 100, tta=look.tta, suppress=look.suppress)
    input_images = laid_out(dataset, with_tta(detector.spec, look.tta).input_size, detector)
    found = evaluate_images(_compiled[name, look], detector, variables(), input_images, look.validation, Quiet())
    numbers = {key: getattr(found.result, key) for key in NUMBERS}
    if samples:
        columns = read_both(dataset.to_coco(), found.detections)
        numbers["resampled"] = bootstrap(*columns, samples=samples).values["AP"].round(5).tolist()
    return numbers


def laid_out(dataset: Dataset, input_size: tuple[int, int], detector: Detector) -> InputImages:
    """The images on an input image of this size."""
    return open_input_images(dataset, input_size, detector.spec.preprocess, cache="memory")


def seconds(detector: Detector, variables: Variables, rounds: int = 8) -> dict[str, Any]:
    """Milliseconds of each look at one image of noise: all in turn, the fastest of some rounds."""
    runs: dict[str, Callable[[], Any]] = {}
    for name, look in looks_of(detector.spec).items():
        input_size = with_tta(detector.spec, look.tta).input_size
        image = jax.device_put(np.random.default_rng(0).integers(0, 256, (1, *input_size, 3), np.uint8))
        program = make_detect_batch(detector, 100, tta=look.tta, suppress=look.suppress)
        runs[name] = partial(program, variables, image, 0.001, look.validation.iou)
        jax.block_until_ready(runs[name]())
    fastest = dict.fromkeys(runs, np.inf)
    for _ in range(rounds):
        for name, run in runs.items():
            clock = time.perf_counter()
            jax.block_until_ready(run())
            fastest[name] = min(fastest[name], 1e3 * (time.perf_counter() - clock))
    return {"ms": fastest}


def on_photos(record: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """The runs on photographs by model and look, without models of which an interrupted call has left only a part."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for r in record["runs"]:
        if r["part"] in ("bccd", "coco"):
            found.setdefault(r["model"], {})[r["look"]] = r
    looks = len(set().union(*found.values()))
    return {model: by_look for model, by_look in found.items() if len(by_look) == looks}


def times(record: dict[str, Any], model: str) -> dict[str, float]:
    """Milliseconds of each look, empty where they were not measured."""
    return next((r["ms"] for r in record["runs"] if r["part"] == "time" and r["model"] == model), {})
