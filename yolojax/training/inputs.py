"""From the training images to the canvas, the anchors' raw material, and the cache."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from yolojax.config import TrainConfig
from yolojax.data import CanvasCache, Dataset, Summary, build_cache, padded_objects
from yolojax.detector import Detector
from yolojax.errors import ConfigError
from yolojax.geometry import Preprocess, fit_to_canvas
from yolojax.training.progress import Reporter


def choose_canvas(config: TrainConfig, dataset: Dataset) -> tuple[int, int]:
    """``(height, width)``: a square of the configured size, shortened where all training images share an aspect ratio.

    The short side is rounded up to a multiple of 32, so that nothing of a photo is lost.
    """
    size = config.model.size
    if size % 32:
        raise ConfigError(f"model.size = {size}: give a multiple of 32, the largest stride")
    ratios = {round(r.size[0] / r.size[1], 2) for r in dataset.records}
    if not config.model.rectangular or len(ratios) != 1:
        return size, size
    height, width = dataset.records[0].size
    short = min(size, 32 * max(1, -(-round(size * min(height, width) / max(height, width)) // 32)))
    return (short, size) if height < width else (size, short)


def box_sizes_on_canvas(dataset: Dataset, canvas: tuple[int, int]) -> Float[np.ndarray, "n 2"]:
    """Widths and heights ``[n, 2]`` of all objects in canvas pixels."""
    sizes = [np.zeros((0, 2), np.float32)]
    for record in dataset.records:
        placement = fit_to_canvas(record.size, canvas, Preprocess())
        scale = np.array([placement.width / record.size[1], placement.height / record.size[0]], np.float32)
        sizes.append((record.boxes[:, 2:] - record.boxes[:, :2])[~record.crowd] * scale)
    return np.concatenate(sizes)


def make_cache(dataset: Dataset, detector: Detector, cap: int | None, mosaic: bool, reporter: Reporter) -> CanvasCache:
    """All images on their canvases; a mosaic of four is given room for twice the objects of the fullest image."""
    padding = padded_objects(dataset)
    padding = min(cap, 2 * padding if mosaic else padding) if cap is not None else (2 * padding if mosaic else padding)
    with reporter.task("reading images", len(dataset)) as advance:
        cache = build_cache(
            dataset,
            detector.spec.canvas,
            detector.spec.preprocess,
            max_objects=padding,
            progress=lambda done, _: advance(done),
        )
    late = cache.dataset.summary.findings[len(dataset.summary.findings) :]
    if late:
        reporter.say(Summary(late).text(limit=3))
    if dropped := int(cache.targets.dropped.sum()):
        reporter.say(f"{dropped} objects did not fit the padding of {padding}; raise data.max_objects to keep them")
    return cache
