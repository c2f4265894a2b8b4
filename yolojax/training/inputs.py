"""From the training images to the canvas, the anchors' raw material, and the cache."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Float

from yolojax.config import TrainConfig
from yolojax.data import Canvases, Dataset, Summary, build_cache, padded_objects, stream_canvases
from yolojax.detector import DetectorSpec
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


def lay_out_images(
    dataset: Dataset, spec: DetectorSpec, reporter: Reporter, *, cap: int | None = None, mosaic: bool = False
) -> Canvases:
    """All images of a data set on the detector's canvas: decoded once into memory where they fit, else as needed.

    Args:
      dataset: the images.
      spec: of the detector; gives canvas and preprocessing.
      reporter: where progress goes, and what happened to images and objects.
      cap: most objects an image is padded to; None holds the fullest image.
      mosaic: whether four images will become one, which then gets room for twice the objects of the fullest.
    """
    padding = padded_objects(dataset) * (2 if mosaic else 1)
    padding = padding if cap is None else min(cap, padding)
    size = len(dataset) * spec.canvas[0] * spec.canvas[1] * 3
    if size > memory_for_images():
        reporter.say(f"{size / 1e9:.0f} GB of images do not fit into half of the memory: decoding them as needed")
        canvases: Canvases = stream_canvases(dataset, spec.canvas, spec.preprocess, max_objects=padding)
    else:
        with reporter.task("reading images", len(dataset)) as advance:
            canvases = build_cache(
                dataset, spec.canvas, spec.preprocess, max_objects=padding, progress=lambda done, _: advance(done)
            )
    late = canvases.dataset.summary.findings[len(dataset.summary.findings) :]
    if late:
        reporter.say(Summary(late).text(limit=3))
    if dropped := int(np.sum(canvases.targets.dropped)):
        reporter.say(f"{dropped} objects did not fit the padding of {padding}; raise data.max_objects to keep them")
    return canvases


def memory_for_images() -> int:
    """Half of this machine's memory in bytes; a generous guess where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30
