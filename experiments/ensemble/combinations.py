"""Five members as one program or as five, and how good, how calibrated and how sure of itself each way is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared.candidate_rows import Rows, as_results
from yolojax.data import ImageCache
from yolojax.detector import Detector, Variables
from yolojax.eval.coco import evaluate_coco, read_both
from yolojax.eval.confidence import calibration
from yolojax.eval.matching import match_detections, overlaps
from yolojax.inference.ensemble import EnsembleDetections, box_uncertainty, detect_ensemble, fuse_members
from yolojax.inference.evaluate import make_detect_batch
from yolojax.structures import Detections

CONFIDENCE, IOU, K, COUNTED = 0.001, 0.7, 100, 0.1
NUMBERS = ("AP", "AP50", "AP75", "calibration")


class Ways:
    """The three ways to detect, each a function of members and images; everything compiled once."""

    def __init__(self, detector: Detector) -> None:
        self.one = make_detect_batch(detector, K)
        self.fuse = jax.jit(lambda own: fuse_members(own, CONFIDENCE, max_detections=K))
        self.together = jax.jit(
            lambda members, pixels: detect_ensemble(detector, members, pixels, CONFIDENCE, IOU, max_detections=K)
        )

    def separate(self, members: list[Variables], pixels: Any) -> EnsembleDetections:
        own = [self.one(variables, pixels, CONFIDENCE, IOU) for variables in members]
        return self.fuse(Detections(*(jnp.stack(x) for x in zip(*own, strict=True))))


def over(input_images: ImageCache, run: Callable[[Any], Any], size: int) -> Any:
    """The results of all images, stacked; ``size`` must divide their number."""
    parts = [jax.device_get(run(input_images.images[i : i + size])) for i in range(0, len(input_images), size)]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def numbers(input_images: ImageCache, found: Detections) -> dict[str, Any]:
    """AP by pycocotools, and the expected calibration error of what scores at least `COUNTED`."""
    truth, results = as_results(Rows([], input_images), list(zip(*found[:4], strict=True)))
    result = evaluate_coco(truth, results)
    columns = read_both(truth, [r for r in results if r["score"] >= COUNTED])
    error = calibration(columns[1], match_detections(*columns)).error
    return {**{n: getattr(result, n) for n in NUMBERS[:3]}, "calibration": error or 0.0}


def ranks(input_images: ImageCache, found: EnsembleDetections) -> dict[str, Any]:
    """Rank correlations with the error of true positives that several members see."""
    from scipy.stats import rankdata

    rows = list(zip(*found.detections[:4], strict=True))
    truth, boxes = read_both(*as_results(Rows([], input_images), rows))
    valid = found.detections.valid
    spread, agree = (np.asarray(x)[valid][boxes.rows] for x in (box_uncertainty(found), found.agree))
    object_of = match_detections(truth, boxes).object_of
    hits = np.flatnonzero((object_of >= 0) & (agree >= 2) & (boxes.scores >= COUNTED))
    error = [1 - overlaps(boxes.boxes[[i]], truth.boxes[object_of[[i]]], np.zeros(1, bool))[0, 0] for i in hits]
    if len(hits) < 3:
        return {"boxes": len(hits), "spread": 0.0, "score": 0.0}
    by = {"spread": spread[hits], "score": -boxes.scores[hits]}
    return {"boxes": len(hits), **{k: float(np.corrcoef(rankdata(v), rankdata(error))[0, 1]) for k, v in by.items()}}
