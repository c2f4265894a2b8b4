"""What detectors give to suppression: the strongest candidates of every image, and the AP of what becomes of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.shared.small_runs import Scale, images, lesson_detector
from experiments.shared.trained_members import members
from yolojax import zoo
from yolojax.data import InputImages, build_cache, open_dataset
from yolojax.detector import Detector, Variables, prepare_images
from yolojax.eval.bootstrap import bootstrap
from yolojax.eval.coco import evaluate_coco, read_both
from yolojax.eval.files import detections_to_coco
from yolojax.geometry import batch_to_original
from yolojax.postprocess import postprocess

COUNT, CONFIDENCE = 1000, 0.001
REAL = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl", "yolox-nano")


class Rows(NamedTuple):
    """``images`` holds boxes, scores, classes and mask of each, by falling score, on the input images ``of``."""

    images: list[tuple[Any, ...]]
    of: InputImages


def strongest(detector: Detector, variables: Variables, input_images: InputImages) -> Rows:
    """The `COUNT` strongest candidates of every image, without suppression."""

    @jax.jit
    def run(variables: Variables, pixels: Any) -> Any:
        outputs = detector.forward(detector.fold(variables), prepare_images(pixels, detector.spec.preprocess))
        options = {"suppress": "none", "multi_label": detector.spec.multi_label}
        return postprocess(detector.decode(outputs), CONFIDENCE, max_detections=COUNT, **options)

    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(input_images), 8):
        places = np.arange(start, start + 8)
        pixels, _ = input_images.load(np.minimum(places, len(input_images) - 1))
        found = jax.device_get(run(variables, pixels))
        rows += [tuple(x[i] for x in found[:4]) for i in range(int((places < len(input_images)).sum()))]
    return Rows(rows, input_images)


def load_real(data: str, model: str) -> tuple[Detector, Variables]:
    """A published detector from the folder of the studies' data."""
    weights = Path(data) / "weights"
    if model == "yolox-nano":
        return zoo.from_yolox(weights / "yolox-nano" / "yolox_nano_fused.npz")
    folder = weights / "yolo-fastest-1.1_coco"
    return zoo.from_darknet(folder / f"{model}.cfg", folder / f"{model}.weights")


@lru_cache(1)
def real_rows(data: str, model: str) -> Rows:
    """The rows of a published detector on the 128 images."""
    detector, variables = load_real(data, model)
    dataset = open_dataset(str(Path(data) / "data" / "coco128_train"), class_names=detector.spec.class_names)
    return strongest(detector, variables, build_cache(dataset, detector.spec.input_size, detector.spec.preprocess))


@lru_cache(None)
def shapes_rows(scale: Scale, seed: int, split: str) -> Rows:
    """The rows of a member of ``scale`` on validation or test images of its kind."""
    count = scale.test if split == "test" else min(100, scale.test)
    input_images = images(count, scale.side, split, scale.objects, scale.visible)
    # A study looks at the first seeds of its scale: they are trained together.
    of_seeds = members(scale, range(max(scale.seeds, seed + 1)))
    return strongest(lesson_detector(scale), of_seeds[seed], input_images)


def as_results(rows: Rows, found: list[Any], only: np.ndarray | None = None) -> tuple[Any, list[dict[str, Any]]]:
    """Ground truth and COCO results of ``(boxes, scores, classes, mask)`` for every image, or some of them."""
    chosen = np.arange(len(found)) if only is None else np.flatnonzero(only)
    of, results = rows.of, []
    for i in chosen:
        boxes, scores, classes, valid = (np.asarray(x) for x in found[i])
        boxes = batch_to_original(boxes[None], of.content[i][None], of.sizes[i][None])[0]
        image_id, ids = of.dataset.records[int(i)].image_id, of.dataset.category_ids
        results += detections_to_coco(image_id, boxes[valid], scores[valid], classes[valid], ids)
    return of.dataset.take(chosen.tolist()).to_coco(), results


def ap_of(rows: Rows, found: list[Any], only: np.ndarray | None = None) -> dict[str, Any]:
    """AP, AP50 and AR of 100 detections by pycocotools."""
    result = evaluate_coco(*as_results(rows, found, only))
    return {name: getattr(result, name) for name in ("AP", "AP50", "AR100")}


def resampled_ap(rows: Rows, found: list[Any], samples: int) -> list[float]:
    """AP on images drawn with replacement, the same ones for every list."""
    return bootstrap(*read_both(*as_results(rows, found)), samples=samples).values["AP"].round(5).tolist()


def apart(ours: dict[str, Any], other: dict[str, Any]) -> tuple[float, float, float]:
    """AP of one record less that of another, and the 95 % interval over the resampled images of both."""
    low, high = np.quantile(np.subtract(ours["resampled"], other["resampled"]), (0.025, 0.975))
    return ours["AP"] - other["AP"], float(low), float(high)


def say(mean: float, low: float, high: float) -> str:
    """A difference of AP with its interval."""
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
